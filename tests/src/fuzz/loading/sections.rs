//! Changes to WebAssembly that keep its outer form: sections have the length that they say, modules and
//! components within each other as well, so that what reads them gets beyond it.
//!
//! The form is that of the binary formats of core WebAssembly ("Modules", "Sections") and of the
//! component model (`Binary.md`).

use crate::fuzz::bytes::{self, NUMBERS, Random, leb128, pick, read_leb128};

/// A component's section that is a whole module, and one that is a whole component.
const MODULE: u8 = 1;
const COMPONENT: u8 = 4;

/// A module's section of code.
const CODE: u8 = 10;

/// A module or a component.
#[derive(Clone, Debug, PartialEq)]
struct Binary {
    preamble: [u8; 8],
    sections: Vec<Section>,
}

#[derive(Clone, Debug, PartialEq)]
struct Section {
    id: u8,
    content: Content,
}

#[derive(Clone, Debug, PartialEq)]
enum Content {
    Bytes(Vec<u8>),
    Nested(Binary),
    /// The bodies of functions.
    Bodies(Vec<Vec<u8>>),
}

/// Names that imports, exports and types have, or nearly.
const NAMES: &[&str] = &[
    "innkeeper:plugin/db@0.1.0",
    "innkeeper:plugin/context@0.1.0",
    "innkeeper:plugin/jobs@0.1.0",
    "innkeeper:plugin/types@0.1.0",
    "innkeeper:plugin/handlers@0.1.0",
    "innkeeper:plugin/handlers@0.2.0",
    "innkeeper:plugin/handlers",
    "wasi:config/store@0.2.0-rc.1",
    "wasi:clocks/wall-clock@0.2.0",
    "wasi:clocks/monotonic-clock@0.2.99",
    "wasi:io/streams@0.2.6",
    "wasi:cli/run@0.2.0",
    "wasi:sockets/tcp@0.2.0",
    "wasi:http/outgoing-handler@0.2.0",
    "wasi:filesystem/preopens@0.2.0",
    "describe",
    "run",
    "query",
    "log",
    "[method]transaction.query",
    "[resource-drop]transaction",
    "memory",
    "cabi_realloc",
    "_start",
    "_initialize",
    "a",
    "",
    "unlocked-dep=<a:b/c>",
    "\u{1f980}",
];

/// Some changes, with parts of another one. What has no such form is changed as bytes.
pub(super) fn mutate(random: &mut Random, input: &[u8], other: &[u8]) -> Vec<u8> {
    let Some(mut binary) = Binary::read(input) else { return bytes::mutate(random, input.to_vec(), other) };
    let other = Binary::read(other);
    for _ in 0..1 + random.usize(..3) {
        let depth = random.usize(..4);
        let other = other.as_ref().map(|other| other.inner(random, depth));
        binary.inner_mut(random, depth).change(random, other);
    }
    binary.bytes()
}

/// Without one section, wherever it is.
pub(super) fn shorter(input: &[u8]) -> Vec<Vec<u8>> {
    let Some(binary) = Binary::read(input) else { return Vec::new() };
    let mut shorter: Vec<Vec<u8>> = binary.without_one().iter().map(Binary::bytes).collect();
    shorter.sort_by_key(Vec::len);
    shorter.truncate(500);
    shorter
}

impl Binary {
    /// None where it is no WebAssembly, or its sections do not fit.
    fn read(bytes: &[u8]) -> Option<Self> {
        let preamble: [u8; 8] = bytes.get(..8)?.try_into().ok()?;
        if !preamble.starts_with(b"\0asm") {
            return None;
        }
        let is_component = preamble[6] == 1;
        let (mut sections, mut rest) = (Vec::new(), &bytes[8..]);
        while let Some((id, after)) = rest.split_first() {
            let (len, width) = read_leb128(after)?;
            let payload = after.get(width..)?.get(..usize::try_from(len).ok()?)?;
            rest = &after[width + payload.len()..];
            sections.push(Section { id: *id, content: Content::read(*id, is_component, payload) });
        }
        Some(Self { preamble, sections })
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.preamble.to_vec();
        for section in &self.sections {
            let payload = section.content.bytes();
            bytes.push(section.id);
            leb128(payload.len() as u64, &mut bytes);
            bytes.extend(payload);
        }
        bytes
    }

    /// Itself, or one that is within it.
    fn inner(&self, random: &mut Random, depth: usize) -> &Self {
        let nested = |section: &&Section| matches!(section.content, Content::Nested(_));
        let nested: Vec<&Section> = self.sections.iter().filter(nested).collect();
        if depth == 0 || nested.is_empty() {
            return self;
        }
        match &nested[random.usize(..nested.len())].content {
            Content::Nested(binary) => binary.inner(random, depth - 1),
            _ => self,
        }
    }

    fn inner_mut(&mut self, random: &mut Random, depth: usize) -> &mut Self {
        let is_nested = |index: &usize| matches!(self.sections[*index].content, Content::Nested(_));
        let nested: Vec<usize> = (0..self.sections.len()).filter(is_nested).collect();
        if depth == 0 || nested.is_empty() {
            return self;
        }
        let index = nested[random.usize(..nested.len())];
        match &mut self.sections[index].content {
            Content::Nested(binary) => binary.inner_mut(random, depth - 1),
            _ => unreachable!("only these were chosen from"),
        }
    }

    fn change(&mut self, random: &mut Random, other: Option<&Self>) {
        let len = self.sections.len();
        if len == 0 {
            return;
        }
        let at = random.usize(..len);
        let other = other.filter(|other| !other.sections.is_empty());
        match (random.u8(..20), other) {
            (0, _) => drop(self.sections.remove(at)),
            (1, _) => self.sections.insert(at, self.sections[random.usize(..len)].clone()),
            (2, _) => self.sections.swap(at, random.usize(..len)),
            (3, _) => self.sections[at].id = random.u8(..14),
            (4, _) => self.preamble[random.usize(4..8)] = random.u8(..16),
            (5..7, Some(other)) => {
                let lent = other.sections[random.usize(..other.sections.len())].clone();
                self.sections.insert(at, lent);
            }
            (7..9, Some(other)) => {
                // In the place of its own section of that kind.
                let lent = &other.sections[random.usize(..other.sections.len())];
                if let Some(own) = self.sections.iter_mut().find(|own| own.id == lent.id) {
                    own.content = lent.content.clone();
                }
            }
            _ => self.sections[at].content.change(random),
        }
    }

    fn without_one(&self) -> Vec<Self> {
        let mut all = Vec::new();
        for (index, section) in self.sections.iter().enumerate() {
            let mut less = self.clone();
            less.sections.remove(index);
            all.push(less);
            let inner: Vec<Content> = match &section.content {
                Content::Nested(binary) => binary.without_one().into_iter().map(Content::Nested).collect(),
                _ => Vec::new(),
            };
            for content in inner {
                let mut less = self.clone();
                less.sections[index].content = content;
                all.push(less);
            }
        }
        all
    }
}

impl Content {
    fn read(id: u8, is_component: bool, payload: &[u8]) -> Self {
        let read = match id {
            MODULE | COMPONENT if is_component => Binary::read(payload).map(Self::Nested),
            CODE if !is_component => bodies(payload).map(Self::Bodies),
            _ => None,
        };
        read.unwrap_or_else(|| Self::Bytes(payload.to_vec()))
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Nested(binary) => binary.bytes(),
            Self::Bodies(bodies) => {
                let mut bytes = Vec::new();
                leb128(bodies.len() as u64, &mut bytes);
                for body in bodies {
                    leb128(body.len() as u64, &mut bytes);
                    bytes.extend(body);
                }
                bytes
            }
        }
    }

    fn change(&mut self, random: &mut Random) {
        match self {
            Self::Nested(binary) => binary.change(random, None),
            Self::Bodies(bodies) if !bodies.is_empty() => {
                let (at, from) = (random.usize(..bodies.len()), random.usize(..bodies.len()));
                match random.u8(..8) {
                    0 => drop(bodies.remove(at)),
                    1 => bodies.swap(at, from),
                    2 => bodies.insert(at, bodies[from].clone()),
                    3 => flip(random, &mut bodies[at]),
                    _ => constant(random, &mut bodies[at]),
                }
            }
            Self::Bodies(_) => {}
            Self::Bytes(bytes) if bytes.is_empty() => bytes.push(random.u8(..)),
            Self::Bytes(bytes) => match random.u8(..8) {
                0 => flip(random, bytes),
                1..4 => name(random, bytes),
                _ => number(random, bytes),
            },
        }
    }
}

fn bodies(payload: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (count, width) = read_leb128(payload)?;
    let (mut bodies, mut rest) = (Vec::new(), &payload[width..]);
    for _ in 0..count {
        let (len, width) = read_leb128(rest)?;
        let body = rest.get(width..)?.get(..usize::try_from(len).ok()?)?;
        bodies.push(body.to_vec());
        rest = &rest[width + body.len()..];
    }
    rest.is_empty().then_some(bodies)
}

fn flip(random: &mut Random, bytes: &mut [u8]) {
    if !bytes.is_empty() {
        bytes[random.usize(..bytes.len())] ^= 1 << random.u8(..8);
    }
}

/// Another number in the place of one.
fn number(random: &mut Random, bytes: &mut Vec<u8>) {
    let at = random.usize(..bytes.len());
    let Some((old, width)) = read_leb128(&bytes[at..]) else { return };
    let number = match random.u8(..3) {
        0 => old.wrapping_add(1),
        1 => old.wrapping_sub(1),
        _ => NUMBERS[random.usize(..NUMBERS.len())],
    };
    let mut new = Vec::new();
    leb128(number, &mut new);
    bytes.splice(at..at + width, new);
}

/// Another constant: `i32.const` or `i64.const`, whose numbers have a sign.
fn constant(random: &mut Random, body: &mut Vec<u8>) {
    let places: Vec<usize> = (0..body.len()).filter(|at| matches!(body[*at], 0x41 | 0x42)).collect();
    let Some(place) = places.get(random.usize(..places.len().max(1))) else { return flip(random, body) };
    let Some((_, width)) = read_leb128(&body[place + 1..]) else { return };
    let new: &[u8] = match random.u8(..6) {
        0 => &[0],
        1 => &[0x7f],
        // The least and the most of 32 bits.
        2 => &[0x80, 0x80, 0x80, 0x80, 0x78],
        3 => &[0xff, 0xff, 0xff, 0xff, 0x07],
        4 => &[0x80, 0x80, 0x04],
        _ => &[random.u8(..0x80)],
    };
    body.splice(place + 1..place + 1 + width, new.iter().copied());
}

/// Another name in the place of one, with its length.
fn name(random: &mut Random, bytes: &mut Vec<u8>) {
    let is_name = |at: &usize| {
        let len = usize::from(bytes[*at]);
        len > 0 && bytes.get(at + 1..at + 1 + len).is_some_and(|name| name.iter().all(u8::is_ascii_graphic))
    };
    let places: Vec<usize> = (0..bytes.len()).filter(is_name).collect();
    let Some(place) = places.get(random.usize(..places.len().max(1))) else { return number(random, bytes) };
    let len = usize::from(bytes[*place]);
    let new =
        if random.u8(..8) == 0 { "x".repeat(1 << random.u32(..18)) } else { pick(random, NAMES).to_owned() };
    let mut named = Vec::new();
    leb128(new.len() as u64, &mut named);
    named.extend(new.as_bytes());
    bytes.splice(*place..place + 1 + len, named);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_as_it_was() {
        let input = super::super::in_order(super::super::text::SEEDS[0]);
        let binary = Binary::read(&input).expect("it has sections");
        assert!(binary.sections.iter().any(|section| matches!(section.content, Content::Nested(_))));
        assert_eq!(binary.bytes(), input);
    }

    #[test]
    fn a_change_leaves_the_outer_form() {
        let input = super::super::in_order(super::super::text::SEEDS[0]);
        let with_form = |seed| Binary::read(&mutate(&mut Random::with_seed(seed), &input, &input)).is_some();
        assert!((0..200).filter(|seed| with_form(*seed)).count() > 190);
    }
}
