//! Values of any type of the WIT, as they lie in a guest's memory.

use wit_component::StringEncoding;
use wit_parser::{Handle, Resolve, SizeAlign, Type, TypeDefKind, TypeId};

use super::sql;
use crate::fuzz::bytes::NUMBERS;

/// What an input decides, byte by byte. When nothing is left of it, everything is 0.
pub(super) struct Choices<'a>(pub(super) &'a [u8]);

impl Choices<'_> {
    pub(super) fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    pub(super) fn below(&mut self, most: usize) -> usize {
        let number = usize::from(self.byte());
        let number = if most > 256 { number << 8 | usize::from(self.byte()) } else { number };
        number % most.max(1)
    }

    /// True once in so many times.
    pub(super) fn rarely(&mut self, times: usize) -> bool {
        self.below(times) == times - 1
    }

    pub(super) fn of<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    pub(super) fn number(&mut self) -> u64 {
        let number = NUMBERS[self.below(NUMBERS.len())];
        match self.below(4) {
            0 => number.wrapping_neg(),
            1 => u64::from(self.byte()),
            _ => number,
        }
    }
}

/// The memory of a program while it is written, from an address on.
pub(super) struct Image<'a> {
    pub(super) resolve: &'a Resolve,
    pub(super) sizes: &'a SizeAlign,
    pub(super) encoding: StringEncoding,
    pub(super) base: u32,
    pub(super) bytes: Vec<u8>,
    pub(super) postgres: bool,
    /// Parameters that the statement before has.
    pub(super) parameters: usize,
}

/// Texts that are read by somebody: numbers, dates, identifiers, JSON.
const TEXTS: &[&str] = &[
    "",
    "a",
    "\0",
    "a\0b",
    "\u{feff}",
    "\u{10ffff}",
    "é\u{202e}ß",
    "\\",
    "'",
    "\"",
    "null",
    "true",
    "0",
    "-0",
    "1.5",
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    "1e-400",
    "1e131072",
    "0.00000000000000000000000000000000000001",
    "+1",
    "1.",
    ".5",
    "0x10",
    "12345678901234567890123456789012345678901234567890",
    "0190163d-8694-739b-aea5-966c26f8ad91",
    "{0190163d8694739baea5966c26f8ad91}",
    "0190163d-8694-739b-aea5",
    "{}",
    "[]",
    "{\"a\":1,\"a\":2}",
    "[1e999]",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "{\"\\u0000\":1}",
    "[1,]",
    "{",
    "[[[[]]]]",
    "1 2",
    "app",
    "fuzz",
    "fuzz-child",
    "nobody",
    "2026-02-30",
    "infinity",
    "epoch",
    "$1",
    "{NULL}",
    "{{1,2},{3}}",
    "a/b",
    "..",
    "key",
    "nested.key",
];

impl Image<'_> {
    /// The next free address.
    pub(super) fn end(&self) -> u32 {
        self.base + u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }

    /// So many bytes, from an aligned address on.
    pub(super) fn room(&mut self, size: usize, align: usize) -> u32 {
        while !(self.end() as usize).is_multiple_of(align.max(1)) {
            self.bytes.push(0);
        }
        let at = self.end();
        self.bytes.resize(self.bytes.len() + size, 0);
        at
    }

    pub(super) fn put(&mut self, at: u32, bytes: &[u8]) {
        let from = (at - self.base) as usize;
        self.bytes[from..from + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn get(&self, at: u32, size: usize) -> u64 {
        let from = (at - self.base) as usize;
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(&self.bytes[from..from + size]);
        u64::from_le_bytes(bytes)
    }

    fn put_u32(&mut self, at: u32, number: u32) {
        self.put(at, &number.to_le_bytes());
    }

    fn size(&self, ty: &Type) -> usize {
        self.sizes.size(ty).size_wasm32()
    }

    fn align(&self, ty: &Type) -> usize {
        self.sizes.align(ty).align_wasm32()
    }

    /// Writes some value of a type. `name` is what it is for, which decides what texts are about.
    pub(super) fn write(&mut self, choices: &mut Choices<'_>, ty: &Type, at: u32, name: &str) {
        match ty {
            Type::Bool => self.put(at, &[choices.byte() & 1]),
            Type::U8 | Type::S8 => self.put(at, &[choices.byte()]),
            Type::U16 | Type::S16 | Type::U32 | Type::S32 | Type::U64 | Type::S64 => {
                let number = match name {
                    "savepoint" | "limit" if !choices.rarely(4) => choices.below(5) as u64,
                    _ => choices.number(),
                };
                let size = self.size(ty);
                self.put(at, &number.to_le_bytes()[..size]);
            }
            Type::F32 => self.put(at, &f32::MAX.to_le_bytes()),
            Type::F64 => {
                let special =
                    [0.0, -0.0, 1.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, f64::MAX];
                let float = if choices.rarely(4) {
                    f64::from_bits(choices.number())
                } else {
                    special[choices.below(special.len())]
                };
                self.put(at, &float.to_le_bytes());
            }
            Type::Char => self.put_u32(at, 'x'.into()),
            Type::String => {
                let text = self.text(choices, name);
                self.write_text(at, &text);
            }
            Type::ErrorContext => {}
            Type::Id(id) => self.write_defined(choices, *id, at, name),
        }
    }

    fn write_defined(&mut self, choices: &mut Choices<'_>, id: TypeId, at: u32, name: &str) {
        let resolve = self.resolve;
        match &resolve.types[id].kind {
            TypeDefKind::Type(ty) => {
                self.write(choices, ty, at, resolve.types[id].name.as_deref().unwrap_or(name))
            }
            TypeDefKind::Record(record) => {
                let fields: Vec<Type> = record.fields.iter().map(|field| field.ty).collect();
                let places: Vec<u32> = self.places(&fields);
                for (field, offset) in record.fields.iter().zip(places) {
                    self.write(choices, &field.ty, at + offset, &field.name);
                }
            }
            TypeDefKind::Tuple(tuple) => {
                for (ty, offset) in tuple.types.iter().zip(self.places(&tuple.types)) {
                    self.write(choices, ty, at + offset, name);
                }
            }
            TypeDefKind::Enum(cases) => self.put(at, &[choices.below(cases.cases.len()) as u8]),
            TypeDefKind::Flags(_) => self.put(at, &[choices.byte()]),
            TypeDefKind::Variant(variant) => {
                let case = choices.below(variant.cases.len());
                let cases: Vec<Option<Type>> = variant.cases.iter().map(|case| case.ty).collect();
                self.write_case(choices, &cases, case, at, &variant.cases[case].name.clone());
            }
            TypeDefKind::Option(ty) => {
                // Of the databases there is only one besides the default.
                let is_there =
                    usize::from(!choices.rarely(3) || name == "database") & usize::from(!choices.rarely(2));
                self.write_case(choices, &[None, Some(*ty)], is_there, at, name);
            }
            TypeDefKind::Result(result) => {
                let case = choices.below(2);
                self.write_case(choices, &[result.ok, result.err], case, at, name);
            }
            TypeDefKind::List(ty) => {
                let is_value = |ty: &Type| matches!(ty, Type::Id(id) if resolve.types[*id].name.as_deref() == Some("value"));
                let count = match choices.below(64) {
                    63 => choices.below(60_000),
                    // As many as the statement has places for.
                    8.. if name == "params" && is_value(ty) => self.parameters,
                    _ => choices.below(6),
                };
                let (size, align) = (self.size(ty), self.align(ty));
                let count = if self.bytes.len() + count * size > super::caller::MOST / 4 { 0 } else { count };
                let elements = self.room(count * size, align);
                for index in 0..count {
                    self.write(choices, ty, elements + u32::try_from(index * size).unwrap_or(0), name);
                }
                self.put_u32(at, elements);
                self.put_u32(at + 4, u32::try_from(count).unwrap_or(0));
            }
            // Handles are chosen by whoever makes the call.
            TypeDefKind::Handle(Handle::Own(_) | Handle::Borrow(_)) => {
                self.put_u32(at, choices.below(6) as u32)
            }
            _ => {}
        }
    }

    fn places(&self, types: &[Type]) -> Vec<u32> {
        let offsets = self.sizes.field_offsets(types);
        offsets.iter().map(|(offset, _)| u32::try_from(offset.size_wasm32()).unwrap_or(0)).collect()
    }

    /// A case of a variant of at most 256.
    fn write_case(
        &mut self,
        choices: &mut Choices<'_>,
        cases: &[Option<Type>],
        case: usize,
        at: u32,
        name: &str,
    ) {
        self.put(at, &[case as u8]);
        if let Some(ty) = cases[case] {
            let offset = self.sizes.payload_offset(wit_parser::Int::U8, cases.iter().map(Option::as_ref));
            self.write(choices, &ty, at + u32::try_from(offset.size_wasm32()).unwrap_or(0), name);
        }
    }

    fn text(&mut self, choices: &mut Choices<'_>, name: &str) -> String {
        match name {
            "statement" => {
                let statement = sql::statement(choices, self.postgres);
                let named = (1..=3).filter(|number| statement.contains(&format!("${number}")));
                self.parameters = named.max().unwrap_or(0);
                statement
            }
            "database" => choices.of(&["app", "app", "app", "nobody", ""]).to_owned(),
            "job" => choices.of(&["fuzz-child", "fuzz-child", "fuzz", "", "a\0b"]).to_owned(),
            _ if choices.rarely(24) => {
                let unit = choices.of(&["x", "é", "\0", "[", "{\"a\":", "\n", "\u{1f980}", "0"]);
                // Bounds are often powers of two: the first byte decides whether one is within a character.
                "a".repeat(choices.below(2)) + &unit.repeat(1 << choices.below(17))
            }
            _ if choices.rarely(8) => format!("{}{}", choices.of(TEXTS), choices.of(TEXTS)),
            _ => choices.of(TEXTS).to_owned(),
        }
    }

    fn write_text(&mut self, at: u32, text: &str) {
        let is_latin = text.chars().all(|c| u32::from(c) < 256);
        let (bytes, len): (Vec<u8>, usize) = match self.encoding {
            StringEncoding::UTF8 => (text.as_bytes().to_vec(), text.len()),
            StringEncoding::CompactUTF16 if is_latin => {
                let bytes: Vec<u8> = text.chars().map(|c| c as u8).collect();
                let len = bytes.len();
                (bytes, len)
            }
            encoding => {
                let units: Vec<u16> = text.encode_utf16().collect();
                // The third encoding marks what is UTF-16 in the length.
                let mark = if matches!(encoding, StringEncoding::CompactUTF16) { 1 << 31 } else { 0 };
                (units.iter().flat_map(|unit| unit.to_le_bytes()).collect(), units.len() | mark)
            }
        };
        let place = self.room(bytes.len(), 2);
        self.put(place, &bytes);
        self.put_u32(at, place);
        self.put_u32(at + 4, u32::try_from(len).unwrap_or(u32::MAX));
    }

    /// What is in memory as the numbers of a call.
    pub(super) fn flat(&self, ty: &Type, at: u32) -> Vec<u64> {
        match ty {
            Type::String => vec![self.get(at, 4), self.get(at + 4, 4)],
            Type::Id(id) => self.flat_defined(*id, at),
            _ => vec![self.get(at, self.size(ty))],
        }
    }

    fn flat_defined(&self, id: TypeId, at: u32) -> Vec<u64> {
        let case = |cases: &[Option<Type>]| {
            let which = self.get(at, 1) as usize;
            let offset = self.sizes.payload_offset(wit_parser::Int::U8, cases.iter().map(Option::as_ref));
            let mut flat = vec![which as u64];
            if let Some(Some(ty)) = cases.get(which) {
                flat.extend(self.flat(ty, at + u32::try_from(offset.size_wasm32()).unwrap_or(0)));
            }
            flat.resize(self.count(&Type::Id(id)), 0);
            flat
        };
        let several = |types: &[Type]| {
            types.iter().zip(self.places(types)).flat_map(|(ty, offset)| self.flat(ty, at + offset)).collect()
        };
        match &self.resolve.types[id].kind {
            TypeDefKind::Type(ty) => self.flat(ty, at),
            TypeDefKind::Record(record) => {
                several(&record.fields.iter().map(|field| field.ty).collect::<Vec<_>>())
            }
            TypeDefKind::Tuple(tuple) => several(&tuple.types),
            TypeDefKind::Option(ty) => case(&[None, Some(*ty)]),
            TypeDefKind::Result(result) => case(&[result.ok, result.err]),
            TypeDefKind::Variant(variant) => {
                case(&variant.cases.iter().map(|case| case.ty).collect::<Vec<_>>())
            }
            TypeDefKind::List(_) => vec![self.get(at, 4), self.get(at + 4, 4)],
            TypeDefKind::Handle(_) => vec![self.get(at, 4)],
            _ => vec![self.get(at, self.size(&Type::Id(id)))],
        }
    }

    fn count(&self, ty: &Type) -> usize {
        let mut storage = [wit_parser::abi::WasmType::I32; Resolve::MAX_FLAT_PARAMS];
        let mut flat = wit_parser::abi::FlatTypes::new(&mut storage);
        self.resolve.push_flat(ty, &mut flat);
        flat.to_vec().len()
    }
}
