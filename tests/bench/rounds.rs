//! Two sides that take turns, and what to make of their times.

use anyhow::Result;

/// What one thing took on either side, in one round. Both in the same unit.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// Ours.
    pub ours: f64,
    /// What it is compared with.
    pub theirs: f64,
}

/// Many rounds in three numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// The median of our side.
    pub value: f64,
    /// The median of the rounds' ratios, each of neighbours in time: what slows the machine
    /// down for a while does so on both sides.
    pub ratio: f64,
    /// The quartiles of the ratios.
    pub between: (f64, f64),
}

/// Runs so many rounds, and one before them that does not count: in it connections are opened
/// and statements prepared.
///
/// # Errors
/// Those of a round.
pub async fn alternate(rounds: usize, mut round: impl AsyncFnMut() -> Result<Round>) -> Result<Comparison> {
    round().await?;
    let mut done = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        done.push(round().await?);
    }
    Ok(compare(&done))
}

fn compare(rounds: &[Round]) -> Comparison {
    let ratios = sorted(rounds.iter().map(|round| round.ours / round.theirs));
    Comparison {
        value: quantile(&sorted(rounds.iter().map(|round| round.ours)), 0.5),
        ratio: quantile(&ratios, 0.5),
        between: (quantile(&ratios, 0.25), quantile(&ratios, 0.75)),
    }
}

/// In ascending order.
pub fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The smallest value that at least this part of all does not exceed; NaN of none. `sorted` is
/// in ascending order.
#[must_use]
pub fn quantile(sorted: &[f64], part: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "there are thousands of values at most"
    )]
    let rank = (part * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_the_median_of_the_rounds_ratios() {
        let round = |ours, theirs| Round { ours, theirs };
        // The machine was busy in the second round, on both sides.
        let rounds = [round(11.0, 10.0), round(110.0, 100.0), round(12.0, 10.0)];
        let comparison = compare(&rounds);
        assert_eq!(comparison, Comparison { value: 12.0, ratio: 1.1, between: (1.1, 1.2) });
    }

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let values = sorted((1..=100).rev().map(f64::from));
        assert_eq!(quantile(&values, 0.99).to_string(), "99");
        assert_eq!(quantile(&values, 0.5).to_string(), "50");
        assert_eq!(quantile(&[7.0], 0.99).to_string(), "7");
        assert!(quantile(&[], 0.5).is_nan());
    }
}
