//! Which parts of a full document's grammar this build has. Each is `true` as soon as its keys are in the grammar; when
//! all are, this file goes.

/// `[identity]`, `listener.mesh`, `upstream.mesh`.
pub(super) const IDENTITY: bool = false;
/// `listener.protocol` "tcp" and "detect", `listener.forward`, `listener.capture`, `upstream.endpoints = "original"`.
pub(super) const BYTES: bool = false;
/// `upstream.service = "*"`.
pub(super) const LEARN: bool = false;
/// `[[access]]`, and the filter `access`.
pub(super) const ACCESS: bool = false;
