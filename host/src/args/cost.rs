//! What it costs to hold arguments against a schema, counted before it is done.
//!
//! The validator follows references wherever they lead, and a schema can have the same part of
//! the arguments looked at again and again: two ways into a recursive type are exponential in the depth of the
//! arguments. So the same walk is done here first, with everything taken to be looked at (no alternative ends
//! it, every pattern matches), and nothing done but counting. It ends at a number of steps, so it is bounded itself;
//! where it gets to the end, the validator does not take more than that times a constant.

use serde_json::{Map, Value};

use super::bounded::Patterns;
use super::keywords::in_place;

/// Steps of one check: about those of a megabyte of small values against a rich schema.
const STEPS: u64 = 4_000_000;
/// Steps that may be made to find out what does not fit. Each may become a message, with a copy of the value.
const EXPLAINED: u64 = 250_000;
/// Calls within each other: the validator's take several times the stack of these.
pub const DEPTH: u32 = 300;

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Whether they fit.
    Check,
    /// What does not.
    Explain,
}

/// Counts the steps.
///
/// # Errors
/// What there is too much of.
pub fn count(schema: &Value, patterns: &Patterns, args: &Value, purpose: Purpose) -> Result<u64, String> {
    let most = if purpose == Purpose::Check { STEPS } else { EXPLAINED };
    let mut walk = Walk { root: schema, patterns, purpose, left: most };
    let start = At { depth: 0, weight: 1, pointer: 0, alternative: false, marking: false };
    walk.visit(schema, args, start)?;
    Ok(most - walk.left)
}

struct Walk<'s> {
    root: &'s Value,
    patterns: &'s Patterns,
    purpose: Purpose,
    left: u64,
}

#[derive(Clone, Copy)]
struct At {
    depth: u32,
    /// How often the validator is here: it asks whether each alternative fits before it looks for what
    /// does not, at each level of alternatives.
    weight: u64,
    /// Bytes of the path of the value.
    pointer: usize,
    /// Messages from here have copies of the values.
    alternative: bool,
    /// The validator is here to find what was evaluated.
    marking: bool,
}

impl At {
    fn beneath(self, name: usize) -> Self {
        Self { depth: self.depth + 1, pointer: self.pointer + name + 1, marking: false, ..self }
    }

    /// In a schema whose `keyword` looks at a property or item.
    fn within(self, keyword: &str) -> Self {
        let times = match keyword {
            // What was evaluated is looked for with them, and then what was not.
            "unevaluatedProperties" | "unevaluatedItems" => 3,
            // `minContains` and `maxContains` each count for themselves.
            "contains" => 2,
            _ => 1,
        };
        Self { weight: self.weight.saturating_mul(times), ..self }
    }

    fn in_place(self, keyword: &str) -> Self {
        let alternative = matches!(keyword, "anyOf" | "oneOf");
        let weight = self.weight + u64::from(alternative) + u64::from(self.marking);
        Self { depth: self.depth + 1, weight, alternative: self.alternative || alternative, ..self }
    }
}

impl Walk<'_> {
    fn spend(&mut self, steps: u64) -> Result<(), String> {
        match self.left.checked_sub(steps) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(format!(
                "it takes more than {STEPS} steps to hold these arguments against it: it has the same parts of them \
                 looked at many times, or they are too large for it"
            )),
        }
    }

    fn visit(&mut self, schema: &Value, value: &Value, at: At) -> Result<(), String> {
        if at.depth > DEPTH {
            return Err(format!(
                "more than {DEPTH} of its schemas would be within each other for these arguments"
            ));
        }
        let Value::Object(schema) = schema else { return self.spend(at.weight) };
        let steps = self.own(schema, value, at)?;
        self.spend(steps.saturating_mul(at.weight))?;
        let inner = in_place(self.root, schema)?;
        for (keyword, inner) in &inner {
            self.visit(inner, value, at.in_place(keyword))?;
        }
        // What the others have evaluated is found by going through them again.
        for keyword in ["unevaluatedProperties", "unevaluatedItems"] {
            if schema.contains_key(keyword) {
                let at = At { marking: true, ..at };
                inner
                    .iter()
                    .try_for_each(|(keyword, inner)| self.visit(inner, value, at.in_place(keyword)))?;
            }
        }
        match value {
            Value::Object(object) => self.properties(schema, object, at),
            Value::Array(items) => self.items(schema, items, at),
            _ => Ok(()),
        }
    }

    /// The steps of the keywords that have no schemas.
    fn own(&mut self, schema: &Map<String, Value>, value: &Value, at: At) -> Result<u64, String> {
        let mut steps = 1 + schema.len() as u64;
        for keyword in ["enum", "const", "required", "dependentRequired", "dependencies"] {
            if let Some(listed) = schema.get(keyword) {
                steps += self.weigh(listed)? / 8;
            }
        }
        match value {
            Value::String(text) => {
                let pattern = schema.get("pattern").and_then(Value::as_str);
                let each =
                    pattern.and_then(|pattern| self.patterns.get(pattern)).copied().unwrap_or_default();
                let bytes = text.len() as u64;
                steps = steps.saturating_add(bytes.saturating_mul(each)).saturating_add(bytes / 16);
            }
            Value::Array(items) if schema.get("uniqueItems") == Some(&Value::Bool(true)) => {
                // Lists within lists can all have the same hash.
                let nested = items.iter().any(|item| item.is_array() || item.is_object());
                let pairs = if nested { items.len() as u64 / 8 } else { 1 };
                steps = steps.saturating_add(self.weigh(value)?.saturating_mul(pairs.max(16)));
            }
            Value::Array(items) => steps += items.len() as u64 / 8,
            Value::Object(object) => {
                let described = schema.get("properties").and_then(Value::as_object).map_or(0, Map::len);
                steps += object.len() as u64 + described as u64 / 4;
            }
            _ => {}
        }
        if self.purpose == Purpose::Explain {
            steps = steps.saturating_mul(1 + at.pointer as u64 / 100);
            if at.alternative {
                steps = steps.saturating_mul(self.weigh(value)?);
            }
        }
        Ok(steps)
    }

    fn properties(
        &mut self,
        schema: &Map<String, Value>,
        object: &Map<String, Value>,
        at: At,
    ) -> Result<(), String> {
        let objects = |keyword: &str| schema.get(keyword).and_then(Value::as_object);
        let described = objects("properties");
        for (name, value) in object {
            if let Some(inner) = described.and_then(|described| described.get(name)) {
                self.visit(inner, value, at.beneath(name.len()))?;
            }
        }
        for (pattern, inner) in objects("patternProperties").into_iter().flatten() {
            let each = self.patterns.get(pattern).copied().unwrap_or_default();
            for (name, value) in object {
                // For itself, and for what is additional or not evaluated.
                let tried = (1 + name.len() as u64).saturating_mul(each).saturating_mul(3);
                self.spend(tried.saturating_mul(at.weight))?;
                self.visit(inner, value, at.beneath(name.len()))?;
            }
        }
        for keyword in ["additionalProperties", "unevaluatedProperties"] {
            let Some(inner) = schema.get(keyword) else { continue };
            let is_described = |name: &str| described.is_some_and(|described| described.contains_key(name));
            for (name, value) in object.iter().filter(|(name, _)| !is_described(name)) {
                self.visit(inner, value, at.beneath(name.len()).within(keyword))?;
            }
        }
        if let Some(inner) = schema.get("propertyNames") {
            for name in object.keys() {
                self.visit(inner, &Value::String(name.clone()), at.beneath(name.len()))?;
            }
        }
        Ok(())
    }

    fn items(&mut self, schema: &Map<String, Value>, items: &[Value], at: At) -> Result<(), String> {
        for keyword in ["prefixItems", "items"] {
            let inner = schema.get(keyword).and_then(Value::as_array);
            for (inner, item) in inner.into_iter().flatten().zip(items) {
                self.visit(inner, item, at.beneath(0))?;
            }
        }
        for keyword in ["items", "additionalItems", "contains", "unevaluatedItems"] {
            let Some(inner) = schema.get(keyword).filter(|inner| !inner.is_array()) else { continue };
            let at = at.beneath(0).within(keyword);
            items.iter().try_for_each(|item| self.visit(inner, item, at))?;
        }
        Ok(())
    }

    /// The values in a value, long texts as several; looking at them is counted as well.
    fn weigh(&mut self, value: &Value) -> Result<u64, String> {
        let mut values = vec![value];
        let mut weight = 0_u64;
        while let Some(value) = values.pop() {
            weight += 1;
            match value {
                Value::String(text) => weight += text.len() as u64 / 64,
                Value::Array(items) => values.extend(items),
                Value::Object(object) => {
                    for (name, value) in object {
                        weight += name.len() as u64 / 64;
                        values.push(value);
                    }
                }
                _ => {}
            }
        }
        self.spend(weight / 8)?;
        Ok(weight)
    }
}
