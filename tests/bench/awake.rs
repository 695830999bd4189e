//! Cores that do not go to sleep while something short is measured.
//!
//! A call that waits three times for an answer from the same machine lets its core fall asleep
//! three times, and the server's as well. To wake one up takes longer on a virtual machine than
//! what is measured, and who pays for it is decided by what else happens to run at the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

/// As long as it lives, each core has something to do, which gives way to everything else.
pub struct Awake {
    stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Awake {
    /// Begins to keep the cores awake.
    ///
    /// # Errors
    /// Where the system does not let a thread take the lowest priority: it would take time from
    /// what is measured.
    pub fn keep() -> Result<Self> {
        let cores = thread::available_parallelism().context("the number of cores is not known")?;
        let mut awake = Self { stopped: Arc::default(), threads: Vec::new() };
        let (say, said) = std::sync::mpsc::channel();
        for _ in 0..cores.get() {
            let (stopped, say) = (Arc::clone(&awake.stopped), say.clone());
            awake.threads.push(thread::spawn(move || {
                let lowest = give_way();
                let may_spin = lowest.is_ok();
                let _gone = say.send(lowest);
                while may_spin && !stopped.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            }));
        }
        for _ in 0..cores.get() {
            said.recv().context("a thread ended")??;
        }
        Ok(awake)
    }
}

/// Runs this thread only where no other one wants the core: `SCHED_IDLE` of sched(7).
fn give_way() -> Result<()> {
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle)
        .map_err(|error| anyhow::anyhow!("a thread could not be given the lowest priority: {error:?}"))
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ended = thread.join();
        }
    }
}
