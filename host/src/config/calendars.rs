//! `[calendars.NAME]`.

use std::collections::BTreeMap;

use jiff::civil::Date;

use super::document::Text;
use super::table::{Entry, Table};
use crate::calendar::{Calendar, Weekday};
use crate::job::Name;

pub(super) type Calendars = BTreeMap<Name, Calendar>;

/// A calendar with something wrong in it allows every day: what is wrong has been told.
pub(super) fn calendars(tables: Vec<(Name, Table<'_>)>) -> Calendars {
    tables.into_iter().map(|(name, table)| (name.clone(), calendar(&name, table))).collect()
}

fn calendar(name: &Name, table: Table<'_>) -> Calendar {
    let (doc, at, problems) = (table.doc, table.at, table.doc.error_count());
    let entries = ["exclude", "exclude_weekdays", "include", "include_weekdays"].map(|key| table.entry(key));
    let [exclude, exclude_weekdays, include, include_weekdays] = &entries;
    let calendar = Calendar {
        name: name.to_string(),
        exclude: dates(exclude.as_ref()),
        exclude_weekdays: weekdays(exclude_weekdays.as_ref()),
        include: dates(include.as_ref()),
        include_weekdays: weekdays(include_weekdays.as_ref()),
    };
    table.finish();
    if doc.error_count() > problems {
        return Calendar { name: calendar.name, ..Calendar::default() };
    }
    if let Err(error) = calendar.check() {
        let place = entries.iter().flatten().find(|entry| Some(entry.key) == error.key);
        doc.error(place.map_or(at, Entry::at), error.message);
    }
    calendar
}

fn dates(entry: Option<&Entry<'_>>) -> Vec<Date> {
    const WANTED: &str = "an array of dates, such as [\"2026-12-25\", 2026-12-26]";
    let read = |item: Entry<'_>| {
        if !item.value.get_ref().is_str() && !item.value.get_ref().is_datetime() {
            item.wrong(WANTED);
            return None;
        }
        let text = item.text_or_time()?;
        // With a time of day it would be read just as well, and the time be lost.
        let date = text.value().parse().ok().filter(|_| text.value().len() == "2026-12-25".len());
        if date.is_none() {
            refuse(&item, &text, || format!("`{}` is not a date such as `2026-12-25`", text.written));
        }
        date
    };
    let items = entry.and_then(|entry| entry.items(WANTED)).unwrap_or_default();
    items.into_iter().filter_map(read).collect()
}

fn weekdays(entry: Option<&Entry<'_>>) -> Vec<Weekday> {
    let texts = entry.and_then(|entry| entry.texts("an array of weekdays, such as [\"SAT\", \"SUN\"]"));
    let read = |text: Text<'_>| {
        let weekday = text.value().parse();
        weekday.map_err(|message| entry.map(|entry| refuse(entry, &text, || message))).ok()
    };
    texts.unwrap_or_default().into_iter().filter_map(read).collect()
}

/// The message may show the value; where a variable had a part in it, it is not told.
fn refuse(entry: &Entry<'_>, text: &Text<'_>, message: impl FnOnce() -> String) {
    let message = match text.expanded {
        true => format!("what `{}` stands for does not belong into `{}`", text.written, entry.key),
        false => message(),
    };
    entry.doc.error(text.at, message);
}
