//! Free values of the file: a job's arguments become JSON, a plugin's configuration becomes
//! dotted keys with text.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::Document;
use super::error::Location;
use super::table::{Entry, integer};

/// A job's `spec` is kept as JSON text, whose reader gives up at a depth of 128.
const DEEPEST: usize = 64;

/// Where each argument stands, by JSON pointer.
pub(super) type ArgPlaces = BTreeMap<String, ArgPlace>;

/// Where an argument stands, and whether messages may show it.
#[derive(Clone, Debug)]
pub(super) struct ArgPlace {
    pub(super) location: Location,
    /// It may hold what only the environment knows.
    pub(super) expanded: bool,
}

/// The JSON of a value. Dates and times become text as RFC 3339 writes them.
pub(super) fn to_json(doc: &Document<'_>, entry: &Entry<'_>, places: &mut ArgPlaces) -> Value {
    Json { doc, places }.value(entry.value, entry.at(), "", 0)
}

struct Json<'d, 'a> {
    doc: &'d Document<'a>,
    places: &'d mut ArgPlaces,
}

impl<'a> Json<'_, 'a> {
    /// What cannot be JSON is noted, and `null` stands in its place.
    fn value(&mut self, value: &Spanned<DeValue<'_>>, at: usize, pointer: &str, depth: usize) -> Value {
        let mut place = ArgPlace { location: self.doc.location(at), expanded: false };
        if depth > DEEPEST {
            self.doc.error(at, format!("arguments may be nested {DEEPEST} deep at most"));
            return Value::Null;
        }
        let json = match value.get_ref() {
            DeValue::String(text) => match self.doc.expand(text, value.span()) {
                Some(text) => {
                    place.expanded = text.expanded;
                    Value::String(text.value().to_owned())
                }
                None => Value::Null,
            },
            DeValue::Integer(_) => self.number(integer(value.get_ref()).and_then(Number::from_i128), at),
            DeValue::Float(float) => self.number(float.as_str().parse().ok().and_then(Number::from_f64), at),
            DeValue::Boolean(value) => Value::Bool(*value),
            DeValue::Datetime(time) => Value::String(time.to_string()),
            DeValue::Array(array) => {
                let item = |(index, item): (usize, &Spanned<DeValue<'_>>)| {
                    self.value(item, item.span().start, &format!("{pointer}/{index}"), depth + 1)
                };
                Value::Array(array.iter().enumerate().map(item).collect())
            }
            DeValue::Table(table) => Value::Object(self.object(table, pointer, depth)),
        };
        self.places.insert(pointer.to_owned(), place);
        json
    }

    fn object(&mut self, table: &DeTable<'_>, pointer: &str, depth: usize) -> Map<String, Value> {
        let mut object = Map::new();
        for (key, value) in table {
            let name = key.get_ref();
            // RFC 6901, 3.
            let pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
            let at = if value.get_ref().is_table() { key.span().start } else { value.span().start };
            object.insert(name.to_string(), self.value(value, at, &pointer, depth + 1));
        }
        object
    }

    fn number(&self, number: Option<Number>, at: usize) -> Value {
        number.map_or_else(
            || {
                self.doc.error(at, "JSON has no such number: use a finite one, integers within 64 bits");
                Value::Null
            },
            Value::Number,
        )
    }
}

/// What `wasi:config` serves: the tables' keys joined by dots, and every value as text.
/// An array is given as its JSON text, since the interface has nothing but strings.
pub(super) fn to_dotted(entry: &Entry<'_>, doc: &Document<'_>) -> BTreeMap<String, String> {
    let mut dotted = BTreeMap::new();
    match entry.value.get_ref() {
        DeValue::Table(table) => add_dotted(doc, table, "", &mut dotted),
        _ => entry.wrong("a table, such as { table = \"sessions\" }"),
    }
    dotted
}

fn add_dotted(doc: &Document<'_>, table: &DeTable<'_>, prefix: &str, dotted: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        let name = format!("{prefix}{}", key.get_ref());
        let at = value.span().start;
        let text = match value.get_ref() {
            DeValue::Table(table) => {
                // Inline tables and dotted keys are limited by the parser to 80 levels each.
                add_dotted(doc, table, &format!("{name}."), dotted);
                continue;
            }
            DeValue::String(text) => {
                doc.expand(text, value.span()).map(|text| text.value().to_owned()).unwrap_or_default()
            }
            DeValue::Integer(_) => {
                integer(value.get_ref()).map(|value| value.to_string()).unwrap_or_else(|| {
                    doc.error(at, "the number is too large");
                    String::new()
                })
            }
            DeValue::Float(float) => float.as_str().to_owned(),
            DeValue::Boolean(value) => value.to_string(),
            DeValue::Datetime(time) => time.to_string(),
            DeValue::Array(_) => {
                Json { doc, places: &mut ArgPlaces::new() }.value(value, at, "", 0).to_string()
            }
        };
        if dotted.insert(name.clone(), text).is_some() {
            doc.error(key.span().start, format!("`{name}` is given twice, once with a dot in its name"));
        }
    }
}
