//! The guest that calls the host: it knows nothing of values, and makes the calls that a program in its
//! memory tells, with whatever numbers are there.
//!
//! It is built from the WIT, so every function of the world is one that it can call, and no SDK stands
//! between the numbers and the host.

use std::fmt::Write as _;
use std::path::Path;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::abi::{AbiVariant, WasmType};
use wit_parser::{Function, Resolve, Type, TypeDefKind, TypeId, WorldId, WorldItem};

/// Where a program is put. Below are what calls return and the guest's own result.
pub(super) const IMAGE: u32 = 0x1_0000;

/// The most bytes of a program.
pub(super) const MOST: usize = 0x8_0000;

/// Where calls are to put what they return, each in a place of its own.
pub(super) const RETURNS: u32 = 0x4000;
pub(super) const RETURN: u32 = 256;

/// The most calls of a program.
pub(super) const MOST_CALLS: usize = 32;

/// Arguments of a call, each with a word that says what it is; so many bytes.
pub(super) const RECORD: usize = 8 + 16 * (Resolve::MAX_FLAT_PARAMS + 1);

/// What can be called.
pub(super) struct Callable {
    /// `interface#function`.
    pub(super) name: String,
    /// None for the end of a handle.
    pub(super) function: Option<Function>,
    module: String,
    field: String,
    params: Vec<WasmType>,
    result: Option<WasmType>,
}

/// The world, and what it offers.
pub(super) struct World {
    pub(super) resolve: Resolve,
    pub(super) callables: Vec<Callable>,
    /// The type of what `handlers.run` returns.
    pub(super) returned: Type,
    id: WorldId,
}

impl World {
    /// The world of plugins, with all that comes with every plugin.
    pub(super) fn read() -> Self {
        const WORLD: &str = "package innkeeper:fuzz; world caller {
            include innkeeper:plugin/plugin@0.1.0; import wasi:config/store@0.2.0-rc.1; }";
        let mut resolve = Resolve::default();
        let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugin-sdk/wit");
        resolve.push_dir(&wit).expect("the WIT can be read");
        let package = resolve.push_str("fuzz.wit", WORLD).expect("the world can be read");
        let id = resolve.select_world(&[package], Some("caller")).expect("it has the world");
        let callables = callables(&resolve, id);
        let returned = returned(&resolve, id);
        Self { resolve, callables, returned, id }
    }

    /// The guest, whose strings have this encoding.
    pub(super) fn guest(&self, encoding: StringEncoding) -> Vec<u8> {
        let text = module(&self.callables, encoding);
        let mut module = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        embed_component_metadata(&mut module, &self.resolve, self.id, encoding).expect("it is a module");
        let mut encoder =
            ComponentEncoder::default().validate(true).module(&module).expect("it fits the world");
        encoder.encode().unwrap_or_else(|error| panic!("{error:?}\n{text}"))
    }
}

fn callables(resolve: &Resolve, id: WorldId) -> Vec<Callable> {
    let mut callables = Vec::new();
    for (key, item) in &resolve.worlds[id].imports {
        let WorldItem::Interface { id, .. } = item else { continue };
        let module = resolve.name_world_key(key);
        let interface = resolve.interfaces[*id].name.clone().unwrap_or_default();
        for function in resolve.interfaces[*id].functions.values() {
            let signature = resolve.wasm_signature(AbiVariant::GuestImport, function);
            callables.push(Callable {
                name: format!("{interface}#{}", function.name),
                function: Some(function.clone()),
                module: module.clone(),
                field: function.name.clone(),
                params: signature.params,
                result: signature.results.first().copied(),
            });
        }
        let is_resource = |id: &TypeId| matches!(resolve.types[*id].kind, TypeDefKind::Resource);
        for (name, _) in resolve.interfaces[*id].types.iter().filter(|(_, id)| is_resource(id)) {
            let field = format!("[resource-drop]{name}");
            let params = vec![WasmType::I32];
            let name = format!("{interface}#{field}");
            let module = module.clone();
            callables.push(Callable { name, function: None, module, field, params, result: None });
        }
    }
    callables
}

fn returned(resolve: &Resolve, id: WorldId) -> Type {
    let exports = resolve.worlds[id].exports.values().find_map(|item| match item {
        WorldItem::Interface { id, .. } => resolve.interfaces[*id].functions.get("run"),
        _ => None,
    });
    exports.and_then(|run| run.result).expect("handlers have a `run`")
}

fn core(kind: WasmType) -> &'static str {
    match kind {
        WasmType::I32 | WasmType::Pointer | WasmType::Length => "i32",
        WasmType::I64 | WasmType::PointerOrI64 => "i64",
        WasmType::F32 => "f32",
        WasmType::F64 => "f64",
    }
}

fn module(callables: &[Callable], encoding: StringEncoding) -> String {
    let (mut imports, mut thunks, mut names) = (String::new(), String::new(), String::new());
    for (index, callable) in callables.iter().enumerate() {
        let Callable { module, field, params, result, .. } = callable;
        let of: String = params.iter().map(|kind| format!(" {}", core(*kind))).collect();
        let gives = result.map(|kind| format!("(result {})", core(kind))).unwrap_or_default();
        let _ = writeln!(imports, "(import {module:?} {field:?} (func $f{index} (param{of}) {gives}))");
        let _ = write!(thunks, "(func $t{index} (param $r i32) (call $f{index}");
        for (number, kind) in params.iter().enumerate() {
            let at = 8 + 16 * number;
            let _ = write!(thunks, " (call ${} (i32.add (local.get $r) (i32.const {at})))", core(*kind));
        }
        let _ = writeln!(thunks, ") {})", if result.is_some() { "drop" } else { "" });
        let _ = write!(names, " $t{index}");
    }
    // Code units of two bytes in UTF-16; what is plain in the third encoding has one.
    let wide = matches!(encoding, StringEncoding::UTF16);
    let (unit, load, store) = if wide { (2, "load16_u", "store16") } else { (1, "load8_u", "store8") };
    let body = BODY
        .replace("UNIT", &unit.to_string())
        .replace("i32.load_unit", &format!("i32.{load}"))
        .replace("i32.store_unit", &format!("i32.{store}"))
        .replace("RECORD", &RECORD.to_string())
        .replace("RETURNS", &RETURNS.to_string())
        .replace("RETURN", &RETURN.to_string());
    format!("(module {imports} (table funcref (elem {names})) {thunks} {body})")
}

/// The header of a program: where its calls are and how many; how the allocator behaves, and after
/// how many calls of it; where what the handler returns is, or 0. Each call: its function; the place
/// of a byte that has to be 0, or 0; its arguments.
const BODY: &str = r#"
(memory (export "memory") 80)
(global $next (mut i32) (i32.const 0x200000))
(global $allocations (mut i32) (i32.const 0))
(func $i32 (param $a i32) (result i32)
  (if (result i32) (i32.eq (i32.load (local.get $a)) (i32.const 1))
    (then (i32.load (i32.load offset=8 (local.get $a))))
    (else (i32.load offset=8 (local.get $a)))))
(func $i64 (param $a i32) (result i64) (i64.load offset=8 (local.get $a)))
(func $f32 (param $a i32) (result f32) (f32.load offset=8 (local.get $a)))
(func $f64 (param $a i32) (result f64) (f64.load offset=8 (local.get $a)))
(func $realloc (export "cabi_realloc") (param $old i32) (param $had i32) (param $align i32) (param $size i32) (result i32)
  (local $at i32) (local $how i32)
  (global.set $allocations (i32.add (global.get $allocations) (i32.const 1)))
  (if (i32.gt_u (global.get $allocations) (i32.load (i32.const 0x1000c)))
    (then
      (local.set $how (i32.load (i32.const 0x10008)))
      (if (i32.eq (local.get $how) (i32.const 1)) (then (return (i32.const 0))))
      (if (i32.eq (local.get $how) (i32.const 2)) (then (return (i32.const -16))))
      (if (i32.eq (local.get $how) (i32.const 3)) (then (return (i32.const 0x200001))))
      (if (i32.eq (local.get $how) (i32.const 4)) (then unreachable))
      (if (i32.eq (local.get $how) (i32.const 5)) (then (call_indirect (param i32) (i32.const 0x10018) (i32.const 0))))
      (if (i32.eq (local.get $how) (i32.const 6)) (then (drop (memory.grow (i32.const 100)))))
      (if (i32.eq (local.get $how) (i32.const 7)) (then (loop $ever (br $ever))))
      (if (i32.eq (local.get $how) (i32.const 8)) (then (return (i32.const 0x10000))))))
  (local.set $at (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
  (global.set $next (i32.add (local.get $at) (local.get $size)))
  (loop $more
    (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
      (then
        (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
        (br $more))))
  (memory.copy (local.get $at) (local.get $old) (local.get $had))
  (local.get $at))
(func (export "innkeeper:plugin/handlers@0.1.0#describe") (result i32) (i32.const 0x100))
(func $digit (param $c i32) (result i32)
  (i32.add (i32.and (local.get $c) (i32.const 15)) (i32.mul (i32.shr_u (local.get $c) (i32.const 6)) (i32.const 9))))
(func $read (param $from i32) (param $count i32)
  (local $to i32)
  (local.set $to (i32.const 0x10000))
  (local.set $from (i32.add (local.get $from) (i32.const UNIT)))
  (block $done (loop $next
    (br_if $done (i32.le_s (local.get $count) (i32.const 3)))
    (i32.store8 (local.get $to)
      (i32.or
        (i32.shl (call $digit (i32.load_unit (local.get $from))) (i32.const 4))
        (call $digit (i32.load_unit (i32.add (local.get $from) (i32.const UNIT))))))
    (local.set $from (i32.add (local.get $from) (i32.mul (i32.const 2) (i32.const UNIT))))
    (local.set $count (i32.sub (local.get $count) (i32.const 2)))
    (local.set $to (i32.add (local.get $to) (i32.const 1)))
    (br $next))))
(func $say (param $at i32) (param $c i32)
  (i32.store_unit (i32.add (i32.const 0x300) (i32.mul (local.get $at) (i32.const UNIT))) (local.get $c)))
(func (export "innkeeper:plugin/handlers@0.1.0#run") (param $p i32) (result i32)
  (local $call i32) (local $n i32) (local $count i32) (local $return i32)
  (memory.fill (i32.const RETURNS) (i32.const 255) (i32.const 0x2000))
  (call $read (i32.load offset=8 (local.get $p)) (i32.load offset=12 (local.get $p)))
  (local.set $call (i32.load (i32.const 0x10000)))
  (local.set $count (i32.load (i32.const 0x10004)))
  (call $say (i32.const 0) (i32.const 34))
  (block $done (loop $next
    (br_if $done (i32.ge_u (local.get $n) (local.get $count)))
    (local.set $return (i32.add (i32.const RETURNS) (i32.mul (local.get $n) (i32.const RETURN))))
    (block $skip
      (if (i32.load offset=4 (local.get $call))
        (then (br_if $skip (i32.load8_u (i32.load offset=4 (local.get $call))))))
      (call_indirect (param i32) (local.get $call) (i32.load (local.get $call))))
    (call $say (i32.add (i32.const 1) (i32.mul (local.get $n) (i32.const 3)))
      (i32.add (i32.const 97) (i32.and (i32.load8_u (local.get $return)) (i32.const 15))))
    (call $say (i32.add (i32.const 2) (i32.mul (local.get $n) (i32.const 3)))
      (i32.add (i32.const 97) (i32.and (i32.load8_u offset=4 (local.get $return)) (i32.const 15))))
    (call $say (i32.add (i32.const 3) (i32.mul (local.get $n) (i32.const 3)))
      (i32.add (i32.const 97) (i32.and (i32.load8_u offset=8 (local.get $return)) (i32.const 15))))
    (local.set $n (i32.add (local.get $n) (i32.const 1)))
    (local.set $call (i32.add (local.get $call) (i32.const RECORD)))
    (br $next)))
  (if (i32.load (i32.const 0x10010)) (then (return (i32.load (i32.const 0x10010)))))
  (call $say (i32.add (i32.const 1) (i32.mul (local.get $n) (i32.const 3))) (i32.const 34))
  (i32.store (i32.const 0x200) (i32.const 0))
  (i32.store (i32.const 0x208) (i32.const 0x300))
  (i32.store (i32.const 0x20c) (i32.add (i32.const 2) (i32.mul (local.get $n) (i32.const 3))))
  (i32.const 0x200))
"#;
