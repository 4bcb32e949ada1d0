//! The protocol's words (RESP 2): a command as bytes, and bytes as an answer. Pure; every size that an answer may claim
//! is bounded before anything is kept for it.

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Simple(String),
    /// The store's own words.
    Error(String),
    Number(i64),
    Text(Vec<u8>),
    Nothing,
    List(Vec<Value>),
}

/// Not an answer, or one that is larger than any that we ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Nonsense;

/// Bytes of one line, of one text, and elements of one list; lists within lists.
const LINE: usize = 1024;
const TEXT: usize = 4096;
const ELEMENTS: usize = 4096;
const DEPTH: u8 = 2;
/// Bytes of a whole answer.
pub(super) const ANSWER: usize = 256 * 1024;

/// A command: all its words are lengths and bytes, so nothing in them can be taken for anything else.
pub(super) fn command(to: &mut Vec<u8>, words: &[&[u8]]) {
    to.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        to.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        to.extend_from_slice(word);
        to.extend_from_slice(b"\r\n");
    }
}

/// The answer that these bytes begin with, and how long it is. `Ok(None)`: more must come.
pub(super) fn answer(bytes: &[u8]) -> Result<Option<(Value, usize)>, Nonsense> {
    let mut reader = Reader { bytes, at: 0 };
    match reader.value(DEPTH)? {
        Some(value) => Ok(Some((value, reader.at))),
        None if bytes.len() >= ANSWER => Err(Nonsense),
        None => Ok(None),
    }
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Reader<'b> {
    fn value(&mut self, depth: u8) -> Result<Option<Value>, Nonsense> {
        let Some(line) = self.line()? else {
            return Ok(None);
        };
        let (kind, rest) = line.split_first().ok_or(Nonsense)?;
        Ok(Some(match kind {
            b'+' => Value::Simple(words(rest)),
            b'-' => Value::Error(words(rest)),
            b':' => Value::Number(number(rest)?),
            b'$' => match number(rest)? {
                -1 => Value::Nothing,
                length => {
                    let length = bounded(length, TEXT)?;
                    let Some(text) = self.exactly(length)? else {
                        return Ok(None);
                    };
                    Value::Text(text.to_vec())
                }
            },
            b'*' if depth > 0 => match number(rest)? {
                -1 => Value::Nothing,
                count => {
                    let mut list = Vec::new();
                    for _ in 0..bounded(count, ELEMENTS)? {
                        let Some(value) = self.value(depth - 1)? else {
                            return Ok(None);
                        };
                        list.push(value);
                    }
                    Value::List(list)
                }
            },
            _ => return Err(Nonsense),
        }))
    }

    /// Up to the next CR LF, without it.
    fn line(&mut self) -> Result<Option<&'b [u8]>, Nonsense> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let within = &rest[..rest.len().min(LINE)];
        match memchr::memchr(b'\r', within) {
            Some(end) => match rest.get(end + 1) {
                Some(b'\n') => {
                    self.at += end + 2;
                    Ok(Some(&rest[..end]))
                }
                Some(_) => Err(Nonsense),
                None => Ok(None),
            },
            None if rest.len() >= LINE => Err(Nonsense),
            None => Ok(None),
        }
    }

    /// So many bytes, and the CR LF behind them.
    fn exactly(&mut self, length: usize) -> Result<Option<&'b [u8]>, Nonsense> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some((text, end)) = rest.split_at_checked(length) else {
            return Ok(None);
        };
        match end {
            [b'\r', b'\n', ..] => {
                self.at += length + 2;
                Ok(Some(text))
            }
            [] | [b'\r'] => Ok(None),
            _ => Err(Nonsense),
        }
    }
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn number(bytes: &[u8]) -> Result<i64, Nonsense> {
    let text = std::str::from_utf8(bytes).map_err(|_| Nonsense)?;
    text.parse().map_err(|_| Nonsense)
}

fn bounded(number: i64, most: usize) -> Result<usize, Nonsense> {
    usize::try_from(number)
        .ok()
        .filter(|number| *number <= most)
        .ok_or(Nonsense)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(value: &Value, to: &mut Vec<u8>) {
        match value {
            Value::Simple(text) => to.extend_from_slice(format!("+{text}\r\n").as_bytes()),
            Value::Error(text) => to.extend_from_slice(format!("-{text}\r\n").as_bytes()),
            Value::Number(number) => to.extend_from_slice(format!(":{number}\r\n").as_bytes()),
            Value::Nothing => to.extend_from_slice(b"$-1\r\n"),
            Value::Text(text) => {
                to.extend_from_slice(format!("${}\r\n", text.len()).as_bytes());
                to.extend_from_slice(text);
                to.extend_from_slice(b"\r\n");
            }
            Value::List(list) => {
                to.extend_from_slice(format!("*{}\r\n", list.len()).as_bytes());
                list.iter().for_each(|value| written(value, to));
            }
        }
    }

    fn leaf() -> impl Strategy<Value = Value> {
        prop_oneof![
            "[a-zA-Z0-9 ]{0,40}".prop_map(Value::Simple),
            "[A-Z]{1,9} [a-z ]{0,40}".prop_map(Value::Error),
            any::<i64>().prop_map(Value::Number),
            proptest::collection::vec(any::<u8>(), 0..80).prop_map(Value::Text),
            Just(Value::Nothing),
        ]
    }

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            leaf(),
            proptest::collection::vec(leaf(), 0..9).prop_map(Value::List),
        ]
    }

    #[test]
    fn commands_carry_any_bytes() {
        let mut bytes = Vec::new();
        command(&mut bytes, &[b"GET", b"a\r\nb"]);
        assert_eq!(bytes, b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n");
    }

    #[test]
    fn what_claims_to_be_huge_or_is_not_an_answer_is_refused_before_it_is_kept() {
        for bad in [
            &b"*4097\r\n"[..],
            b"$4097\r\n",
            b"*9223372036854775807\r\n",
            b"$99999999999999999999\r\n",
            b"$-2\r\n",
            b"*-2\r\n",
            b"$1x\r\n",
            b"$1\r\nabc",
            b"*1\r\n*1\r\n*1\r\n",
            b"HTTP/1.1 400 Bad Request\r\n",
            b"\r\n",
            b"+a\rb",
            b":\r\n",
        ] {
            assert_eq!(answer(bad), Err(Nonsense), "{}", bad.escape_ascii());
        }
        assert_eq!(answer(&[b'+'; LINE]), Err(Nonsense));
        let mut endless = b"*4096\r\n".to_vec();
        while endless.len() < ANSWER {
            endless.extend_from_slice(b"$100\r\n");
            endless.extend_from_slice(&[b'a'; 100]);
            endless.extend_from_slice(b"\r\n");
        }
        assert_eq!(answer(&endless), Err(Nonsense));
    }

    proptest! {
        #[test]
        fn an_answer_is_read_whole_wherever_it_is_cut(value in any_value(), more in proptest::collection::vec(any::<u8>(), 0..9)) {
            let mut bytes = Vec::new();
            written(&value, &mut bytes);
            let whole = bytes.len();
            for cut in 0..whole {
                prop_assert_eq!(answer(&bytes[..cut]), Ok(None));
            }
            bytes.extend(more);
            prop_assert_eq!(answer(&bytes), Ok(Some((value, whole))));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(prop_oneof![Just(b'*'), Just(b'$'), Just(b':'), Just(b'\r'), Just(b'\n'), Just(b'1'), Just(b'-'), any::<u8>()], 0..200)) {
            if let Ok(Some((_, length))) = answer(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
