//! The threads that handlers run on.

use tokio::runtime::{Builder, Handle, Runtime};

/// An async runtime of their own for handlers and for what they have open in their databases.
///
/// A handler that computes keeps its thread for as long as an epoch, and hundreds may stand in
/// line: whoever shares that line with them, a heartbeat or a COMPLETION, waits for each.
/// Between two runtimes the operating system decides, and lets the one go first that slept.
pub(super) struct Threads(Option<Runtime>);

impl Threads {
    /// Twice as many threads as there are cores: handlers that compute for long are on as many as
    /// there are cores at most (`turns.rs`), and others find one that is free.
    pub(super) fn start() -> std::io::Result<Self> {
        let threads = Builder::new_multi_thread()
            .thread_name("handlers")
            .worker_threads(2 * cores())
            .enable_all()
            .build()?;
        Ok(Self(Some(threads)))
    }

    pub(super) fn handle(&self) -> &Handle {
        self.0.as_ref().expect("it is there until it is dropped").handle()
    }
}

/// Cores that this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Waiting for the threads is not allowed where other tasks run.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
