//! What a file is.

use serde::Serialize;

use super::LoadError;

/// The two kinds of WebAssembly files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// What plugins are built as.
    Component,
    /// What older toolchains build: a component is made of it.
    CoreModule,
}

/// The preamble says it: magic, version, layer (component-model/design/mvp/Binary.md).
///
/// # Errors
/// Where it is neither.
pub(in crate::runtime) fn of_file(bytes: &[u8]) -> Result<Form, NotWasm> {
    match bytes.get(..8) {
        Some([0, b'a', b's', b'm', _, _, 1, 0]) => Ok(Form::Component),
        Some([0, b'a', b's', b'm', _, _, 0, 0]) => Ok(Form::CoreModule),
        _ => Err(NotWasm),
    }
}

/// Something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::runtime) struct NotWasm;

impl From<NotWasm> for LoadError {
    fn from(_: NotWasm) -> Self {
        Self::NotWasm
    }
}
