//! One field from one text: what a path captured, a parameter of a query, a field of a form. Written behind what the body
//! said, so that it wins.

use super::super::known;
use super::super::scalar;
use super::super::schema::{Field, Kind, Known, MessageId, Schema, Shape};
use super::super::wire;
use super::known::put_moment;

/// Appends `text` as the field at the end of `path`, with the messages around it. `Err` says what it should have been.
pub(in crate::transcode) fn assign(
    schema: &Schema,
    path: &[&Field],
    text: &str,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let Some((field, around)) = path.split_first() else {
        return Err("a field".to_owned());
    };
    if !around.is_empty() {
        wire::tag(out, field.number, wire::BYTES);
        let begin = wire::open(out);
        assign(schema, around, text, out)?;
        wire::close(out, begin);
        return Ok(());
    }
    if field.shape == Shape::Map {
        return Err("left to the body: it is a map".to_owned());
    }
    value(schema, field.number, field.kind, text, out).ok_or_else(|| field.kind.words(schema))
}

fn value(schema: &Schema, number: u32, kind: Kind, text: &str, out: &mut Vec<u8>) -> Option<()> {
    if let Kind::String = kind {
        wire::bytes(out, number, text.as_bytes());
        return Some(());
    }
    wire::tag(out, number, kind.wire());
    match kind {
        Kind::Bytes => {
            let begin = wire::open(out);
            scalar::base64(out, text)?;
            wire::close(out, begin);
            Some(())
        }
        Kind::Enum(id) => match schema.enumeration(id).number(text) {
            Some(number) => {
                wire::varint(out, i64::from(number) as u64);
                Some(())
            }
            None => scalar::numeric(out, Kind::Int32, text),
        },
        Kind::Message(id) => {
            let begin = wire::open(out);
            message(schema, id, text, out)?;
            wire::close(out, begin);
            Some(())
        }
        kind => scalar::numeric(out, kind, text),
    }
}

/// Messages that one text can say.
fn message(schema: &Schema, id: MessageId, text: &str, out: &mut Vec<u8>) -> Option<()> {
    let message = schema.message(id);
    match message.known {
        Known::Timestamp | Known::Duration => {
            let (seconds, nanos) = if message.known == Known::Timestamp {
                known::timestamp(text)?
            } else {
                known::duration(text)?
            };
            put_moment(out, seconds, nanos);
            Some(())
        }
        Known::FieldMask => {
            for path in text.split(',').filter(|_| !text.is_empty()) {
                // In a URL both spellings are common.
                let path = known::snake_path(path).unwrap_or_else(|| path.to_owned());
                wire::bytes(out, 1, path.as_bytes());
            }
            Some(())
        }
        Known::Wrapper => value(schema, 1, message.fields.first()?.kind, text, out),
        Known::Value => {
            wire::bytes(out, 3, text.as_bytes());
            Some(())
        }
        _ => None,
    }
}
