//! What a host would change in the store's definitions, were it started with the file.
//!
//! Pure: the definitions are brought by who asks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::config::Config;
use crate::job::{Job, Name};

/// A definition as the store has it, that is not retired.
#[derive(Clone, Debug)]
pub struct Stored<'a> {
    /// The definition.
    pub job: &'a Job,
    /// The host whose file it came from.
    pub owner: &'a str,
}

/// What differs between the file and the store.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Difference {
    /// Jobs that the store does not have.
    pub added: Vec<Name>,
    /// Jobs that are defined in another way, or by another host.
    pub changed: Vec<Changed>,
    /// Jobs of this host that the file no longer names.
    pub retired: Vec<Name>,
}

/// A job that is not the same in both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Changed {
    /// The job.
    pub job: Name,
    /// The host that defines it now, if that is another one.
    pub owner: Option<String>,
    /// The keys that differ, as the file calls them.
    pub keys: Vec<Key>,
}

/// A key that differs. What one of the two leaves out is null there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Key {
    /// Its name.
    pub key: String,
    /// What the store has.
    pub store: Value,
    /// What the file has.
    pub file: Value,
}

impl Difference {
    /// Compares the jobs of a file with those of a store.
    #[must_use]
    pub fn new(config: &Config, stored: &[Stored<'_>]) -> Self {
        let stored: BTreeMap<&Name, &Stored<'_>> =
            stored.iter().map(|stored| (&stored.job.name, stored)).collect();
        let owner = &config.host.owner;
        let mut difference = Self::default();
        for (name, job) in &config.jobs {
            let Some(before) = stored.get(name) else {
                difference.added.push(name.clone());
                continue;
            };
            let other = (before.owner != owner).then(|| before.owner.to_owned());
            if before.job != job || other.is_some() {
                let keys = keys(before.job, job);
                difference.changed.push(Changed { job: name.clone(), owner: other, keys });
            }
        }
        let left = stored.values().filter(|stored| stored.owner == owner);
        let left = left.filter(|stored| !config.jobs.contains_key(&stored.job.name));
        difference.retired = left.map(|stored| stored.job.name.clone()).collect();
        difference
    }

    /// True where a host would change nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One line for each job and for each key that differs.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in &self.added {
            writeln!(f, "+ {name}: the store does not have it, and it would be added")?;
        }
        for Changed { job, owner, keys } in &self.changed {
            match owner {
                Some(owner) => {
                    writeln!(f, "~ {job}: it is defined by host `{owner}`, and would be taken over")?
                }
                None => writeln!(f, "~ {job}: it would be changed")?,
            }
            for Key { key, store, file } in keys {
                writeln!(f, "    {key}: {} in the store, {} in the file", told(store), told(file))?;
            }
        }
        for name in &self.retired {
            writeln!(f, "- {name}: the file does not name it, and it would be retired")?;
        }
        Ok(())
    }
}

fn told(value: &Value) -> String {
    if value.is_null() { "nothing".to_owned() } else { value.to_string() }
}

fn keys(before: &Job, after: &Job) -> Vec<Key> {
    let (before, after) = (written(before), written(after));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let value = |of: &Map<String, Value>, key: &String| of.get(key).cloned().unwrap_or(Value::Null);
    names
        .into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| Key { key: key.clone(), store: value(&before, key), file: value(&after, key) })
        .collect()
}

/// A job's keys as the file has them: those of its policies beside the others, and times as text.
fn written(job: &Job) -> Map<String, Value> {
    let Ok(Value::Object(mut keys)) = serde_json::to_value(job) else { return Map::new() };
    keys.remove("name");
    if let Some(Value::Object(policies)) = keys.remove("policies") {
        keys.extend(policies);
    }
    for (_, value) in keys.iter_mut().filter(|(key, _)| *key != "args") {
        write_times(value);
    }
    keys.retain(|_, value| !value.is_null());
    keys
}

/// The store keeps a time as its seconds and nanoseconds.
fn write_times(value: &mut Value) {
    let part = |name: &str| value.get(name).and_then(Value::as_u64);
    if let (Some(secs), Some(nanos)) = (part("secs"), part("nanos")) {
        let time = std::time::Duration::new(secs, u32::try_from(nanos).unwrap_or(0));
        *value = Value::String(humantime::format_duration(time).to_string());
        return;
    }
    match value {
        Value::Object(object) => object.values_mut().for_each(write_times),
        Value::Array(array) => array.iter_mut().for_each(write_times),
        _ => {}
    }
}
