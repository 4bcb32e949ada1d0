//! Parts of a full document that a short one implies where the grammar has them. What a short file asks for itself is
//! never left out: a key that the grammar does not know is refused by whoever reads the full document.

use crate::grammar::{Kind, sections};

/// `upstream.service = "*"`.
pub(super) fn learns() -> bool {
    sections::UPSTREAM.key("learn").is_some()
}

/// `control_plane.kind`.
pub(super) fn has_kinds() -> bool {
    let top = sections::TOP.iter().find(|top| top.name == "control_plane");
    let section = top.and_then(|top| top.section);
    section.is_some_and(|section| section.key("kind").is_some())
}

/// `[[access]]`, and the filter `access`.
pub(super) fn has_access() -> bool {
    let access = sections::FILTER.key("access");
    access.is_some_and(|key| !matches!(key.kind, Kind::Later))
}
