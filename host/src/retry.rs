//! When a failed attempt is tried again.
//!
//! Pure: no I/O, no clock, no random numbers; the jitter is drawn from a seed that the
//! caller gives, so that every host computes the same time for the same attempt.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often and how far apart an execution is attempted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Attempts in all, the first included; at least 1.
    pub max_attempts: u32,
    /// How the wait grows from one attempt to the next.
    pub backoff: Backoff,
    /// The wait after the first failed attempt.
    pub initial: Duration,
    /// No wait is longer, jitter included.
    pub maximum: Duration,
    /// The share of the wait, 0 to 1, by which it is shortened or lengthened at random.
    pub jitter: f64,
}

/// How the wait grows with the number of failed attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backoff {
    /// Always the initial wait.
    Constant,
    /// Once, twice, three times the initial wait.
    Linear,
    /// Once, twice, four times the initial wait.
    #[default]
    Exponential,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            backoff: Backoff::Exponential,
            initial: Duration::from_secs(10),
            maximum: Duration::from_secs(3600),
            jitter: 0.2,
        }
    }
}

impl RetryPolicy {
    /// How long to wait after `attempt` (1 for the first) has failed.
    ///
    /// `seed` chooses the jitter: the same seed and attempt give the same wait.
    #[must_use]
    pub fn wait_after(&self, attempt: u32, seed: u64) -> Duration {
        let steps = attempt.max(1);
        let factor = match self.backoff {
            Backoff::Constant => 1.0,
            Backoff::Linear => f64::from(steps),
            Backoff::Exponential => 2f64.powi((steps - 1).min(1_000).cast_signed()),
        };
        let share = self.jitter.clamp(0.0, 1.0) * (2.0 * unit(seed, attempt) - 1.0);
        let seconds = self.initial.as_secs_f64() * factor * (1.0 + share);
        // Also catches what a Duration cannot hold.
        if seconds >= self.maximum.as_secs_f64() { self.maximum } else { Duration::from_secs_f64(seconds) }
    }
}

/// A number in 0..1 from a seed: the finalizer of `SplitMix64` (Steele, Lea, Flood:
/// "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
fn unit(seed: u64, attempt: u32) -> f64 {
    let mut z = seed.wrapping_add(u64::from(attempt).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit an f64 exactly")]
    let unit = (z >> 11) as f64 / (1u64 << 53) as f64;
    unit
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy(backoff: Backoff) -> RetryPolicy {
        RetryPolicy {
            max_attempts: 9,
            backoff,
            initial: Duration::from_secs(10),
            maximum: Duration::from_secs(60),
            jitter: 0.0,
        }
    }

    #[test]
    fn the_wait_grows_as_the_backoff_says_up_to_the_maximum() {
        let waits = |b| (1..=4).map(|n| policy(b).wait_after(n, 1).as_secs()).collect::<Vec<_>>();
        assert_eq!(waits(Backoff::Constant), [10, 10, 10, 10]);
        assert_eq!(waits(Backoff::Linear), [10, 20, 30, 40]);
        assert_eq!(waits(Backoff::Exponential), [10, 20, 40, 60]);
    }

    #[test]
    fn a_huge_number_of_attempts_waits_the_maximum() {
        assert_eq!(policy(Backoff::Exponential).wait_after(u32::MAX, 1).as_secs(), 60);
    }

    proptest! {
        #[test]
        fn jitter_stays_within_its_share_and_below_the_maximum(seed: u64, attempt in 1u32..40, jitter in 0.0f64..=1.0) {
            let policy = RetryPolicy { jitter, ..policy(Backoff::Constant) };
            let wait = policy.wait_after(attempt, seed).as_secs_f64();
            prop_assert!(wait >= 10.0 * (1.0 - jitter) - 1e-6 && wait <= 10.0 * (1.0 + jitter) + 1e-6);
            prop_assert!(policy.wait_after(attempt, seed) <= policy.maximum);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_wait_and_another_one_another() {
        let policy = RetryPolicy { jitter: 0.5, ..policy(Backoff::Constant) };
        assert_eq!(policy.wait_after(1, 7), policy.wait_after(1, 7));
        assert_ne!(policy.wait_after(1, 7), policy.wait_after(1, 8));
    }
}
