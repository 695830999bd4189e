//! An attempt that no store knows of, for what calls a handler by itself.

use std::sync::Arc;
use std::time::Duration;

use innkeeper::execution::{Attempt, Effects, Trigger};
use innkeeper::job::{History, Job, Name, OnCrash};
use innkeeper::policy::Policies;
use innkeeper::retry::RetryPolicy;
use serde_json::Value;

/// A name that is one.
///
/// # Panics
/// Where it is none.
#[must_use]
pub fn name(text: &str) -> Name {
    Name::new(text).expect("it is a name")
}

/// A job of a plugin, of the plugin's name and without a schedule.
///
/// # Panics
/// Where the plugin's name is none.
#[must_use]
pub fn job(plugin: &str, handler: &str, timeout: Duration) -> Job {
    Job {
        name: name(plugin),
        plugin: name(plugin),
        handler: handler.to_owned(),
        args: Value::Null,
        schedule: None,
        enabled: true,
        retry: RetryPolicy { max_attempts: 1, ..RetryPolicy::default() },
        timeout,
        on_crash: OnCrash::Fail,
        history: History::default(),
        policies: Policies::default(),
    }
}

/// The first attempt of [`job`], which has just been started.
///
/// # Panics
/// Where the plugin's name is none.
#[must_use]
pub fn attempt(plugin: &str, handler: &str, args: Value, timeout: Duration) -> Attempt {
    let now = innkeeper::clock::now();
    Attempt {
        lease: 1,
        execution: uuid::Uuid::now_v7(),
        attempt: 1,
        max_attempts: 1,
        job: Arc::new(job(plugin, handler, timeout)),
        args,
        triggered_by: Trigger::Manual,
        scheduled_at: now,
        started_at: now,
        checkpoint: None,
        has_unique_key: false,
        effects: Effects::default(),
        component: "sha256:0".into(),
    }
}
