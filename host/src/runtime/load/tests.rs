//! Components of a few lines, as far as they can be loaded.

use wit_component::StringEncoding;
use wit_parser::Resolve;

use super::*;

fn source(bytes: Vec<u8>) -> Source {
    let digest = Digest::of(&bytes);
    Source { origin: "p.wasm".to_owned(), digest, manifest: None, bytes: bytes.into() }
}

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("it is WAT")
}

async fn load(bytes: Vec<u8>) -> Result<LoadedComponent, LoadError> {
    let runtime = Runtime::new(1, Limits::default().memory).expect("there is room");
    runtime.load(&source(bytes), Limits::default()).await
}

fn described(name: &str, args_schema: &str) -> handlers::Handler {
    handlers::Handler {
        name: name.to_owned(),
        summary: String::new(),
        args_schema: Some(args_schema.to_owned()),
        annotations: Vec::new(),
    }
}

#[test]
fn a_schema_that_would_keep_the_host_busy_is_refused_with_its_handler() {
    let schema = r##"{"allOf": [{"$ref": "#"}]}"##;
    let error = to_handlers(vec![described("fine", "{}"), described("endless", schema)]).unwrap_err();
    assert!(matches!(&error, LoadError::Handler { handler, .. } if handler == "endless"), "{error}");
    assert!(error.to_string().contains("refers to itself"), "{error}");
}

#[test]
fn a_component_describes_only_so_many_handlers_and_says_only_so_much_of_them() {
    let many = (0..=bounds::HANDLERS).map(|n| described(&format!("h{n}"), "{}")).collect::<Vec<_>>();
    assert!(to_handlers(many[1..].to_vec()).is_ok());
    assert!(to_handlers(many).unwrap_err().to_string().contains("1001 handlers"));
    let large = format!("{{\"description\": \"{}\"}}", "x".repeat(bounds::SCHEMA - 100));
    let large = ["a", "b", "c", "d", "e"].map(|name| described(name, &large)).to_vec();
    assert!(to_handlers(large[..3].to_vec()).is_ok());
    assert!(to_handlers(large).unwrap_err().to_string().contains("at most 1048576"));
}

/// A core module as the bindings of our world leave it: it names the world in a section of its own.
/// Its list of handlers is empty.
fn module_with_our_world() -> Vec<u8> {
    let mut module = wat(r#"(module
             (import "wasi_snapshot_preview1" "random_get" (func (param i32 i32) (result i32)))
             (import "innkeeper:plugin/context@0.1.0" "cancelled" (func (result i32)))
             (memory (export "memory") 1)
             (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
             (func (export "innkeeper:plugin/handlers@0.1.0#describe") (result i32) (i32.const 1024))
             (func (export "innkeeper:plugin/handlers@0.1.0#run") (param i32) (result i32) (unreachable)))"#);
    let mut resolve = Resolve::default();
    let wit = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugin-sdk/wit");
    let (package, _) = resolve.push_dir(wit).expect("it is WIT");
    let world = resolve.select_world(&[package], Some("plugin")).expect("there is the world");
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
        .expect("it can be written");
    module
}

#[tokio::test]
async fn a_core_module_with_our_world_is_a_plugin() {
    let loaded = load(module_with_our_world()).await.unwrap();
    assert!(matches!(loaded.entry, Entry::Handlers(_)));
    assert_eq!(loaded.handlers, []);
}

#[tokio::test]
async fn a_core_module_with_a_start_is_a_program_that_tells_of_itself() {
    let loaded = load(wat(r#"(module (@custom "description" "Counts the lines of its input.")
             (memory (export "memory") 1) (func (export "_start")))"#));
    let loaded = loaded.await.unwrap();
    assert!(matches!(loaded.entry, Entry::Program(_)));
    assert_eq!(loaded.handlers, [command::handler(Some("Counts the lines of its input."))]);
}

#[tokio::test]
async fn code_of_a_module_is_kept_under_another_key_than_its_digest() {
    let module = source(module_with_our_world());
    let prepared = prepare(&module).await.unwrap();
    assert_eq!(prepared.form, Form::CoreModule);
    assert_ne!(prepared.key, module.digest, "another version of the adapter makes other code of it");
    let component = source(prepared.bytes.to_vec());
    assert_eq!(prepare(&component).await.unwrap().key, component.digest);
}

#[tokio::test]
async fn everything_that_a_component_lacks_is_told_at_once() {
    let error = load(wat(r#"(component
             (import "innkeeper:plugin/db@0.2.0" (instance (export "query" (func))))
             (import "innkeeper:plugin/context@0.1.0" (instance
               (export "cancelled" (func (result bool)))
               (export "rewind" (func))
               (export "unwind" (func))))
             (import "innkeeper:plugin/mail@0.1.0" (instance (export "send" (func))))
             (import "wasi:clocks/monotonic-clock@0.2.0" (instance (export "now" (func (result u64)))))
             (import "wasi:clocks/types@0.3.0" (instance (export "now" (func))))
             (import "acme:things/stock@1.0.0" (instance
               (export "thing" (type $thing (sub resource)))
               (export "[method]thing.use" (func (param "self" (borrow $thing))))))
             (import "lonely" (func))
             (core module $m) (core instance (instantiate $m))
             (instance $handlers)
             (export "innkeeper:plugin/handlers@0.1.0" (instance $handlers)))"#));
    let error = error.await.err().expect("it cannot be loaded");
    let message = error.to_string();
    for part in [
        "`innkeeper:plugin/db@0.2.0`: another version of the SDK: this host has `innkeeper:plugin@0.1.0`",
        "`innkeeper:plugin/context@0.1.0`: this host's is another one, without `rewind`, `unwind`",
        "`innkeeper:plugin/mail@0.1.0`: this host is older than the SDK",
        "`wasi:clocks/types@0.3.0`: WASI 0.3, which this host does not have",
        "`acme:things/stock@1.0.0`, `lonely`: nothing of this name is in this host",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(!message.contains("monotonic-clock"), "this host has it: {message}");
    let LoadError::Imports(lacks) = error else { panic!("{message}") };
    assert_eq!(lacks.iter().count(), 6);
}

#[tokio::test]
async fn what_exports_nothing_that_is_called_is_refused_with_what_it_exports() {
    let error = load(wat(r#"(component (instance $i) (export "acme:things/stock" (instance $i)))"#)).await;
    let message = error.err().unwrap().to_string();
    assert!(message.contains("it exports `acme:things/stock`"), "{message}");
    let error = load(wat(r#"(component (instance $i) (export "wasi:cli/run@0.3.0" (instance $i)))"#)).await;
    assert!(matches!(error, Err(LoadError::NoHandlers { .. })));
}

#[tokio::test]
async fn damaged_components_are_refused_and_nothing_panics() {
    let runtime = Runtime::new(1, Limits::default().memory).expect("there is room");
    let module = source(module_with_our_world());
    let component = prepare(&module).await.unwrap().bytes.to_vec();
    let (mut random, mut refused) = (fastrand(), 0);
    for _ in 0..300 {
        let mut bytes = component.clone();
        for _ in 0..=random() % 4 {
            let at = usize::try_from(random()).unwrap() % bytes.len();
            bytes[at] = u8::try_from(random() % 256).unwrap();
        }
        if random() % 4 == 0 {
            bytes.truncate(usize::try_from(random()).unwrap() % bytes.len());
        }
        // A task of its own that panics does not fail the test.
        let loaded = runtime.load(&source(bytes), Limits::default()).await;
        if let Err(error) = loaded {
            refused += 1;
            assert!(!error.to_string().contains("panic"), "{error}");
        }
    }
    assert!(refused > 100, "{refused}");
}

/// Numbers that are the same in every run (xorshift).
fn fastrand() -> impl FnMut() -> u64 {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 8
    }
}
