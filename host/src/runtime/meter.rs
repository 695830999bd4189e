//! The processor time of one guest.

use std::time::{Duration, Instant};

use crate::clock;

/// A turn that took longer may have been interrupted by the operating system in the middle, so that
/// not all of its time was the guest's. The shortest time slices of Linux are longer.
const SHORT: Duration = Duration::from_micros(200);

/// Measures the turns that a guest has on a thread.
///
/// The clock of a thread's processor time takes a system call, twice for each turn, which is as much as
/// a whole small turn. So turns are measured with the ordinary clock, until one of them was not short.
#[derive(Debug, Default)]
pub(super) struct Meter {
    used: Duration,
    exact: bool,
}

impl Meter {
    /// Lets a guest have its turn.
    pub(super) fn turn<T>(&mut self, turn: impl FnOnce() -> T) -> T {
        if self.exact {
            let before = clock::of_this_thread();
            let turned = turn();
            self.used += clock::of_this_thread().saturating_sub(before);
            return turned;
        }
        let before = Instant::now();
        let turned = turn();
        let took = before.elapsed();
        self.used += took;
        self.exact = took > SHORT;
        turned
    }

    /// Processor time so far. Of the first turn that was not short, the time that others had on its
    /// processor is in it as well.
    pub(super) fn used(&self) -> Duration {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_a_long_turn_on_only_processor_time_counts() {
        let mut meter = Meter::default();
        meter.turn(|| std::thread::sleep(2 * SHORT));
        let slept = meter.used();
        assert!(slept >= 2 * SHORT);
        meter.turn(|| std::thread::sleep(Duration::from_millis(50)));
        assert!(meter.used() - slept < Duration::from_millis(25), "a sleep takes no processor time");
        let before = meter.used();
        let mut turns = 0_u64;
        let until = clock::of_this_thread() + Duration::from_millis(2);
        meter.turn(|| {
            while clock::of_this_thread() < until {
                turns = std::hint::black_box(turns + 1);
            }
        });
        assert!(meter.used() - before >= Duration::from_millis(1), "{:?}", meter.used());
    }
}
