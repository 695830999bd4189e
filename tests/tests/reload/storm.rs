//! Reload after reload, under load.

use innkeeper::execution::State;
use innkeeper::store::ExecutionFilter;
use innkeeper_tests::database::Engine;
use innkeeper_tests::host::until;
use innkeeper_tests::on_both_engines;
use serde_json::json;

use super::stage::{Stage, UNWATCHED, wait_for_lines};

const JOBS: &str = r#"
[jobs.echo]
plugin = "probe"
handler = "echo"
retry = { max_attempts = 1 }

[jobs.sleep]
plugin = "probe"
handler = "sleep"
args = { ms = 300 }
retry = { max_attempts = 1 }
"#;

const ROUNDS: u32 = 12;
const OF_A_ROUND: usize = 25;

on_both_engines! {
    async fn nothing_is_lost_and_nothing_fails(engine: Engine) {
        let stage = Stage::new(engine, UNWATCHED).await;
        let host = stage.serve(JOBS).await;
        for round in 0..ROUNDS {
            for number in 0..OF_A_ROUND {
                // In the midst of it, and some rounds twice at once.
                if number == 5 || (number == 6 && round % 3 == 0) {
                    stage.release.publish(2 + round % 4);
                    host.signal(libc::SIGHUP);
                }
                let (job, args) = if number % 3 == 0 { ("sleep", json!({ "ms": 300 })) } else { ("echo", json!(number)) };
                stage.enqueue(job, &args).await;
            }
            wait_for_lines(&host, "plugin swapped", usize::try_from(round).unwrap() + 1).await;
        }
        let all = usize::try_from(ROUNDS).unwrap() * OF_A_ROUND;
        let of = async |state| {
            let filter = ExecutionFilter { job: None, state: Some(state), before: None, limit: 1000 };
            stage.store.executions(&filter).await.unwrap()
        };
        until("all have ended", async || {
            (of(State::Succeeded).await.len() + of(State::Failed).await.len() == all).then_some(())
        })
        .await;
        let failed = of(State::Failed).await;
        assert!(failed.is_empty(), "{failed:?}");
        let log = host.stop().await;
        assert!(!log.contains("ERROR"), "{log}");
    }
}
