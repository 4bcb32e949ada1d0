//! Protobuf's wire format: varints, tags, lengths, both ways. Knows no schema. What a peer sent is never trusted: a
//! length beyond the end, a number that does not fit and a group without its end are `Broken`, never a panic.

/// The bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;

/// How a value stands on the wire.
pub(crate) const VARINT: u8 = 0;
pub(crate) const FIXED64: u8 = 1;
pub(crate) const BYTES: u8 = 2;
const GROUP: u8 = 3;
const GROUP_END: u8 = 4;
pub(crate) const FIXED32: u8 = 5;

/// Groups in groups that are skipped at most.
const GROUPS: u32 = 100;

/// A value as it stands, without knowing what it means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Raw<'b> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'b [u8]),
    Fixed32(u32),
}

/// Reads one message, field by field.
#[derive(Clone)]
pub(crate) struct Fields<'b> {
    rest: &'b [u8],
}

impl<'b> Fields<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Fields { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next field's number and value; `None` at the end. Groups, which nobody has used for long, are passed over.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Raw<'b>)>, Broken> {
        loop {
            if self.rest.is_empty() {
                return Ok(None);
            }
            let (number, kind) = self.tag()?;
            if kind == GROUP {
                self.skip_group(number)?;
                continue;
            }
            return Ok(Some((number, self.value(kind)?)));
        }
    }

    fn tag(&mut self) -> Result<(u32, u8), Broken> {
        let tag = u32::try_from(self.varint()?).map_err(|_| Broken)?;
        match tag >> 3 {
            0 => Err(Broken),
            number => Ok((number, (tag & 7) as u8)),
        }
    }

    fn value(&mut self, kind: u8) -> Result<Raw<'b>, Broken> {
        Ok(match kind {
            VARINT => Raw::Varint(self.varint()?),
            FIXED64 => Raw::Fixed64(self.fixed64()?),
            FIXED32 => Raw::Fixed32(self.fixed32()?),
            BYTES => {
                let length = usize::try_from(self.varint()?).map_err(|_| Broken)?;
                Raw::Bytes(self.take(length)?)
            }
            _ => return Err(Broken),
        })
    }

    pub(crate) fn fixed64(&mut self) -> Result<u64, Broken> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Broken)?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*bytes))
    }

    pub(crate) fn fixed32(&mut self) -> Result<u32, Broken> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Broken)?;
        self.rest = rest;
        Ok(u32::from_le_bytes(*bytes))
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, Broken> {
        if let [byte, rest @ ..] = self.rest
            && *byte < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        let mut value = 0u64;
        for (place, byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * place);
            if *byte < 0x80 {
                if place == 9 && *byte > 1 {
                    return Err(Broken);
                }
                self.rest = &self.rest[place + 1..];
                return Ok(value);
            }
        }
        Err(Broken)
    }

    fn take(&mut self, length: usize) -> Result<&'b [u8], Broken> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Broken)?;
        self.rest = rest;
        Ok(taken)
    }

    fn skip_group(&mut self, number: u32) -> Result<(), Broken> {
        let mut open = vec![number];
        while let Some(innermost) = open.last() {
            match self.tag()? {
                (number, GROUP_END) if number == *innermost => {
                    open.pop();
                }
                (number, GROUP) if open.len() < GROUPS as usize => open.push(number),
                (_, GROUP | GROUP_END) => return Err(Broken),
                (_, kind) => {
                    self.value(kind)?;
                }
            }
        }
        Ok(())
    }
}

#[inline]
pub(crate) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[inline]
pub(crate) fn tag(out: &mut Vec<u8>, number: u32, kind: u8) {
    varint(out, u64::from(number << 3 | u32::from(kind)));
}

/// A field of bytes or text.
pub(crate) fn bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    tag(out, number, BYTES);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

pub(crate) fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Where something of a length that is not known yet begins: one byte is kept for the length, which is enough for most.
#[derive(Clone, Copy)]
pub(crate) struct Open(usize);

pub(crate) fn open(out: &mut Vec<u8>) -> Open {
    out.push(0);
    Open(out.len())
}

/// Writes the length before what was written since `open`.
pub(crate) fn close(out: &mut Vec<u8>, Open(begin): Open) {
    let length = out.len() - begin;
    if length < 0x80 {
        out[begin - 1] = length as u8;
        return;
    }
    let mut head = Vec::with_capacity(10);
    varint(&mut head, length as u64);
    let more = head.len() - 1;
    out.resize(out.len() + more, 0);
    out.copy_within(begin..begin + length, begin + more);
    out[begin - 1..begin + more].copy_from_slice(&head);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8]) -> Result<usize, Broken> {
        let mut fields = Fields::new(bytes);
        let mut count = 0;
        while fields.next()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    #[test]
    fn what_is_cut_short_or_too_long_is_broken() {
        for broken in [
            &[0x80][..],      // a tag without its end
            &[0x00, 0x00],    // field number 0
            &[0x0a, 0x05, 1], // a length beyond the end
            &[
                0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
            ], // a length of 2^64 - 1
            &[
                0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2,
            ], // more than 64 bits
            &[0x0b],          // a group without its end
            &[0x0b, 0x14],    // a group that ends as another
            &[0x0c],          // the end of no group
            &[0x0e, 0x00],    // a kind that is none
            &[0x0d, 1, 2, 3], // four bytes, of which three are there
        ] {
            assert_eq!(all(broken), Err(Broken), "{broken:x?}");
        }
        assert_eq!(
            all(&[0x0b, 0x10, 0x01, 0x0c, 0x10, 0x02]),
            Ok(1),
            "a group is passed over"
        );
        assert_eq!(
            all(&[0x0b].repeat(1000)),
            Err(Broken),
            "groups in groups without end"
        );
    }

    proptest! {
        #[test]
        fn numbers_come_back(value: u64, signed: i64) {
            let mut out = Vec::new();
            varint(&mut out, value);
            prop_assert_eq!(Fields::new(&out).varint(), Ok(value));
            prop_assert_eq!(unzigzag(zigzag(signed)), signed);
        }

        #[test]
        fn a_length_is_written_in_front_whatever_it_is(length in 0usize..70_000) {
            let mut out = vec![7];
            tag(&mut out, 3, BYTES);
            let begin = open(&mut out);
            out.resize(out.len() + length, 9);
            close(&mut out, begin);
            let mut fields = Fields::new(&out[1..]);
            prop_assert_eq!(fields.next(), Ok(Some((3, Raw::Bytes(&vec![9; length])))));
            prop_assert_eq!(fields.next(), Ok(None));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _broken_or_not = all(&bytes);
        }
    }
}
