//! Whether something grows, told from values that go up and down.

/// The middle one of the values; 0 of none.
#[must_use]
pub fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// The greatest of the values; 0 of none.
#[must_use]
pub fn most(values: &[u64]) -> u64 {
    values.iter().max().copied().unwrap_or_default()
}

/// So many percent of a value.
#[must_use]
pub fn percent(value: u64, percent: u64) -> u64 {
    value.saturating_mul(percent) / 100
}

/// How much `y` grows for each 1 of `x`: the median of the slopes between all pairs of points
/// (Theil and Sen). A step, as of an allocator that has asked for another arena, hardly moves it;
/// what is kept of each execution does.
#[must_use]
pub fn slope(points: &[(u64, u64)]) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "bytes and executions are far below 2^52")]
    let slope = |(x, y): (u64, u64), (later, above): (u64, u64)| {
        (above as f64 - y as f64) / (later as f64 - x as f64)
    };
    let pairs = points
        .iter()
        .enumerate()
        .flat_map(|(number, point)| points[number + 1..].iter().map(move |later| slope(*point, *later)));
    let mut slopes: Vec<f64> = pairs.filter(|slope| slope.is_finite()).collect();
    slopes.sort_by(f64::total_cmp);
    slopes.get(slopes.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_values_that_are_far_off_do_not_move_a_median() {
        assert_eq!(median(&[7, 900, 8, 6, 7]), 7);
        assert_eq!((median(&[]), most(&[]), most(&[3, 9, 4])), (0, 0, 9));
    }

    #[test]
    fn what_is_kept_of_each_execution_is_told_from_a_step() {
        let step = |x: u64| (x, 50_000_000 + if x > 500 { 4_000_000 } else { 0 } + x % 7 * 100);
        let leak = |x: u64| (x, 50_000_000 + x * 2_000 + x % 7 * 100_000);
        let points = |of: &dyn Fn(u64) -> (u64, u64)| (1..=8).map(|n| of(n * 230)).collect::<Vec<_>>();
        assert!(slope(&points(&step)).abs() < 500.0, "{}", slope(&points(&step)));
        assert!(slope(&points(&leak)) > 1_500.0, "{}", slope(&points(&leak)));
        assert!(slope(&[]).abs() < f64::EPSILON);
    }
}
