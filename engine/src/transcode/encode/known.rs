//! Types that JSON writes in a way of their own, to protobuf.

use std::borrow::Cow;

use super::super::known;
use super::super::schema::{Known, Message, MessageId};
use super::super::{scalar, wire};
use super::{ANYS, Encoder, Go, Step, Stop};
use crate::transcode::bounds::Bound;

impl<'s, 't> Encoder<'s, 't> {
    pub(super) fn known(&mut self, message: &'s Message) -> Go {
        match message.known {
            Known::Timestamp => {
                self.moment("a time such as \"2026-01-31T12:00:00Z\"", known::timestamp)
            }
            Known::Duration => self.moment("a duration such as \"1.5s\"", known::duration),
            Known::FieldMask => self.mask(),
            Known::Wrapper => match message.fields.first() {
                Some(field) => self.one(1, field.kind),
                None => self.fault("nothing"),
            },
            Known::Value => self.value(),
            Known::Struct => self.tree(),
            Known::List => self.values(),
            Known::Any => self.any(),
            Known::No | Known::Empty | Known::HttpBody => self.object(message, None),
        }
    }

    fn moment(&mut self, wanted: &str, read: fn(&str) -> Option<(i64, i32)>) -> Go {
        if self.reader.peek() != Some(b'"') {
            return self.fault(wanted);
        }
        let at = self.reader.at();
        let text = self.reader.string()?;
        let Some((seconds, nanos)) = read(&text) else {
            return self.note_at(format!("it should be {wanted}"), at);
        };
        put_moment(self.out, seconds, nanos);
        Ok(())
    }

    fn mask(&mut self) -> Go {
        const WANTED: &str = "field names joined by commas, as one string";
        if self.reader.peek() != Some(b'"') {
            return self.fault(WANTED);
        }
        let at = self.reader.at();
        let text = self.reader.string()?;
        for path in text.split(',').filter(|_| !text.is_empty()) {
            self.count()?;
            match known::snake_path(path) {
                Some(path) => wire::bytes(self.out, 1, path.as_bytes()),
                None => return self.note_at(format!("it should be {WANTED}"), at),
            }
        }
        Ok(())
    }

    /// `google.protobuf.Value`: any JSON.
    fn value(&mut self) -> Go {
        match self.reader.peek() {
            Some(b'n') if self.reader.word("null") => self.out.extend_from_slice(&[1 << 3, 0]),
            Some(b't') if self.reader.word("true") => self.out.extend_from_slice(&[4 << 3, 1]),
            Some(b'f') if self.reader.word("false") => self.out.extend_from_slice(&[4 << 3, 0]),
            Some(b'"') => {
                let text = self.reader.string()?;
                wire::bytes(self.out, 3, text.as_bytes());
            }
            Some(b'-' | b'0'..=b'9') => {
                let at = self.reader.at();
                let text = self.reader.number()?;
                let Some(number) = scalar::double(text) else {
                    return self.note_at("it should be a number that fits into 64 bits", at);
                };
                wire::tag(self.out, 2, wire::FIXED64);
                self.out.extend_from_slice(&number.to_le_bytes());
            }
            Some(b'{') => {
                wire::tag(self.out, 5, wire::BYTES);
                let begin = wire::open(self.out);
                self.tree()?;
                wire::close(self.out, begin);
            }
            Some(b'[') => {
                wire::tag(self.out, 6, wire::BYTES);
                let begin = wire::open(self.out);
                self.values()?;
                wire::close(self.out, begin);
            }
            _ => return Err(Stop::Wrong(self.reader.wrong("a value is missing"))),
        }
        Ok(())
    }

    fn tree(&mut self) -> Go {
        if self.reader.peek() != Some(b'{') {
            return self.fault("an object");
        }
        self.enter()?;
        self.reader.takes(b'{');
        let mut keys: Vec<Cow<'t, str>> = Vec::new();
        let mut first = true;
        while let Some(key) = self.reader.key(std::mem::take(&mut first))? {
            self.count()?;
            wire::tag(self.out, 1, wire::BYTES);
            let entry = wire::open(self.out);
            wire::bytes(self.out, 1, key.as_bytes());
            wire::tag(self.out, 2, wire::BYTES);
            let begin = wire::open(self.out);
            self.path.push(Step::Field(key.clone()));
            self.value()?;
            self.path.pop();
            wire::close(self.out, begin);
            wire::close(self.out, entry);
            keys.push(key);
        }
        self.depth -= 1;
        self.distinct(keys)
    }

    fn values(&mut self) -> Go {
        if self.reader.peek() != Some(b'[') {
            return self.fault("an array");
        }
        self.enter()?;
        self.reader.takes(b'[');
        let mut index = 0;
        while self.reader.element(index == 0)? {
            self.count()?;
            wire::tag(self.out, 1, wire::BYTES);
            let begin = wire::open(self.out);
            self.path.push(Step::Index(index));
            self.value()?;
            self.path.pop();
            wire::close(self.out, begin);
            index += 1;
        }
        self.depth -= 1;
        Ok(())
    }

    /// `@type` may stand anywhere, so the object is looked through for it first, then read again as what it is.
    fn any(&mut self) -> Go {
        if self.reader.peek() != Some(b'{') {
            return self.fault("an object with `@type`");
        }
        self.anys += 1;
        if self.anys > ANYS {
            return Err(Stop::Beyond(Bound::Depth));
        }
        let (mut ahead, mut name, mut value, mut others) = (self.reader.clone(), None, None, 0);
        ahead.takes(b'{');
        let mut first = true;
        while let Some(key) = ahead.key(std::mem::take(&mut first))? {
            match &*key {
                "@type" if name.is_none() && ahead.peek() == Some(b'"') => {
                    name = Some(ahead.string()?)
                }
                "@type" => return Err(Stop::Wrong(ahead.wrong("`@type` is one string"))),
                "value" => {
                    value = Some(ahead.clone());
                    others += 1;
                    ahead.skip()?;
                }
                _ => {
                    others += 1;
                    ahead.skip()?;
                }
            }
        }
        let Some(name) = name else {
            self.reader = ahead;
            self.anys -= 1;
            // An object without a single key is an empty `Any`.
            return if others == 0 {
                Ok(())
            } else {
                self.note("`@type` is missing")
            };
        };
        let id = name
            .rsplit_once('/')
            .and_then(|(_, name)| self.schema.find(name));
        let Some(id) = id else {
            self.reader = ahead;
            self.anys -= 1;
            return self.note("`@type` names no type that the descriptors hold");
        };
        wire::bytes(self.out, 1, name.as_bytes());
        wire::tag(self.out, 2, wire::BYTES);
        let begin = wire::open(self.out);
        self.content(id, value, others)?;
        wire::close(self.out, begin);
        self.reader = ahead;
        self.anys -= 1;
        Ok(())
    }

    fn content(
        &mut self,
        id: MessageId,
        value: Option<crate::transcode::json::Reader<'t>>,
        others: usize,
    ) -> Go {
        let message = self.schema.message(id);
        if matches!(message.known, Known::No | Known::HttpBody) {
            return self.object(message, Some("@type"));
        }
        if others > usize::from(value.is_some()) && !self.rules.ignores_unknown {
            self.note("beside `@type` only `value` may stand")?;
        }
        match value {
            Some(value) => {
                self.reader = value;
                self.path.push(Step::Field(Cow::Borrowed("value")));
                self.enter()?;
                self.message(id)?;
                self.depth -= 1;
                self.path.pop();
                Ok(())
            }
            None if message.known == Known::Empty => Ok(()),
            None => self.note("`value` is missing"),
        }
    }
}

/// Both numbers, also when they are zero: what came before must not shine through.
pub(super) fn put_moment(out: &mut Vec<u8>, seconds: i64, nanos: i32) {
    wire::tag(out, 1, wire::VARINT);
    wire::varint(out, seconds as u64);
    wire::tag(out, 2, wire::VARINT);
    wire::varint(out, i64::from(nanos) as u64);
}
