//! The whole configuration is replaced.

use innkeeper::execution::State;
use innkeeper_tests::database::{Engine, TestDatabase};
use innkeeper_tests::host::{TestHost, guest, until};
use innkeeper_tests::on_both_engines;
use innkeeper_tests::raw::{Raw, make_gate, open_gate};
use serde_json::json;

use super::stage::{JOBS, Stage, UNWATCHED, wait_for_lines};

/// How many connections the host has to a database, by what the database or the system tells.
async fn connections(database: &TestDatabase, host: &TestHost, outside: &mut Raw) -> usize {
    match outside {
        Raw::Postgres(_) => {
            let others = "select count(*) from pg_stat_activity where datname = current_database() \
                          and backend_type = 'client backend' and pid <> pg_backend_pid()";
            usize::try_from(outside.count(others).await).expect("it is a count")
        }
        Raw::Sqlite(_) => {
            let address = database.address();
            let file = address.trim_start_matches("sqlite:");
            host.open_files().iter().filter(|open| open.contains(file)).count()
        }
    }
}

on_both_engines! {
    async fn jobs_come_and_go_and_change(engine: Engine) {
        let stage = Stage::new(engine, UNWATCHED).await;
        let host = stage.serve(JOBS).await;
        let jobs = JOBS.replace("[jobs.hold]", "[jobs.hold-on]").replace("max_attempts = 1", "max_attempts = 3");
        stage.configure("inn-1", &jobs);
        stage.done(&["host", "reload", "--wait"]);
        let names = stage.store.jobs().await.unwrap();
        let shown: Vec<_> = names
            .iter()
            .map(|job| (job.job.name.as_str(), job.retired_at.is_some(), job.job.retry.max_attempts))
            .collect();
        assert_eq!(shown, [("echo", false, 3), ("hold", true, 1), ("hold-on", false, 3)]);
        host.stop().await;
    }

    async fn a_configuration_with_an_error_changes_nothing_at_all(engine: Engine) {
        let mut stage = Stage::new(engine, UNWATCHED).await;
        let host = stage.serve(JOBS).await;
        stage.release.publish(2);
        // A new job, another component, and one handler that is not there.
        let jobs = format!("{JOBS}\n[jobs.new]\nplugin = \"probe\"\nhandler = \"eco\"\n");
        let path = stage.configure("inn-1", &jobs);
        let text = std::fs::read_to_string(&path).unwrap();
        let line = text.lines().position(|line| line == "handler = \"eco\"").expect("it is there") + 1;
        host.signal(libc::SIGHUP);
        let place = format!("{}:{line}:11", path.display());
        host.wait_for_log(&place).await;
        assert!(host.log().contains("did you mean `echo`"), "{}", host.log());
        assert_eq!(stage.store.jobs().await.unwrap().len(), 2);
        assert_eq!(stage.run().await, stage.release.digest(1));
        // Text that is no TOML.
        std::fs::write(&path, format!("{text}\n[jobs.")).unwrap();
        host.signal(libc::SIGHUP);
        wait_for_lines(&host, "not reloaded, everything stays as it was", 2).await;
        let place = format!("{}:{}:", path.display(), text.lines().count() + 2);
        assert!(host.log().contains(&place), "{place} in {}", host.log());
        assert_eq!(stage.run().await, stage.release.digest(1));
        host.stop().await;
    }

    async fn what_needs_a_restart_is_refused_with_its_line(engine: Engine) {
        let mut stage = Stage::new(engine, UNWATCHED).await;
        let host = stage.serve(JOBS).await;
        stage.release.publish(2);
        let path = stage.configure_as("inn-1", JOBS, |text| text.replace("\"3s\"", "\"4s\"\nconcurrency = 7"));
        let (code, told) = stage.command(&["host", "reload", "--wait"]);
        assert_eq!(code, Some(1), "{told}");
        for (line, key) in [(4, "session_timeout"), (5, "concurrency")] {
            let complaint = format!("{}:{line}:1: `{key}` of [host]", path.display());
            assert!(told.contains(&complaint), "{complaint} in {told}");
        }
        assert!(told.contains("restart the host"), "{told}");
        assert_eq!(stage.run().await, stage.release.digest(1));
        host.stop().await;
    }

    async fn another_database_is_used_from_then_on_and_the_old_one_until_the_last_has_ended(engine: Engine) {
        let mut stage = Stage::new(engine, UNWATCHED).await;
        let host = stage.serve(JOBS).await;
        let held = stage.hold().await;
        let other = TestDatabase::empty(engine).await;
        let mut elsewhere = Raw::connect(other.url()).await;
        make_gate(&mut elsewhere).await;
        let (from, to) = (format!("{:?}", stage.scene.app.address()), format!("{:?}", other.address()));
        stage.configure_as("inn-1", JOBS, |text| text.replace(&from, &to));
        stage.done(&["host", "reload", "--wait"]);
        assert!(connections(&stage.scene.app, &host, &mut stage.app).await > 0, "it still works there");
        let new = stage.enqueue("hold", &json!({ "gate": "main" })).await;
        let inside = format!("select count(*) from inside where execution = '{new}'");
        until("it is inside", async || (elsewhere.count(&inside).await > 0).then_some(())).await;
        open_gate(&mut elsewhere, "main").await;
        assert_eq!(stage.end_of(new).await.state, State::Succeeded);
        open_gate(&mut stage.app, "main").await;
        assert_eq!(stage.end_of(held).await.state, State::Succeeded);
        let (app, outside) = (&stage.scene.app, &mut stage.app);
        until("nothing is connected to the old one", async || {
            (connections(app, &host, outside).await == 0).then_some(())
        })
        .await;
        host.stop().await;
    }

    async fn a_grant_that_is_taken_away_is_gone_for_what_starts_then(engine: Engine) {
        let stage = Stage::new(engine, UNWATCHED).await;
        let jobs = "[jobs.write]\nplugin = \"probe\"\nhandler = \"sql\"\nretry = { max_attempts = 1 }\n\
                    args = { steps = [{ op = \"execute\", sql = \"delete from inside\", must = true }] }\n";
        let host = stage.serve(jobs).await;
        let args = json!({ "steps": [{ "op": "execute", "sql": "delete from inside", "must": true }] });
        let id = stage.enqueue("write", &args).await;
        assert_eq!(stage.end_of(id).await.state, State::Succeeded);
        stage.configure_as("inn-1", jobs, |text| {
            text.replace("[[plugins.probe.databases]]\n", "[[plugins.probe.databases]]\naccess = \"read-only\"\n")
        });
        host.signal(libc::SIGHUP);
        wait_for_lines(&host, "the plugin's configuration has changed", 1).await;
        let id = stage.enqueue("write", &args).await;
        let record = stage.end_of(id).await;
        assert_eq!(record.state, State::Failed, "{record:?}");
        host.stop().await;
    }

    async fn what_a_refused_configuration_lacked_takes_effect_when_it_is_there(engine: Engine) {
        let mut stage = Stage::new(engine, "session_timeout = \"3s\"").await;
        let host = stage.serve(JOBS).await;
        let late = stage.scene.dir().join("late.wasm");
        let plugin = format!("{JOBS}\n[plugins.late]\ncomponent = {late:?}\n");
        stage.configure("inn-1", &plugin);
        host.wait_for_log("not reloaded, everything stays as it was").await;
        // What is in order meanwhile takes effect under the configuration that runs.
        stage.release.publish(2);
        host.wait_for_log("plugin swapped").await;
        assert_eq!(stage.run().await, stage.release.digest(2));
        std::fs::copy(guest("bench"), late.with_extension("draft")).expect("it can be written");
        std::fs::rename(late.with_extension("draft"), &late).expect("it can be renamed");
        host.wait_for_log("plugin added").await;
        host.stop().await;
    }

    async fn more_memory_than_any_plugin_had_is_given_without_a_restart(engine: Engine) {
        let mut stage = Stage::new(engine, UNWATCHED).await;
        let host = stage.serve(JOBS).await;
        stage.configure_as("inn-1", JOBS, |text| {
            text.replace("[[plugins.probe.databases]]", "limits = { memory = \"2GiB\" }\n[[plugins.probe.databases]]")
        });
        stage.done(&["host", "reload", "--wait"]);
        assert!(host.log().contains("the plugin's configuration has changed"), "{}", host.log());
        assert_eq!(stage.run().await, stage.release.digest(1));
        host.stop().await;
    }
}
