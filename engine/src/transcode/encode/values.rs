//! What stands in a field: numbers, flags and enums; lists and maps.

use std::borrow::Cow;

use super::{Encoder, Go, Step, Stop};
use crate::transcode::schema::{EnumId, Field, Kind, Known};
use crate::transcode::{scalar, wire};

impl<'s, 't> Encoder<'s, 't> {
    /// A number, a flag or an enum, without its tag.
    pub(super) fn bare(&mut self, kind: Kind) -> Go {
        if let Kind::Enum(id) = kind {
            return self.enumeration(id);
        }
        let at = match self.reader.peek() {
            Some(_) => self.reader.at(),
            None => {
                return Err(Stop::Wrong(
                    self.reader.wrong("the text ends in the middle"),
                ));
            }
        };
        let written = match (self.reader.peek(), kind) {
            (Some(b't'), Kind::Bool) if self.reader.word("true") => {
                scalar::numeric(self.out, kind, "true")
            }
            (Some(b'f'), Kind::Bool) if self.reader.word("false") => {
                scalar::numeric(self.out, kind, "false")
            }
            (_, Kind::Bool) => None,
            (Some(b'"'), _) => {
                let text = self.reader.string()?;
                let written = scalar::numeric(self.out, kind, &text);
                if written.is_none() {
                    let words = kind.words(self.schema);
                    return self.note_at(format!("it should be {words}"), at);
                }
                written
            }
            (Some(b'-' | b'0'..=b'9'), _) => {
                let text = self.reader.number()?;
                let written = scalar::numeric(self.out, kind, text);
                if written.is_none() {
                    let words = kind.words(self.schema);
                    return self.note_at(format!("it should be {words}"), at);
                }
                written
            }
            _ => None,
        };
        match written {
            Some(()) => Ok(()),
            None => {
                let words = kind.words(self.schema);
                self.fault(&words)
            }
        }
    }

    pub(super) fn enumeration(&mut self, id: EnumId) -> Go {
        let schema = self.schema;
        let enumeration = schema.enumeration(id);
        let words = || Kind::Enum(id).words(schema);
        match self.reader.peek() {
            Some(b'"') => {
                let at = self.reader.at();
                let name = self.reader.string()?;
                match enumeration.number(&name) {
                    Some(number) => wire::varint(self.out, i64::from(number) as u64),
                    None => return self.note_at(format!("it should be {}", words()), at),
                }
                Ok(())
            }
            Some(b'-' | b'0'..=b'9') => {
                let at = self.reader.at();
                let text = self.reader.number()?;
                match scalar::numeric(self.out, Kind::Int32, text) {
                    Some(()) => Ok(()),
                    None => self.note_at(format!("it should be {}", words()), at),
                }
            }
            Some(b'n') if enumeration.is_null && self.reader.word("null") => {
                self.out.push(0);
                Ok(())
            }
            _ => self.fault(&words()),
        }
    }

    pub(super) fn list(&mut self, field: &'s Field) -> Go {
        if self.reader.peek() != Some(b'[') {
            return self.fault("an array");
        }
        self.enter()?;
        self.reader.takes(b'[');
        let before = self.out.len();
        let packed = field.packed.then(|| {
            wire::tag(self.out, field.number, wire::BYTES);
            wire::open(self.out)
        });
        let null = match field.kind {
            Kind::Message(id) => self.schema.message(id).known == Known::Value,
            Kind::Enum(id) => self.schema.enumeration(id).is_null,
            _ => false,
        };
        let mut index = 0;
        while self.reader.element(index == 0)? {
            self.count()?;
            self.path.push(Step::Index(index));
            if self.reader.peek() == Some(b'n') && !null {
                self.fault(&field.kind.words(self.schema))?;
            } else if packed.is_some() {
                self.bare(field.kind)?;
            } else {
                self.one(field.number, field.kind)?;
            }
            self.path.pop();
            index += 1;
        }
        match packed {
            Some(_) if index == 0 => self.out.truncate(before),
            Some(begin) => wire::close(self.out, begin),
            None => {}
        }
        self.depth -= 1;
        Ok(())
    }

    pub(super) fn map(&mut self, field: &'s Field) -> Go {
        let Kind::Message(id) = field.kind else {
            return Ok(());
        };
        let [key_field, value_field] = &*self.schema.message(id).fields else {
            return Ok(());
        };
        if self.reader.peek() != Some(b'{') {
            return self.fault("an object");
        }
        self.enter()?;
        self.reader.takes(b'{');
        let mut keys: Vec<Cow<'t, str>> = Vec::new();
        let mut first = true;
        while let Some(key) = self.reader.key(std::mem::take(&mut first))? {
            self.count()?;
            self.path.push(Step::Field(key.clone()));
            wire::tag(self.out, field.number, wire::BYTES);
            let begin = wire::open(self.out);
            if self.text_value(1, key_field.kind, &key).is_none() {
                let words = key_field.kind.words(self.schema);
                self.note(format!("the key should be {words}"))?;
            }
            let null = matches!(value_field.kind, Kind::Message(id) if self.schema.message(id).known == Known::Value)
                || matches!(value_field.kind, Kind::Enum(id) if self.schema.enumeration(id).is_null);
            if self.reader.peek() == Some(b'n') && !null {
                self.fault(&value_field.kind.words(self.schema))?;
            } else {
                self.one(2, value_field.kind)?;
            }
            wire::close(self.out, begin);
            self.path.pop();
            keys.push(key);
        }
        self.depth -= 1;
        self.distinct(keys)
    }

    /// Two keys that are the same are a mistake, or an attempt to be understood in two ways.
    pub(super) fn distinct(&mut self, mut keys: Vec<Cow<'t, str>>) -> Go {
        keys.sort_unstable();
        match keys.windows(2).find(|pair| pair[0] == pair[1]) {
            None => Ok(()),
            Some(pair) => {
                self.path.push(Step::Field(pair[0].clone()));
                self.note("it is there twice")?;
                self.path.pop();
                Ok(())
            }
        }
    }

    /// A map's key, which JSON writes as a string whatever it is.
    fn text_value(&mut self, number: u32, kind: Kind, text: &str) -> Option<()> {
        if kind == Kind::String {
            wire::bytes(self.out, number, text.as_bytes());
            return Some(());
        }
        wire::tag(self.out, number, kind.wire());
        scalar::numeric(self.out, kind, text)
    }
}
