//! What is being done, and how long it took.

use std::time::{Duration, Instant};

use anyhow::Result;

/// The steps of a command so far.
#[derive(Default)]
pub struct Steps {
    done: Vec<(&'static str, Duration)>,
}

impl Steps {
    /// Says what is done, does it, and keeps how long it took, also when it fails.
    pub fn run<T>(&mut self, title: &'static str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        eprintln!("xtask: {title} …");
        let start = Instant::now();
        let result = step();
        self.done.push((title, start.elapsed()));
        result
    }

    /// Prints how long each step took.
    pub fn report(&self) {
        let total: Duration = self.done.iter().map(|(_, took)| *took).sum();
        for (title, took) in self.done.iter().chain([&("in all", total)]) {
            eprintln!("xtask: {:>8}  {title}", seconds(*took));
        }
    }
}

fn seconds(took: Duration) -> String {
    match took.as_secs() {
        60.. => format!("{}m{:02}s", took.as_secs() / 60, took.as_secs() % 60),
        _ => format!("{:.1}s", took.as_secs_f64()),
    }
}
