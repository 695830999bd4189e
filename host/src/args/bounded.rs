//! What a schema may be, so that compiling it has a bounded cost: its size, its nesting, the
//! references in it and the patterns.
//!
//! A reference that is followed *in place* (from `allOf`, `anyOf`, `not` and the like, or directly)
//! looks at the same value again. Those may not form a cycle, and all that are reached in place from each
//! schema, counted once for each path, are bounded. References from the schemas of properties and items
//! may form cycles, as recursive types do: what those cost depends on the arguments, and
//! [`cost`](super::cost) counts it.

use std::collections::{HashMap, HashSet};

use jsonschema::PatternOptions;
use serde_json::{Map, Value, json};

use super::keywords::{beneath, in_place};
use crate::bounds::{self, SCHEMA};

/// Lists and objects of a schema within each other. The validator compiles up to eight schemas that refer
/// to each other on one stack, each as deep as this.
pub const NESTING: usize = 32;
/// Of them, those below `unevaluatedProperties` or `unevaluatedItems`, which take the most stack.
const UNEVALUATED: usize = 4;
/// Schemas that lead to each other in place.
pub const CHAIN: usize = 64;
/// Bytes of the JSON pointers of all values in a schema: the validator keeps one for each of its parts.
const POINTERS: usize = 16 << 20;
/// Schemas that are reached in place, summed over all schemas: as many may be compiled.
const IN_PLACE: u64 = 50_000;
/// Bytes of one pattern.
const PATTERN: usize = 1024;
/// Different patterns of a schema.
const PATTERNS: usize = 200;
/// Bytes that a compiled pattern may take, and what one byte of a text costs that is held against it: at
/// worst, a visit to each state.
const COMPILED: [(usize, u64); 3] = [(4 << 10, 1), (16 << 10, 4), (64 << 10, 16)];

/// A pattern of at most this many bytes, compiled, in linear time for each text.
pub fn patterns() -> PatternOptions<jsonschema::Regex> {
    patterns_within(COMPILED[COMPILED.len() - 1].0)
}

fn patterns_within(bytes: usize) -> PatternOptions<jsonschema::Regex> {
    PatternOptions::regex().size_limit(bytes).dfa_size_limit(1 << 20)
}

/// What a byte of text costs at each pattern.
pub type Patterns = HashMap<String, u64>;

/// Looks at a schema before it is compiled.
///
/// # Errors
/// What makes it cost too much, or hides what it costs.
pub fn bounded(schema: &Value) -> Result<Patterns, String> {
    let bytes = schema.to_string().len();
    if bytes > SCHEMA {
        return Err(format!("it {}", bounds::too_large(bytes, SCHEMA)));
    }
    look_at_values(schema)?;
    let mut reached = Reached { root: schema, counted: HashMap::new(), total: 0, found: Vec::new() };
    reached.in_place(schema, 0)?;
    let mut patterns = Patterns::new();
    while let Some(object) = reached.found.pop() {
        add_patterns(object, &mut patterns)?;
        for (_, schema) in beneath(object) {
            reached.in_place(schema, 0)?;
        }
    }
    Ok(patterns)
}

/// Nesting, pointers, and keywords that would make a reference lead elsewhere than its text says.
fn look_at_values(schema: &Value) -> Result<(), String> {
    let draft_4 = schema.get("$schema").and_then(Value::as_str).is_some_and(|uri| uri.contains("draft-04"));
    let mut pointers = 0_usize;
    let mut values = vec![(schema, 0_usize, 0_usize, 0_usize)];
    while let Some((value, depth, pointer, unevaluated)) = values.pop() {
        pointers = pointers.saturating_add(pointer);
        if pointers > POINTERS {
            return Err("its names are too long for the number of values below them".to_owned());
        }
        if (value.is_object() || value.is_array()) && depth >= NESTING {
            return Err(format!("it has more than {NESTING} lists and objects within each other"));
        }
        if unevaluated > UNEVALUATED {
            return Err(format!("it has more than {UNEVALUATED} of `unevaluated…` within each other"));
        }
        match value {
            Value::Array(items) => {
                values.extend(items.iter().map(|item| (item, depth + 1, pointer + 4, unevaluated)));
            }
            Value::Object(object) => {
                if let Some(keyword) = elsewhere(object, depth == 0, draft_4) {
                    return Err(format!(
                        "`{keyword}` can not be used here: write references as `#/$defs/NAME`"
                    ));
                }
                values.extend(object.iter().map(|(name, value)| {
                    let unevaluated =
                        unevaluated + usize::from(name.starts_with("unevaluated") && value.is_object());
                    (value, depth + 1, pointer + name.len() + 1, unevaluated)
                }));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A keyword that gives a schema another address, or refers by what calls it.
fn elsewhere(object: &Map<String, Value>, root: bool, draft_4: bool) -> Option<&'static str> {
    const ANYWHERE: &[&str] = &["$dynamicRef", "$recursiveRef", "$anchor", "$dynamicAnchor"];
    const BELOW: &[&str] = &["$id", "$schema"];
    let has = |keyword: &&&str| object.get(**keyword).is_some_and(Value::is_string);
    let mut keywords = ANYWHERE.iter().chain(if root { &[] } else { BELOW });
    let id = !root && draft_4 && has(&&"id");
    keywords.find(has).copied().or(id.then_some("id"))
}

/// How many schemas are reached from each, in place.
struct Reached<'s> {
    root: &'s Value,
    /// By address: none while its own are being counted.
    counted: HashMap<*const Value, Option<Count>>,
    total: u64,
    found: Vec<&'s Map<String, Value>>,
}

#[derive(Clone, Copy)]
struct Count {
    schemas: u64,
    longest: usize,
}

impl<'s> Reached<'s> {
    /// Each schema is counted once, so this takes no longer than the schema is, whatever the counts.
    fn in_place(&mut self, schema: &'s Value, depth: usize) -> Result<Count, String> {
        let mut count = Count { schemas: 1, longest: 1 };
        let Value::Object(object) = schema else { return Ok(count) };
        match self.counted.get(&std::ptr::from_ref(schema)) {
            Some(Some(count)) => return Ok(*count),
            Some(None) => {
                return Err("it refers to itself without going to a property or an item of the value: \
                            such a reference says nothing"
                    .to_owned());
            }
            None => {}
        }
        let too_long = || format!("more than {CHAIN} schemas lead to each other for one value");
        if depth >= CHAIN {
            return Err(too_long());
        }
        self.counted.insert(std::ptr::from_ref(schema), None);
        self.found.push(object);
        for (_, inner) in in_place(self.root, object)? {
            let inner = self.in_place(inner, depth + 1)?;
            count.schemas = count.schemas.saturating_add(inner.schemas);
            count.longest = count.longest.max(inner.longest + 1);
        }
        if count.longest > CHAIN {
            return Err(too_long());
        }
        self.total = self.total.saturating_add(count.schemas);
        if self.total > IN_PLACE {
            return Err(format!(
                "its references multiply: more than {IN_PLACE} schemas would be looked at for one value"
            ));
        }
        self.counted.insert(std::ptr::from_ref(schema), Some(count));
        Ok(count)
    }
}

fn add_patterns(schema: &Map<String, Value>, patterns: &mut Patterns) -> Result<(), String> {
    let names = schema.get("patternProperties").and_then(Value::as_object);
    let names = names.into_iter().flat_map(Map::keys).map(String::as_str);
    let own = schema.get("pattern").and_then(Value::as_str);
    let new = own.into_iter().chain(names).collect::<HashSet<_>>();
    for pattern in new {
        if patterns.contains_key(pattern) {
            continue;
        }
        if patterns.len() >= PATTERNS {
            return Err(format!("it has more than {PATTERNS} different patterns"));
        }
        if pattern.len() > PATTERN {
            return Err(format!("a pattern {}", bounds::too_large(pattern.len(), PATTERN)));
        }
        let schema = json!({ "pattern": pattern });
        let fits = |bytes: usize| {
            let options = jsonschema::options().offline().with_pattern_options(patterns_within(bytes));
            options.build(&schema).is_ok()
        };
        let Some((_, cost)) = COMPILED.into_iter().find(|(bytes, _)| fits(*bytes)) else {
            return Err(format!(
                "the pattern {} cannot be used: it is none, it is too large, or it needs what takes more than linear \
                 time (look-around, back references)",
                super::shortened(&json!(pattern))
            ));
        };
        patterns.insert(pattern.to_owned(), cost);
    }
    Ok(())
}
