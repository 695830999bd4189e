//! Names that stand for another part of the file.

use std::collections::BTreeSet;

use super::document::{Document, Text};
use super::table::Table;
use crate::job::Name;
use crate::policy::Queue;
use crate::suggest;

/// What the file names. A part counts as named even when something in it is wrong: that is
/// one problem, not one more for everything that refers to it.
pub(super) struct Names {
    databases: BTreeSet<Name>,
    plugins: BTreeSet<Name>,
    calendars: BTreeSet<Name>,
    queues: BTreeSet<Name>,
    jobs: BTreeSet<Name>,
}

/// Who has more problems than this has made one mistake many times.
const MOST_SUGGESTIONS: usize = 100;

type Tables<'a> = [(Name, Table<'a>)];

impl Names {
    pub(super) fn new(
        databases: &Tables<'_>,
        plugins: &Tables<'_>,
        calendars: &Tables<'_>,
        queues: &Tables<'_>,
        jobs: &Tables<'_>,
    ) -> Self {
        let names = |tables: &Tables<'_>| tables.iter().map(|(name, _)| name.clone()).collect();
        let mut queues: BTreeSet<Name> = names(queues);
        queues.extend(Name::new(Queue::DEFAULT).ok());
        Self {
            databases: names(databases),
            plugins: names(plugins),
            calendars: names(calendars),
            queues,
            jobs: names(jobs),
        }
    }

    pub(super) fn database(&self, doc: &Document<'_>, text: &Text<'_>) -> Option<Name> {
        find(doc, text, &self.databases, "database", "databases")
    }

    pub(super) fn plugin(&self, doc: &Document<'_>, text: &Text<'_>) -> Option<Name> {
        find(doc, text, &self.plugins, "plugin", "plugins")
    }

    pub(super) fn calendar(&self, doc: &Document<'_>, text: &Text<'_>) -> Option<Name> {
        find(doc, text, &self.calendars, "calendar", "calendars")
    }

    /// [`Queue::DEFAULT`] is one that needs no declaration.
    pub(super) fn queue(&self, doc: &Document<'_>, text: &Text<'_>) -> Option<Name> {
        find(doc, text, &self.queues, "queue", "queues")
    }

    pub(super) fn job(&self, doc: &Document<'_>, text: &Text<'_>) -> Option<Name> {
        find(doc, text, &self.jobs, "job", "jobs")
    }
}

fn find(
    doc: &Document<'_>,
    text: &Text<'_>,
    names: &BTreeSet<Name>,
    what: &str,
    section: &str,
) -> Option<Name> {
    let found = names.get(text.value());
    if found.is_none() {
        // Each search looks at all names, of which there may be as many as there are problems.
        let candidates = names.iter().filter(|_| doc.error_count() < MOST_SUGGESTIONS);
        let advice = match suggest::nearest(text.value(), candidates.map(Name::as_str)) {
            // Near names would tell what the variable's value looks like.
            _ if text.expanded => format!("add it under [{section}], or correct the variable"),
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("add [{section}.{}], or correct the name", text.written),
        };
        doc.error(text.at, format!("there is no {what} `{}`; {advice}", text.written));
    }
    found.cloned()
}
