//! Components that are small and want much: by how many there are of a thing, or how deep it is.

use std::fmt::Write as _;

use crate::fuzz::bytes::Random;

/// One of each kind, with `n` of its thing.
pub(super) fn all(n: usize) -> Vec<Vec<u8>> {
    KINDS.iter().filter_map(|kind| wat::parse_str(kind(n)).ok()).collect()
}

/// One of any kind and size.
pub(super) fn any(random: &mut Random) -> Vec<u8> {
    let n = 1 << random.u32(..13);
    // What the text format itself refuses is no component.
    wat::parse_str(KINDS[random.usize(..KINDS.len())](n)).unwrap_or_default()
}

const KINDS: &[fn(usize) -> String] = &[
    |n| repeated("(core module (memory 1))", n),
    |n| format!("(component (core module $m (memory {n} 65536)) (core instance (instantiate $m)))"),
    |n| format!("(component (core module $m (table {n} funcref)) (core instance (instantiate $m)))"),
    |n| format!("(component (core module $m (memory 1)) {})", "(core instance (instantiate $m))".repeat(n)),
    |n| format!("(component (component $c) {})", "(instance (instantiate $c))".repeat(n)),
    doubling,
    |n| format!("{}{}", "(component ".repeat(n), ")".repeat(n)),
    |n| format!("(component (type {}u8{}))", "(list ".repeat(n), ")".repeat(n)),
    |n| format!("(component (type (tuple {})))", "u8 ".repeat(n)),
    wide_types,
    |n| format!("(component (type (variant {})))", cases(n)),
    |n| format!("(component (type (flags {})))", (0..n).map(|i| format!("\"f{i}\" ")).collect::<String>()),
    |n| function(&format!("(local {})", "i64 ".repeat(n.saturating_mul(8)))),
    |n| function(&format!("{}{}", "block ".repeat(n), "end ".repeat(n))),
    |n| function(&format!("{}{}", "i32.const 1 if ".repeat(n), "end ".repeat(n))),
    |n| function(&format!("block i32.const 0 br_table {} 0 end", "0 ".repeat(n.saturating_mul(8)))),
    |n| function(&format!("i32.const 0 {} drop", "i32.const 3 i32.mul ".repeat(n))),
    |n| format!("(component (core module {}))", "(func)".repeat(n)),
    |n| format!("(component (core module (memory 1) (data (i32.const 0) \"{}\")))", "x".repeat(n * 64)),
    |n| format!("(component (core module (type (func (param {})))))", "i64 ".repeat(n)),
    |n| format!("(component (core module (type (func (result {})))))", "i64 ".repeat(n)),
    |n| format!("(component (core module {}))", "(global i32 (i32.const 0))".repeat(n)),
    |n| format!("(component (@custom \"{}\" \"x\"))", "n".repeat(n * 16)),
    |n| format!("(component (import \"{}\" (func)))", "a-".repeat(n) + "a"),
    |n| format!("(component {})", (0..n).map(|i| format!("(import \"a{i}\" (func))")).collect::<String>()),
    |n| format!("(module (memory {n}) (func (export \"_start\")))"),
    |n| format!("(module {})", (0..n).map(|i| format!("(func (export \"f{i}\"))")).collect::<String>()),
];

fn repeated(what: &str, n: usize) -> String {
    format!("(component {})", what.repeat(n))
}

fn function(body: &str) -> String {
    format!("(component (core module (func {body})))")
}

fn cases(n: usize) -> String {
    (0..n).map(|i| format!("(case \"c{i}\" (list string)) ")).collect()
}

/// Each component has two of the one before.
fn doubling(n: usize) -> String {
    let depth = n.ilog2() as usize + 1;
    let mut text = "(component $c0 (core module $m (memory 1)) (core instance (instantiate $m)))".to_owned();
    for level in 1..depth {
        let inner = level - 1;
        text = format!(
            "(component $c{level} {text} (instance (instantiate $c{inner})) (instance (instantiate $c{inner})))"
        );
    }
    text
}

/// Each type has two of the one before, so that the last is as wide as two to the power of their number.
fn wide_types(n: usize) -> String {
    let mut text = "(component (type $t0 (tuple u64 u64))".to_owned();
    for level in 1..=n.min(200) {
        let inner = level - 1;
        let _ = write!(text, "(type $t{level} (tuple $t{inner} $t{inner}))");
    }
    text + ")"
}
