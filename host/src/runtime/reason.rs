//! Errors of wasmtime's, in words for whoever wrote the component.

/// The innermost reason, which names the thing; what stands around it is wasmtime's own.
pub(super) fn reason(error: &wasmtime::Error) -> String {
    error.root_cause().to_string()
}
