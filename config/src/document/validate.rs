//! Bodies that are checked, as values.

use super::Setting;
use crate::BodySchema;

/// `{ validate = { … } }`.
#[derive(Debug, Clone)]
pub struct Validate {
    pub schema: BodySchema,
    /// Bytes. Default 1 MiB.
    pub max_body: Setting<u64>,
}
