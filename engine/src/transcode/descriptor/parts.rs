//! The parts of a descriptor that stand alone: a field, a method with its annotation, a name that means something.

use super::{Draft, Unusable, text};
use crate::transcode::schema::{Field, HttpRule, Kind, Known, MessageId, Method, Shape};
use crate::transcode::wire::{Fields, Raw};

/// The number of the option `google.api.http`.
const HTTP: u32 = 72_295_728;

pub(super) struct Syntax<'a> {
    pub(super) file: &'a str,
    /// Fields without `optional` have no presence, and numbers are packed.
    pub(super) implicit: bool,
}

pub(super) fn field(bytes: &[u8], syntax: &Syntax<'_>) -> Result<Option<Draft>, Unusable> {
    let (mut name, mut json_name, mut type_name) = (String::new(), None, String::new());
    let (mut number, mut label, mut kind, mut oneof) = (0, 0, 0, None);
    let (mut packed, mut optional, mut is_extension) = (None, false, false);
    let mut fields = Fields::new(bytes);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Raw::Bytes(value)) => name = text(value)?,
            (2, Raw::Bytes(_)) => is_extension = true,
            (3, Raw::Varint(value)) => number = value,
            (4, Raw::Varint(value)) => label = value,
            (5, Raw::Varint(value)) => kind = value,
            (6, Raw::Bytes(value)) => type_name = text(value)?,
            (8, Raw::Bytes(options)) => packed = flag(options, 2)?,
            (9, Raw::Varint(value)) => oneof = u16::try_from(value).ok(),
            (10, Raw::Bytes(value)) => json_name = Some(text(value)?),
            (17, Raw::Varint(value)) => optional = value != 0,
            _ => {}
        }
    }
    let number = u32::try_from(number).map_err(|_| Unusable::NoDescriptors)?;
    if name.is_empty() || number == 0 || number >= 1 << 29 {
        return Err(Unusable::NoDescriptors);
    }
    if is_extension {
        return Ok(None);
    }
    let json_name = json_name.unwrap_or_else(|| camel(&name));
    let key = |name: &str| {
        format!("{}:", serde_json::Value::from(name))
            .into_bytes()
            .into()
    };
    Ok(Some(Draft {
        kind,
        type_name,
        field: Field {
            keys: [key(&json_name), key(&name)],
            number,
            kind: match kind {
                1 => Kind::Double,
                2 => Kind::Float,
                3 => Kind::Int64,
                4 => Kind::Uint64,
                5 => Kind::Int32,
                6 => Kind::Fixed64,
                7 => Kind::Fixed32,
                8 => Kind::Bool,
                9 => Kind::String,
                // Those with a type's name are resolved later.
                10 | 11 | 14 => Kind::Bool,
                12 => Kind::Bytes,
                13 => Kind::Uint32,
                15 => Kind::Sfixed32,
                16 => Kind::Sfixed64,
                17 => Kind::Sint32,
                18 => Kind::Sint64,
                _ => return Err(Unusable::NoDescriptors),
            },
            shape: if label == 3 { Shape::List } else { Shape::One },
            packed: label == 3 && packed.unwrap_or(syntax.implicit),
            oneof: oneof.filter(|_| !optional),
            presence: label != 3 && (!syntax.implicit || oneof.is_some()),
            name: name.into(),
            json_name: json_name.into(),
        },
    }))
}

pub(super) fn method(bytes: &[u8]) -> Result<(Method, String, String), Unusable> {
    let (mut input, mut output) = (String::new(), String::new());
    let mut method = Method {
        name: Box::default(),
        input: MessageId(0),
        output: MessageId(0),
        client_streams: false,
        server_streams: false,
        rules: Vec::new(),
    };
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Raw::Bytes(value)) => method.name = text(value)?.into(),
            (2, Raw::Bytes(value)) => input = text(value)?,
            (3, Raw::Bytes(value)) => output = text(value)?,
            (4, Raw::Bytes(options)) => {
                let mut fields = Fields::new(options);
                while let Some((number, value)) = fields.next()? {
                    if let (HTTP, Raw::Bytes(value)) = (number, value) {
                        rule(value, &mut method.rules, true)?;
                    }
                }
            }
            (5, Raw::Varint(value)) => method.client_streams = value != 0,
            (6, Raw::Varint(value)) => method.server_streams = value != 0,
            _ => {}
        }
    }
    Ok((method, input, output))
}

/// `google.api.HttpRule`.
fn rule(bytes: &[u8], rules: &mut Vec<HttpRule>, may_have_more: bool) -> Result<(), Unusable> {
    let mut rule = HttpRule {
        verb: Box::default(),
        path: Box::default(),
        body: Box::default(),
        response_body: Box::default(),
    };
    let mut more = Vec::new();
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next()? {
        let Raw::Bytes(value) = value else { continue };
        let verb = match number {
            2 => "GET",
            3 => "PUT",
            4 => "POST",
            5 => "DELETE",
            6 => "PATCH",
            7 => {
                rule.body = text(value)?.into();
                continue;
            }
            8 => {
                let mut fields = Fields::new(value);
                while let Some((number, value)) = fields.next()? {
                    match (number, value) {
                        (1, Raw::Bytes(value)) => rule.verb = text(value)?.into(),
                        (2, Raw::Bytes(value)) => rule.path = text(value)?.into(),
                        _ => {}
                    }
                }
                continue;
            }
            11 => {
                more.push(value);
                continue;
            }
            12 => {
                rule.response_body = text(value)?.into();
                continue;
            }
            _ => continue,
        };
        rule.verb = verb.into();
        rule.path = text(value)?.into();
    }
    if !rule.path.is_empty() {
        rules.push(rule);
    }
    if may_have_more {
        for bytes in more {
            self::rule(bytes, rules, false)?;
        }
    }
    Ok(())
}

pub(super) fn flag(bytes: &[u8], wanted: u32) -> Result<Option<bool>, Unusable> {
    let mut found = None;
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next()? {
        if let (true, Raw::Varint(value)) = (number == wanted, value) {
            found = Some(value != 0);
        }
    }
    Ok(found)
}

/// As `protoc` makes it: an underscore goes, and what follows becomes a capital.
pub(in crate::transcode) fn camel(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut raise = false;
    for letter in name.chars() {
        match letter {
            '_' => raise = true,
            letter if raise => {
                camel.push(letter.to_ascii_uppercase());
                raise = false;
            }
            letter => camel.push(letter),
        }
    }
    camel
}

pub(super) fn known(name: &str) -> Known {
    let Some(name) = name.strip_prefix("google.protobuf.") else {
        return if name == "google.api.HttpBody" {
            Known::HttpBody
        } else {
            Known::No
        };
    };
    match name {
        "Timestamp" => Known::Timestamp,
        "Duration" => Known::Duration,
        "FieldMask" => Known::FieldMask,
        "Struct" => Known::Struct,
        "Value" => Known::Value,
        "ListValue" => Known::List,
        "Any" => Known::Any,
        "Empty" => Known::Empty,
        "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value"
        | "UInt32Value" | "BoolValue" | "StringValue" | "BytesValue" => Known::Wrapper,
        _ => Known::No,
    }
}
