//! What a component may ask of the host: one module for each interface of the WIT.
//!
//! A module here knows pure types and its own pools. It never sees the engine or the host's
//! store: what it needs of them goes through [`Port`], which the engine implements.

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::execution::{LogLine, Progress};

pub mod activity;
pub mod context;
pub mod db;
pub mod files;
pub mod granted;
pub mod http;
pub mod jobs;
pub mod output;
pub mod refusals;
pub mod sockets;
pub mod stdio;

/// The version of WASI that wasmtime links under; guests of older ones are given the same.
const WASI: &str = "0.2.12";

/// Generated from the WIT in `plugin-sdk/wit`.
#[expect(missing_docs, reason = "generated; the WIT has the documentation")]
pub mod bindings {
    wasmtime::component::bindgen!({
        path: "../plugin-sdk/wit",
        world: "plugin",
        imports: { default: async | trappable },
        exports: { default: async },
        with: {
            "innkeeper:plugin/db.transaction": super::db::TransactionHandle,
            "innkeeper:plugin/db.cursor": super::db::CursorHandle,
        },
    });
}

/// What the running execution may ask of the host's own records.
///
/// Each call that writes is a short transaction of the host's own and has ended when it
/// returns. Dropping the returned future does not interrupt it: a guest that is stopped in
/// the middle of a call leaves no connection of the host in doubt.
#[async_trait]
pub trait Port: Send + Sync {
    /// Adds lines to the execution's log. What cannot be recorded is reported in the host's
    /// own log: a handler does not fail because of its log.
    async fn log(&self, lines: Vec<LogLine>);

    /// Records how far the work is.
    async fn progress(&self, progress: Progress);

    /// Keeps `state` for a later attempt.
    ///
    /// # Errors
    /// A text for the handler, where it could not be recorded.
    async fn save_checkpoint(&self, state: Value) -> Result<(), String>;

    /// True once an operator or a shutdown has asked the handler to stop.
    fn cancelled(&self) -> bool;

    /// Enqueues an execution and returns its id, or the id of the unfinished execution that
    /// holds the same unique key.
    ///
    /// # Errors
    /// See [`EnqueueError`].
    async fn enqueue(&self, request: EnqueueRequest) -> Result<Uuid, EnqueueError>;
}

/// What a handler asks to be enqueued.
#[derive(Clone, Debug, PartialEq)]
pub struct EnqueueRequest {
    /// The job, as the handler named it.
    pub job: String,
    /// `None`: the arguments in the job's definition.
    pub args: Option<Value>,
    /// `None`: now.
    pub run_at: Option<Timestamp>,
    /// At most one unfinished execution of the job has this key.
    pub unique_key: Option<String>,
}

/// Why nothing was enqueued. The messages are for the author of the handler.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnqueueError {
    /// No such job.
    #[error("{0}")]
    UnknownJob(String),
    /// The arguments do not fit the schema of the job's handler.
    #[error("{0}")]
    InvalidArgs(String),
    /// The operator did not grant this job to the plugin.
    #[error("{0}")]
    Denied(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// The port of a component that is only described: it refuses or does nothing.
pub struct ClosedPort;

#[async_trait]
impl Port for ClosedPort {
    async fn log(&self, _lines: Vec<LogLine>) {}

    async fn progress(&self, _progress: Progress) {}

    async fn save_checkpoint(&self, _state: Value) -> Result<(), String> {
        Err("there is no execution: the plugin is only being described".to_owned())
    }

    fn cancelled(&self) -> bool {
        false
    }

    async fn enqueue(&self, _request: EnqueueRequest) -> Result<Uuid, EnqueueError> {
        Err(EnqueueError::Denied("there is no execution: the plugin is only being described".to_owned()))
    }
}
