//! How many tests passed and failed: read from what `cargo test` prints, said on the last line.

use std::io::{Read, Write};

use anyhow::Result;

use crate::process::Interrupted;
use crate::steps::Steps;

/// The results of a test run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed; a test program that crashed counts as one.
    pub failed: u64,
}

/// A failure that the summary has reported already.
#[derive(Debug)]
pub struct Reported;

impl std::fmt::Display for Reported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the tests failed")
    }
}

impl std::error::Error for Reported {}

/// Runs tests, then prints how long each step took and, as the last line, `N passed, N
/// failed`. What failed before or beside the tests counts as one failure, so that the line
/// never reads as a success.
pub fn close(steps: &mut Steps, run: impl FnOnce(&mut Steps) -> Result<Counts>) -> Result<()> {
    let result = run(steps);
    if result.as_ref().is_err_and(|error| error.is::<Interrupted>()) {
        return result.map(|_| ());
    }
    if let Err(error) = &result {
        eprintln!("xtask: {error:#}");
    }
    steps.report();
    let counts = result.unwrap_or(Counts { passed: 0, failed: 1 });
    println!("{} passed, {} failed", counts.passed, counts.failed);
    if counts.failed == 0 { Ok(()) } else { Err(Reported.into()) }
}

impl Counts {
    /// Copies what `cargo test` writes, unchanged and as it comes, and adds up its results.
    pub fn while_copying(mut input: impl Read, mut output: impl Write) -> std::io::Result<Self> {
        let mut counts = Self::default();
        let mut line = Vec::new();
        let mut buffer = [0; 8192];
        loop {
            let length = match input.read(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            let piece = &buffer[..length];
            output.write_all(piece)?;
            output.flush()?;
            for part in piece.split_inclusive(|byte| *byte == b'\n') {
                line.extend_from_slice(part);
                if part.ends_with(b"\n") {
                    counts.add(&line);
                    line.clear();
                }
            }
            if length == 0 {
                counts.add(&line);
                return Ok(counts);
            }
        }
    }

    /// Adds the numbers of a line such as `test result: ok. 3 passed; 0 failed; 0 ignored; …`.
    fn add(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let number_before = |word: &str| {
            let (before, _) = result.split_once(word)?;
            before.rsplit(' ').next()?.parse::<u64>().ok()
        };
        self.passed += number_before(" passed;").unwrap_or(0);
        self.failed += number_before(" failed;").unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 2 tests
test a ... ok
test b ... FAILED

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

   Doc-tests innkeeper

running 30 tests
test result: ok. 30 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; finished in 1.00s";

    /// Hands out one byte at a time, as a slow pipe may.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(&mut buffer[..1])
        }
    }

    #[test]
    fn the_results_of_all_test_programs_are_added_up_and_the_output_is_unchanged() {
        let mut copy = Vec::new();
        let counts = Counts::while_copying(Slow(OUTPUT.as_bytes()), &mut copy).unwrap();
        assert_eq!(counts, Counts { passed: 31, failed: 1 });
        assert_eq!(String::from_utf8(copy).unwrap(), OUTPUT);
    }

    #[test]
    fn a_failed_step_is_never_summed_up_as_a_success() {
        let result = close(&mut Steps::default(), |_| anyhow::bail!("no compiler"));
        assert!(result.unwrap_err().is::<Reported>());
    }
}
