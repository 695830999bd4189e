//! Loading components: whatever the bytes are, they are loaded or refused, in bounded time and memory,
//! and the next component is none the worse for it.

mod bomb;
mod sections;
mod text;

use std::sync::Arc;
use std::time::Duration;

use innkeeper::interfaces::ClosedPort;
use innkeeper::interfaces::db::Session;
use innkeeper::interfaces::granted::Granted;
use innkeeper::limits::Limits;
use innkeeper::plugin::{Digest, Source};
use innkeeper::runtime::{Call, LoadedComponent, Runtime, Stop};
use serde_json::Value;

use super::bytes::{self, Random};
use super::{Reached, Target};
use crate::attempt::attempt;
use crate::host::guest;

/// What one execution may have: less than the pool offers, so that both bounds are met.
fn limits() -> Limits {
    Limits { memory: 16 << 20, timeout: Duration::from_millis(50), ..Limits::default() }
}

/// A component that takes longer to describe itself is given up. (The host does so after 30 s.)
const LOADING: Duration = Duration::from_secs(4);

/// How often a component that is in order has to be loaded and has to answer.
const LOOKS: u64 = 100;

/// `Runtime::load`, and one call of what it has loaded.
pub struct Loading {
    threads: tokio::runtime::Runtime,
    runtime: Runtime,
    inputs: u64,
}

impl Target for Loading {
    const NAME: &'static str = "loading";
    const PATIENCE: Duration = Duration::from_secs(120);
    const MEMORY: u64 = 512 << 20;

    fn start() -> Self {
        let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        // Room for one execution: whatever keeps its place is found by the next.
        let runtime = Runtime::new(1, limits().memory * 2).expect("there is room");
        let mut loading = Self { threads: threads.expect("threads can be started"), runtime, inputs: 0 };
        loading.look().expect("a component in order can be loaded");
        loading
    }

    fn seeds() -> Vec<Vec<u8>> {
        let mut seeds: Vec<Vec<u8>> = text::SEEDS.iter().map(|seed| in_order(seed)).collect();
        seeds.extend(bomb::all(64));
        seeds.push(Vec::new());
        seeds
    }

    fn mutate(random: &mut Random, pool: &[Vec<u8>]) -> Vec<u8> {
        match random.u8(..32) {
            0..16 => text::mutate(random),
            16 => bomb::any(random),
            17 => {
                // Large ones take a second each to compile.
                let large = read(pick_large(random));
                let other = bytes::choose(random, pool);
                sections::mutate(random, &large, other)
            }
            18..20 => {
                let input = bytes::choose(random, pool).to_vec();
                let other = bytes::choose(random, pool);
                bytes::mutate(random, input, other)
            }
            _ => {
                let (input, other) = (bytes::choose(random, pool), bytes::choose(random, pool));
                sections::mutate(random, input, other)
            }
        }
    }

    fn run(&mut self, input: &[u8]) -> Result<Reached, String> {
        let reached = self.threads.block_on(self.load(input));
        self.inputs += 1;
        if self.inputs.is_multiple_of(LOOKS) {
            self.look().map_err(|error| format!("a component in order is not taken any more: {error}"))?;
        }
        Ok(reached)
    }

    fn shorter(input: &[u8]) -> Vec<Vec<u8>> {
        sections::shorter(input).into_iter().chain(bytes::shorter(input)).collect()
    }
}

impl Loading {
    async fn load(&self, input: &[u8]) -> Reached {
        let source = source(input.to_vec());
        let loaded = tokio::time::timeout(LOADING, self.runtime.load(&source, limits())).await;
        match loaded {
            Err(_) => Reached { stage: "given up".to_owned(), features: Vec::new() },
            Ok(Err(error)) => {
                // The name of the variant: how far it got.
                let stage = format!("{error:?}");
                let stage = stage.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned();
                Reached { features: vec![bytes::form(&error.to_string())], stage }
            }
            Ok(Ok(component)) => {
                let outcome = self.call(&component, "h").await;
                let outcome = outcome.unwrap_or_else(|failure| bytes::form(&failure));
                Reached { stage: "loaded and called".to_owned(), features: vec![outcome] }
            }
        }
    }

    /// The form of an outcome, and whether it is a success.
    async fn call(&self, component: &LoadedComponent, handler: &str) -> Result<String, String> {
        let attempt = attempt("fuzz", handler, Value::from("anything"), limits().timeout);
        let call = Call {
            attempt: &attempt,
            config: Arc::default(),
            capabilities: Arc::new(Granted::nothing()),
            session: Session::refused(),
            port: Arc::new(ClosedPort),
            limits: limits(),
            stop: &Stop::new(),
        };
        match self.runtime.call(component, call).await.outcome {
            innkeeper::execution::Outcome::Succeeded(result) => Ok(format!("succeeded: {result}")),
            outcome => Err(format!("{outcome:?}")),
        }
    }

    /// A component that is in order can be loaded, and answers.
    fn look(&mut self) -> Result<(), String> {
        let source = source(in_order(text::SEEDS[0]));
        self.threads.block_on(async {
            let component = self.runtime.load(&source, limits()).await.map_err(|error| error.to_string())?;
            // Its name is all that is known of a handler here.
            let handlers: Vec<&str> =
                component.handlers.iter().map(|handler| handler.name.as_str()).collect();
            if handlers != ["h"] {
                return Err(format!("it has the handlers {handlers:?}"));
            }
            self.call(&component, "h").await.map(drop)
        })
    }
}

fn source(bytes: Vec<u8>) -> Source {
    Source { origin: "fuzz.wasm".to_owned(), digest: Digest::of(&bytes), manifest: None, bytes: bytes.into() }
}

/// A seed's bytes.
fn in_order(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("a seed is no WAT: {error}"))
}

fn pick_large(random: &mut Random) -> &'static str {
    bytes::pick(random, &["bench", "hostile", "maintenance", "probe"])
}

fn read(name: &str) -> Vec<u8> {
    let path = guest(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
