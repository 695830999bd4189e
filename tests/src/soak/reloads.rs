//! The host loads another version of the plugin once in so many executions, and none notices.

use crate::database::Engine;
use crate::host::{Scene, TestHost, until};
use crate::raw::Raw;
use crate::release::Release;

/// Executions between two reloads.
const EVERY: u64 = 1000;

/// Versions that come in turn: a store keeps a row of each.
const VERSIONS: u64 = 4;

pub(super) struct Reloads {
    release: Release,
    store: Raw,
    blamed_on_the_host: String,
    /// By the number of executions.
    due: u64,
    done: u64,
}

impl Reloads {
    pub(super) async fn new(scene: &Scene, release: Release) -> Self {
        let mut store = Raw::connect(scene.store.url()).await;
        let completion = match scene.engine {
            Engine::Sqlite => {
                store.execute("pragma busy_timeout = 30000").await;
                "completion"
            }
            Engine::Postgres => "innkeeper.completion",
        };
        let blamed_on_the_host = format!("select count(*) from {completion} where error ->> 'kind' = 'host'");
        Self { release, store, blamed_on_the_host, due: 0, done: 0 }
    }

    /// Reloads where it is time for it, in the midst of what runs.
    pub(super) async fn keep_up(&mut self, host: &TestHost, executions: u64) {
        let due = executions / EVERY;
        if due > self.due {
            self.due = due;
            self.reload(host).await;
        }
    }

    /// Reloads, in the midst of what runs.
    pub(super) async fn reload(&mut self, host: &TestHost) {
        let before = swaps(host);
        self.done += 1;
        let version = u32::try_from(1 + self.done % VERSIONS).expect("it is small");
        self.release.publish(version);
        host.signal(libc::SIGHUP);
        until("the plugin is swapped", async || (swaps(host) > before).then_some(())).await;
        // What ended long ago is removed from the history.
        self.assert_unnoticed().await;
    }

    /// Nothing failed for a reason that lies in the host.
    pub(super) async fn assert_unnoticed(&mut self) {
        assert_eq!(self.store.count(&self.blamed_on_the_host).await, 0, "executions failed by a reload");
    }
}

fn swaps(host: &TestHost) -> usize {
    host.log().matches("plugin swapped").count()
}
