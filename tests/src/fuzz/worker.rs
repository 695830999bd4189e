//! The thread that gives inputs to a target. Whoever waits for it does so with a bound.

use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::{Reached, Target, finding, memory};

/// How what is wrong begins where there was no answer.
pub(super) const HANG: &str = "no answer";

/// As the async threads of the host have it, so that what recurses too deep there does so here.
const STACK: usize = 2 << 20;

/// Setting up compiles components.
const START: Duration = Duration::from_secs(300);

/// What came of an input.
pub(super) enum Verdict {
    Fine(Reached),
    Wrong(String),
}

/// A target on a thread of its own.
pub(super) struct Worker<T> {
    channels: Option<Channels>,
    /// The input that is being given: what is left of it if the process dies.
    running: PathBuf,
    target: PhantomData<T>,
}

struct Channels {
    inputs: Sender<Vec<u8>>,
    verdicts: Receiver<Verdict>,
}

impl<T: Target> Worker<T> {
    pub(super) fn start() -> Self {
        finding::note_panics();
        let running = finding::folder(T::NAME).join("running");
        Self { channels: None, running, target: PhantomData }
    }

    /// Gives an input, to a new target if the last one came to harm.
    pub(super) fn run(&mut self, input: &[u8]) -> Verdict {
        if let Err(error) = std::fs::write(&self.running, input) {
            eprintln!("{}: {error}", self.running.display());
        }
        let channels = self.channels.get_or_insert_with(spawn::<T>);
        let _ = finding::take_panics();
        memory::reset_peak();
        let before = memory::resident();
        let answer = match channels.inputs.send(input.to_vec()) {
            Ok(()) => channels.verdicts.recv_timeout(T::PATIENCE),
            Err(_) => Err(RecvTimeoutError::Disconnected),
        };
        let verdict = match answer {
            Ok(verdict) => verdict,
            Err(RecvTimeoutError::Timeout) => Verdict::Wrong(format!("{HANG} within {:?}", T::PATIENCE)),
            Err(RecvTimeoutError::Disconnected) => Verdict::Wrong("the thread has ended".to_owned()),
        };
        let needed = memory::peak().saturating_sub(before);
        let panics = finding::take_panics();
        let verdict = match (verdict, panics.first()) {
            (Verdict::Fine(_), Some(panic)) => Verdict::Wrong(panic.clone()),
            (Verdict::Wrong(_), Some(panic)) => Verdict::Wrong(panic.clone()),
            (Verdict::Fine(_), None) if needed > T::MEMORY => {
                Verdict::Wrong(format!("{} MiB of memory were needed", needed >> 20))
            }
            (verdict, None) => verdict,
        };
        if let Verdict::Wrong(_) = verdict {
            self.channels = None;
        }
        verdict
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.running);
    }
}

fn spawn<T: Target>() -> Channels {
    let (inputs, given) = channel::<Vec<u8>>();
    let (told, verdicts) = channel();
    let (ready, is_ready) = channel();
    let work = move || {
        let mut target = T::start();
        let _ = ready.send(());
        for input in given {
            let verdict = match catch_unwind(AssertUnwindSafe(|| target.run(&input))) {
                Ok(Ok(reached)) => Verdict::Fine(reached),
                Ok(Err(what)) => Verdict::Wrong(what),
                // The hook has noted which.
                Err(_) => Verdict::Wrong("it panicked".to_owned()),
            };
            if told.send(verdict).is_err() {
                break;
            }
        }
    };
    std::thread::Builder::new()
        .name(format!("fuzz-{}", T::NAME))
        .stack_size(STACK)
        .spawn(work)
        .expect("a thread can be started");
    is_ready.recv_timeout(START).expect("the target can be set up");
    Channels { inputs, verdicts }
}
