//! "Did you mean …?"
//!
//! Pure.

/// Nobody mistypes a name in a longer text: bytes.
const LONGEST: usize = 200;

/// The candidate that a person most likely meant by `text`, if one is near enough.
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The text may be a guest's, and comparing takes time and memory by its length.
    if text.len() > LONGEST {
        return None;
    }
    let lower = text.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().min(text.len()).div_ceil(3))
        .min()
        .map(|(_, candidate)| candidate)
}

/// `; did you mean `…`?`, or nothing.
#[must_use]
pub fn hint<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(text, candidates).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised_and_another_word_is_not() {
        assert_eq!(nearest("shedule", ["schedule", "handler"]), Some("schedule"));
        assert_eq!(nearest("Handler", ["schedule", "handler"]), Some("handler"));
        assert_eq!(nearest("colour", ["schedule", "handler"]), None);
    }
}
