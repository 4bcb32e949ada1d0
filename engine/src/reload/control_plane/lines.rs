//! Bytes to lines: gathers what arrives until a line is whole. Holds one line at most, and what came with its end;
//! never more than a line may have.

use bytes::{Buf, BytesMut};
use tollgate_config::feed::MOST_LINE;

#[derive(Debug, Default)]
pub(super) struct Lines {
    bytes: BytesMut,
    /// So many were searched for a line end.
    searched: usize,
}

/// A line without an end, longer than any line may be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Lines {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole line, without its end. Empty lines are passed over.
    pub(super) fn next(&mut self) -> Result<Option<BytesMut>, TooLong> {
        loop {
            let Some(found) = memchr::memchr(b'\n', &self.bytes[self.searched..]) else {
                self.searched = self.bytes.len();
                return if self.searched > MOST_LINE {
                    Err(TooLong)
                } else {
                    Ok(None)
                };
            };
            let line = self.bytes.split_to(self.searched + found);
            self.bytes.advance(1);
            self.searched = 0;
            if line.len() > MOST_LINE {
                return Err(TooLong);
            }
            if !line.iter().all(u8::is_ascii_whitespace) {
                return Ok(Some(line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lines_are_whole_however_they_arrive(
            lines in prop::collection::vec("[a-z]{1,9}", 0..9),
            pieces in prop::collection::vec(1usize..7, 1..40),
        ) {
            let text = lines.iter().map(|line| format!("{line}\n\r\n")).collect::<String>();
            let (mut rest, mut reader, mut found) = (text.as_bytes(), Lines::default(), Vec::new());
            for piece in pieces.iter().cycle() {
                let (now, later) = rest.split_at(rest.len().min(*piece));
                reader.push(now);
                while let Ok(Some(line)) = reader.next() {
                    found.push(String::from_utf8(line.to_vec()).expect("as sent"));
                }
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(found, lines);
        }
    }

    #[test]
    fn a_line_without_an_end_is_not_gathered_for_ever() {
        let mut reader = Lines::default();
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..MOST_LINE >> 20 {
            reader.push(&piece);
            assert_eq!(reader.next(), Ok(None));
        }
        reader.push(b"x");
        assert_eq!(reader.next(), Err(TooLong));
    }
}
