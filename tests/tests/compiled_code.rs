//! Compiled components on disk, with the processes that share them and the processes that compile.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use innkeeper::limits::Limits;
use innkeeper::plugin::Source;
use innkeeper::runtime::{Cache, CompileBounds, CompileError, CompileIn, Compiler, LoadError, Runtime};
use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{Scene, TestHost, binary, guest};
use serde_json::Value;

const JOBS: &str = "[jobs.sleep]\nplugin = \"probe\"\nhandler = \"sleep\"\nargs = { ms = 0 }\n";

fn entries(folder: &Path) -> Vec<PathBuf> {
    let files =
        std::fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("it can be read").path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "cwasm")).collect()
}

fn compile_ahead(dir: &Path) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).args(["plugin", "compile", "--json"]).stdin(Stdio::null());
    command
}

/// Whether each plugin's code was there already.
fn cached(output: &Output) -> Vec<bool> {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    let document: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let lines = document["compiled"].as_array().expect("it is a list");
    lines.iter().map(|line| line["cached"] == Value::Bool(true)).collect()
}

#[test]
fn processes_that_start_at_once_compile_a_component_once() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let text = format!("[plugins.probe]\ncomponent = {:?}\n", guest("probe"));
    std::fs::write(dir.path().join("innkeeper.toml"), text).expect("it can be written");
    let start = |_| {
        let mut command = compile_ahead(dir.path());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
    };
    let children = (0..4).map(start).collect::<Vec<_>>();
    let outputs = children.into_iter().map(|child| child.wait_with_output().expect("it ends"));
    let compiled = outputs.flat_map(|output| cached(&output)).filter(|cached| !cached).count();
    assert_eq!(compiled, 1);
    assert_eq!(entries(&dir.path().join("innkeeper-data/compiled")).len(), 1);
}

/// What comes of compiling with this program within these bounds.
async fn compile(folder: &Path, program: &Path, bounds: CompileBounds) -> Result<bool, CompileError> {
    let compiler = Compiler::new(CompileIn::Child(program.to_owned()))
        .with_bounds(bounds)
        .with_cache(Cache::new(folder.to_owned(), 1 << 30));
    let runtime = Runtime::new(1, 64 << 20).expect("there is room").with_compiler(compiler);
    let source = Source::read(&guest("maintenance")).expect("it is there");
    match runtime.compile_ahead(&source, Limits::default()).await {
        Ok(compiled) => Ok(compiled.cached),
        Err(LoadError::Compile(error)) => Err(error),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_compiler_that_comes_to_a_bad_end_is_an_error_of_that_component_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let folder = dir.path().join("compiled");
    let bounds = CompileBounds::default();

    let little = CompileBounds { memory: 16 << 20, ..bounds };
    let error = compile(&folder, &binary(), little).await.expect_err("it does not fit");
    assert!(matches!(error, CompileError::Memory(_)), "{error:?}");
    assert_eq!(error.to_string(), "compiling it takes more than 16.0 MiB");

    let short = CompileBounds { timeout: Duration::from_millis(1), ..bounds };
    let error = compile(&folder, &binary(), short).await.expect_err("there is no time");
    assert!(matches!(error, CompileError::Timeout(_)), "{error:?}");

    // It writes something that begins like code, and is killed.
    let killed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compiled_code/killed.sh");
    let error = compile(&folder, &killed, bounds).await.expect_err("it was killed");
    assert!(matches!(&error, CompileError::Crashed(why) if why.contains("signal: 9")), "{error:?}");

    let error = compile(&folder, Path::new("/nowhere"), bounds).await.expect_err("it is not there");
    assert!(matches!(error, CompileError::Host(_)), "{error:?}");

    assert_eq!(entries(&folder), Vec::<PathBuf>::new());
    assert!(!compile(&folder, &binary(), bounds).await.expect("it is compiled"));
    assert!(compile(&folder, &binary(), bounds).await.expect("it is there"));
    let left = std::fs::read_dir(&folder).expect("it is there").count();
    assert_eq!(left, 2, "the code and the lock");
}

#[tokio::test]
async fn without_a_folder_code_comes_from_a_child_all_the_same() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let no_folder = dir.path().join("compiled");
    std::fs::write(&no_folder, "a file").expect("it can be written");
    let bounds = CompileBounds::default();
    assert!(!compile(&no_folder, &binary(), bounds).await.expect("it is compiled"));
    let compiler = Compiler::new(CompileIn::Child(binary()));
    let runtime = Runtime::new(1, 64 << 20).expect("there is room").with_compiler(compiler);
    let source = Source::read(&guest("maintenance")).expect("it is there");
    let component = runtime.load(&source, Limits::default()).await.expect("it runs");
    assert!(!component.handlers.is_empty(), "it says what it can do");
}

/// A host's folder for compiled code that no other test uses.
fn own_folder(scene: &Scene) -> PathBuf {
    let data = scene.dir().join("data");
    std::fs::create_dir(&data).expect("it can be made");
    let folder = data.join("compiled");
    std::fs::DirBuilder::new().mode(0o700).create(&folder).expect("it can be made");
    folder
}

#[tokio::test]
async fn a_host_whose_compiled_code_is_damaged_says_so_and_compiles_it_again() {
    let scene = Scene::new(Engine::Sqlite).await;
    let folder = own_folder(&scene);
    scene.configure("inn-1", JOBS);
    let compile = || scene.innkeeper(&["plugin", "compile", "--json"]);
    assert_eq!(cached(&compile()), [false]);
    let entry = entries(&folder).remove(0);
    let bytes = std::fs::read(&entry).expect("it can be read");
    std::fs::remove_file(&entry).expect("it can be removed");
    std::fs::write(&entry, &bytes[..bytes.len() / 2]).expect("it can be written");
    let host = scene.serve(JOBS).await;
    host.wait_for_log("compiled code was not used, the component is compiled again").await;
    host.stop().await;
    assert_eq!(cached(&compile()), [true]);
}

#[tokio::test]
async fn a_host_that_cannot_keep_compiled_code_says_so_once_and_serves() {
    let scene = Scene::new(Engine::Sqlite).await;
    std::fs::create_dir(scene.dir().join("data")).expect("it can be made");
    std::fs::write(scene.dir().join("data/compiled"), "a file").expect("it can be written");
    let second = format!("{JOBS}\n[plugins.second]\ncomponent = {:?}\n", guest("maintenance"));
    let host: TestHost = scene.serve(&second).await;
    assert_eq!(host.log().matches("compiled code cannot be kept").count(), 1);
    host.stop().await;
    let output = scene.innkeeper(&["plugin", "compile"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the folder cannot be made"));
}
