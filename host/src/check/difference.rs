//! What a host would change in the store's definitions, were it started with the file.
//!
//! Pure: the definitions are brought by who asks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::job::{Job, Name};
use crate::policy::Queue;

/// A definition as the store has it, that is not retired.
#[derive(Clone, Debug)]
pub struct Stored<D> {
    /// The definition.
    pub definition: D,
    /// Whose it is, as `owner` of `[host]` says; empty for nobody's.
    pub owner: String,
}

/// What differs between the file and the store.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Difference {
    /// Jobs that the store does not have.
    pub added: Vec<Name>,
    /// Jobs that are defined in another way, or by another owner.
    pub changed: Vec<Changed>,
    /// Jobs of this owner that the file no longer names.
    pub retired: Vec<Name>,
    /// The same of queues.
    pub queues: QueueDifference,
}

/// What differs in the queues.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct QueueDifference {
    /// Those that the store does not have.
    pub added: Vec<Name>,
    /// Those that have other values, or another owner.
    pub changed: Vec<Changed>,
    /// Those of this owner that the file no longer names: they go back to the defaults.
    pub reset: Vec<Name>,
}

/// A job or a queue that is not the same in both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Changed {
    /// Its name.
    pub name: Name,
    /// Who defines it now, if that is another one.
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
    /// Compares what a file defines with what a store has.
    #[must_use]
    pub fn new(config: &Config, jobs: &[Stored<&Job>], queues: &[Stored<Queue>]) -> Self {
        let owner = &config.host.owner;
        let (added, changed, retired) = compare(
            owner,
            &config.jobs,
            jobs.iter().map(|stored| (&stored.definition.name, stored.definition, stored.owner.as_str())),
            written_job,
        );
        let of_queues =
            queues.iter().map(|stored| (&stored.definition.name, &stored.definition, stored.owner.as_str()));
        let (queues_added, queues_changed, reset) = compare(owner, &config.queues, of_queues, written_queue);
        let queues = QueueDifference { added: queues_added, changed: queues_changed, reset };
        Self { added, changed, retired, queues }
    }

    /// True where a host would change nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What only the file has, what is not the same, and what only the store has of this owner.
fn compare<'a, D: PartialEq + 'a>(
    owner: &str,
    file: &BTreeMap<Name, D>,
    stored: impl Iterator<Item = (&'a Name, &'a D, &'a str)>,
    written: impl Fn(&D) -> Map<String, Value>,
) -> (Vec<Name>, Vec<Changed>, Vec<Name>) {
    let stored: BTreeMap<&Name, (&D, &str)> = stored.map(|(name, of, owner)| (name, (of, owner))).collect();
    let (mut added, mut changed) = (Vec::new(), Vec::new());
    for (name, after) in file {
        let Some((before, of)) = stored.get(name) else {
            added.push(name.clone());
            continue;
        };
        // What is nobody's becomes this owner's without a word.
        let other = (!of.is_empty() && *of != owner).then(|| (*of).to_owned());
        if *before != after || other.is_some() {
            let keys = keys(&written(before), &written(after));
            changed.push(Changed { name: name.clone(), owner: other, keys });
        }
    }
    let left = stored.iter().filter(|(name, (_, of))| *of == owner && !file.contains_key(**name));
    let left = left.map(|(name, _)| (*name).clone()).collect();
    (added, changed, left)
}

/// One line for each definition and for each key that differs.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in &self.added {
            writeln!(f, "+ {name}: the store does not have it, and it would be added")?;
        }
        self.changed.iter().try_for_each(|changed| write!(f, "{changed}"))?;
        for name in &self.retired {
            writeln!(f, "- {name}: the file does not name it, and it would be retired")?;
        }
        let QueueDifference { added, changed, reset } = &self.queues;
        for name in added {
            writeln!(f, "+ queue {name}: the store does not have it, and it would be added")?;
        }
        changed.iter().try_for_each(|changed| write!(f, "{changed:#}"))?;
        for name in reset {
            writeln!(f, "- queue {name}: the file does not name it, and it would go back to the defaults")?;
        }
        Ok(())
    }
}

/// Of a job, or with `#` of a queue.
impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{}{}", if f.alternate() { "queue " } else { "" }, self.name);
        match &self.owner {
            Some(owner) => writeln!(f, "~ {name}: it is defined by `{owner}`, and would be taken over")?,
            None => writeln!(f, "~ {name}: it would be changed")?,
        }
        for Key { key, store, file } in &self.keys {
            writeln!(f, "    {key}: {} in the store, {} in the file", told(store), told(file))?;
        }
        Ok(())
    }
}

fn told(value: &Value) -> String {
    if value.is_null() { "nothing".to_owned() } else { value.to_string() }
}

fn keys(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<Key> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let value = |of: &Map<String, Value>, key: &String| of.get(key).cloned().unwrap_or(Value::Null);
    names
        .into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| Key { key: key.clone(), store: value(before, key), file: value(after, key) })
        .collect()
}

/// A queue's keys as the file has them.
fn written_queue(queue: &Queue) -> Map<String, Value> {
    let keys = [
        ("weight", json!(queue.weight)),
        ("limit", json!(queue.limit)),
        ("limit_per_host", json!(queue.limit_per_host)),
    ];
    keys.into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

/// A job's keys as the file has them: those of its policies beside the others, and times as text.
fn written_job(job: &Job) -> Map<String, Value> {
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
