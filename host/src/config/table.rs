//! A table of the file, read key by key.
//!
//! Each getter notes that its key is known, so that [`Table::finish`] can tell which ones
//! are not. A getter that finds something wrong notes it and returns the default, so that
//! reading goes on and all problems are told at once.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use humantime::format_duration;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::document::{Document, Text};
use crate::job::Name;
use crate::suggest;

/// The most executions at once that a limit can name: far beyond what hosts run.
const HIGHEST_LIMIT: u32 = 1_000_000;

/// A table and what has been read of it.
pub(super) struct Table<'a> {
    pub(super) doc: &'a Document<'a>,
    /// `plugins.maintenance`; empty for the file itself.
    path: String,
    /// `[plugins.maintenance]`, or with two brackets in a list of tables.
    header: String,
    /// What a missing key is reported at.
    pub(super) at: usize,
    entries: &'a DeTable<'a>,
    known: RefCell<Vec<&'static str>>,
}

/// A key and its value.
pub(super) struct Entry<'a> {
    pub(super) doc: &'a Document<'a>,
    path: String,
    pub(super) key: &'a str,
    pub(super) key_at: usize,
    pub(super) value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Table<'a> {
    pub(super) fn root(doc: &'a Document<'a>, entries: &'a DeTable<'a>) -> Self {
        Self { doc, path: String::new(), header: String::new(), at: 0, entries, known: RefCell::default() }
    }

    /// Reports the keys that nobody has asked for.
    pub(super) fn finish(self) {
        let known = self.known.into_inner();
        for key in self.entries.keys() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let mut hint = suggest::hint(name, known.iter().copied());
            if hint.is_empty() {
                hint = format!("; known here: {}", listed(known.iter()));
            }
            let place = if self.header.is_empty() { String::new() } else { format!(" in {}", self.header) };
            self.doc.error(key.span().start, format!("unknown key `{name}`{place}{hint}"));
        }
    }

    /// The key and its value, whatever it is.
    pub(super) fn entry(&self, key: &'static str) -> Option<Entry<'a>> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&key) {
            known.push(key);
        }
        let (key, value) = self.entries.get_key_value(key)?;
        Some(Entry::new(self.doc, &self.path, key, value))
    }

    /// Reports a key that is needed and missing.
    pub(super) fn missing(&self, key: &str, example: &str) {
        self.doc.error(self.at, format!("{} needs `{key}`, such as `{key} = {example}`", self.header));
    }

    pub(super) fn text(&self, key: &'static str) -> Option<Text<'a>> {
        self.entry(key)?.text()
    }

    pub(super) fn required_text(&self, key: &'static str, example: &str) -> Option<Text<'a>> {
        let Some(entry) = self.entry(key) else {
            self.missing(key, example);
            return None;
        };
        entry.text()
    }

    pub(super) fn boolean(&self, key: &'static str) -> Option<bool> {
        let entry = self.entry(key)?;
        let value = entry.value.get_ref().as_bool();
        if value.is_none() {
            entry.wrong("`true` or `false`");
        }
        value
    }

    pub(super) fn integer(&self, key: &'static str, default: u32, range: RangeInclusive<u32>) -> u32 {
        let Some(entry) = self.entry(key) else { return default };
        let value = integer(entry.value.get_ref()).and_then(|value| u32::try_from(value).ok());
        value.filter(|value| range.contains(value)).unwrap_or_else(|| {
            entry.wrong(match *range.end() {
                u32::MAX => format!("a whole number, {} or more", range.start()),
                end => format!("a whole number from {} to {end}", range.start()),
            });
            default
        })
    }

    /// A whole number that may be large, or none where it is left out.
    pub(super) fn count(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let entry = self.entry(key)?;
        let value = integer(entry.value.get_ref()).and_then(|value| u64::try_from(value).ok());
        let value = value.filter(|value| range.contains(value));
        if value.is_none() {
            entry.wrong(format!("a whole number from {} to {}", range.start(), range.end()));
        }
        value
    }

    /// A whole number that may be negative.
    pub(super) fn signed_integer(&self, key: &'static str, default: i32, range: RangeInclusive<i32>) -> i32 {
        let Some(entry) = self.entry(key) else { return default };
        let value = integer(entry.value.get_ref()).and_then(|value| i32::try_from(value).ok());
        value.filter(|value| range.contains(value)).unwrap_or_else(|| {
            entry.wrong(format!("a whole number from {} to {}", range.start(), range.end()));
            default
        })
    }

    /// A number of executions at once, or none where it is left out.
    pub(super) fn limit(&self, key: &'static str) -> Option<u32> {
        self.entry(key).map(|_| self.integer(key, 1, 1..=HIGHEST_LIMIT))
    }

    pub(super) fn number(&self, key: &'static str, default: f64, range: RangeInclusive<f64>) -> f64 {
        let Some(entry) = self.entry(key) else { return default };
        let value = match entry.value.get_ref() {
            DeValue::Float(float) => float.as_str().parse().ok(),
            // Wide enough for every range that is asked for, and exact as a float.
            value => integer(value).and_then(|value| i32::try_from(value).ok()).map(f64::from),
        };
        value.filter(|value| range.contains(value)).unwrap_or_else(|| {
            entry.wrong(format!("a number from {} to {}", range.start(), range.end()));
            default
        })
    }

    /// A time such as "1h30m".
    pub(super) fn duration(
        &self,
        key: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let Some(entry) = self.entry(key) else { return default };
        let wanted = || {
            let (least, most) = (format_duration(*range.start()), format_duration(*range.end()));
            format!("a time from {least} to {most}, such as {:?}", format_duration(default).to_string())
        };
        entry
            .duration(wanted)
            .filter(|time| range.contains(time) || entry.refuse(wanted()))
            .unwrap_or(default)
    }

    /// A number of bytes, or text such as "64 MiB".
    pub(super) fn bytes(&self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        use bytesize::ByteSize;
        let Some(entry) = self.entry(key) else { return default };
        let value = match entry.value.get_ref() {
            DeValue::String(_) => match entry.text() {
                Some(text) => text.value().parse::<ByteSize>().ok().map(|size| size.0),
                None => return default,
            },
            value => integer(value).and_then(|value| u64::try_from(value).ok()),
        };
        value.filter(|value| range.contains(value)).unwrap_or_else(|| {
            let [least, most, such] = [*range.start(), *range.end(), default].map(in_binary_units);
            entry.wrong(format!("a size from {least} to {most}, such as \"{such}\""));
            default
        })
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, default: T, choices: &[(&str, T)]) -> T {
        let Some(entry) = self.entry(key) else { return default };
        let words = || choices.iter().map(|(word, _)| *word);
        let wanted = format!("one of {}", listed(words()));
        if !entry.value.get_ref().is_str() {
            entry.wrong(wanted);
            return default;
        }
        let Some(text) = entry.text() else { return default };
        let found = choices.iter().find(|(word, _)| *word == text.value());
        found.map(|(_, choice)| *choice).unwrap_or_else(|| {
            let hint = if text.expanded { String::new() } else { suggest::hint(text.value(), words()) };
            self.doc.error(text.at, format!("`{key}` must be {wanted}, not `{}`{hint}", text.written));
            default
        })
    }

    pub(super) fn table(&self, key: &'static str) -> Option<Table<'a>> {
        self.entry(key)?.table("a table")
    }

    /// The texts of an array.
    pub(super) fn texts(&self, key: &'static str) -> Vec<Text<'a>> {
        let texts =
            self.entry(key).and_then(|entry| entry.texts("an array of strings, such as [\"a\", \"b\"]"));
        texts.unwrap_or_default()
    }

    /// The tables of an array: `[[path.key]]`.
    pub(super) fn tables(&self, key: &'static str) -> Vec<Table<'a>> {
        let Some(entry) = self.entry(key) else { return Vec::new() };
        let header = format!("[[{}]]", entry.path);
        let wanted = format!("a list of tables, each under {header}");
        let Some(array) = entry.value.get_ref().as_array() else {
            entry.wrong(wanted);
            return Vec::new();
        };
        let tables = array.iter().filter_map(|value| entry.item(value).table(&wanted));
        tables.map(|table| Table { header: header.clone(), ..table }).collect()
    }

    /// The entries of a table whose keys are the operator's own.
    pub(super) fn free_entries(&self, key: &'static str, wanted: &str) -> Vec<Entry<'a>> {
        let Some(table) = self.entry(key).and_then(|entry| entry.table(wanted)) else { return Vec::new() };
        table.entries.iter().map(|(key, value)| Entry::new(self.doc, &table.path, key, value)).collect()
    }

    /// The tables that have a name each: `[key.NAME]`.
    pub(super) fn named(&self, key: &'static str) -> Vec<(Name, Table<'a>)> {
        self.named_by(key, |name| Name::new(name).map_err(|error| error.to_string()))
    }

    /// [`Self::named`], where the names are of another kind.
    pub(super) fn named_by<T>(
        &self,
        key: &'static str,
        name: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<(T, Table<'a>)> {
        let Some(table) = self.table(key) else { return Vec::new() };
        let read = |(key, value)| {
            let entry = Entry::new(self.doc, &table.path, key, value);
            let name = name(entry.key);
            if let Err(error) = &name {
                self.doc.error(entry.key_at, error.clone());
            }
            let wanted = format!("a table: write [{}.NAME] above its keys", table.path);
            entry.table(&wanted).and_then(|table| Some((name.ok()?, table)))
        };
        table.entries.iter().filter_map(read).collect()
    }
}

impl<'a> Entry<'a> {
    pub(super) fn new(
        doc: &'a Document<'a>,
        parent: &str,
        key: &'a Spanned<DeString<'a>>,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Self {
        let dot = if parent.is_empty() { "" } else { "." };
        let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let name: &str = key.get_ref();
        let path = match name.chars().all(bare) {
            true => format!("{parent}{dot}{name}"),
            false => format!("{parent}{dot}\"{name}\""),
        };
        Self { doc, path, key: key.get_ref(), key_at: key.span().start, value }
    }

    /// An element of this array, reported under the array's key.
    fn item(&self, value: &'a Spanned<DeValue<'a>>) -> Self {
        Self { doc: self.doc, path: self.path.clone(), key: self.key, key_at: value.span().start, value }
    }

    /// Where problems with the value are reported: at the value, or at the key of a table,
    /// which may be a header.
    pub(super) fn at(&self) -> usize {
        if self.value.get_ref().is_table() { self.key_at } else { self.value.span().start }
    }

    /// Notes that the value is none of what is wanted. A text is shown as it stands in the file.
    pub(super) fn wrong(&self, wanted: impl Display) {
        let found = match self.value.get_ref() {
            DeValue::String(text) => format!("\"{text}\""),
            DeValue::Integer(number) => number.to_string(),
            DeValue::Float(number) => number.to_string(),
            DeValue::Boolean(value) => value.to_string(),
            DeValue::Datetime(_) => "a date or time".into(),
            DeValue::Array(_) => "an array".into(),
            DeValue::Table(_) => "a table".into(),
        };
        let found = if found.len() > 100 { "a long text".into() } else { found };
        self.doc.error(self.at(), format!("`{}` must be {wanted}, not {found}", self.key));
    }

    /// Notes what is wrong with the key as a whole, in words that follow its name.
    pub(super) fn problem(&self, message: impl Display) {
        self.problem_at(self.at(), message);
    }

    /// [`Self::problem`], at a place within the value.
    pub(super) fn problem_at(&self, at: usize, message: impl Display) {
        self.doc.error(at, format!("`{}` {message}", self.key));
    }

    /// [`Self::wrong`], as a filter that lets nothing through.
    fn refuse(&self, wanted: impl Display) -> bool {
        self.wrong(wanted);
        false
    }

    /// A text that is not empty.
    pub(super) fn text(&self) -> Option<Text<'a>> {
        let DeValue::String(text) = self.value.get_ref() else {
            self.wrong("a string");
            return None;
        };
        let text = self.doc.expand(text, self.value.span())?;
        if text.value().trim().is_empty() {
            self.doc.error(text.at, format!("`{}` is empty", self.key));
            return None;
        }
        Some(text)
    }

    /// A text, or one of TOML's own dates and times.
    pub(super) fn text_or_time(&self) -> Option<Text<'a>> {
        if self.value.get_ref().is_datetime() {
            Some(self.doc.verbatim(self.value.span()))
        } else {
            self.text()
        }
    }

    /// The texts of an array, without those that are wrong.
    pub(super) fn texts(&self, wanted: &str) -> Option<Vec<Text<'a>>> {
        let items = self.items(wanted)?.into_iter();
        let items = items.filter(|item| item.value.get_ref().is_str() || item.refuse(wanted));
        Some(items.filter_map(|item| item.text()).collect())
    }

    /// The elements of an array.
    pub(super) fn items(&self, wanted: &str) -> Option<Vec<Self>> {
        let array = self.value.get_ref().as_array();
        if array.is_none() {
            self.wrong(wanted);
        }
        Some(array?.iter().map(|value| self.item(value)).collect())
    }

    pub(super) fn duration<W: Display>(&self, wanted: impl Fn() -> W) -> Option<Duration> {
        if !self.value.get_ref().is_str() {
            self.wrong(wanted());
            return None;
        }
        let time = humantime::parse_duration(self.text()?.value()).ok();
        time.or_else(|| {
            self.wrong(wanted());
            None
        })
    }

    pub(super) fn table(&self, wanted: &str) -> Option<Table<'a>> {
        let DeValue::Table(entries) = self.value.get_ref() else {
            self.wrong(wanted);
            return None;
        };
        let (doc, path, at) = (self.doc, self.path.clone(), self.key_at);
        let header = format!("[{path}]");
        Some(Table { doc, path, header, at, entries, known: RefCell::default() })
    }
}

/// The value of an integer, if that is what it is.
pub(super) fn integer(value: &DeValue<'_>) -> Option<i128> {
    let integer = value.as_integer()?;
    i128::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// `a`, `b` and `c`.
pub(super) fn listed(words: impl Iterator<Item = impl Display>) -> String {
    let mut words: Vec<String> = words.map(|word| format!("`{word}`")).collect();
    match words.pop() {
        Some(last) if words.is_empty() => last,
        Some(last) => format!("{} and {last}", words.join(", ")),
        None => "nothing".into(),
    }
}

/// A round number of bytes, as the file would have it.
pub(super) fn in_binary_units(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.iter().find(|(shift, _)| bytes >= 1 << shift && bytes.is_multiple_of(1 << shift));
    unit.map_or_else(|| format!("{bytes} B"), |(shift, unit)| format!("{} {unit}", bytes >> shift))
}
