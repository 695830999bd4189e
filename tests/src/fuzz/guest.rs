//! What calls of guests have in common, whoever makes them.

use std::sync::Arc;
use std::time::Duration;

use innkeeper::execution::{Attempt, Effects, Trigger};
use innkeeper::job::{History, Job, Name, OnCrash};
use innkeeper::policy::Policies;
use innkeeper::retry::RetryPolicy;
use jiff::Timestamp;
use serde_json::{Value, json};

/// A name that is one.
///
/// # Panics
/// Where it is none.
pub(super) fn name(text: &str) -> Name {
    Name::new(text).expect("it is a name")
}

/// A job of a plugin `fuzz`.
pub(super) fn job(handler: &str, timeout: Duration) -> Job {
    Job {
        name: name("fuzz"),
        plugin: name("fuzz"),
        handler: handler.to_owned(),
        args: json!({}),
        schedule: None,
        enabled: true,
        retry: RetryPolicy { max_attempts: 1, ..RetryPolicy::default() },
        timeout,
        on_crash: OnCrash::Fail,
        history: History::default(),
        policies: Policies::default(),
    }
}

/// An attempt of it that no store knows of.
pub(super) fn attempt(handler: &str, args: Value, timeout: Duration) -> Attempt {
    Attempt {
        lease: 1,
        execution: uuid::Uuid::nil(),
        attempt: 1,
        max_attempts: 1,
        job: Arc::new(job(handler, timeout)),
        args,
        triggered_by: Trigger::Manual,
        scheduled_at: Timestamp::UNIX_EPOCH,
        started_at: Timestamp::UNIX_EPOCH,
        checkpoint: None,
        has_unique_key: false,
        effects: Effects::default(),
        component: "".into(),
    }
}
