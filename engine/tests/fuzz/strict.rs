//! RFC 9112 read to the letter, slowly and by somebody else: no search library, no `http` types, no state. Where we are
//! stricter than the letter, by decision, the decision is written here a second time.

/// Where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    Nowhere,
    After(u64),
    Chunked,
    WithConnection,
}

/// A head as the standard reads it.
#[derive(Debug)]
pub(crate) struct Head {
    /// The three words of the first line; a status line's reason may be empty.
    pub(crate) line: [Vec<u8>; 3],
    /// Names in lower case, values without the white space around them, in order.
    pub(crate) fields: Vec<(String, Vec<u8>)>,
}

impl Head {
    pub(crate) fn all(&self, name: &str) -> Vec<&[u8]> {
        let of_name = self.fields.iter().filter(|(known, _)| known == name);
        of_name.map(|(_, value)| value.as_slice()).collect()
    }

    /// The members of all `Connection` lines, in lower case; `None` when one is not a token.
    pub(crate) fn connection(&self) -> Option<Vec<String>> {
        let lines = self.all("connection").join(&b","[..]);
        let members = lines.split(|byte| *byte == b',').map(trim);
        members
            .filter(|member| !member.is_empty())
            .map(|member| is_token(member).then(|| lower(member)))
            .collect()
    }

    fn is_1_0(&self, version: usize) -> bool {
        self.line[version] == b"HTTP/1.0"
    }

    /// RFC 9112 section 6.3, for what does not depend on the kind of message.
    fn announced(&self, is_1_0: bool) -> Option<Ends> {
        let (codings, lengths) = (self.all("transfer-encoding"), self.all("content-length"));
        match (codings.as_slice(), lengths.as_slice()) {
            ([], []) => Some(Ends::Nowhere),
            ([coding], []) if lower(coding) == "chunked" && !is_1_0 => Some(Ends::Chunked),
            ([], [length]) => {
                let digits = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
                // A decision: nobody needs more digits than 2^63 has.
                let number = std::str::from_utf8(length).ok()?.parse::<u128>().ok()?;
                (digits && length.len() <= 19 && number < 1 << 63)
                    .then_some(Ends::After(number as u64))
            }
            _ => None,
        }
    }
}

/// A request's head, its method and target as they stand, and where its body ends.
pub(crate) fn request(text: &[u8]) -> Option<(Head, Ends)> {
    let head = head(text, |line| {
        let mut words = line.split(|byte| *byte == b' ');
        let line = [words.next()?, words.next()?, words.next()?];
        let valid = words.next().is_none()
            && is_token(line[0])
            && line[0].len() <= 24
            && !line[1].is_empty()
            && line[1].len() <= 16 * 1024
            && line[1].iter().all(u8::is_ascii_graphic)
            && (line[2] == b"HTTP/1.1" || line[2] == b"HTTP/1.0");
        valid.then(|| line.map(<[u8]>::to_vec))
    })?;
    let is_1_0 = head.is_1_0(2);
    let hosts = head.all("host").len();
    if hosts > 1 || hosts == 0 && !is_1_0 {
        return None;
    }
    let ends = match head.announced(is_1_0)? {
        Ends::After(0) => Ends::Nowhere,
        ends => ends,
    };
    Some((head, ends))
}

/// An answer's head, and where its body ends when it answers `method`.
pub(crate) fn response(text: &[u8], method: &str) -> Option<(Head, Ends)> {
    let head = head(text, |line| {
        let (version, rest) = (line.get(..8)?, line.get(8..)?);
        let (blank, status, reason) = (rest.first()?, rest.get(1..4)?, rest.get(4..)?);
        let valid = (version == b"HTTP/1.1" || version == b"HTTP/1.0")
            && *blank == b' '
            && matches!(status[0], b'1'..=b'5')
            && status.iter().all(u8::is_ascii_digit)
            && matches!(reason.first(), None | Some(b' '))
            && is_text(reason);
        valid.then(|| [version.to_vec(), status.to_vec(), reason.to_vec()])
    })?;
    let announced = head.announced(head.is_1_0(0))?;
    let status = head.line[1].as_slice();
    let ends = match announced {
        _ if method == "HEAD" || status[0] == b'1' || status == b"204" || status == b"304" => {
            Ends::Nowhere
        }
        Ends::Nowhere => Ends::WithConnection,
        Ends::After(0) => Ends::Nowhere,
        ends => ends,
    };
    Some((head, ends))
}

fn head(text: &[u8], first: impl FnOnce(&[u8]) -> Option<[Vec<u8>; 3]>) -> Option<Head> {
    let mut lines = lines(text)?;
    if lines.pop()? != b"" {
        return None;
    }
    let mut lines = lines.into_iter();
    let line = first(lines.next()?)?;
    let fields = lines.map(field).collect::<Option<Vec<_>>>()?;
    let head = Head { line, fields };
    let standard = ["close", "keep-alive", "upgrade"];
    let mut named = head.connection()?;
    named.retain(|name| !standard.contains(&name.as_str()));
    named.sort();
    named.dedup();
    // Decisions: HI-23 and HI-22.
    (head.fields.len() <= 200 && named.len() <= 16).then_some(head)
}

/// Lines that end in CR LF, all of them; CR and LF stand nowhere else.
pub(crate) fn lines(text: &[u8]) -> Option<Vec<&[u8]>> {
    let mut lines = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < text.len() {
        match (text[at], text.get(at + 1)) {
            (b'\r', Some(b'\n')) => {
                lines.push(&text[start..at]);
                at += 2;
                start = at;
            }
            (b'\r' | b'\n', _) => return None,
            _ => at += 1,
        }
    }
    (start == text.len()).then_some(lines)
}

/// `field-name ":" OWS field-value OWS`.
pub(crate) fn field(line: &[u8]) -> Option<(String, Vec<u8>)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    (is_token(name) && is_text(value)).then(|| (lower(name), trim(value).to_vec()))
}

pub(crate) fn trim(mut text: &[u8]) -> &[u8] {
    while matches!(text.first(), Some(b' ' | b'\t')) {
        text = &text[1..];
    }
    while matches!(text.last(), Some(b' ' | b'\t')) {
        text = &text[..text.len() - 1];
    }
    text
}

pub(crate) fn lower(text: &[u8]) -> String {
    text.iter()
        .map(|byte| char::from(byte.to_ascii_lowercase()))
        .collect()
}

pub(crate) fn is_token(text: &[u8]) -> bool {
    let tchar =
        |byte: &u8| byte.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(char::from(*byte));
    !text.is_empty() && text.iter().all(tchar)
}

/// Visible characters, `obs-text`, blanks and tabs.
fn is_text(text: &[u8]) -> bool {
    text.iter()
        .all(|byte| matches!(byte, b'\t' | 0x20..=0x7e | 0x80..))
}
