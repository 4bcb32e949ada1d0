//! Types that JSON writes in a way of their own, from protobuf.

use smallvec::SmallVec;

use super::super::json;
use super::super::known;
use super::super::schema::{Kind, Known, Message};
use super::super::wire::{Fields, Raw};
use super::{Decoder, Go, Unreadable};

impl Decoder<'_, '_> {
    pub(super) fn known(&mut self, message: &Message, bytes: &[u8]) -> Go {
        match message.known {
            Known::Timestamp | Known::Duration => {
                let (seconds, nanos) = moment(bytes)?;
                let text = if message.known == Known::Timestamp {
                    known::written_timestamp(seconds, nanos)
                } else {
                    known::written_duration(seconds, nanos)
                };
                json::string(self.out, &text.ok_or(Unreadable::Unwritable)?);
                Ok(())
            }
            Known::FieldMask => self.mask(bytes),
            Known::Wrapper => {
                let came = self.came(message, bytes)?;
                let Some(field) = message.fields.first() else {
                    return Err(Unreadable::Broken);
                };
                if came.is_empty() {
                    self.default_of(field.kind);
                    return Ok(());
                }
                self.field(field, &came)
            }
            Known::Struct => self.tree(bytes),
            Known::List => self.values(bytes),
            Known::Value => self.any_value(bytes),
            Known::Any => self.any(bytes),
            Known::No | Known::Empty | Known::HttpBody => Err(Unreadable::Broken),
        }
    }

    fn mask(&mut self, bytes: &[u8]) -> Go {
        let mut text = String::new();
        let mut fields = Fields::new(bytes);
        while let Some((number, raw)) = fields.next()? {
            let (1, Raw::Bytes(path)) = (number, raw) else {
                continue;
            };
            let path = std::str::from_utf8(path).map_err(|_| Unreadable::Text)?;
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(&known::camel_path(path).ok_or(Unreadable::Unwritable)?);
        }
        json::string(self.out, &text);
        Ok(())
    }

    fn one_deeper(&mut self) -> Go {
        self.depth += 1;
        self.fields += 1;
        if self.depth > self.rules.max_depth {
            return Err(Unreadable::Beyond(super::Bound::Depth));
        }
        if self.fields > self.rules.max_fields {
            return Err(Unreadable::Beyond(super::Bound::Fields));
        }
        if self.out.len() > self.most {
            return Err(Unreadable::Beyond(super::Bound::Message));
        }
        Ok(())
    }

    /// `google.protobuf.Struct`: field 1 is a map from text to values.
    fn tree(&mut self, bytes: &[u8]) -> Go {
        self.one_deeper()?;
        let begin = self.out.len();
        self.out.push(b'{');
        let mut written = Vec::new();
        let mut fields = Fields::new(bytes);
        while let Some((number, raw)) = fields.next()? {
            let (1, Raw::Bytes(entry)) = (number, raw) else {
                continue;
            };
            let (mut key, mut value): (&[u8], SmallVec<[u8; 0]>) = (b"", SmallVec::new());
            let (mut whole, mut count): (&[u8], usize) = (b"", 0);
            let mut entry = Fields::new(entry);
            while let Some((number, raw)) = entry.next()? {
                match (number, raw) {
                    (1, Raw::Bytes(bytes)) => key = bytes,
                    (2, Raw::Bytes(bytes)) => {
                        if count > 0 {
                            value.extend_from_slice(whole);
                        }
                        (whole, count) = (bytes, count + 1);
                    }
                    _ => {}
                }
            }
            let from = self.out.len();
            let key = std::str::from_utf8(key).map_err(|_| Unreadable::Text)?;
            json::string(self.out, key);
            let middle = self.out.len();
            self.out.push(b':');
            if count > 1 {
                value.extend_from_slice(whole);
                self.any_value(&value)?;
            } else {
                self.any_value(whole)?;
            }
            written.push((from, middle, self.out.len()));
            self.out.push(b',');
        }
        self.without_doubles(begin, &written);
        if self.out.last() == Some(&b',') {
            self.out.pop();
        }
        self.out.push(b'}');
        self.depth -= 1;
        Ok(())
    }

    fn values(&mut self, bytes: &[u8]) -> Go {
        self.one_deeper()?;
        self.out.push(b'[');
        let mut first = true;
        let mut fields = Fields::new(bytes);
        while let Some((number, raw)) = fields.next()? {
            let (1, Raw::Bytes(value)) = (number, raw) else {
                continue;
            };
            if !std::mem::take(&mut first) {
                self.out.push(b',');
            }
            self.any_value(value)?;
        }
        self.out.push(b']');
        self.depth -= 1;
        Ok(())
    }

    /// `google.protobuf.Value`: what came last counts; none at all is `null`.
    fn any_value(&mut self, bytes: &[u8]) -> Go {
        self.one_deeper()?;
        let mut last = None;
        let mut fields = Fields::new(bytes);
        while let Some((number, raw)) = fields.next()? {
            if (1..=6).contains(&number) {
                last = Some((number, raw));
            }
        }
        match last {
            None | Some((1, _)) => self.out.extend_from_slice(b"null"),
            Some((2, Raw::Fixed64(bits))) => {
                let value = f64::from_bits(bits);
                if !value.is_finite() {
                    return Err(Unreadable::Unwritable);
                }
                self.double(value);
            }
            Some((3, raw)) => self.value(Kind::String, raw)?,
            Some((4, raw)) => self.value(Kind::Bool, raw)?,
            Some((5, Raw::Bytes(tree))) => self.tree(tree)?,
            Some((6, Raw::Bytes(values))) => self.values(values)?,
            _ => return Err(Unreadable::Broken),
        }
        self.depth -= 1;
        Ok(())
    }

    pub(super) fn any(&mut self, bytes: &[u8]) -> Go {
        let (mut name, mut content): (&[u8], &[u8]) = (b"", b"");
        let mut fields = Fields::new(bytes);
        while let Some((number, raw)) = fields.next()? {
            match (number, raw) {
                (1, Raw::Bytes(bytes)) => name = bytes,
                (2, Raw::Bytes(bytes)) => content = bytes,
                _ => {}
            }
        }
        if name.is_empty() && content.is_empty() {
            self.out.extend_from_slice(b"{}");
            return Ok(());
        }
        let name = std::str::from_utf8(name).map_err(|_| Unreadable::Text)?;
        let id = name
            .rsplit_once('/')
            .and_then(|(_, name)| self.schema.find(name));
        let id = id.ok_or(Unreadable::Unwritable)?;
        self.out.extend_from_slice(b"{\"@type\":");
        json::string(self.out, name);
        let message = self.schema.message(id);
        if matches!(message.known, Known::No | Known::HttpBody) {
            self.one_deeper()?;
            self.fields(message, content, false)?;
            self.depth -= 1;
        } else {
            self.out.extend_from_slice(b",\"value\":");
            self.message(id, content)?;
        }
        self.out.push(b'}');
        Ok(())
    }
}

fn moment(bytes: &[u8]) -> Result<(i64, i32), Unreadable> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut fields = Fields::new(bytes);
    while let Some((number, raw)) = fields.next()? {
        match (number, raw) {
            (1, Raw::Varint(value)) => seconds = value as i64,
            (2, Raw::Varint(value)) => nanos = value as i32,
            _ => {}
        }
    }
    Ok((seconds, nanos))
}
