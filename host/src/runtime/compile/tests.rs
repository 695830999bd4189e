use std::path::Path;

use wasmtime::InstanceAllocationStrategy;

use super::*;

const PLENTY: u64 = 1 << 30;

/// A component, different for each name, that compiles to a few kilobytes.
fn wasm(name: &str) -> Vec<u8> {
    let text = format!("(component (core module (func (export {name:?}) (result i32) i32.const 1)))");
    wat::parse_str(text).unwrap()
}

fn engine(fuel: bool) -> Engine {
    Engine::new(&code_config(fuel)).unwrap()
}

fn compiler(folder: &Path, limit: u64) -> Compiler {
    Compiler::new(CompileIn::Process).with_cache(Cache::new(folder.join("compiled"), limit))
}

async fn is_cached(compiler: &Compiler, engine: &Engine, wasm: &[u8]) -> bool {
    compiler.component(engine, &Digest::of(wasm), wasm).await.unwrap().1.cached
}

/// The entries of the folder, and whatever else is there that should not be.
fn files(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder.join("compiled")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.file_name().is_some_and(|name| name != "lock")).collect()
}

#[tokio::test]
async fn a_component_is_compiled_once_for_each_way_to_compile_it() {
    let folder = tempfile::tempdir().unwrap();
    let (engine_a, a) = (engine(false), wasm("a"));
    assert!(!is_cached(&compiler(folder.path(), PLENTY), &engine_a, &a).await);
    assert!(is_cached(&compiler(folder.path(), PLENTY), &engine_a, &a).await);
    let mut pooled = code_config(false);
    pooled.allocation_strategy(InstanceAllocationStrategy::pooling());
    let pooled = Engine::new(&pooled).unwrap();
    assert!(is_cached(&compiler(folder.path(), PLENTY), &pooled, &a).await, "slots are no part of code");
    assert!(!is_cached(&compiler(folder.path(), PLENTY), &engine(true), &a).await, "fuel is");
    assert!(!is_cached(&compiler(folder.path(), PLENTY), &engine_a, &wasm("b")).await);
    assert_eq!(files(folder.path()).len(), 3);
}

#[tokio::test]
async fn two_that_want_the_same_at_once_compile_it_once() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, a) = (engine(false), wasm("a"));
    // Two hosts, and two calls of one of them.
    let (one, other) = (compiler(folder.path(), PLENTY), compiler(folder.path(), PLENTY));
    let cached = tokio::join!(
        is_cached(&one, &engine, &a),
        is_cached(&one, &engine, &a),
        is_cached(&other, &engine, &a)
    );
    assert_eq!([cached.0, cached.1, cached.2].into_iter().filter(|cached| !cached).count(), 1);
}

#[tokio::test]
async fn an_entry_that_is_damaged_or_of_something_else_is_compiled_again() {
    let folder = tempfile::tempdir().unwrap();
    let compiler = compiler(folder.path(), PLENTY);
    let (engine_a, a) = (engine(false), wasm("a"));
    assert!(!is_cached(&compiler, &engine_a, &a).await);
    let path = files(folder.path()).remove(0);
    let good = std::fs::read(&path).unwrap();
    assert!(!is_cached(&compiler, &engine(true), &a).await);
    let other = files(folder.path()).into_iter().find(|other| *other != path).unwrap();
    let of_another_engine = std::fs::read(other).unwrap();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let broken = [
        ("nothing", Vec::new()),
        ("truncated", good[..good.len() / 2].to_vec()),
        ("without its last byte", good[..good.len() - 1].to_vec()),
        ("a bit in its code", flipped(good.len() / 2)),
        ("a bit in its checksum", flipped(good.len() - 1)),
        ("a byte more", [&good[..], b"x"].concat()),
        ("zeroes", vec![0; good.len()]),
        ("of another engine", of_another_engine),
    ];
    for (what, bytes) in broken {
        // As a file of its own: what others have mapped does not change.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
        assert!(!is_cached(&compiler, &engine_a, &a).await, "{what}");
        assert!(is_cached(&compiler, &engine_a, &a).await, "{what}, once it was compiled again");
        assert_eq!(std::fs::read(&path).unwrap().len(), good.len(), "{what}");
    }
}

#[tokio::test]
async fn what_was_not_used_for_longest_makes_room_for_what_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(false);
    let [a, b, c] = ["a", "b", "c"].map(wasm);
    let roomy = compiler(folder.path(), PLENTY);
    assert!(!is_cached(&roomy, &engine, &a).await && !is_cached(&roomy, &engine, &b).await);
    let bytes: u64 = files(folder.path()).iter().map(|path| path.metadata().unwrap().len()).sum();
    // Both were used long ago; then the first is used again.
    for path in files(folder.path()) {
        let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        std::fs::File::open(path).unwrap().set_modified(long_ago).unwrap();
    }
    assert!(is_cached(&roomy, &engine, &a).await);
    let tight = compiler(folder.path(), bytes);
    assert!(!is_cached(&tight, &engine, &c).await);
    assert_eq!(files(folder.path()).len(), 2);
    assert!(is_cached(&tight, &engine, &a).await && is_cached(&tight, &engine, &c).await);
    assert!(!is_cached(&tight, &engine, &b).await);
}

#[tokio::test]
async fn without_a_folder_that_can_be_used_components_are_compiled_each_time() {
    use std::os::unix::fs::PermissionsExt as _;
    let (engine, a) = (engine(false), wasm("a"));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("compiled"), "no folder").unwrap();
    let nowhere = compiler(folder.path(), PLENTY);
    assert!(!is_cached(&nowhere, &engine, &a).await && !is_cached(&nowhere, &engine, &a).await);
    assert!(nowhere.complained.load(Ordering::Relaxed));

    let folder = tempfile::tempdir().unwrap();
    let own = compiler(folder.path(), PLENTY);
    assert!(!is_cached(&own, &engine, &a).await && is_cached(&own, &engine, &a).await);
    let everybody = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(folder.path().join("compiled"), everybody).unwrap();
    assert!(!is_cached(&own, &engine, &a).await, "anybody may have written it");
    let off = compiler(folder.path(), 0);
    assert!(!is_cached(&off, &engine, &a).await && !off.complained.load(Ordering::Relaxed));
}

#[tokio::test]
async fn what_is_not_valid_is_the_components_fault_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let compiler = compiler(folder.path(), PLENTY);
    let broken = [&wasm("a")[..], b"garbage"].concat();
    let error = compiler.component(&engine(false), &Digest::of(&broken), &broken).await.err().unwrap();
    assert!(matches!(error, CompileError::Invalid(_)), "{error:?}");
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
}
