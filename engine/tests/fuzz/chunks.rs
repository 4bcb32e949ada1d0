//! The chunked coding, read from a body that is complete (RFC 9112 section 7.1), by an author of its own.

use crate::strict;

/// A body in the chunked coding, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) data: Vec<u8>,
    /// As sent, those that must not be passed on included.
    pub(crate) trailers: Vec<(String, Vec<u8>)>,
    /// Bytes behind the end.
    pub(crate) behind: usize,
}

/// `None`: malformed, or not complete.
pub(crate) fn read(text: &[u8]) -> Option<Body> {
    let mut data = Vec::new();
    let (mut at, mut extensions) = (0, 0);
    loop {
        let line = line(&text[at..])?;
        at += line.len() + 2;
        let semicolon = line.iter().position(|byte| *byte == b';');
        let (size, extension) = line.split_at(semicolon.unwrap_or(line.len()));
        let digits = !size.is_empty() && size.iter().all(u8::is_ascii_hexdigit);
        let printable = extension.iter().all(|byte| matches!(byte, b' '..=b'~'));
        extensions += extension.len();
        // Decisions: HI-11 bounds a line and all extensions of a body.
        if !digits || size.len() > 16 || !printable || line.len() > 274 || extensions > 16 * 1024 {
            return None;
        }
        let size = u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        let end = at.checked_add(usize::try_from(size).ok()?)?;
        data.extend_from_slice(text.get(at..end)?);
        if text.get(end..end.checked_add(2)?)? != b"\r\n" {
            return None;
        }
        at = end + 2;
    }
    let mut trailers = Vec::new();
    let begin = at;
    loop {
        let line = line(&text[at..])?;
        at += line.len() + 2;
        if line.is_empty() {
            break;
        }
        trailers.push(strict::field(line)?);
    }
    // Decisions: trailers are few and short.
    (trailers.len() <= 64 && at - begin <= 16 * 1024).then_some(Body {
        data,
        trailers,
        behind: text.len() - at,
    })
}

/// Up to the first line end, which must be CR LF.
fn line(text: &[u8]) -> Option<&[u8]> {
    let end = text.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
    (text[end] == b'\r' && text.get(end + 1) == Some(&b'\n')).then(|| &text[..end])
}
