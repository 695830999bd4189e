//! Components are replaced.

use std::time::Duration;

use innkeeper::execution::{FailureKind, State};
use innkeeper::job::{Job, Name};
use innkeeper::retry::RetryPolicy;
use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{guest, until};
use innkeeper_tests::on_both_engines;
use innkeeper_tests::raw::open_gate;
use innkeeper_tests::registry::{PASSWORD, Registry, USER};
use serde_json::json;

use super::stage::{JOBS, Stage, UNWATCHED};

/// What a file holds while somebody copies to it.
fn half_of(path: &std::path::Path) -> Vec<u8> {
    let bytes = std::fs::read(path).expect("it can be read");
    bytes[..bytes.len() / 2].to_vec()
}

on_both_engines! {
    async fn what_runs_ends_on_the_old_version_while_the_new_one_starts(engine: Engine) {
        let mut stage = Stage::new(engine, UNWATCHED).await;
        let host = stage.serve(JOBS).await;
        let held = stage.hold().await;
        stage.release.publish(2);
        host.signal(libc::SIGHUP);
        host.wait_for_log("plugin swapped").await;
        assert_eq!(stage.run().await, stage.release.digest(2));
        open_gate(&mut stage.app, "main").await;
        let record = stage.end_of(held).await;
        assert_eq!(record.state, State::Succeeded, "{record:?}");
        assert_eq!(stage.component_of(held).await, stage.release.digest(1));
        let gone = |log: &str| log.matches("nothing runs this version of the plugin any more").count();
        until("nothing is left of it", async || (gone(&host.log()) == 1).then_some(())).await;
        host.stop().await;
    }

    async fn a_file_that_is_replaced_takes_effect_by_itself(engine: Engine) {
        let mut stage = Stage::new(engine, "session_timeout = \"3s\"").await;
        let host = stage.serve(JOBS).await;
        assert_eq!(stage.run().await, stage.release.digest(1));
        stage.release.publish(2);
        host.wait_for_log("plugin swapped").await;
        assert_eq!(stage.run().await, stage.release.digest(2));
        // The configuration's file as well.
        stage.configure("inn-1", &JOBS.replace("[jobs.echo]", "[jobs.echo-again]"));
        host.wait_for_log("retired: the configuration no longer names it").await;
        let id = stage.enqueue("echo-again", &json!(1)).await;
        assert_eq!(stage.end_of(id).await.state, State::Succeeded);
        host.stop().await;
    }

    async fn a_secret_that_is_replaced_takes_effect_by_itself_without_another_component(engine: Engine) {
        const GRANTS: &str = "\n[plugins.probe.secrets]\nkey = { file = \"key\" }\n\
                              [plugins.probe.http]\nallow = [\"GET https://api.example/\"]\n";
        let mut stage = Stage::new(engine, "session_timeout = \"3s\"").await;
        let key = stage.scene.dir().join("key");
        std::fs::write(&key, "hunter2").expect("it can be written");
        let host = stage.serve(&format!("{JOBS}{GRANTS}")).await;
        // One that is of no use leaves everything as it was.
        std::fs::write(&key, "").expect("it can be written");
        host.wait_for_log("not reloaded, everything stays as it was").await;
        assert!(host.log().contains("is empty"), "{}", host.log());
        std::fs::write(&key, "hunter3").expect("it can be written");
        host.wait_for_log("the plugin's configuration has changed").await;
        assert!(!host.log().contains("hunter"), "{}", host.log());
        assert_eq!(stage.run().await, stage.release.digest(1));
        host.stop().await;
    }

    async fn what_does_not_load_changes_nothing_until_it_is_mended(engine: Engine) {
        let mut stage = Stage::new(engine, UNWATCHED).await;
        let host = stage.serve(JOBS).await;
        let old = stage.release.digest(1);
        stage.release.put(&half_of(&stage.release.path));
        let components = stage.scene.dir().join("data/components");
        let kept = || std::fs::read_dir(&components).expect("they are kept there").count();
        let (code, told) = stage.command(&["plugin", "reload", "--wait"]);
        assert_eq!(code, Some(1), "{told}");
        let place = format!("{}:", stage.scene.dir().join("inn-1.toml").display());
        assert!(told.contains("has not reloaded") && told.contains(&place), "{told}");
        assert!(told.contains("plugin `probe`"), "{told}");
        assert!(host.log().contains("not reloaded, everything stays as it was"), "{}", host.log());
        assert_eq!(stage.run().await, old);
        // One that is fine and has not what the jobs need.
        stage.release.put(&std::fs::read(guest("bench")).expect("it is there"));
        let (code, told) = stage.command(&["plugin", "reload", "probe", "--wait"]);
        assert_eq!(code, Some(1), "{told}");
        assert!(told.contains("has no handler `hold`"), "{told}");
        assert_eq!(kept(), 1, "nobody goes back to what never ran");
        assert_eq!(stage.run().await, old);
        stage.release.publish(2);
        let told = stage.done(&["plugin", "reload", "probe", "--wait"]);
        assert!(told.contains("Host `inn-1` has reloaded."), "{told}");
        assert_eq!(stage.run().await, stage.release.digest(2));
        host.stop().await;
    }

    async fn only_the_plugin_that_was_named_is_loaded_and_on_the_host_that_was_named(engine: Engine) {
        let stage = Stage::new(engine, UNWATCHED).await;
        let (one, two) = (stage.serve(JOBS).await, stage.serve_as("inn-2", JOBS).await);
        stage.release.publish(2);
        stage.done(&["plugin", "reload", "probe", "--host", "inn-2", "--wait"]);
        assert!(two.log().contains("plugin swapped"), "{}", two.log());
        assert!(!one.log().contains("plugin swapped"), "{}", one.log());
        let (code, told) = stage.command(&["plugin", "reload", "prob"]);
        assert_eq!(code, Some(2), "{told}");
        assert!(told.contains("no live host has a plugin `prob`; did you mean `probe`?"), "{told}");
        let (code, told) = stage.command(&["plugin", "reload", "--host", "inn-3"]);
        assert_eq!(code, Some(2), "{told}");
        assert!(told.contains("there is no live host `inn-3`"), "{told}");
        let told = stage.done(&["plugin", "reload", "--wait"]);
        assert!(told.contains("`inn-1` has reloaded") && told.contains("`inn-2` has reloaded"), "{told}");
        assert!(one.log().contains("plugin swapped"), "{}", one.log());
        assert_eq!(two.log().matches("plugin swapped").count(), 1, "nothing new there:\n{}", two.log());
        one.stop().await;
        two.stop().await;
    }

    async fn jobs_of_a_newer_file_outlive_a_reload_of_components_by_a_host_with_the_old_one(engine: Engine) {
        let stage = Stage::new(engine, &format!("owner = \"inn\"\n{UNWATCHED}")).await;
        let one = stage.serve(JOBS).await;
        let newer = format!("{JOBS}\n[jobs.newer]\nplugin = \"probe\"\nhandler = \"echo\"\n");
        let two = stage.serve_as("inn-2", &newer).await;
        stage.release.publish(2);
        stage.done(&["plugin", "reload", "--host", "inn-1", "--wait"]);
        assert!(one.log().contains("plugin swapped"), "{}", one.log());
        let jobs = stage.store.jobs().await.unwrap();
        let retired: Vec<_> = jobs.iter().filter(|job| job.retired_at.is_some()).collect();
        assert!(retired.is_empty(), "{retired:?}");
        one.stop().await;
        two.stop().await;
    }

    async fn a_job_that_is_for_another_version_is_tried_again(engine: Engine) {
        let stage = Stage::new(engine, UNWATCHED).await;
        let host = stage.serve(JOBS).await;
        // As another host does it that has a newer component.
        let record = stage.store.job(&Name::new("echo").unwrap()).await.unwrap();
        let retry = RetryPolicy { max_attempts: 2, initial: Duration::from_secs(3600), ..record.job.retry };
        let job = Job { handler: "of-the-next-version".into(), retry, ..record.job };
        stage.store.sync_jobs("another", &[job]).await.unwrap();
        let id = stage.enqueue("echo", &json!(1)).await;
        let record = until("it was tried", async || {
            let record = stage.store.execution(id).await.unwrap().unwrap();
            record.error.is_some().then_some(record)
        })
        .await;
        let error = record.error.unwrap();
        assert_eq!((record.state, error.kind), (State::Retrying, FailureKind::Host), "{error:?}");
        assert!(error.message.contains("another version of plugin `probe`"), "{error:?}");
        host.stop().await;
    }

    async fn a_registry_that_does_not_answer_holds_up_no_other_plugin(engine: Engine) {
        let mut stage = Stage::new(engine, UNWATCHED).await;
        let mut registry = Registry::start().await;
        let component = std::fs::read(guest("bench")).expect("it is there");
        registry.push("bench:1", &component).await;
        let address = registry.address();
        let remote = format!(
            "{JOBS}\n[plugins.remote]\ncomponent = \"oci://{address}/bench:1\"\n\
             [registries.{address:?}]\nusername = {USER:?}\npassword = {PASSWORD:?}\n"
        );
        let host = stage.serve(&remote).await;
        registry.stop();
        stage.release.publish(2);
        stage.done(&["host", "reload", "--wait"]);
        assert!(host.log().contains("whether there is a newer component is not known"), "{}", host.log());
        assert_eq!(stage.run().await, stage.release.digest(2));
        host.stop().await;
    }
}
