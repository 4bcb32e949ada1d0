//! Message types as requests need them: resolved, numbered, with every key of JSON made already. Immutable once made;
//! `descriptor` makes it. Knows no bytes.

use std::collections::HashMap;

use foldhash::fast::RandomState;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId(pub(super) u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EnumId(pub(super) u32);

/// Everything that one set of descriptors says.
#[derive(Debug, Default)]
pub struct Schema {
    pub(super) messages: Vec<Message>,
    pub(super) enums: Vec<Enum>,
    pub(super) services: Vec<Service>,
    pub(super) by_name: HashMap<Box<str>, MessageId, RandomState>,
}

#[derive(Debug)]
pub(crate) struct Message {
    /// Full, without a leading dot.
    pub(crate) name: Box<str>,
    /// By number, ascending.
    pub(crate) fields: Vec<Field>,
    pub(super) by_key: HashMap<Box<str>, u32, RandomState>,
    /// Place in `fields` by number, for small numbers; `NOWHERE` where there is none.
    pub(super) by_number: Box<[u16]>,
    pub(crate) known: Known,
    pub(crate) is_entry: bool,
}

/// No field.
pub(super) const NOWHERE: u16 = u16::MAX;
/// Field numbers below this are found by looking them up.
pub(super) const SMALL: u32 = 256;

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: Box<str>,
    /// `lowerCamelCase`, or what the descriptor says.
    pub(crate) json_name: Box<str>,
    pub(crate) number: u32,
    pub(crate) kind: Kind,
    pub(crate) shape: Shape,
    pub(crate) packed: bool,
    /// Which of the message's oneofs it belongs to; one with `optional` belongs to none.
    pub(crate) oneof: Option<u16>,
    /// Absent is something else than the default value.
    pub(crate) presence: bool,
    /// `"name":`, ready to be written, in both spellings.
    pub(super) keys: [Box<[u8]>; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    One,
    List,
    /// `kind` is the entry's message.
    Map,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Double,
    Float,
    Int64,
    Uint64,
    Int32,
    Fixed64,
    Fixed32,
    Bool,
    String,
    Message(MessageId),
    Bytes,
    Uint32,
    Enum(EnumId),
    Sfixed32,
    Sfixed64,
    Sint32,
    Sint64,
}

/// Types that JSON writes in a way of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    No,
    Timestamp,
    Duration,
    FieldMask,
    Struct,
    Value,
    List,
    Any,
    Empty,
    /// `google.protobuf.Int32Value` and its kin: field 1 alone.
    Wrapper,
    HttpBody,
}

#[derive(Debug)]
pub(crate) struct Enum {
    pub(crate) name: Box<str>,
    /// As written; of aliases the first comes first.
    pub(crate) values: Vec<(Box<str>, i32)>,
    pub(super) by_name: HashMap<Box<str>, i32, RandomState>,
    pub(super) by_number: HashMap<i32, u32, RandomState>,
    /// `google.protobuf.NullValue`.
    pub(crate) is_null: bool,
}

#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: Box<str>,
    pub(crate) methods: Vec<Method>,
}

#[derive(Debug)]
pub(crate) struct Method {
    pub(crate) name: Box<str>,
    pub(crate) input: MessageId,
    pub(crate) output: MessageId,
    pub(crate) client_streams: bool,
    pub(crate) server_streams: bool,
    /// `google.api.http`, the additional ones behind the first.
    pub(crate) rules: Vec<HttpRule>,
}

/// One binding as the annotation says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpRule {
    pub(crate) verb: Box<str>,
    pub(crate) path: Box<str>,
    pub(crate) body: Box<str>,
    pub(crate) response_body: Box<str>,
}

impl Schema {
    pub(crate) fn message(&self, id: MessageId) -> &Message {
        &self.messages[id.0 as usize]
    }

    pub(crate) fn enumeration(&self, id: EnumId) -> &Enum {
        &self.enums[id.0 as usize]
    }

    pub(crate) fn services(&self) -> &[Service] {
        &self.services
    }

    /// By full name.
    pub(crate) fn find(&self, name: &str) -> Option<MessageId> {
        self.by_name.get(name).copied()
    }
}

impl Message {
    /// The field that JSON calls so, in either spelling.
    pub(crate) fn by_key(&self, key: &str) -> Option<usize> {
        self.by_key.get(key).map(|place| *place as usize)
    }

    #[inline]
    pub(crate) fn by_number(&self, number: u32) -> Option<usize> {
        if let Some(place) = self.by_number.get(number as usize) {
            return (*place != NOWHERE).then_some(*place as usize);
        }
        if number < SMALL {
            return None;
        }
        let found = self
            .fields
            .binary_search_by_key(&number, |field| field.number);
        found.ok()
    }
}

impl Enum {
    pub(crate) fn number(&self, name: &str) -> Option<i32> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn name_of(&self, number: i32) -> Option<&str> {
        let place = *self.by_number.get(&number)?;
        Some(&self.values[place as usize].0)
    }
}

impl Kind {
    /// The wire type of one value.
    pub(crate) fn wire(self) -> u8 {
        use super::wire::{BYTES, FIXED32, FIXED64, VARINT};
        match self {
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => FIXED64,
            Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => FIXED32,
            Kind::String | Kind::Bytes | Kind::Message(_) => BYTES,
            Kind::Int64
            | Kind::Uint64
            | Kind::Int32
            | Kind::Bool
            | Kind::Uint32
            | Kind::Enum(_)
            | Kind::Sint32
            | Kind::Sint64 => VARINT,
        }
    }

    /// What a person would have to write.
    pub(crate) fn words(self, schema: &Schema) -> String {
        match self {
            Kind::Double | Kind::Float => "a number".to_owned(),
            Kind::Int64 | Kind::Sfixed64 | Kind::Sint64 => {
                "a whole number of 64 bits, as number or string".to_owned()
            }
            Kind::Uint64 | Kind::Fixed64 => {
                "a whole number from 0 of 64 bits, as number or string".to_owned()
            }
            Kind::Int32 | Kind::Sfixed32 | Kind::Sint32 => "a whole number of 32 bits".to_owned(),
            Kind::Uint32 | Kind::Fixed32 => "a whole number from 0 of 32 bits".to_owned(),
            Kind::Bool => "true or false".to_owned(),
            Kind::String => "a string".to_owned(),
            Kind::Bytes => "bytes in base64".to_owned(),
            Kind::Enum(id) => {
                let values = &schema.enumeration(id).values;
                let mut names: Vec<&str> = values.iter().take(8).map(|(name, _)| &**name).collect();
                if values.len() > names.len() {
                    names.push("…");
                }
                format!("one of {}", names.join(", "))
            }
            Kind::Message(id) => match schema.message(id).known {
                Known::Timestamp => "a time such as \"2026-01-31T12:00:00Z\"".to_owned(),
                Known::Duration => "a duration such as \"1.5s\"".to_owned(),
                Known::FieldMask => "field names joined by commas, as one string".to_owned(),
                Known::List => "an array".to_owned(),
                Known::Value => "any value".to_owned(),
                Known::Wrapper => schema
                    .message(id)
                    .fields
                    .first()
                    .map_or_else(String::new, |field| field.kind.words(schema)),
                _ => "an object".to_owned(),
            },
        }
    }
}
