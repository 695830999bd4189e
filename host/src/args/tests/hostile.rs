//! Schemas that would take a host's time, memory or stack.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jsonschema::{Keyword, ValidationError};
use proptest::prelude::*;
use schemars::JsonSchema;
use serde_json::json;

use super::*;

fn refused(schema: Value) -> String {
    ArgsSchema::compile(schema).map(|_| ()).unwrap_err().to_string()
}

/// `$defs` of `n0` to `n{count}`, and a reference to the first; `make` is told the reference to the next.
fn chain(count: usize, make: impl Fn(Value) -> Value, last: Value) -> Value {
    let next = |n: usize| json!({ "$ref": format!("#/$defs/n{n}") });
    let mut defs = (0..count).map(|n| (format!("n{n}"), make(next(n + 1)))).collect::<BTreeMap<_, _>>();
    defs.insert(format!("n{count}"), last);
    json!({ "$defs": defs, "$ref": "#/$defs/n0" })
}

fn deep(levels: usize, make: impl Fn(Value) -> Value, inmost: Value) -> Value {
    (0..levels).fold(inmost, |inner, _| make(inner))
}

#[test]
fn references_that_multiply_are_refused() {
    for keyword in ["allOf", "anyOf", "oneOf"] {
        let schema = chain(25, |next| json!({ keyword: [next, next] }), json!(true));
        assert!(refused(schema).contains("multiply"));
    }
    let schema = chain(25, |next| json!({ "if": next, "then": next, "else": next }), json!(true));
    assert!(refused(schema).contains("multiply"));
}

#[test]
fn a_long_chain_of_references_is_refused() {
    assert!(
        refused(chain(5_000, |next| next, json!(true))).contains("more than 64 schemas lead to each other")
    );
    assert!(ArgsSchema::compile(chain(60, |next| next, json!(true))).is_ok());
}

#[test]
fn a_cycle_that_goes_nowhere_is_refused() {
    let message = refused(chain(3, |next| json!({ "allOf": [next] }), json!({ "not": { "$ref": "#" } })));
    assert!(message.contains("refers to itself without"), "{message}");
}

#[test]
fn a_schema_that_is_too_much_is_refused() {
    let large = json!({ "description": "x".repeat(bounds::SCHEMA) });
    assert!(refused(large).contains("at most 262144"));
    let nested = deep(40, |inner| json!({ "items": inner }), json!({}));
    assert!(refused(nested).contains("more than 32 lists and objects"));
    let unevaluated = deep(5, |inner| json!({ "unevaluatedProperties": inner }), json!({}));
    assert!(refused(unevaluated).contains("more than 4 of `unevaluated"));
    let inner = (0..10_000).map(|n| (n.to_string(), json!(1))).collect::<BTreeMap<_, _>>();
    let long_names = json!({ "properties": { "x".repeat(100_000): { "const": inner } } });
    assert!(refused(long_names).contains("names are too long"));
}

#[test]
fn a_pattern_takes_linear_time_or_is_refused() {
    for pattern in [r"(?=a)b", r"(a)\1", "(a{1000}){1000}", "("] {
        assert!(refused(json!({ "pattern": pattern })).contains("cannot be used"), "{pattern}");
        assert!(
            refused(json!({ "patternProperties": { pattern: {} } })).contains("cannot be used"),
            "{pattern}"
        );
    }
    // Backtracking would take 2^30 steps.
    let schema = ArgsSchema::compile(json!({ "pattern": "^(a+)+$" })).unwrap();
    assert!(schema.check(&json!(format!("{}b", "a".repeat(30)))).is_err());
    let many = (0..300).map(|n| (format!("^{n}"), json!(true))).collect::<BTreeMap<_, _>>();
    assert!(refused(json!({ "patternProperties": many })).contains("different patterns"));
}

#[test]
fn a_reference_leads_to_a_place_in_the_schema_itself() {
    for reference in ["https://example.com/a", "other#", "#name", "#/$defs/missing", "#/%ff", ""] {
        assert!(refused(json!({ "$ref": reference })).contains("leads to nothing"), "{reference}");
    }
    for schema in [
        json!({ "items": { "$id": "https://example.com/a" } }),
        json!({ "items": { "$anchor": "name" } }),
        json!({ "$dynamicRef": "#" }),
        json!({ "$schema": "https://json-schema.org/draft/2019-09/schema", "$recursiveRef": "#" }),
        json!({ "items": { "$schema": "http://json-schema.org/draft-07/schema" } }),
        json!({ "$schema": "http://json-schema.org/draft-04/schema#", "items": { "id": "http://a/" } }),
    ] {
        assert!(refused(schema.clone()).contains("can not be used here"), "{schema}");
    }
    // Whatever it calls itself, `#` is itself.
    let schema = json!({
        "$id": "https://json-schema.org/draft/2020-12/schema",
        "properties": { "a b": { "$ref": "#/$defs/a%20b" } },
        "$defs": { "a b": { "type": "integer" } },
    });
    assert_eq!(said(&schema, &json!({ "a b": 1 })), "");
    assert_ne!(said(&schema, &json!({ "a b": "1" })), "");
}

#[test]
fn arguments_that_would_be_looked_at_again_and_again_are_refused() {
    let node = json!({ "$ref": "#" });
    let way = json!({ "properties": { "a": node } });
    let args = deep(60, |inner| json!({ "a": inner }), json!({}));
    for schema in [
        json!({ "allOf": [way, way] }),
        json!({ "anyOf": [way, { "additionalProperties": node }] }),
        json!({ "unevaluatedProperties": false, "anyOf": [way] }),
        json!({ "unevaluatedProperties": { "unevaluatedProperties": node, "anyOf": [way] } }),
        json!({ "patternProperties": { "a": node, "^a": node } }),
    ] {
        assert!(said(&schema, &args).contains("looked at many times"), "{schema}");
    }
    let lists = deep(60, |inner| json!([inner]), json!([]));
    for schema in [
        json!({ "items": node, "contains": node }),
        json!({ "contains": node, "minContains": 1, "maxContains": 1 }),
        json!({ "unevaluatedItems": { "unevaluatedItems": node } }),
    ] {
        assert!(said(&schema, &lists).contains("looked at many times"), "{schema}");
    }
}

#[test]
fn problems_are_not_looked_for_where_there_would_be_too_many() {
    let branches = (0..2_000).map(|n| json!({ "const": n })).collect::<Vec<_>>();
    let message = said(&json!({ "anyOf": branches }), &json!({ "text": "x".repeat(500_000) }));
    assert_eq!(message, "they do not fit, and are too large for the schema to say where");
    let names = (0..5_000).map(|n| (format!("{n:0>100}"), json!(1))).collect::<BTreeMap<_, _>>();
    let strict = json!({ "properties": { "a": {} }, "additionalProperties": false });
    let message = said(&strict, &json!(names));
    assert!(message.len() < 3_000 && message.contains("more bytes were cut off"), "{message}");
    // Distances of all of these to each other would take 10^12 steps.
    let properties = (0..1_000).map(|n| (format!("{n:x>200}"), json!(true))).collect::<BTreeMap<_, _>>();
    let names = (0..4_000).map(|n| (format!("{n:y>200}"), json!(1))).collect::<BTreeMap<_, _>>();
    let strict = json!({ "properties": properties, "additionalProperties": false });
    assert!(said(&strict, &json!(names)).contains("more bytes were cut off"));
}

/// The stack of a thread of the host, where schemas are compiled and arguments are checked.
#[test]
fn the_deepest_schemas_and_arguments_fit_on_the_stack_of_a_thread() {
    type Wrap = fn(Value) -> Value;
    const WRAPS: &[(usize, Wrap)] = &[
        (24, |inner| json!({ "items": inner })),
        (24, |inner| json!({ "not": inner })),
        (12, |inner| json!({ "anyOf": [inner, { "type": "null" }] })),
        (12, |inner| json!({ "oneOf": [inner, { "type": "null" }] })),
        (12, |inner| json!({ "allOf": [inner] })),
        (1, |inner| {
            deep(
                4,
                |inner| json!({ "unevaluatedProperties": inner }),
                deep(20, |inner| json!({ "items": inner }), inner),
            )
        }),
        (1, |inner| {
            deep(
                20,
                |inner| json!({ "items": inner }),
                deep(4, |inner| json!({ "unevaluatedItems": inner }), inner),
            )
        }),
        (12, |inner| json!({ "dependentSchemas": { "a": inner }, "unevaluatedProperties": false })),
        (24, |inner| json!({ "additionalProperties": inner, "properties": { "b": {} } })),
        (12, |inner| json!({ "properties": { "a": inner } })),
        (24, |inner| json!({ "contains": inner, "minContains": 1, "maxContains": 3 })),
    ];
    let deepest = || {
        for (levels, wrap) in WRAPS {
            let make = |next: Value| {
                let inner = deep(*levels, wrap, next);
                json!({ "properties": { "a": inner }, "items": inner })
            };
            let schema = ArgsSchema::compile(chain(20, make, json!({ "type": "integer" }))).unwrap();
            for depth in [1, 10, 60] {
                for args in [
                    deep(depth, |inner| json!([inner]), json!("x")),
                    deep(depth, |inner| json!({ "a": inner }), json!("x")),
                ] {
                    let _ = schema.check(&args);
                }
            }
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(deepest).unwrap().join().unwrap();
}

#[derive(JsonSchema)]
#[allow(dead_code)]
enum Expression {
    And(Vec<Expression>),
    Or(Vec<Expression>),
    Not(Box<Expression>),
    Is { column: String, value: Option<i64> },
}

#[derive(JsonSchema)]
#[allow(dead_code)]
struct Tree {
    left: Option<Box<Tree>>,
    right: Option<Box<Tree>>,
    #[serde(flatten)]
    rest: BTreeMap<String, Vec<Tree>>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[allow(dead_code)]
struct Strict {
    #[serde(flatten)]
    tree: Flat,
    inner: Option<Box<Strict>>,
}

#[derive(JsonSchema)]
#[allow(dead_code)]
struct Flat {
    name: Option<String>,
}

#[test]
fn recursive_types_as_schemars_describes_them_are_checked() {
    let expressions = serde_json::to_value(schemars::schema_for!(Vec<Expression>)).unwrap();
    let is = json!({ "Is": { "column": "a", "value": 1 } });
    let nested = deep(10, |inner| json!({ "And": [{ "Or": [inner] }, { "Not": is }] }), is.clone());
    assert_eq!(said(&expressions, &json!([nested, is])), "");
    let args = json!([deep(3, |inner| json!({ "Not": inner }), json!({ "Is": { "column": 1 } }))]);
    assert_ne!(said(&expressions, &args), "");

    let tree = serde_json::to_value(schemars::schema_for!(Tree)).unwrap();
    let args = deep(30, |inner| json!({ "left": inner, "right": {}, "more": [{}, {}] }), json!({}));
    assert_eq!(said(&tree, &args), "");
    let full = deep(12, |inner| json!({ "left": inner, "right": inner }), json!({}));
    assert_eq!(said(&tree, &full), "");

    let strict = serde_json::to_value(schemars::schema_for!(Strict)).unwrap();
    let args = deep(40, |inner| json!({ "name": "a", "inner": inner }), json!({}));
    assert_eq!(said(&strict, &args), "");
    assert_ne!(said(&strict, &json!({ "inner": { "other": 1 } })), "");

    let any = json!({ "anyOf": [
        { "type": ["null", "boolean", "number", "string"] },
        { "type": "array", "items": { "$ref": "#" } },
        { "type": "object", "additionalProperties": { "$ref": "#" } },
    ] });
    assert_eq!(said(&any, &deep(30, |inner| json!({ "a": [inner, 1] }), json!("x"))), "");
}

#[test]
fn large_arguments_are_checked() {
    let schema = json!({ "items": {
        "properties": { "id": { "type": "integer" }, "name": { "pattern": "^[a-z]{1,63}$" } },
        "required": ["id"],
        "additionalProperties": false,
    } });
    let item = |n: usize| json!({ "id": n, "name": "abcdefgh" });
    let mut args = (0..30_000).map(item).collect::<Vec<_>>();
    assert_eq!(said(&schema, &json!(args)), "");
    args.truncate(1_000);
    args[500]["id"] = json!("x");
    assert_eq!(said(&schema, &json!(args)), "/500/id: \"x\" is not of type \"integer\"");
}

/// Counts how often the validator comes by.
struct Counted(Arc<AtomicU64>);

impl<'i> Keyword<'i> for Counted {
    fn validate(&self, _: &'i Value) -> Result<(), ValidationError<'i>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn is_valid(&self, _: &'i Value) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed);
        true
    }
}

fn any_schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({ "counted": 1, "$ref": "#" })),
        (0..4_u32).prop_map(|n| json!({ "counted": 1, "$ref": format!("#/$defs/{n}") })),
        prop::sample::select(&["object", "array", "integer"][..])
            .prop_map(|name| json!({ "counted": 1, "type": name })),
        any::<bool>().prop_map(|is| json!(is)),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let lists = ["allOf", "anyOf", "oneOf", "prefixItems"].map(str::to_owned).to_vec();
        let single = [
            "not",
            "if",
            "then",
            "else",
            "items",
            "contains",
            "additionalProperties",
            "propertyNames",
            "unevaluatedProperties",
            "unevaluatedItems",
        ];
        let single = single.map(str::to_owned).to_vec();
        let list = (prop::sample::select(lists), prop::collection::vec(inner.clone(), 1..3));
        let maps = ["properties", "patternProperties", "dependentSchemas"].map(str::to_owned).to_vec();
        let map = (prop::sample::select(maps), prop::collection::btree_map("[ab]", inner.clone(), 1..3));
        let keyword = prop_oneof![
            list.prop_map(|(keyword, inner)| (keyword, json!(inner))),
            (prop::sample::select(single), inner),
            map.prop_map(|(keyword, inner)| (keyword, json!(inner))),
        ];
        prop::collection::vec(keyword, 1..4).prop_map(|keywords| {
            let mut schema = keywords.into_iter().collect::<serde_json::Map<_, _>>();
            schema.insert("counted".to_owned(), json!(1));
            Value::Object(schema)
        })
    })
}

fn any_args() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(json!(1)), Just(json!("a")), Just(json!(null))];
    leaf.prop_recursive(6, 24, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|items| json!(items)),
            prop::collection::btree_map("[abc]", inner, 0..3).prop_map(|object| json!(object)),
        ]
    })
}

fn any_json() -> impl Strategy<Value = Value> {
    let names = prop_oneof![
        "[a-z]{0,3}",
        prop::sample::select(
            [
                "$ref",
                "$id",
                "$defs",
                "$schema",
                "type",
                "enum",
                "const",
                "pattern",
                "format",
                "items",
                "properties",
                "patternProperties",
                "required",
                "dependentRequired",
                "allOf",
                "not",
                "minimum",
                "multipleOf",
                "uniqueItems",
                "contentEncoding",
                "minContains",
                "unevaluatedProperties",
            ]
            .map(str::to_owned)
            .to_vec()
        ),
    ];
    let leaf = prop_oneof![
        any::<Option<bool>>().prop_map(|is| json!(is)),
        any::<i64>().prop_map(|number| json!(number)),
        any::<f64>().prop_map(|number| json!(number)),
        ".{0,8}".prop_map(|text| json!(text)),
        "#(/(\\$defs|items|a|%[0-9a-f]{2}|~[01]|0)){0,3}".prop_map(|text| json!(text)),
        prop::sample::select(&["object", "array", "string", "base64", "date", "regex"][..])
            .prop_map(|t| json!(t)),
    ];
    leaf.prop_recursive(6, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| json!(items)),
            prop::collection::btree_map(names.clone(), inner, 0..5).prop_map(|object| json!(object)),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_json_as_a_schema_and_as_arguments_has_an_answer(schema in any_json(), args in any_json()) {
        let _ = check_args(Some(&schema), &args);
    }

    /// What [`cost`] is for: the validator does no more than was counted before.
    #[test]
    fn the_validator_takes_no_more_steps_than_were_counted(
        defs in prop::collection::vec(any_schema(), 4),
        root in any_schema(),
        args in any_args(),
    ) {
        let mut schema = root;
        prop_assume!(schema.is_object());
        schema["$defs"] = defs.into_iter().enumerate().map(|(n, def)| (n.to_string(), def)).collect();
        let Ok(compiled) = ArgsSchema::compile(schema.clone()) else { return Ok(()) };
        let Ok(steps) = cost::count(&schema, &compiled.patterns, &args, cost::Purpose::Check) else { return Ok(()) };
        let visits = Arc::new(AtomicU64::new(0));
        let counter = visits.clone();
        let validator = jsonschema::options()
            .with_pattern_options(bounded::patterns())
            .with_keyword("counted", move |_: &serde_json::Map<String, Value>, _: &Value, _| {
                Ok(Box::new(Counted(counter.clone())) as Box<dyn for<'i> Keyword<'i>>)
            })
            .build(&schema)
            .unwrap();
        let _ = validator.is_valid(&args);
        prop_assert!(visits.swap(0, Ordering::Relaxed) <= steps);
        let Ok(steps) = cost::count(&schema, &compiled.patterns, &args, cost::Purpose::Explain) else { return Ok(()) };
        let errors = validator.iter_errors(&args).count() as u64;
        let visits = visits.load(Ordering::Relaxed);
        prop_assert!(visits + errors <= 4 * steps, "{visits} visits and {errors} errors in {steps} steps");
    }
}
