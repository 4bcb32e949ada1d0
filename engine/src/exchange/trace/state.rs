//! `tracestate`: several lines joined into one list, every member checked, the list cut to what we pass on.
//!
//! One bad member discards the whole list; a doubled key keeps its first, most recent, place; empty members are
//! allowed and left out. What needs no change goes on as the bytes it came in.

use http::HeaderValue;
use smallvec::SmallVec;

/// Non-empty members of a list; one more and the list is discarded.
const MEMBERS: usize = 32;
/// What we pass on, commas included; the standard asks for at least this.
const LENGTH: usize = 512;
/// Members longer than this go first when a list is cut.
const LONG: usize = 128;
/// Of a key, and of a value.
const PART: usize = 256;

/// The list that may be passed on, if there is one.
pub(super) fn from_lines<'a>(lines: impl Iterator<Item = &'a HeaderValue>) -> Option<HeaderValue> {
    let mut members: SmallVec<[Member<'a>; MEMBERS]> = SmallVec::new();
    let mut count = 0;
    let mut first: Option<&HeaderValue> = None;
    let mut same = true;
    for line in lines {
        same &= first.is_none();
        first.get_or_insert(line);
        for text in line.as_bytes().split(|byte| *byte == b',') {
            let text = trim(text);
            if text.is_empty() {
                continue;
            }
            count += 1;
            let member = Member::parse(text)?;
            if count > MEMBERS {
                return None;
            }
            if !members.iter().any(|known| known.key == member.key) {
                members.push(member);
            }
        }
    }
    let mut length = members
        .iter()
        .map(|member| member.text.len())
        .sum::<usize>()
        + members.len().checked_sub(1)?;
    if same && let Some(line) = first.filter(|line| line.len() == length && length <= LENGTH) {
        return Some(line.clone());
    }
    while length > LENGTH {
        let last = members.len().checked_sub(1)?;
        let index = members
            .iter()
            .rposition(|member| member.text.len() > LONG)
            .unwrap_or(last);
        length = length.checked_sub(members.remove(index).text.len() + 1)?;
    }
    let mut joined = Vec::with_capacity(length);
    for member in &members {
        if !joined.is_empty() {
            joined.push(b',');
        }
        joined.extend_from_slice(member.text);
    }
    HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)).ok()
}

struct Member<'a> {
    key: &'a [u8],
    text: &'a [u8],
}

impl<'a> Member<'a> {
    /// `text` has no comma and no white space around it.
    fn parse(text: &'a [u8]) -> Option<Self> {
        let equals = text.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (text.get(..equals)?, text.get(equals + 1..)?);
        let (first, rest) = key.split_first()?;
        let lower_or_digit = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let valid = lower_or_digit(first)
            && key.len() <= PART
            && rest
                .iter()
                .all(|byte| lower_or_digit(byte) || b"_-*/@".contains(byte))
            && (1..=PART).contains(&value.len())
            && value
                .iter()
                .all(|byte| matches!(byte, b' '..=b'~') && *byte != b'=');
        valid.then_some(Member { key, text })
    }
}

fn trim(text: &[u8]) -> &[u8] {
    let space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = text
        .iter()
        .position(|byte| !space(byte))
        .unwrap_or(text.len());
    let end = text
        .iter()
        .rposition(|byte| !space(byte))
        .map_or(start, |last| last + 1);
    text.get(start..end).unwrap_or_default()
}
