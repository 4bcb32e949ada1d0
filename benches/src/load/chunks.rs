//! Counting a chunked body, piece by piece as it arrives. Bytes after the body's end are a failure: nothing was asked for
//! that could explain them.

use super::http1::Broken;

/// Counts a chunked body across reads.
#[derive(Default)]
pub(super) struct Chunks {
    /// Bytes of body so far.
    pub(super) body: usize,
    /// Bytes of the chunk in hand that are still to come.
    left: usize,
    line: Vec<u8>,
    state: ChunkState,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum ChunkState {
    #[default]
    Size,
    Data,
    AfterData,
    Trailer,
}

impl Chunks {
    /// Takes the next piece; true once the body and its trailers are complete.
    pub(super) fn feed(
        &mut self,
        mut piece: &[u8],
        mut keep: Option<&mut Vec<u8>>,
    ) -> Result<bool, Broken> {
        while !piece.is_empty() {
            if self.state == ChunkState::Data {
                let here = self.left.min(piece.len());
                if let Some(keep) = keep.as_deref_mut() {
                    keep.extend_from_slice(&piece[..here]);
                }
                self.body += here;
                self.left -= here;
                piece = &piece[here..];
                if self.left == 0 {
                    self.state = ChunkState::AfterData;
                }
                continue;
            }
            let byte = piece[0];
            piece = &piece[1..];
            if byte != b'\n' {
                self.line.push(byte);
                if self.line.len() > 8 << 10 {
                    return Err(Broken::Protocol);
                }
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = line.strip_suffix(b"\r").ok_or(Broken::Protocol)?;
            self.state = match self.state {
                ChunkState::Size => {
                    let digits = line.split(|byte| *byte == b';').next().unwrap_or(line);
                    let digits = std::str::from_utf8(digits).map_err(|_| Broken::Protocol)?;
                    self.left =
                        usize::from_str_radix(digits.trim(), 16).map_err(|_| Broken::Protocol)?;
                    if self.left == 0 {
                        ChunkState::Trailer
                    } else {
                        ChunkState::Data
                    }
                }
                ChunkState::AfterData if line.is_empty() => ChunkState::Size,
                ChunkState::Trailer if line.is_empty() => {
                    return if piece.is_empty() {
                        Ok(true)
                    } else {
                        Err(Broken::Protocol)
                    };
                }
                ChunkState::Trailer => ChunkState::Trailer,
                ChunkState::AfterData | ChunkState::Data => return Err(Broken::Protocol),
            };
        }
        Ok(false)
    }
}
