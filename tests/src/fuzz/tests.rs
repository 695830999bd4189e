//! That what is wrong is found, and told as what it is.

use std::panic::catch_unwind;

use super::*;

/// Takes texts: a `p` is a panic that it catches itself, as the host does, an `h` is never answered,
/// an `m` needs much memory, and a `w` is wrong.
struct Odd;

impl Target for Odd {
    const NAME: &'static str = "odd";
    const PATIENCE: Duration = Duration::from_secs(5);
    const MEMORY: u64 = 200 << 20;

    fn start() -> Self {
        Self
    }

    fn seeds() -> Vec<Vec<u8>> {
        vec![b"fine".to_vec(), b"--------p------".to_vec(), b"----w".to_vec()]
    }

    fn mutate(random: &mut Random, pool: &[Vec<u8>]) -> Vec<u8> {
        let other = &pool[random.usize(..pool.len())];
        bytes::mutate(random, pool[0].clone(), other)
    }

    fn run(&mut self, input: &[u8]) -> Result<Reached, String> {
        for byte in input {
            match byte {
                // The sum is too large for a byte, of which the standard library is told to complain.
                b'p' => drop(catch_unwind(|| [200_u8; 2].iter().sum::<u8>())),
                b'h' => std::thread::park(),
                b'm' => drop(std::hint::black_box(vec![1_u8; 500 << 20])),
                b'w' => return Err("it is wrong\nbecause of a w".to_owned()),
                _ => {}
            }
        }
        Ok(Reached { stage: "fine".to_owned(), features: Vec::new() })
    }
}

#[test]
fn whatever_is_wrong_is_found_made_short_and_kept() {
    let found = |input: &[u8]| replay::<Odd>(input).findings.pop().map(|finding| finding.what);
    assert_eq!(found(b"fine"), None);
    assert!(found(b"p").is_some_and(|what| what.starts_with("panicked at ")), "a panic that was caught");
    assert!(found(b"h").is_some_and(|what| what.starts_with(worker::HANG)));
    assert!(found(b"m").is_some_and(|what| what.contains("MiB of memory were needed")));

    let report = run::<Odd>(Options { seed: 1, iterations: Some(0), time: Duration::from_secs(60) });
    let kept: Vec<Vec<u8>> =
        report.findings.iter().map(|finding| std::fs::read(&finding.file).expect("it is kept")).collect();
    assert_eq!(kept, [b"p", b"w"], "{report}");
    assert!(report.to_string().contains("cargo xtask fuzz odd "), "{report}");
    let _ = std::fs::remove_dir_all(finding::folder(Odd::NAME));
}
