//! The normal form of a path, and patterns over it. (interfaces; bodies follow)

/// One segment of a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Segment {
    /// In normal form, without slashes.
    Literal(String),
    /// `{name}`: exactly one non-empty segment.
    Capture(String),
}

/// `/orders/{id}/*`: literal segments, captures of one segment, and optionally everything below.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathPattern {
    pub segments: Vec<Segment>,
    /// A trailing `/*`: the path itself and all below it.
    pub rest: bool,
    /// The pattern ends in `/` (and is not just `/`): only the path with that slash matches.
    pub trailing_slash: bool,
}
