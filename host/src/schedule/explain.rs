//! What a schedule means, in plain English.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};

use super::Schedule;

/// A fire time, and why it is where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fire {
    /// When the job fires.
    pub at: Timestamp,
    /// What a clock change, a calendar or jitter did to it, or to what would have come before it.
    pub notes: Vec<Note>,
}

/// What was done to a fire. As text it is a part of a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// The clock leaves out the time that was wanted; this is the first instant after it.
    AfterGap {
        /// What the clock would have shown.
        wanted: DateTime,
    },
    /// A fire before this one was left out, since the clock leaves out its time.
    SkippedGap {
        /// What the clock would have shown.
        wanted: DateTime,
    },
    /// The clock shows this time twice; this is the first or the last of both.
    Repeated {
        /// True for the first.
        first: bool,
        /// True where the job fires at the other as well.
        both: bool,
    },
    /// It was moved here from a day that a calendar excludes.
    Moved {
        /// That day.
        from: Date,
    },
    /// Days before it were left out, since a calendar excludes them.
    Excluded {
        /// The first of them.
        first: Date,
        /// How many.
        days: usize,
    },
    /// It is later than its time by what was drawn.
    Jitter {
        /// Its time without jitter.
        nominal: Timestamp,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Schedule {
    /// As [`Schedule::next_after`], with what a person wants to know about it.
    #[must_use]
    pub fn next_fire(&self, after: Timestamp) -> Option<Fire> {
        self.next_after(after).map(|at| Fire { at, notes: Vec::new() })
    }

    /// What it means, in sentences of plain English.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        vec![format!("It runs at {self}.")]
    }
}
