//! Makes the input of a finding short.

use std::time::{Duration, Instant};

use super::worker::{Verdict, Worker};
use super::{Target, finding};

const MOST_TRIES: usize = 3_000;
const MOST_TIME: Duration = Duration::from_secs(60);

/// The shortest input with the same effect that a few tries have found.
pub(super) fn minimise<T: Target>(worker: &mut Worker<T>, input: &[u8], key: &str) -> Vec<u8> {
    let begun = Instant::now();
    let mut best = input.to_vec();
    let mut tries = 0;
    'again: loop {
        for candidate in T::shorter(&best) {
            if tries >= MOST_TRIES || begun.elapsed() >= MOST_TIME {
                return best;
            }
            tries += 1;
            if candidate.len() < best.len() && has_it(worker, &candidate, key) {
                best = candidate;
                continue 'again;
            }
        }
        return best;
    }
}

fn has_it<T: Target>(worker: &mut Worker<T>, input: &[u8], key: &str) -> bool {
    matches!(worker.run(input), Verdict::Wrong(what) if finding::key(&what) == key)
}
