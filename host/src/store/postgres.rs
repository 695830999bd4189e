//! t
pub(super) fn statements() -> Vec<(&'static str, &'static str)> {
    Vec::new()
}
