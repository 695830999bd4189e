//! From the bytes of an input to the memory of a guest: which calls, and with what.

use wit_component::StringEncoding;
use wit_parser::{FunctionKind, SizeAlign};

use super::caller::{self, Callable, IMAGE, MOST_CALLS, RECORD, RETURN, RETURNS, World};
use super::values::{Choices, Image};
use crate::database::Engine;
use crate::fuzz::bytes::NUMBERS;

/// What a guest is to do.
pub(super) struct Program {
    pub(super) engine: Engine,
    /// Which of the guests, by the encoding of its strings.
    pub(super) encoding: usize,
    /// Its memory, from [`IMAGE`] on.
    pub(super) image: Vec<u8>,
    /// The names of what it calls, in order.
    pub(super) calls: Vec<String>,
}

/// The encodings of strings that a component may have.
pub(super) const ENCODINGS: [StringEncoding; 3] =
    [StringEncoding::UTF8, StringEncoding::UTF16, StringEncoding::CompactUTF16];

/// The words of the header.
const HEADER: usize = 32;

/// Handles that calls have returned, or will have.
#[derive(Default)]
struct Handles {
    transactions: Vec<u32>,
    cursors: Vec<u32>,
}

impl Program {
    /// What an input stands for. Every input stands for something.
    pub(super) fn read(input: &[u8], world: &World, sizes: &SizeAlign) -> Self {
        let mut choices = Choices(input);
        let postgres = choices.byte() & 1 == 1;
        let encoding = choices.below(ENCODINGS.len());
        let mut image = Image {
            resolve: &world.resolve,
            sizes,
            encoding: ENCODINGS[encoding],
            base: IMAGE,
            bytes: vec![0; HEADER],
            postgres,
            parameters: 0,
        };
        let (how, after) = if choices.rarely(6) { (choices.below(9), choices.below(40)) } else { (0, 0) };
        let count = 1 + choices.below(MOST_CALLS - 1);
        let records = image.room(RECORD * count, 8);
        let mut handles = Handles::default();
        let mut calls = Vec::new();
        for number in 0..count {
            let record = records + u32::try_from(RECORD * number).unwrap_or(0);
            let returned = RETURNS + RETURN * u32::try_from(number).unwrap_or(0);
            let index = choose(&mut choices, &world.callables, &handles);
            let callable = &world.callables[index];
            image.put(record, &u32::try_from(index).unwrap_or(0).to_le_bytes());
            call(&mut image, &mut choices, callable, record, returned, &mut handles);
            calls.push(callable.name.clone());
        }
        let mut result = 0;
        if choices.rarely(4) {
            result = image.room(64, 8);
            image.write(&mut choices, &world.returned, result, "json");
        }
        let header = [records, u32::try_from(count).unwrap_or(0), how as u32, after as u32, result];
        for (index, word) in header.iter().enumerate() {
            image.put(IMAGE + 4 * index as u32, &word.to_le_bytes());
        }
        image.bytes.truncate(caller::MOST);
        let engine = if postgres { Engine::Postgres } else { Engine::Sqlite };
        Self { engine, encoding, image: image.bytes, calls }
    }
}

/// What to call next: mostly something for which there is a handle, and most of all statements.
fn choose(choices: &mut Choices<'_>, callables: &[Callable], handles: &Handles) -> usize {
    let find = |name: &str| callables.iter().position(|callable| callable.name == name);
    let wanted = match choices.below(8) {
        0 if handles.transactions.is_empty() => "db#begin",
        1 => choices.of(&["db#query", "db#execute", "db#execute-many"]),
        2 | 3 if !handles.transactions.is_empty() => choices.of(&[
            "db#[method]transaction.query",
            "db#[method]transaction.execute",
            "db#[method]transaction.open-cursor",
            "db#[method]transaction.savepoint",
            "db#[method]transaction.rollback-to",
        ]),
        4 | 5 if !handles.cursors.is_empty() => "db#[method]cursor.fetch",
        _ => "",
    };
    find(wanted).unwrap_or_else(|| choices.below(callables.len()))
}

fn call(
    image: &mut Image<'_>,
    choices: &mut Choices<'_>,
    callable: &Callable,
    record: u32,
    returned: u32,
    handles: &mut Handles,
) {
    let known = if callable.name.contains("cursor.") || callable.name.ends_with("]cursor") {
        handles.cursors.clone()
    } else {
        handles.transactions.clone()
    };
    let (mut arguments, written) = match &callable.function {
        Some(function) => arguments(image, choices, function, returned),
        None => (vec![0], image.end()..image.end()),
    };
    let takes_handle = callable.function.as_ref().is_none_or(|f| matches!(f.kind, FunctionKind::Method(_)));
    if takes_handle {
        // A handle that an earlier call has returned, if it has; or any number.
        let any = choices.rarely(12) || known.is_empty();
        if any {
            arguments[0] = choices.below(9) as u64;
            // Most of these trap, which would be all that there is to see: where the number of calls
            // has to be 0, the call is left out.
            let skip = if choices.rarely(4) { 0 } else { IMAGE + 4 };
            image.put(record + 4, &skip.to_le_bytes());
        } else {
            let place = known[choices.below(known.len())];
            image.put(record + 4, &(place - 4).to_le_bytes());
            image.put(record + 8, &1_u32.to_le_bytes());
            arguments[0] = place.into();
        }
    }
    if choices.rarely(24) && !arguments.is_empty() {
        let which = choices.below(arguments.len());
        arguments[which] = choices.number();
    }
    if choices.rarely(24) && written.len() >= 4 {
        let words = written.len() / 4;
        let at = written.start + 4 * u32::try_from(choices.below(words)).unwrap_or(0);
        let number = NUMBERS[choices.below(NUMBERS.len())] as u32;
        image.put(at, &number.to_le_bytes());
    }
    for (index, argument) in arguments.iter().enumerate().take(RECORD / 16) {
        image.put(record + 16 + 16 * index as u32, &argument.to_le_bytes());
    }
    match callable.name.as_str() {
        "db#begin" => handles.transactions.push(returned + 4),
        "db#[method]transaction.open-cursor" => handles.cursors.push(returned + 4),
        _ => {}
    }
}

/// The numbers of a call, and where in memory is what they point to.
fn arguments(
    image: &mut Image<'_>,
    choices: &mut Choices<'_>,
    function: &wit_parser::Function,
    returned: u32,
) -> (Vec<u64>, std::ops::Range<u32>) {
    let begin = image.end();
    let types: Vec<wit_parser::Type> = function.params.iter().map(|param| param.ty).collect();
    let size = image.sizes.params(&types);
    let place = image.room(size.size.size_wasm32(), size.align.align_wasm32());
    let offsets: Vec<u32> = image
        .sizes
        .field_offsets(&types)
        .iter()
        .map(|(offset, _)| place + u32::try_from(offset.size_wasm32()).unwrap_or(0))
        .collect();
    for (param, at) in function.params.iter().zip(&offsets) {
        image.write(choices, &param.ty, *at, &param.name);
    }
    let signature = image.resolve.wasm_signature(wit_parser::abi::AbiVariant::GuestImport, function);
    let mut flat: Vec<u64> = match signature.indirect_params {
        true => vec![place.into()],
        false => types.iter().zip(&offsets).flat_map(|(ty, at)| image.flat(ty, *at)).collect(),
    };
    if signature.retptr {
        flat.push(returned.into());
    }
    (flat, begin..image.end())
}
