//! A pull reader over one JSON text that was found to be UTF-8. Nesting is bounded where values are passed over; who
//! reads them counts for itself.

use std::borrow::Cow;

/// The text is not JSON, or not what was to come here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// The byte where.
    pub(crate) at: usize,
    pub(crate) why: &'static str,
}

/// Arrays and objects in one another that are passed over at most.
const DEPTH: u32 = 128;

#[derive(Clone)]
pub(crate) struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    /// Fails at the first byte that is not UTF-8.
    pub(crate) fn new(bytes: &'t [u8]) -> Result<Self, Wrong> {
        let text = std::str::from_utf8(bytes).map_err(|error| Wrong {
            at: error.valid_up_to(),
            why: "the text is not UTF-8",
        })?;
        Ok(Reader { text, at: 0 })
    }

    /// Where the reader stands.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn wrong(&self, why: &'static str) -> Wrong {
        Wrong { at: self.at, why }
    }

    /// The first byte of what comes next, behind white space; it stays.
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// Takes this byte if it comes next.
    #[inline]
    pub(crate) fn takes(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    pub(crate) fn expect(&mut self, byte: u8, why: &'static str) -> Result<(), Wrong> {
        if self.takes(byte) {
            Ok(())
        } else {
            Err(self.wrong(why))
        }
    }

    /// Nothing but white space is left.
    pub(crate) fn end(&mut self) -> Result<(), Wrong> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.wrong("something stands behind the value")),
        }
    }

    /// The next key of an object, or `None` at its end. `first`: nothing of it was read yet.
    #[inline]
    pub(crate) fn key(&mut self, first: bool) -> Result<Option<Cow<'t, str>>, Wrong> {
        if self.takes(b'}') {
            return Ok(None);
        }
        if !first {
            self.expect(b',', "a comma or } is missing")?;
        }
        if self.peek() != Some(b'"') {
            return Err(self.wrong("a key in double quotes is missing"));
        }
        let key = self.string()?;
        self.expect(b':', "a colon is missing")?;
        Ok(Some(key))
    }

    /// Whether another element of an array comes; takes what stands between.
    #[inline]
    pub(crate) fn element(&mut self, first: bool) -> Result<bool, Wrong> {
        if self.takes(b']') {
            return Ok(false);
        }
        if !first {
            self.expect(b',', "a comma or ] is missing")?;
        }
        Ok(true)
    }

    /// A string; borrowed unless it has escapes.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<Cow<'t, str>, Wrong> {
        if !self.takes(b'"') {
            return Err(self.wrong("a string is missing"));
        }
        let begin = self.at;
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b'"' => {
                    let text = &self.text[begin..self.at];
                    self.at += 1;
                    return Ok(Cow::Borrowed(text));
                }
                b'\\' => return self.escaped(begin).map(Cow::Owned),
                0..0x20 => return Err(self.wrong("a control character stands in a string")),
                _ => self.at += 1,
            }
        }
        Err(self.wrong("a string has no end"))
    }

    #[cold]
    fn escaped(&mut self, begin: usize) -> Result<String, Wrong> {
        let bytes = self.text.as_bytes();
        let mut text = String::from(&self.text[begin..self.at]);
        loop {
            let plain = self.at;
            while let Some(byte) = bytes.get(self.at)
                && !matches!(byte, b'"' | b'\\' | 0..0x20)
            {
                self.at += 1;
            }
            text.push_str(&self.text[plain..self.at]);
            match bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => {
                    self.at += 1;
                    text.push(self.escape()?);
                }
                Some(_) => return Err(self.wrong("a control character stands in a string")),
                None => return Err(self.wrong("a string has no end")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Wrong> {
        const NONE: &str = "an escape is none that JSON knows";
        let letter = *self.text.as_bytes().get(self.at).ok_or(self.wrong(NONE))?;
        self.at += 1;
        Ok(match letter {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.unit()?;
                let code = match first {
                    0xd800..0xdc00 if self.text[self.at..].starts_with("\\u") => {
                        self.at += 2;
                        match self.unit()? {
                            second @ 0xdc00..0xe000 => {
                                0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
                            }
                            _ => first,
                        }
                    }
                    _ => first,
                };
                char::from_u32(code).ok_or(self.wrong("half of a surrogate pair stands alone"))?
            }
            _ => return Err(self.wrong(NONE)),
        })
    }

    fn unit(&mut self) -> Result<u32, Wrong> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4);
        let value = digits
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        let value = value.ok_or(self.wrong("\\u wants four hexadecimal digits"))?;
        self.at += 4;
        Ok(value)
    }

    /// A number, as it is written.
    #[inline]
    pub(crate) fn number(&mut self) -> Result<&'t str, Wrong> {
        self.peek();
        let length = number_length(&self.text.as_bytes()[self.at..])
            .ok_or(self.wrong("a number is malformed"))?;
        let begin = self.at;
        self.at += length;
        Ok(&self.text[begin..self.at])
    }

    /// Takes this word if it comes next.
    pub(crate) fn word(&mut self, word: &str) -> bool {
        self.peek();
        let there = self.text[self.at..].starts_with(word);
        self.at += if there { word.len() } else { 0 };
        there
    }

    /// Passes one value over, whatever it is, and checks that it is JSON.
    pub(crate) fn skip(&mut self) -> Result<(), Wrong> {
        self.skip_within(DEPTH)
    }

    fn skip_within(&mut self, depth: u32) -> Result<(), Wrong> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(self.wrong("values are nested too deeply"));
        };
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{') => {
                self.at += 1;
                let mut first = true;
                while self.key(std::mem::take(&mut first))?.is_some() {
                    self.skip_within(depth)?;
                }
                Ok(())
            }
            Some(b'[') => {
                self.at += 1;
                let mut first = true;
                while self.element(std::mem::take(&mut first))? {
                    self.skip_within(depth)?;
                }
                Ok(())
            }
            Some(b'-' | b'0'..=b'9') => self.number().map(drop),
            Some(_) if self.word("true") || self.word("false") || self.word("null") => Ok(()),
            Some(_) => Err(self.wrong("a value is missing")),
            None => Err(self.wrong("the text ends in the middle")),
        }
    }
}

/// How long the number is that the bytes begin with.
fn number_length(bytes: &[u8]) -> Option<usize> {
    let digits = |from: usize| {
        bytes[from..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count()
    };
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    at += match (bytes.get(at), digits(at)) {
        (_, 0) => return None,
        (Some(b'0'), 1) => 1,
        (Some(b'0'), _) => return None,
        (_, count) => count,
    };
    if bytes.get(at) == Some(&b'.') {
        let count = digits(at + 1);
        at += 1 + (count > 0).then_some(count)?;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        at += 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let count = digits(at);
        at += (count > 0).then_some(count)?;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_json(bytes: &[u8]) -> bool {
        let Ok(mut reader) = Reader::new(bytes) else {
            return false;
        };
        reader.skip().and_then(|()| reader.end()).is_ok()
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for bad in [
            "",
            " ",
            "{",
            "[",
            "{]",
            "[}",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "{'a':1}",
            "{\"a\" 1}",
            "[1 2]",
            "01",
            "-",
            "+1",
            "1.",
            ".5",
            "1e",
            "1e+",
            "0x1",
            "NaN",
            "Infinity",
            "tru",
            "nul",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\ud800\"",
            "\"\\udc00\"",
            "\"\\ud800\\u0041\"",
            "\"\n\"",
            "\"",
            "1 1",
            "{}{}",
            "// c\n1",
            "[,1]",
        ] {
            assert!(!is_json(bad.as_bytes()), "{bad:?}");
        }
        assert!(!is_json(b"\"\xff\""), "not UTF-8");
        assert!(!is_json("[".repeat(100_000).as_bytes()), "too deep");
        assert!(is_json(
            "[".repeat(100)
                .as_bytes()
                .iter()
                .chain("]".repeat(100).as_bytes())
                .copied()
                .collect::<Vec<_>>()
                .as_slice()
        ));
    }

    #[test]
    fn escapes_are_what_they_stand_for() {
        let mut reader = Reader::new(br#" "a\"\\\/\b\f\n\r\t\u00e4\ud83d\ude00z" "#).unwrap();
        assert_eq!(
            reader.string().unwrap(),
            "a\"\\/\u{8}\u{c}\n\r\t\u{e4}\u{1f600}z"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_json_for_us_when_they_are_for_others(bytes in proptest::collection::vec(
            prop_oneof![Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b'"'), Just(b':'), Just(b','), Just(b'\\'),
                        Just(b'u'), Just(b'0'), Just(b'1'), Just(b'-'), Just(b'.'), Just(b'e'), Just(b' '), any::<u8>()], 0..24)) {
            // serde_json refuses numbers that no float holds; we pass over them.
            // And what it ignores it takes without a look at its encoding.
            let theirs = std::str::from_utf8(&bytes).is_ok()
                && serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok();
            prop_assert_eq!(is_json(&bytes), theirs, "{:?}", String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn strings_are_read_as_others_read_them(text: String) {
            let written = serde_json::to_string(&text).unwrap();
            let mut reader = Reader::new(written.as_bytes()).unwrap();
            prop_assert_eq!(reader.string().unwrap(), text);
        }
    }
}
