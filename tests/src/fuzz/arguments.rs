//! The arguments of the host's functions: whatever a guest passes, each call answers or traps, and
//! nothing is left behind.
//!
//! An input is read as a program of calls (`program`), with values of the WIT's types (`values`, `sql`) and,
//! here and there, numbers that are none. A guest that was built from the WIT makes the calls (`caller`),
//! in an execution that a store knows (`stage`).

mod caller;
mod program;
mod sql;
mod stage;
mod values;

use std::time::Duration;

use innkeeper::limits::Limits;
use innkeeper::plugin::{Digest, Source};
use innkeeper::runtime::{LoadedComponent, Runtime};
use wit_parser::SizeAlign;

use super::bytes::{self, Random};
use super::{Reached, Target};
use crate::database::Engine;
use caller::World;
use program::{ENCODINGS, Program};
use stage::{Stage, Used};

/// What one execution may have.
fn limits() -> Limits {
    Limits { memory: 16 << 20, timeout: Duration::from_millis(500), ..Limits::default() }
}

/// How often everything is looked at that only a look from outside can find.
const LOOKS: u64 = 50;

/// Programs of calls, in executions on both engines.
pub struct Arguments {
    threads: tokio::runtime::Runtime,
    runtime: Runtime,
    world: World,
    sizes: SizeAlign,
    guests: Vec<LoadedComponent>,
    stages: [Stage; 2],
    inputs: u64,
}

impl Target for Arguments {
    const NAME: &'static str = "arguments";
    const PATIENCE: Duration = Duration::from_secs(60);
    const MEMORY: u64 = 256 << 20;

    fn start() -> Self {
        let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let threads = threads.expect("threads can be started");
        let runtime = Runtime::new(1, limits().memory).expect("there is room");
        let world = World::read();
        let mut sizes = SizeAlign::default();
        sizes.fill(&world.resolve);
        let guests = ENCODINGS.iter().map(|encoding| {
            let bytes = world.guest(*encoding);
            let source = Source {
                origin: "caller.wasm".to_owned(),
                digest: Digest::of(&bytes),
                manifest: None,
                bytes: bytes.into(),
            };
            threads.block_on(runtime.load(&source, limits())).expect("the caller can be loaded")
        });
        let guests = guests.collect();
        let stages = [Engine::Sqlite, Engine::Postgres].map(|engine| threads.block_on(Stage::new(engine)));
        Self { threads, runtime, world, sizes, guests, stages, inputs: 0 }
    }

    fn seeds() -> Vec<Vec<u8>> {
        let mut random = Random::with_seed(1);
        // The first byte chooses the engine, the second the encoding.
        let seed = |number: u8| {
            let mut seed = vec![number, number / 2, 0, 12];
            seed.extend(std::iter::repeat_with(|| random.u8(..)).take(2_000));
            seed
        };
        (0..24).map(seed).collect()
    }

    fn mutate(random: &mut Random, pool: &[Vec<u8>]) -> Vec<u8> {
        if random.bool() {
            let length = 1 << random.u32(4..12);
            return std::iter::repeat_with(|| random.u8(..)).take(length).collect();
        }
        let input = bytes::choose(random, pool).to_vec();
        let other = bytes::choose(random, pool);
        bytes::mutate(random, input, other)
    }

    fn run(&mut self, input: &[u8]) -> Result<Reached, String> {
        let program = Program::read(input, &self.world, &self.sizes);
        let stage = &mut self.stages[usize::from(program.engine == Engine::Postgres)];
        let guest = &self.guests[program.encoding];
        let used = self.threads.block_on(stage.execute(&self.runtime, guest, &program.image))?;
        self.inputs += 1;
        if self.inputs.is_multiple_of(LOOKS) {
            for stage in &mut self.stages {
                self.threads.block_on(stage.look(&self.runtime, &self.guests[0]))?;
            }
        }
        Ok(reached(&program, used))
    }
}

/// What each call has answered, as far as the guest could say it in the end.
fn reached(program: &Program, used: Used) -> Reached {
    let mut features = vec![bytes::form(&used.message)];
    if let Some(answers) = used.answers {
        let answers = answers.as_bytes().chunks(3).map(String::from_utf8_lossy);
        let told = program.calls.iter().zip(answers);
        features.extend(told.map(|(call, answer)| format!("{:?} {call} {answer}", program.engine)));
    }
    Reached { stage: format!("{:?}: {}", program.engine, used.kind), features }
}
