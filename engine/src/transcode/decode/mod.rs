//! Protobuf to JSON. A message is looked through once for where its fields are, then written in the order of its type;
//! nothing is copied but what goes out. Fields of which several came follow the format: the last value counts, messages
//! merge, of a oneof the last that came is there. What the type does not know is left out.
//!
//! The bytes are an upstream's, so they are not trusted either: bounds hold for depth, fields and what is written.

mod known;
mod map;
mod scalar;

use smallvec::SmallVec;

use super::bounds::{Bound, Rules};
use super::schema::{Field, Kind, Known, Message, MessageId, Schema, Shape};
use super::wire::{Broken, Fields, Raw};

/// Why there is no JSON of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    Broken,
    /// A text that is not UTF-8.
    Text,
    /// A value that JSON has no form for, such as a time after the year 9999.
    Unwritable,
    Beyond(Bound),
}

impl From<Broken> for Unreadable {
    fn from(_: Broken) -> Self {
        Unreadable::Broken
    }
}

impl Unreadable {
    /// For the log.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Unreadable::Broken => "the message is malformed",
            Unreadable::Text => "a string of the message is not UTF-8",
            Unreadable::Unwritable => "the message has a value that JSON has no form for",
            Unreadable::Beyond(Bound::Message) => "the message is larger than allowed",
            Unreadable::Beyond(Bound::Depth) => "the message is nested more deeply than allowed",
            Unreadable::Beyond(Bound::Fields) => "the message has more fields than allowed",
        }
    }
}

type Go = Result<(), Unreadable>;

/// One field that came: which of the type's, and its value.
type Came<'b> = (u32, Raw<'b>);

struct Decoder<'s, 'o> {
    schema: &'s Schema,
    rules: &'s Rules,
    out: &'o mut Vec<u8>,
    /// `out` may not become longer.
    most: usize,
    depth: u32,
    fields: u32,
}

/// Appends the JSON of a message to `out`; on failure what is there means nothing.
pub(crate) fn message(
    schema: &Schema,
    rules: &Rules,
    id: MessageId,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Go {
    decoder(schema, rules, out).message(id, bytes)
}

/// The JSON of one field of a message, as `response_body` means it.
pub(crate) fn field(
    schema: &Schema,
    rules: &Rules,
    id: MessageId,
    place: usize,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Go {
    decoder(schema, rules, out).only(id, place, bytes)
}

/// The JSON of a `google.protobuf.Any`, whether or not the descriptors have that type.
pub(crate) fn any(schema: &Schema, rules: &Rules, bytes: &[u8], out: &mut Vec<u8>) -> Go {
    decoder(schema, rules, out).any(bytes)
}

fn decoder<'s, 'o>(schema: &'s Schema, rules: &'s Rules, out: &'o mut Vec<u8>) -> Decoder<'s, 'o> {
    Decoder {
        most: out.len().saturating_add(rules.max_message),
        schema,
        rules,
        out,
        depth: 0,
        fields: 0,
    }
}

impl<'s> Decoder<'s, '_> {
    fn message(&mut self, id: MessageId, bytes: &[u8]) -> Go {
        self.depth += 1;
        if self.depth > self.rules.max_depth {
            return Err(Unreadable::Beyond(Bound::Depth));
        }
        let message = self.schema.message(id);
        match message.known {
            Known::No | Known::Empty | Known::HttpBody => {
                self.out.push(b'{');
                self.fields(message, bytes, true)?;
                self.out.push(b'}');
            }
            _ => self.known(message, bytes)?,
        }
        self.depth -= 1;
        if self.out.len() > self.most {
            return Err(Unreadable::Beyond(Bound::Message));
        }
        Ok(())
    }

    fn only(&mut self, id: MessageId, place: usize, bytes: &[u8]) -> Go {
        let message = self.schema.message(id);
        let field = &message.fields[place];
        let came = self.came(message, bytes)?;
        let of_it: SmallVec<[Came<'_>; 16]> = came
            .into_iter()
            .filter(|(which, _)| *which as usize == place)
            .collect();
        if !of_it.is_empty() {
            return self.field(field, &of_it);
        }
        match field.kind {
            Kind::Message(_) if field.shape == Shape::One => self.out.extend_from_slice(b"null"),
            _ => self.default(field),
        }
        Ok(())
    }

    /// What came of a message's fields, in the order of its type, and of a oneof only what counts.
    fn came<'b>(
        &mut self,
        message: &Message,
        bytes: &'b [u8],
    ) -> Result<SmallVec<[Came<'b>; 16]>, Unreadable> {
        let mut came: SmallVec<[Came<'b>; 16]> = SmallVec::new();
        let mut fields = Fields::new(bytes);
        let (mut in_order, mut oneofs, mut last) = (true, false, 0);
        while let Some((number, raw)) = fields.next()? {
            let Some(place) = message.by_number(number) else {
                continue;
            };
            self.fields += 1;
            if self.fields > self.rules.max_fields {
                return Err(Unreadable::Beyond(Bound::Fields));
            }
            oneofs |= message.fields[place].oneof.is_some();
            in_order &= place >= last;
            last = place;
            came.push((place as u32, raw));
        }
        if oneofs {
            settle_oneofs(message, &mut came);
        }
        if !in_order {
            came.sort_by_key(|(place, _)| *place);
        }
        Ok(came)
    }

    /// `first`: nothing stands in the object yet.
    fn fields(&mut self, message: &Message, bytes: &[u8], mut first: bool) -> Go {
        let came = self.came(message, bytes)?;
        let mut rest = &*came;
        if !self.rules.defaults {
            while let Some((place, _)) = rest.first() {
                let count = rest.iter().take_while(|(other, _)| other == place).count();
                let (of_it, behind) = rest.split_at(count);
                rest = behind;
                let field = &message.fields[*place as usize];
                if field.presence || !is_default(field, of_it) {
                    self.key(field, std::mem::take(&mut first));
                    self.field(field, of_it)?;
                }
            }
            return Ok(());
        }
        for (place, field) in message.fields.iter().enumerate() {
            let count = rest
                .iter()
                .take_while(|(other, _)| *other as usize == place)
                .count();
            let (of_it, behind) = rest.split_at(count);
            rest = behind;
            if count > 0 {
                self.key(field, std::mem::take(&mut first));
                self.field(field, of_it)?;
            } else if !field.presence {
                self.key(field, std::mem::take(&mut first));
                self.default(field);
            }
        }
        Ok(())
    }

    fn key(&mut self, field: &Field, first: bool) {
        if !first {
            self.out.push(b',');
        }
        self.out
            .extend_from_slice(&field.keys[usize::from(self.rules.proto_names)]);
    }

    /// Everything that came of one field.
    fn field(&mut self, field: &Field, came: &[Came<'_>]) -> Go {
        if self.out.len() > self.most {
            return Err(Unreadable::Beyond(Bound::Message));
        }
        match (field.shape, came) {
            (Shape::One, []) => Err(Unreadable::Broken),
            (Shape::One, [.., (_, last)]) => match (field.kind, came) {
                (Kind::Message(id), [_, _, ..]) => {
                    let mut merged = Vec::new();
                    for (_, raw) in came {
                        let Raw::Bytes(bytes) = raw else {
                            return Err(Unreadable::Broken);
                        };
                        merged.extend_from_slice(bytes);
                    }
                    self.message(id, &merged)
                }
                (kind, _) => self.value(kind, *last),
            },
            (Shape::List, _) => {
                self.out.push(b'[');
                let mut first = true;
                for (_, raw) in came {
                    self.elements(field.kind, *raw, &mut first)?;
                }
                self.out.push(b']');
                Ok(())
            }
            (Shape::Map, _) => self.map(field, came),
        }
    }

    /// One element, or many in one piece.
    fn elements(&mut self, kind: Kind, raw: Raw<'_>, first: &mut bool) -> Go {
        let wire = kind.wire();
        let Raw::Bytes(packed) = raw else {
            return self.element(kind, raw, first);
        };
        if wire == super::wire::BYTES {
            return self.element(kind, raw, first);
        }
        let mut values = Fields::new(packed);
        while !values.is_empty() {
            self.fields += 1;
            if self.fields > self.rules.max_fields {
                return Err(Unreadable::Beyond(Bound::Fields));
            }
            let raw = match wire {
                super::wire::FIXED64 => Raw::Fixed64(values.fixed64()?),
                super::wire::FIXED32 => Raw::Fixed32(values.fixed32()?),
                _ => Raw::Varint(values.varint()?),
            };
            self.element(kind, raw, first)?;
        }
        Ok(())
    }

    fn element(&mut self, kind: Kind, raw: Raw<'_>, first: &mut bool) -> Go {
        if !std::mem::take(first) {
            self.out.push(b',');
        }
        self.value(kind, raw)
    }
}

/// Whether all of it is the value that an absent field has. Only of fields without presence.
fn is_default(field: &Field, came: &[Came<'_>]) -> bool {
    if field.shape == Shape::List {
        // A packed field without elements.
        return field.kind.wire() != super::wire::BYTES
            && came.iter().all(|(_, raw)| *raw == Raw::Bytes(b""));
    }
    match came {
        _ if field.shape != Shape::One => false,
        [
            ..,
            (_, Raw::Varint(0) | Raw::Fixed64(0) | Raw::Fixed32(0) | Raw::Bytes(b"")),
        ] => true,
        _ => false,
    }
}

/// Of each oneof only what came last stays, and of that only what came since another was there.
#[cold]
fn settle_oneofs(message: &Message, came: &mut SmallVec<[Came<'_>; 16]>) {
    let oneof = |place: u32| message.fields[place as usize].oneof;
    let mut chosen: SmallVec<[(u16, u32, bool); 4]> = SmallVec::new();
    let mut keep = vec![true; came.len()];
    for (at, (place, _)) in came.iter().enumerate().rev() {
        let Some(oneof) = oneof(*place) else { continue };
        match chosen.iter_mut().find(|(known, ..)| *known == oneof) {
            None => chosen.push((oneof, *place, false)),
            Some((_, winner, over)) => {
                *over |= winner != place;
                keep[at] = !*over;
            }
        }
    }
    let mut keep = keep.into_iter();
    came.retain(|_| keep.next().unwrap_or(true));
}
