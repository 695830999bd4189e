//! What is wrong with the file, and where.

use std::fmt;
use std::path::{Path, PathBuf};

/// A place in the operator's file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// The file, as it was named.
    pub file: PathBuf,
    /// From 1; 0 means the file as a whole, when it could not be read.
    pub line: usize,
    /// From 1, in characters; 0 with line 0.
    pub column: usize,
}

impl Location {
    /// The file as a whole.
    #[must_use]
    pub fn whole(file: &Path) -> Self {
        Self { file: file.to_owned(), line: 0, column: 0 }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 { write!(f, ":{}:{}", self.line, self.column) } else { Ok(()) }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigError {
    /// Where.
    pub location: Location,
    /// What, and what to write. Never the value of an environment variable.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.location, self.message)
    }
}

/// Everything that is wrong, in the order of the file. Shown with one problem a line.
///
/// The lines of the file are not shown beside the problems: they may hold passwords, and
/// these messages end up in the logs of build servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// Puts problems in the order of the file.
    #[must_use]
    pub fn new(mut errors: Vec<ConfigError>) -> Self {
        errors.sort();
        errors.dedup();
        Self(errors)
    }

    /// A single problem.
    pub fn one(location: Location, message: impl Into<String>) -> Self {
        Self(vec![ConfigError { location, message: message.into() }])
    }

    /// True if nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The problems, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }

    /// Takes in further problems.
    pub fn append(&mut self, others: Self) {
        self.0.extend(others.0);
        self.0.sort();
        self.0.dedup();
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
