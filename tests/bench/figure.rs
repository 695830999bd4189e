//! What was measured, as a table and as JSON.

use std::fmt::Write as _;

use anyhow::Result;
use serde::{Serialize, Serializer};

/// One figure.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// What it is of; the engine is at its end.
    pub name: String,
    /// In units of `unit`.
    #[serde(serialize_with = "rounded")]
    pub value: f64,
    /// Such as `us`.
    pub unit: &'static str,
    /// What it is compared with, in the same process and the same run.
    pub against: Option<&'static str>,
    /// How many times the other's.
    #[serde(serialize_with = "rounded_option")]
    pub ratio: Option<f64>,
    /// What the ratio should be.
    #[serde(skip)]
    pub goal: Option<Goal>,
    /// The ratios between which the middle half of the rounds are.
    #[serde(skip)]
    pub between: Option<(f64, f64)>,
}

/// What a ratio should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// The figure is a time.
    AtMost(f64),
    /// The figure is a rate.
    AtLeast(f64),
}

/// All figures of a run.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    figures: Vec<Figure>,
    /// Names of those that could not be measured.
    #[serde(skip)]
    failed: Vec<String>,
}

impl Figure {
    /// A figure that stands alone.
    #[must_use]
    pub fn alone(name: &str, value: f64, unit: &'static str) -> Self {
        let name = name.to_owned();
        Self { name, value, unit, against: None, ratio: None, goal: None, between: None }
    }
}

impl Report {
    /// Adds a figure, or notes why it could not be measured, and says so on standard error. The
    /// others are measured all the same.
    pub fn add(&mut self, name: &str, measured: Result<Figure>) {
        match measured {
            Ok(figure) => {
                eprintln!("{}", line(&figure));
                self.figures.push(figure);
            }
            Err(error) => {
                eprintln!("{name} could not be measured: {error:#}");
                self.failed.push(name.to_owned());
            }
        }
    }

    /// Names of the figures that could not be measured.
    #[must_use]
    pub fn failed(&self) -> &[String] {
        &self.failed
    }

    /// True where nothing was measured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.figures.is_empty()
    }

    /// One document: `{"figures": [{"name", "value", "unit", "against", "ratio"}, …]}`.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Nothing in it can be refused: neither a map with odd keys nor an own `Serialize`.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// A line for each figure, for people.
    #[must_use]
    pub fn to_table(&self) -> String {
        let mut table = format!(
            "{:<40} {:>12} {:<4} {:<12} {:>6} {:>15} {}\n",
            "figure", "value", "", "against", "ratio", "middle half", "goal"
        );
        for figure in &self.figures {
            let _ = writeln!(table, "{}", line(figure));
        }
        table
    }
}

/// To three decimals: more would only pretend.
fn rounded<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((value * 1e3).round() / 1e3)
}

fn rounded_option<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => rounded(value, serializer),
        None => serializer.serialize_none(),
    }
}

fn line(figure: &Figure) -> String {
    let ratio = figure.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
    let between = figure.between.map(|(low, high)| format!("{low:.2} to {high:.2}")).unwrap_or_default();
    let goal = match (figure.goal, figure.ratio) {
        (Some(goal), Some(ratio)) => {
            let (bound, goal, met) = match goal {
                Goal::AtMost(goal) => ("at most", goal, ratio <= goal),
                Goal::AtLeast(goal) => ("at least", goal, ratio >= goal),
            };
            format!("{bound} {goal:.2}: {}", if met { "met" } else { "MISSED" })
        }
        _ => String::new(),
    };
    let text = format!(
        "{:<40} {:>12.2} {:<4} {:<12} {ratio:>6} {between:>15} {goal}",
        figure.name,
        figure.value,
        figure.unit,
        figure.against.unwrap_or_default()
    );
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let compared = Figure {
            name: "query_one_sqlite".to_owned(),
            value: 41.200_04,
            unit: "us",
            against: Some("native sqlx"),
            ratio: Some(1.050_04),
            goal: Some(Goal::AtMost(1.2)),
            between: Some((1.0, 1.25)),
        };
        let alone = Figure::alone("timeout_overshoot_p99_sqlite", 12.0, "ms");
        Report { figures: vec![compared, alone], failed: Vec::new() }
    }

    #[test]
    fn the_document_has_these_keys_and_no_others() {
        let document: serde_json::Value = serde_json::from_str(&report().to_json()).unwrap();
        let expected = serde_json::json!({"figures": [
            {"name": "query_one_sqlite", "value": 41.2, "unit": "us", "against": "native sqlx", "ratio": 1.05},
            {"name": "timeout_overshoot_p99_sqlite", "value": 12.0, "unit": "ms", "against": null, "ratio": null},
        ]});
        assert_eq!(document, expected);
    }

    #[test]
    fn the_table_says_whether_a_goal_is_met() {
        let mut report = report();
        assert!(
            report.to_table().contains("1.05    1.00 to 1.25 at most 1.20: met"),
            "{}",
            report.to_table()
        );
        report.figures[0].ratio = Some(1.21);
        assert!(report.to_table().contains("at most 1.20: MISSED"));
        let last = report.to_table().lines().last().map(str::to_owned);
        assert!(last.is_some_and(|line| line.ends_with("12.00 ms")));
    }
}
