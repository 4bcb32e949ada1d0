//! How much of one message is taken, and how it is read and written: what a `transcode` filter says about messages.

/// Of one `transcode` filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Bytes of one message, as JSON and as protobuf.
    pub(crate) max_message: usize,
    /// Messages, arrays and objects in one another.
    pub(crate) max_depth: u32,
    /// Fields and elements of one message, with all in it.
    pub(crate) max_fields: u32,
    /// Fields that the type does not have are passed over.
    pub(crate) ignores_unknown: bool,
    /// Keys as the descriptors spell them, not in camel case.
    pub(crate) proto_names: bool,
    /// Fields without presence are written also with their default value.
    pub(crate) defaults: bool,
    /// Enums as numbers.
    pub(crate) enum_numbers: bool,
}

/// What was too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    Message,
    Depth,
    Fields,
}

#[cfg(any(test, feature = "testing"))]
impl Default for Rules {
    fn default() -> Self {
        Rules {
            max_message: 4 << 20,
            max_depth: 100,
            max_fields: 100_000,
            ignores_unknown: false,
            proto_names: false,
            defaults: false,
            enum_numbers: false,
        }
    }
}
