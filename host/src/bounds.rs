//! How much of what a handler says is kept.
//!
//! Without bounds one handler could fill the host's memory or its store. What is for people
//! (messages, log fields) is cut and says so; what a program reads later (results, arguments,
//! checkpoints) is refused, since half of it would be wrong.
//!
//! Pure.

use serde_json::Value;

/// Bytes of a message.
pub const MESSAGE: usize = 64 * 1024;

/// Bytes of one field of a log line, as JSON.
pub const FIELD: usize = 16 * 1024;

/// Bytes of a field's name.
pub const FIELD_NAME: usize = 256;

/// Fields of one log line.
pub const FIELDS: usize = 64;

/// Bytes of a result, of arguments, of a checkpoint.
pub const DOCUMENT: usize = 1024 * 1024;

/// Handlers of a component.
pub const HANDLERS: usize = 1_000;

/// Bytes of what a component says of all of its handlers.
pub const DESCRIPTION: usize = 1024 * 1024;

/// Bytes of the JSON Schema of a handler's arguments.
pub const SCHEMA: usize = 256 * 1024;

/// Lists and objects within each other. `serde_json` reads 127 and no more, and the store and
/// the command line put the values into other documents.
pub const NESTING: usize = 64;

/// Shortens `text` to at most `most` bytes, with a mark that says how much is gone.
#[must_use]
pub fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        let end = text.floor_char_boundary(most);
        let gone = text.len() - end;
        text.truncate(end);
        text.push_str(&format!("… [{gone} more bytes were cut off]"));
    }
    text
}

/// Reads a result, arguments or a checkpoint.
///
/// # Errors
/// The end of a sentence that begins with what the document is.
pub fn document(text: &str) -> Result<Value, String> {
    if text.len() > DOCUMENT {
        return Err(too_large(text.len(), DOCUMENT));
    }
    let nesting = nesting(text);
    if nesting > NESTING {
        return Err(format!(
            "has lists and objects within each other, {nesting} deep, and at most {NESTING} are kept"
        ));
    }
    serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))
}

/// What is said of a document that is too large, as [`document`] says it.
#[must_use]
pub fn too_large(bytes: usize, most: usize) -> String {
    format!("has {bytes} bytes, and at most {most} are kept")
}

/// Reads a field of a log line. One that is not JSON, or too much, is kept as text: a log
/// line is never refused.
#[must_use]
pub fn field(json: String) -> Value {
    if json.len() <= FIELD
        && nesting(&json) <= NESTING
        && let Ok(value) = serde_json::from_str(&json)
    {
        return value;
    }
    Value::String(cut(json, FIELD))
}

/// How deep the lists and objects of a JSON text are within each other. Looks at the text,
/// because the parser gives up on a deep one with an error of its own.
fn nesting(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> String {
        "[".repeat(depth) + &"]".repeat(depth)
    }

    #[test]
    fn a_text_is_cut_between_characters_and_says_how_much_is_gone() {
        assert_eq!(cut("żółw".to_owned(), 7), "żółw");
        assert_eq!(cut("żółw".to_owned(), 5), "żó… [3 more bytes were cut off]");
    }

    #[test]
    fn a_document_is_bounded_in_size_and_nesting() {
        assert!(document(&nested(NESTING)).is_ok());
        for depth in [NESTING + 1, 128, 100_000] {
            let error = document(&nested(depth)).unwrap_err();
            assert!(error.contains(&format!("{depth} deep")), "{error}");
        }
        let just = format!("\"{}\"", "x".repeat(DOCUMENT - 2));
        assert!(document(&just).is_ok());
        let error = document(&format!("{just} ")).unwrap_err();
        assert!(error.contains("1048577 bytes") && error.contains("1048576"), "{error}");
        assert!(document("{").unwrap_err().starts_with("is not JSON"));
    }

    #[test]
    fn brackets_in_strings_do_not_nest() {
        let text = format!(r#"{{"a\"{}": "{}\\", "b": [1]}}"#, "[".repeat(200), "{".repeat(200));
        assert_eq!(nesting(&text), 2);
        assert!(document(&text).is_ok());
    }

    #[test]
    fn a_field_that_is_no_json_or_too_much_is_kept_as_text() {
        assert_eq!(field("[1]".to_owned()), serde_json::json!([1]));
        assert_eq!(field("oops".to_owned()), "oops");
        assert_eq!(field(nested(100)), nested(100).as_str());
        let large = field(format!("\"{}\"", "x".repeat(FIELD)));
        assert!(large.as_str().is_some_and(|text| text.ends_with("[2 more bytes were cut off]")), "{large}");
    }
}
