//! Bodies that are checked: by which schema, and how large.

use std::sync::Arc;

use super::{parsed, setting, size};
use crate::BodySchema;
use crate::document::Validate;
use crate::parse::Node;

pub(super) fn validate(node: &Node) -> Option<Arc<Validate>> {
    Some(Arc::new(Validate {
        schema: parsed(node, "schema", BodySchema::parse)?,
        max_body: setting(node, "max_body", size, 1 << 20),
    }))
}
