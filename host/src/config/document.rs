//! The text of the file: positions in it, the problems found so far, and `${VAR}`.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use toml::de::DeTable;

use super::error::{ConfigError, ConfigErrors, Location};

/// The file while it is being read. Problems are collected, so that all are told at once.
pub(super) struct Document<'a> {
    file: &'a Path,
    source: &'a str,
    /// Where each line starts. Every job has places to keep, and there may be many jobs.
    lines: Vec<usize>,
    env: &'a dyn Fn(&str) -> Option<String>,
    errors: RefCell<Vec<ConfigError>>,
}

/// A string of the file after `${VAR}` has been replaced.
pub(super) struct Text<'a> {
    /// Where it stands: a byte offset.
    pub(super) at: usize,
    /// As it stands in the file. This is what messages show.
    pub(super) written: &'a str,
    /// The value may hold what only the environment knows.
    pub(super) expanded: bool,
    value: Cow<'a, str>,
}

impl Text<'_> {
    /// The value: never for a message.
    pub(super) fn value(&self) -> &str {
        &self.value
    }
}

impl<'a> Document<'a> {
    pub(super) fn new(file: &'a Path, source: &'a str, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        let lines = std::iter::once(0).chain(source.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file, source, lines, env, errors: RefCell::default() }
    }

    /// Parses the text as TOML. Where it is none, the rest is not worth reading.
    pub(super) fn parse(&self) -> Option<DeTable<'a>> {
        let (root, errors) = DeTable::parse_recoverable(self.source);
        // A slip often confuses the parser about the rest of its line, hardly ever beyond.
        let mut lines = BTreeSet::new();
        for error in &errors {
            let at = error.span().map_or(0, |span| span.start);
            if lines.insert(self.location(at).line) {
                self.error(at, error.message());
            }
        }
        errors.is_empty().then(|| root.into_inner())
    }

    /// Notes a problem at a byte offset.
    pub(super) fn error(&self, at: usize, message: impl Into<String>) {
        self.error_at(self.location(at), message);
    }

    /// Notes a problem at a place that was kept.
    pub(super) fn error_at(&self, location: Location, message: impl Into<String>) {
        self.errors.borrow_mut().push(ConfigError { location, message: message.into() });
    }

    /// How many problems have been noted: to see whether a part had any.
    pub(super) fn error_count(&self) -> usize {
        self.errors.borrow().len()
    }

    pub(super) fn into_errors(self) -> ConfigErrors {
        ConfigErrors::new(self.errors.into_inner())
    }

    pub(super) fn location(&self, at: usize) -> Location {
        let at = self.source.floor_char_boundary(at);
        let line = self.lines.partition_point(|start| *start <= at);
        let before = &self.source[self.lines[line - 1]..at];
        Location {
            file: self.file.to_owned(),
            line,
            // A byte order mark takes no column in an editor.
            column: before.chars().filter(|c| *c != '\u{feff}').count() + 1,
        }
    }

    /// Replaces `${VAR}` and `${VAR:-default}` in a string of the file; `$${` stands for `${`.
    /// As in a shell, the default also replaces an empty value.
    pub(super) fn expand(&self, written: &'a str, span: Range<usize>) -> Option<Text<'a>> {
        let at = span.start;
        if !written.contains("${") {
            return Some(Text { at, written, expanded: false, value: Cow::Borrowed(written) });
        }
        let (mut value, mut rest) = (String::new(), written);
        let (mut expanded, mut fine) = (false, true);
        while let Some(dollar) = rest.find('$') {
            value.push_str(&rest[..dollar]);
            rest = &rest[dollar..];
            if let Some(after) = rest.strip_prefix("$${") {
                value.push_str("${");
                rest = after;
            } else if let Some(after) = rest.strip_prefix("${") {
                expanded = true;
                match self.variable(after) {
                    Ok(text) => value.push_str(&text),
                    Err(message) => {
                        // Escapes make the two differ; then the start of the string has to do.
                        let name = rest.split_inclusive('}').next().unwrap_or(rest);
                        let offset = self.source.get(span.clone()).and_then(|raw| raw.find(name));
                        self.error(at + offset.unwrap_or(0), message);
                        fine = false;
                    }
                }
                rest = after.find('}').map_or("", |end| &after[end + 1..]);
            } else {
                value.push('$');
                rest = &rest[1..];
            }
        }
        value.push_str(rest);
        fine.then_some(Text { at, written, expanded, value: Cow::Owned(value) })
    }

    /// A value that is no string, as it stands in the file.
    pub(super) fn verbatim(&self, span: Range<usize>) -> Text<'a> {
        let written = self.source.get(span.clone()).unwrap_or_default();
        Text { at: span.start, written, expanded: false, value: Cow::Borrowed(written) }
    }

    /// The value of what follows a `${`.
    fn variable(&self, text: &str) -> Result<String, String> {
        let Some((inside, _)) = text.split_once('}') else {
            return Err("`${` without a `}`; write `$${` for a plain `${`".into());
        };
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(plain) {
            return Err(format!(
                "`${{{inside}}}` names no environment variable: write `${{NAME}}` or `${{NAME:-default}}`, \
                 and `$${{` for a plain `${{`"
            ));
        }
        match ((self.env)(name), default) {
            (Some(value), _) if !value.is_empty() => Ok(value),
            (_, Some(default)) => Ok(default.to_owned()),
            (Some(empty), None) => Ok(empty),
            (None, None) => Err(format!(
                "the environment variable `{name}` is not set; set it, or write a default as in \
                 `${{{name}:-…}}`"
            )),
        }
    }
}
