//! Which schemas a schema leads to. Of all drafts together: what a draft does not know, it passes over, so
//! nothing is missed.

use serde_json::{Map, Value};

/// Bytes of a reference.
const REFERENCE: usize = 1024;

/// A keyword, and a schema in it.
pub type Inner<'s> = (&'s str, &'s Value);

/// The schemas that look at the same value as `schema` does.
///
/// # Errors
/// A reference that leads nowhere, or to another document.
pub fn in_place<'s>(root: &'s Value, schema: &'s Map<String, Value>) -> Result<Vec<Inner<'s>>, String> {
    let mut inner = Vec::new();
    for (keyword, value) in schema {
        let keyword = keyword.as_str();
        match (keyword, value) {
            ("$ref", Value::String(reference)) => {
                let target = target(root, reference).ok_or_else(|| {
                    format!(
                        "the reference {} leads to nothing: what can be used is `#`, and `#/$defs/NAME` or \
                         another place in the schema itself",
                        super::shortened(value)
                    )
                })?;
                inner.push((keyword, target));
            }
            ("allOf" | "anyOf" | "oneOf", Value::Array(schemas)) => {
                inner.extend(schemas.iter().map(|schema| (keyword, schema)));
            }
            ("not" | "if" | "then" | "else", schema) => inner.push((keyword, schema)),
            ("dependentSchemas" | "dependencies", Value::Object(schemas)) => {
                inner.extend(
                    schemas.values().filter(|schema| !schema.is_array()).map(|schema| (keyword, schema)),
                );
            }
            _ => {}
        }
    }
    Ok(inner)
}

/// The schemas that look at properties, their names, and items.
pub fn beneath(schema: &Map<String, Value>) -> Vec<Inner<'_>> {
    let mut inner = Vec::new();
    for (keyword, value) in schema {
        let keyword = keyword.as_str();
        match (keyword, value) {
            ("properties" | "patternProperties", Value::Object(schemas)) => {
                inner.extend(schemas.values().map(|schema| (keyword, schema)));
            }
            ("prefixItems" | "items", Value::Array(schemas)) => {
                inner.extend(schemas.iter().map(|schema| (keyword, schema)));
            }
            (
                "items"
                | "additionalItems"
                | "contains"
                | "unevaluatedItems"
                | "additionalProperties"
                | "propertyNames"
                | "unevaluatedProperties"
                | "contentSchema",
                schema,
            ) => inner.push((keyword, schema)),
            _ => {}
        }
    }
    inner
}

/// Where a reference leads within the schema (RFC 6901, section 6).
fn target<'s>(root: &'s Value, reference: &str) -> Option<&'s Value> {
    let pointer = reference.strip_prefix('#')?;
    if reference.len() > REFERENCE || !(pointer.is_empty() || pointer.starts_with('/')) {
        return None;
    }
    root.pointer(&percent_decoded(pointer)?)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}
