//! Single values: what came of one, and what is written when none did.

use super::{Decoder, Go, Unreadable};
use crate::http1::encode::decimal;
use crate::transcode::json;
use crate::transcode::schema::{EnumId, Field, Kind, Shape};
use crate::transcode::wire::{Raw, unzigzag};

impl Decoder<'_, '_> {
    /// One value.
    pub(super) fn value(&mut self, kind: Kind, raw: Raw<'_>) -> Go {
        match (kind, raw) {
            (Kind::String, Raw::Bytes(bytes)) => {
                let text = std::str::from_utf8(bytes).map_err(|_| Unreadable::Text)?;
                json::string(self.out, text);
            }
            (Kind::Bytes, Raw::Bytes(bytes)) => {
                self.out.push(b'"');
                self.out
                    .extend_from_slice(crate::exchange::base64::padded(bytes).as_bytes());
                self.out.push(b'"');
            }
            (Kind::Message(id), Raw::Bytes(bytes)) => self.message(id, bytes)?,
            (Kind::Bool, Raw::Varint(value)) => {
                self.out
                    .extend_from_slice(if value == 0 { b"false" } else { b"true" });
            }
            (Kind::Int32, Raw::Varint(value)) => self.signed((value as i32).into()),
            (Kind::Sint32, Raw::Varint(value)) => self.signed((unzigzag(value) as i32).into()),
            (Kind::Uint32, Raw::Varint(value)) => decimal(self.out, u64::from(value as u32)),
            (Kind::Fixed32, Raw::Fixed32(value)) => decimal(self.out, value.into()),
            (Kind::Sfixed32, Raw::Fixed32(value)) => self.signed((value as i32).into()),
            (Kind::Enum(id), Raw::Varint(value)) => self.enumeration(id, value as i32),
            (Kind::Float, Raw::Fixed32(value)) => self.float(f32::from_bits(value)),
            (Kind::Double, Raw::Fixed64(value)) => self.double(f64::from_bits(value)),
            (Kind::Int64, Raw::Varint(value)) => self.quoted(|one| one.signed(value as i64)),
            (Kind::Sint64, Raw::Varint(value)) => self.quoted(|one| one.signed(unzigzag(value))),
            (Kind::Uint64, Raw::Varint(value)) | (Kind::Fixed64, Raw::Fixed64(value)) => {
                self.quoted(|one| decimal(one.out, value));
            }
            (Kind::Sfixed64, Raw::Fixed64(value)) => self.quoted(|one| one.signed(value as i64)),
            _ => return Err(Unreadable::Broken),
        }
        Ok(())
    }

    fn quoted(&mut self, write: impl FnOnce(&mut Self)) {
        self.out.push(b'"');
        write(self);
        self.out.push(b'"');
    }

    fn signed(&mut self, value: i64) {
        if value < 0 {
            self.out.push(b'-');
        }
        decimal(self.out, value.unsigned_abs());
    }

    fn enumeration(&mut self, id: EnumId, number: i32) {
        let enumeration = self.schema.enumeration(id);
        match enumeration.name_of(number) {
            _ if enumeration.is_null => self.out.extend_from_slice(b"null"),
            Some(name) if !self.rules.enum_numbers => json::string(self.out, name),
            _ => self.signed(number.into()),
        }
    }

    fn float(&mut self, value: f32) {
        // Shortest for its own width: 0.1, not 0.10000000149011612.
        if value.is_finite() && (value.fract() != 0.0 || value.abs() >= 1e7) {
            json::number(self.out, format_args!("{value:?}"));
        } else {
            self.double(value.into());
        }
    }

    pub(super) fn double(&mut self, value: f64) {
        if value.is_nan() {
            self.out.extend_from_slice(b"\"NaN\"");
        } else if value.is_infinite() {
            self.out.extend_from_slice(if value > 0.0 {
                b"\"Infinity\""
            } else {
                b"\"-Infinity\""
            });
        } else if value.fract() == 0.0 && value.abs() < 1e15 {
            if value.is_sign_negative() {
                self.out.push(b'-');
            }
            decimal(self.out, value.abs() as u64);
        } else {
            json::number(self.out, format_args!("{value:?}"));
        }
    }

    /// What a field that did not come is.
    pub(super) fn default(&mut self, field: &Field) {
        match field.shape {
            Shape::List => self.out.extend_from_slice(b"[]"),
            Shape::Map => self.out.extend_from_slice(b"{}"),
            Shape::One => self.default_of(field.kind),
        }
    }

    pub(super) fn default_of(&mut self, kind: Kind) {
        match kind {
            Kind::String | Kind::Bytes => self.out.extend_from_slice(b"\"\""),
            Kind::Bool => self.out.extend_from_slice(b"false"),
            Kind::Int64 | Kind::Uint64 | Kind::Fixed64 | Kind::Sfixed64 | Kind::Sint64 => {
                self.out.extend_from_slice(b"\"0\"");
            }
            Kind::Enum(id) => {
                // proto2's default is its first value; proto3 wants that to be 0.
                let first = self
                    .schema
                    .enumeration(id)
                    .values
                    .first()
                    .map_or(0, |(_, number)| *number);
                self.enumeration(id, first);
            }
            Kind::Message(_) => self.out.extend_from_slice(b"{}"),
            _ => self.out.push(b'0'),
        }
    }
}
