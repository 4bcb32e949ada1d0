//! JSON as text: pulled token by token (RFC 8259 to the letter, nothing more), and written. Builds no tree; knows no
//! messages.

mod read;
mod write;

pub(crate) use read::{Reader, Wrong};
pub(crate) use write::{number, string};
