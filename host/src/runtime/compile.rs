//! From a component's bytes to code: out of the cache, or compiled in a process of its own.
//!
//! Compiling takes hundreds of megabytes for a large component and works on bytes that nobody has
//! vouched for. In a child process, the memory goes back when it is done, a bound on it holds, and a
//! component that brings the compiler down brings down nothing else.

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::Mutex;
use tokio::time::Instant;
use wasmtime::component::Component;
use wasmtime::{Config, Engine};

use super::cache::{Cache, Found, Key, Lock};
use super::reason::reason;
use crate::plugin::Digest;

mod child;
#[cfg(test)]
mod tests;

pub use child::{COMMAND, compile_component};

/// Where components are compiled.
#[derive(Clone, Debug)]
pub enum CompileIn {
    /// In a child process of this program, which has to know [`COMMAND`].
    Child(PathBuf),
    /// In this process: for programs that do not know it.
    Process,
}

/// What compiling one component may take.
#[derive(Clone, Copy, Debug)]
pub struct CompileBounds {
    /// Bytes of address space of the child.
    pub memory: u64,
    /// From the child's start to its end.
    pub timeout: Duration,
}

impl Default for CompileBounds {
    /// CPython with its standard library, 35 MB, is compiled in seconds and within a gigabyte.
    fn default() -> Self {
        Self { memory: 4 << 30, timeout: Duration::from_secs(300) }
    }
}

/// Compiles components, one at a time.
#[derive(Debug)]
pub struct Compiler {
    place: CompileIn,
    bounds: CompileBounds,
    cache: Option<Cache>,
    /// Whoever has it compiles.
    turn: Mutex<()>,
    /// It has been said that the cache cannot be written.
    complained: AtomicBool,
}

/// How a component's code was come by.
#[derive(Clone, Copy, Debug)]
pub struct Compiled {
    /// It was there already.
    pub cached: bool,
    /// From the call to the code, the wait for others included.
    pub took: Duration,
    /// Bytes of code, where it is known.
    pub bytes: Option<u64>,
}

/// Why there is no code.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The component is at fault: damaged, or more than an instance can have.
    #[error("the component is not valid: {0}")]
    Invalid(String),
    /// It wanted more memory than compiling may take.
    #[error("compiling it takes more than {}", bytesize::ByteSize::b(*.0))]
    Memory(u64),
    /// It took longer than compiling may take.
    #[error("compiling it takes longer than {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// The compiler came to an unforeseen end.
    #[error("the compiler broke off: {0}")]
    Crashed(String),
    /// This host could not start the compiler.
    #[error("this host could not start the process that compiles: {0}")]
    Host(std::io::Error),
}

impl CompileIn {
    /// In a child process of the program that is running, even if its file has been replaced since.
    /// Only for programs whose `main` is `cli::main`.
    #[must_use]
    pub fn this_program() -> Self {
        let this = PathBuf::from("/proc/self/exe");
        if this.exists() {
            return Self::Child(this);
        }
        std::env::current_exe().map_or(Self::Process, Self::Child)
    }
}

impl Compiler {
    /// Compiles at each load, and keeps nothing.
    #[must_use]
    pub fn new(place: CompileIn) -> Self {
        let (bounds, complained) = (CompileBounds::default(), AtomicBool::new(false));
        Self { place, bounds, cache: None, turn: Mutex::new(()), complained }
    }

    /// Whether components are compiled in a process of their own.
    #[cfg(test)]
    pub(super) fn is_in_child(&self) -> bool {
        matches!(self.place, CompileIn::Child(_))
    }

    /// Keeps what is compiled, unless the cache is to keep nothing.
    #[must_use]
    pub fn with_cache(self, cache: Cache) -> Self {
        Self { cache: Some(cache).filter(|cache| !cache.is_off()), ..self }
    }

    /// Other bounds than the default ones.
    #[must_use]
    pub fn with_bounds(self, bounds: CompileBounds) -> Self {
        Self { bounds, ..self }
    }

    /// The code of a component, for `engine`. `digest` is of exactly `wasm`.
    ///
    /// # Errors
    /// See [`CompileError`]. A cache that cannot be used is none.
    pub async fn component(
        &self,
        engine: &Engine,
        digest: &Digest,
        wasm: &[u8],
    ) -> Result<(Component, Compiled), CompileError> {
        let begun = Instant::now();
        let told = |cached, bytes| Compiled { cached, took: begun.elapsed(), bytes };
        let Some(cache) = &self.cache else {
            let _turn = self.turn.lock().await;
            let (component, bytes) = self.without_cache(engine, wasm).await?;
            return Ok((component, told(false, bytes)));
        };
        let key = Key::new(engine, digest);
        if let Some((component, bytes)) = find(cache, engine, &key).await {
            return Ok((component, told(true, Some(bytes))));
        }
        let _turn = self.turn.lock().await;
        let lock = match cache.lock().await {
            Ok(lock) => lock,
            Err(error) => {
                self.complain(cache, &error);
                let (component, bytes) = self.without_cache(engine, wasm).await?;
                return Ok((component, told(false, bytes)));
            }
        };
        // Somebody else may have compiled it meanwhile.
        if let Some((component, bytes)) = find(cache, engine, &key).await {
            return Ok((component, told(true, Some(bytes))));
        }
        let kept = self.compile_and_keep(cache, &lock, engine, &key, wasm).await?;
        let (component, bytes) = match kept {
            Ok((component, bytes)) => (component, Some(bytes)),
            Err(error) => {
                // First, since it may not be the cache's fault: an instance cannot have all that a
                // component asks for, which only this engine knows.
                let compiled = self.without_cache(engine, wasm).await?;
                self.complain(cache, &error);
                compiled
            }
        };
        cache.trim(&lock);
        Ok((component, told(false, bytes)))
    }

    /// The outer error is the component's or the compiler's, the inner one the cache's.
    async fn compile_and_keep(
        &self,
        cache: &Cache,
        lock: &Lock,
        engine: &Engine,
        key: &Key,
        wasm: &[u8],
    ) -> Result<anyhow::Result<(Component, u64)>, CompileError> {
        let mut entry = match cache.begin(lock) {
            Ok(entry) => entry,
            Err(error) => return Ok(Err(error)),
        };
        self.compile(engine, wasm, &mut entry).await?;
        let (cache, engine, key) = (cache.clone(), engine.clone(), key.clone());
        let kept = tokio::task::spawn_blocking(move || {
            let bytes = cache.finish(entry, &key)?;
            let mapped = cache.map(&engine, &key).inspect_err(|_| cache.remove(&key));
            Ok((mapped.context("it was written, and cannot be used")?, bytes))
        });
        kept.await.map_err(|error| CompileError::Crashed(error.to_string()))
    }

    async fn without_cache(
        &self,
        engine: &Engine,
        wasm: &[u8],
    ) -> Result<(Component, Option<u64>), CompileError> {
        if matches!(self.place, CompileIn::Process) {
            let (engine, wasm) = (engine.clone(), wasm.to_vec());
            let component = tokio::task::spawn_blocking(move || Component::from_binary(&engine, &wasm))
                .await
                .map_err(|error| CompileError::Crashed(error.to_string()))?
                .map_err(|error| CompileError::Invalid(reason(&error)))?;
            return Ok((component, None));
        }
        let mut code = Vec::new();
        self.compile(engine, wasm, &mut code).await?;
        #[expect(unsafe_code, reason = "what a child has compiled can only be used by trusting the child")]
        // SAFETY: the bytes have to be code that wasmtime wrote. They came through a pipe from a child
        // that runs this very program, has written nothing else, and said at its end that it was done;
        // nobody else has had them. Wasmtime compares the child's version and settings with ours.
        let component = unsafe { Component::deserialize(engine, &code) };
        let component = component.map_err(|error| CompileError::Invalid(reason(&error)))?;
        Ok((component, Some(code.len() as u64)))
    }

    /// Writes the code to `sink`.
    async fn compile(
        &self,
        engine: &Engine,
        wasm: &[u8],
        sink: &mut (dyn Write + Send),
    ) -> Result<(), CompileError> {
        match &self.place {
            CompileIn::Child(program) => {
                let fuel = engine.get_consume_fuel();
                child::compile(program, self.bounds, fuel, wasm, sink).await
            }
            CompileIn::Process => {
                let (engine, wasm) = (engine.clone(), wasm.to_vec());
                let code = tokio::task::spawn_blocking(move || engine.precompile_component(&wasm))
                    .await
                    .map_err(|error| CompileError::Crashed(error.to_string()))?
                    .map_err(|error| CompileError::Invalid(reason(&error)))?;
                sink.write_all(&code).map_err(CompileError::Host)
            }
        }
    }

    fn complain(&self, cache: &Cache, error: &anyhow::Error) {
        if !self.complained.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                folder = %cache.folder().display(),
                "compiled code cannot be kept, so components are compiled at each start: {error:#}"
            );
        }
    }
}

/// Looks into the cache, off the async threads. A broken entry is removed: it will be compiled again.
async fn find(cache: &Cache, engine: &Engine, key: &Key) -> Option<(Component, u64)> {
    let (cache, engine, key) = (cache.clone(), engine.clone(), key.clone());
    let found = tokio::task::spawn_blocking(move || {
        let found = cache.find(&engine, &key);
        if let Found::Broken(error) = &found {
            tracing::warn!(
                folder = %cache.folder().display(),
                "compiled code was not used, the component is compiled again: {error:#}"
            );
            cache.remove(&key);
        }
        found
    });
    match found.await {
        Ok(Found::Here(component, bytes)) => Some((component, bytes)),
        _ => None,
    }
}

/// Everything that compiled code depends on. Whoever compiles and whoever runs it start from this.
pub(super) fn code_config(fuel: bool) -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true).consume_fuel(fuel);
    config
}
