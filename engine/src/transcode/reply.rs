//! One message of an answer as JSON, or as the bytes that it is.

use bytes::Bytes;

use super::decode::{self, Unreadable};
use super::plan::{Binding, Transcoder};
use super::schema::Shape;
use super::wire::{Fields, Raw};

/// What `google.api.HttpBody` says: its type, and its bytes.
pub(crate) struct Plain {
    pub(crate) content_type: String,
    pub(crate) data: Bytes,
}

impl Transcoder {
    /// Appends the JSON of one message of an answer.
    pub(crate) fn json(
        &self,
        binding: &Binding,
        message: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Unreadable> {
        match binding.response {
            None => decode::message(&self.schema, &self.rules, binding.output, message, out),
            Some(place) => decode::field(
                &self.schema,
                &self.rules,
                binding.output,
                place,
                message,
                out,
            ),
        }
    }

    /// The same in the form of a uniform API (GW-809). Of a list with its pagination, the list is what was asked for.
    pub(crate) fn enveloped(
        &self,
        binding: &Binding,
        message: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Unreadable> {
        out.extend_from_slice(b"{\"success\":true,\"data\":");
        let fields = &self.schema.message(binding.output).fields;
        let pages = fields.iter().position(|field| &*field.name == "pagination");
        let list = fields.iter().position(|field| field.shape == Shape::List);
        match (binding.response, pages, list) {
            (None, Some(pages), Some(list)) if fields.len() == 2 => {
                let (schema, rules, output) = (&self.schema, &self.rules, binding.output);
                decode::field(schema, rules, output, list, message, out)?;
                out.extend_from_slice(b",\"pagination\":");
                decode::field(schema, rules, output, pages, message, out)?;
            }
            _ => self.json(binding, message, out)?,
        }
        out.push(b'}');
        Ok(())
    }

    /// Of a method that answers with bytes of its own choosing. Nothing is copied.
    pub(crate) fn plain(&self, binding: &Binding, message: &Bytes) -> Result<Plain, Unreadable> {
        let mut inner = message.clone();
        if let Some(place) = binding.response {
            let wanted = self.schema.message(binding.output).fields[place].number;
            inner = last(message, wanted)?.unwrap_or_default();
        }
        let content_type = last(&inner, 1)?.unwrap_or_default();
        Ok(Plain {
            content_type: String::from_utf8(content_type.to_vec()).map_err(|_| Unreadable::Text)?,
            data: last(&inner, 2)?.unwrap_or_default(),
        })
    }
}

/// The last field of bytes with this number.
fn last(message: &Bytes, wanted: u32) -> Result<Option<Bytes>, Unreadable> {
    let mut found = None;
    let mut fields = Fields::new(message);
    while let Some((number, raw)) = fields.next()? {
        if let (true, Raw::Bytes(bytes)) = (number == wanted, raw) {
            found = Some(message.slice_ref(bytes));
        }
    }
    Ok(found)
}
