//! Changes to the text form of WebAssembly: what comes out of it is encoded in order, and wrong, if it
//! is, only in what it means.

use crate::fuzz::bytes::{NUMBERS, Random, pick};

/// Components and modules. The first is a plugin in order, with one handler `h`.
pub(super) const SEEDS: &[&str] = &[
    include_str!("seeds/plugin.wat"),
    include_str!("seeds/imports.wat"),
    include_str!("seeds/resources.wat"),
    include_str!("seeds/command.wat"),
    include_str!("seeds/module.wat"),
];

/// Words that may stand where another one does.
const WORDS: &[&str] = &[
    "i32",
    "i64",
    "f32",
    "f64",
    "v128",
    "funcref",
    "externref",
    "u8",
    "s8",
    "u16",
    "u32",
    "s32",
    "u64",
    "s64",
    "char",
    "bool",
    "string",
    "func",
    "memory",
    "table",
    "global",
    "type",
    "instance",
    "component",
    "module",
    "param",
    "result",
    "list",
    "option",
    "tuple",
    "record",
    "variant",
    "enum",
    "flags",
    "own",
    "borrow",
    "stream",
    "future",
    "error-context",
    "export",
    "import",
    "core",
    "canon",
    "lift",
    "lower",
    "realloc",
    "post-return",
    "async",
    "string-encoding=utf16",
    "string-encoding=latin1+utf16",
    "mut",
    "shared",
    "start",
    "elem",
    "data",
    "nop",
    "unreachable",
    "return",
    "drop",
    "memory.grow",
    "memory.size",
    "table.grow",
    "i32.load",
    "i64.store",
    "memory.copy",
    "memory.fill",
    "call",
    "br",
    "loop",
    "block",
    "end",
    "local.get",
    "i32.const",
    "i64.const",
];

/// A tree of words.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    Word(String),
    List(Vec<Node>),
}

/// A seed with some changes, encoded. Where that cannot be encoded, it is tried again.
pub(super) fn mutate(random: &mut Random) -> Vec<u8> {
    for _ in 0..20 {
        // The plugin as often as all others: only what is one is called.
        let seed = if random.bool() { SEEDS[0] } else { pick(random, SEEDS) };
        let mut tree = read(seed);
        let other = read(pick(random, SEEDS));
        let changes = if random.bool() { 1 } else { 1 + random.usize(..4) };
        for _ in 0..changes {
            change(random, &mut tree, &other);
        }
        let mut text = String::new();
        tree.iter().for_each(|node| write(node, &mut text));
        if let Ok(encoded) = wat::parse_str(&text) {
            return encoded;
        }
    }
    Vec::new()
}

fn change(random: &mut Random, tree: &mut [Node], other: &[Node]) {
    let count = sizes(tree);
    let lent = nth(other, random.usize(..sizes(other))).clone();
    let own = nth(tree, random.usize(..count)).clone();
    let how = random.u8(..12);
    let Some(node) = nth_mut(tree, &mut random.usize(..count)) else { return };
    match node {
        Node::Word(word) => change_word(random, word, how),
        Node::List(list) if list.is_empty() => *node = lent,
        Node::List(list) => {
            // The first word says what the list is.
            let (at, from) = (random.usize(..list.len()), random.usize(..list.len()));
            match how {
                0 | 1 => drop(list.remove(at)),
                2 | 3 => list.insert(at, list[from].clone()),
                4 => list.swap(at, from),
                5 => list[at] = lent,
                6 => list[at] = own,
                7 => list.insert(at, lent),
                8 => list.insert(at, own),
                9 => *node = own,
                _ => {
                    if let Node::Word(word) = &mut list[at] {
                        change_word(random, word, how);
                    }
                }
            }
        }
    }
}

fn change_word(random: &mut Random, word: &mut String, how: u8) {
    if word.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
        *word = match how % 3 {
            0 => NUMBERS[random.usize(..NUMBERS.len())].to_string(),
            1 => (NUMBERS[random.usize(..NUMBERS.len())] as u32).cast_signed().to_string(),
            _ => random.u8(..).to_string(),
        };
    } else if word.starts_with('"') {
        let at = word.floor_char_boundary(random.usize(1..word.len()));
        match how % 4 {
            0 => *word = "\"\"".to_owned(),
            1 => word.insert_str(at, pick(random, &["\\00", "\\ff", "-", "a", "[method]", "@", "\\u{202e}"])),
            2 => word.insert_str(at, &"a".repeat(1 << random.u32(..16))),
            _ => *word = "\"innkeeper:plugin/db@0.1.0\"".to_owned(),
        }
    } else {
        pick(random, WORDS).clone_into(word);
    }
}

fn size(node: &Node) -> usize {
    match node {
        Node::Word(_) => 1,
        Node::List(list) => 1 + sizes(list),
    }
}

fn sizes(nodes: &[Node]) -> usize {
    nodes.iter().map(size).sum()
}

/// One of all nodes, counted from the beginning.
fn nth(tree: &[Node], mut n: usize) -> &Node {
    for node in tree {
        let size = size(node);
        match node {
            node if n == 0 => return node,
            Node::List(list) if n < size => return nth(list, n - 1),
            _ => n -= size,
        }
    }
    unreachable!("the number is that of a node")
}

fn nth_mut<'a>(tree: &'a mut [Node], n: &mut usize) -> Option<&'a mut Node> {
    for node in tree {
        if *n == 0 {
            return Some(node);
        }
        let size = size(node);
        match node {
            Node::List(list) if *n < size => {
                *n -= 1;
                return nth_mut(list, n);
            }
            _ => *n -= size,
        }
    }
    None
}

/// The seeds have no comments, and no escaped quotes.
fn read(text: &str) -> Vec<Node> {
    let mut open: Vec<Vec<Node>> = vec![Vec::new()];
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '(' => {
                open.push(Vec::new());
                1
            }
            ')' => {
                let list = open.pop().unwrap_or_default();
                open.last_mut().expect("the seed has as many `(` as `)`").push(Node::List(list));
                1
            }
            _ => {
                let len = match first {
                    '"' => rest[1..].find('"').map_or(rest.len(), |at| at + 2),
                    _ => rest.find(|c: char| c.is_whitespace() || "()".contains(c)).unwrap_or(rest.len()),
                };
                open.last_mut()
                    .expect("the seed has as many `(` as `)`")
                    .push(Node::Word(rest[..len].to_owned()));
                len
            }
        };
        rest = rest[len..].trim_start();
    }
    open.swap_remove(0)
}

fn write(node: &Node, text: &mut String) {
    match node {
        Node::Word(word) => {
            text.push_str(word);
            text.push(' ');
        }
        Node::List(list) => {
            text.push('(');
            list.iter().for_each(|node| write(node, text));
            text.push(')');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_the_same_when_it_was_read_and_written() {
        for seed in SEEDS {
            let mut text = String::new();
            read(seed).iter().for_each(|node| write(node, &mut text));
            assert_eq!(wat::parse_str(&text).expect("it is WAT"), wat::parse_str(seed).expect("it is WAT"));
        }
    }

    #[test]
    fn most_changes_can_be_encoded() {
        let encoded = (0..200).filter(|seed| !mutate(&mut Random::with_seed(*seed)).is_empty()).count();
        assert!(encoded > 150, "{encoded} of 200");
    }
}
