//! Where things stand in the file, for what is checked after it has been read.

use std::collections::BTreeMap;

use super::Config;
use super::document::Document;
use super::error::Location;
use super::table::{Entry, Table};
use super::values::ArgPlaces;
use crate::capability::CapabilityKey;
use crate::job::Name;

/// A key of a job that can turn out wrong after the file has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobKey {
    /// The plugin's name.
    Plugin,
    /// The handler's name.
    Handler,
    /// The arguments.
    Args,
    /// When it fires.
    Schedule,
    /// Where its executions stand in line.
    Queue,
    /// How high they stand.
    Priority,
    /// How many run at once.
    Concurrency,
    /// How many start in a time.
    Rate,
    /// What it comes after.
    After,
    /// What runs when it has failed.
    OnFailure,
    /// What becomes of missed fires.
    CatchUp,
}

/// A key of a grant (`[[plugins.NAME.databases]]`) that can turn out wrong once a database has
/// been asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GrantKey {
    /// The login.
    Url,
    /// The role of the transactions.
    Role,
    /// Where names without a schema are looked up.
    Schema,
    /// Whether commits pass a fence.
    Fence,
    /// How many transactions one execution may have open.
    MaxOpenTransactions,
}

/// Where things stand in the file, for what is checked later.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) listen: Location,
    /// None where it is left out.
    pub(super) concurrency: Option<Location>,
    pub(super) store: Location,
    /// By part and key, those that are written down.
    pub(super) settings: BTreeMap<(&'static str, &'static str), Location>,
    pub(super) databases: BTreeMap<Name, Location>,
    pub(super) plugins: BTreeMap<Name, Location>,
    /// By plugin and database.
    pub(super) grants: BTreeMap<(Name, Name), GrantPlaces>,
    /// By plugin and what is granted.
    pub(super) capabilities: BTreeMap<(Name, CapabilityKey), Location>,
    pub(super) queues: BTreeMap<Name, Location>,
    pub(super) jobs: BTreeMap<Name, JobPlaces>,
}

impl Places {
    pub(super) fn new(doc: &Document<'_>) -> Self {
        Self {
            listen: doc.location(0),
            concurrency: None,
            store: doc.location(0),
            settings: BTreeMap::new(),
            databases: BTreeMap::new(),
            plugins: BTreeMap::new(),
            grants: BTreeMap::new(),
            capabilities: BTreeMap::new(),
            queues: BTreeMap::new(),
            jobs: BTreeMap::new(),
        }
    }
}

impl Places {
    pub(super) fn note_settings(&mut self, part: &'static str, table: &Table<'_>, keys: &[&'static str]) {
        for key in keys {
            if let Some(entry) = table.entry(key) {
                self.settings.insert((part, key), table.doc.location(entry.key_at));
            }
        }
    }
}

/// Where the tables of a part begin.
pub(super) fn of_tables(tables: &[(Name, Table<'_>)]) -> BTreeMap<Name, Location> {
    tables.iter().map(|(name, table)| (name.clone(), table.doc.location(table.at))).collect()
}

#[derive(Debug)]
pub(super) struct JobPlaces {
    pub(super) header: Location,
    pub(super) keys: BTreeMap<JobKey, Location>,
    pub(super) args: ArgPlaces,
}

#[derive(Debug)]
pub(super) struct GrantPlaces {
    pub(super) header: Location,
    pub(super) keys: BTreeMap<GrantKey, Location>,
}

impl JobPlaces {
    pub(super) fn new(header: Location) -> Self {
        Self { header, keys: BTreeMap::new(), args: ArgPlaces::new() }
    }

    pub(super) fn note(&mut self, key: JobKey, doc: &Document<'_>, at: Option<usize>) {
        if let Some(at) = at {
            self.keys.insert(key, doc.location(at));
        }
    }

    pub(super) fn note_entry(&mut self, key: JobKey, doc: &Document<'_>, entry: Option<&Entry<'_>>) {
        self.note(key, doc, entry.map(Entry::at));
    }
}

impl Config {
    /// Where a key of a job stands; the job's header if the key is left out.
    #[must_use]
    pub fn location_of_job(&self, job: &Name, key: JobKey) -> Location {
        let job = self.places.jobs.get(job);
        let place = job.map(|job| job.keys.get(&key).unwrap_or(&job.header));
        place.cloned().unwrap_or_else(|| Location::whole(&self.path))
    }

    /// Where a plugin names its component.
    #[must_use]
    pub fn location_of_plugin(&self, plugin: &Name) -> Location {
        self.places.plugins.get(plugin).cloned().unwrap_or_else(|| Location::whole(&self.path))
    }

    /// Where a key of a plugin's grant stands; the grant's header if the key is left out.
    #[must_use]
    pub fn location_of_grant(&self, plugin: &Name, database: &Name, key: GrantKey) -> Location {
        let grant = self.places.grants.get(&(plugin.clone(), database.clone()));
        let place = grant.map(|grant| grant.keys.get(&key).unwrap_or(&grant.header));
        place.cloned().unwrap_or_else(|| Location::whole(&self.path))
    }

    /// Where a key of a plugin's grant stands; none if it is left out.
    #[must_use]
    pub fn location_in_grant(&self, plugin: &Name, database: &Name, key: GrantKey) -> Option<Location> {
        self.places.grants.get(&(plugin.clone(), database.clone()))?.keys.get(&key).cloned()
    }

    /// Where a grant of a plugin stands that is no database; the plugin's component if it is left out.
    #[must_use]
    pub fn location_of_capability(&self, plugin: &Name, key: &CapabilityKey) -> Location {
        let place = self.places.capabilities.get(&(plugin.clone(), key.clone()));
        place.cloned().unwrap_or_else(|| self.location_of_plugin(plugin))
    }

    /// Where a database stands.
    #[must_use]
    pub fn location_of_database(&self, database: &Name) -> Location {
        self.places.databases.get(database).cloned().unwrap_or_else(|| Location::whole(&self.path))
    }

    /// Where a queue stands.
    #[must_use]
    pub fn location_of_queue(&self, queue: &Name) -> Location {
        self.places.queues.get(queue).cloned().unwrap_or_else(|| Location::whole(&self.path))
    }

    /// Where `concurrency` of `[host]` stands; none where it is left out.
    #[must_use]
    pub fn location_of_concurrency(&self) -> Option<Location> {
        self.places.concurrency.clone()
    }

    /// Where `listen` of `[host]` stands.
    #[must_use]
    pub fn location_of_listen(&self) -> Location {
        self.places.listen.clone()
    }

    /// Where a setting of `[host]` or `[store]` stands; the file as a whole where it is left out.
    #[must_use]
    pub fn location_of_setting(&self, part: &'static str, key: &'static str) -> Location {
        let place = self.places.settings.get(&(part, key));
        place.cloned().unwrap_or_else(|| Location::whole(&self.path))
    }

    /// Where the store stands: the start of the file if it is left out.
    #[must_use]
    pub fn location_of_store(&self) -> Location {
        self.places.store.clone()
    }
}
