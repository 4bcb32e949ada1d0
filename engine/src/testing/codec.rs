//! The door for benchmarks to the codec between JSON and protobuf, which is otherwise private.

use crate::transcode::schema::{MessageId, Schema};

/// One type of a descriptor set.
pub struct Codec {
    schema: Schema,
    id: MessageId,
}

impl Codec {
    /// `name`: full.
    pub fn new(set: &[u8], name: &str) -> Codec {
        let schema = crate::transcode::descriptor::read(set).expect("a descriptor set");
        let id = schema.find(name).expect("the set holds it");
        Codec { schema, id }
    }

    pub fn encode(&self, json: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(json.len());
        crate::transcode::encoded(&self.schema, self.id, json, &mut out);
        out
    }

    pub fn decode(&self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() * 2);
        crate::transcode::decoded(&self.schema, self.id, bytes, &mut out);
        out
    }
}
