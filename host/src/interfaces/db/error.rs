//! What a guest is told when something goes wrong, the same on both engines.

use super::{Error, ErrorKind};

/// An error of the host's own: no code of a database, only words.
pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
    Error {
        kind,
        message: message.into(),
        code: None,
        detail: None,
        hint: None,
        constraint: None,
        position: None,
    }
}
