//! Plugins go back to the version before.

use std::fs::File;
use std::time::SystemTime;

use innkeeper::job::Name;
use innkeeper::plugin::kept::UNKNOWN_FOR;
use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{TestHost, guest, until};
use innkeeper_tests::on_both_engines;
use innkeeper_tests::raw::Raw;

use super::stage::{JOBS, Stage, UNWATCHED};

/// PostgreSQL only: there a table can be locked while the host starts.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_while_a_host_starts_is_followed() {
    let mut stage = Stage::new(Engine::Postgres, UNWATCHED).await;
    for version in [1, 2] {
        stage.release.publish(version);
        stage.serve(JOBS).await.stop().await;
    }
    let mut outside = Raw::connect(stage.scene.store.url()).await;
    let mut lock = Raw::connect(stage.scene.store.url()).await;
    lock.lock("innkeeper.plugin_version").await;
    let host = TestHost::start(&stage.configure("inn-1", JOBS));
    let waiting = "select count(*) from pg_locks where not granted \
                   and relation = 'innkeeper.plugin_version'::regclass";
    until("the host has read what is rolled back", async || (outside.count(waiting).await > 0).then_some(()))
        .await;
    let (v1, v2) = (stage.release.digest(1), stage.release.digest(2));
    stage.store.roll_back(&Name::new("probe").unwrap(), &v1, &v2, None).await.unwrap();
    lock.unlock().await;
    host.wait_for_log("plugin swapped").await;
    assert_eq!(stage.run().await, v1);
    host.stop().await;
}

on_both_engines! {
    async fn every_host_goes_back_and_stays_there_until_a_mended_version_is_deployed(engine: Engine) {
        let mut stage = Stage::new(engine, UNWATCHED).await;
        let one = stage.serve(JOBS).await;
        let (v1, v2, v3) = (stage.release.digest(1), stage.release.digest(2), stage.release.digest(3));
        stage.release.publish(2);
        stage.done(&["plugin", "reload", "--wait"]);
        let two = stage.serve_as("inn-2", JOBS).await;
        assert_eq!(stage.run().await, v2);
        let told = stage.done(&["plugin", "rollback", "probe", "--reason", "it is slow", "--wait"]);
        assert!(told.contains(&v1) && told.contains("`inn-1` has reloaded"), "{told}");
        assert!(told.contains("`inn-2` has reloaded"), "{told}");
        let told = stage.done(&["plugin", "list"]);
        assert!(told.contains(&format!("`probe` is rolled back to {v1}")) && told.contains("it is slow"), "{told}");
        one.stop().await;
        assert_eq!(stage.run().await, v1, "the other host follows it");
        two.stop().await;
        // One that is started later, and one that reloads for another reason.
        let one = stage.serve(JOBS).await;
        assert!(one.log().contains("the plugin is rolled back"), "{}", one.log());
        assert_eq!(stage.run().await, v1);
        stage.done(&["host", "reload", "--wait"]);
        assert_eq!(stage.run().await, v1);
        stage.release.publish(3);
        stage.done(&["plugin", "reload", "--wait"]);
        assert_eq!(stage.run().await, v3);
        one.stop().await;
    }

    async fn a_rollback_is_taken_back_and_names_any_version_that_there_was(engine: Engine) {
        let mut stage = Stage::new(engine, UNWATCHED).await;
        let host = stage.serve(JOBS).await;
        for version in [2, 3] {
            stage.release.publish(version);
            stage.done(&["plugin", "reload", "--wait"]);
        }
        for (rollback, version) in [(&["probe"][..], 2), (&["probe"], 1)] {
            stage.done(&[&["plugin", "rollback", "--wait"], rollback].concat());
            assert_eq!(stage.run().await, stage.release.digest(version));
        }
        let (code, told) = stage.command(&["plugin", "rollback", "probe"]);
        assert_eq!(code, Some(2), "{told}");
        assert!(told.contains("no version before"), "{told}");
        let two = stage.release.digest(2);
        stage.done(&["plugin", "rollback", "probe", "--to", &two["sha256:".len()..][..12], "--wait"]);
        assert_eq!(stage.run().await, two);
        stage.done(&["plugin", "reload", "probe", "--end-rollback", "--wait"]);
        assert_eq!(stage.run().await, stage.release.digest(3));
        let (code, told) = stage.command(&["plugin", "reload", "probe", "--end-rollback"]);
        assert_eq!((code, told.contains("is not rolled back")), (Some(2), true), "{told}");
        host.stop().await;
    }

    async fn a_version_that_the_jobs_cannot_run_with_is_refused_with_the_reason(engine: Engine) {
        let mut stage = Stage::new(engine, UNWATCHED).await;
        stage.release.put(&std::fs::read(guest("bench")).expect("it is there"));
        let host = stage.serve("").await;
        stage.release.publish(2);
        stage.configure("inn-1", JOBS);
        stage.done(&["host", "reload", "--wait"]);
        assert_eq!(stage.run().await, stage.release.digest(2));
        let (code, told) = stage.command(&["plugin", "rollback", "probe", "--wait"]);
        assert_eq!(code, Some(2), "{told}");
        assert!(told.contains("job `echo`: plugin `probe` has no handler `echo`"), "{told}");
        assert_eq!(stage.run().await, stage.release.digest(2));
        host.stop().await;
    }

    async fn a_host_that_has_not_kept_the_version_says_so_and_stays_as_it_is(engine: Engine) {
        let mut stage = Stage::new(engine, UNWATCHED).await;
        let host = stage.serve(JOBS).await;
        stage.release.publish(2);
        stage.done(&["plugin", "reload", "--wait"]);
        std::fs::remove_dir_all(stage.scene.dir().join("data/components")).expect("they are kept there");
        let (code, told) = stage.command(&["plugin", "rollback", "probe", "--wait"]);
        assert_eq!(code, Some(1), "{told}");
        assert!(told.contains("this host has not kept component") && told.contains("--end-rollback"), "{told}");
        assert_eq!(stage.run().await, stage.release.digest(2));
        host.stop().await;
        // One that is started does not run what was rolled back either.
        let (status, log) = TestHost::start(&stage.configure("inn-1", JOBS)).wait().await;
        assert_eq!(status.code(), Some(2), "{log}");
        assert!(log.contains("inn-1.toml:") && log.contains("this host has not kept component"), "{log}");
        stage.command(&["plugin", "reload", "probe", "--end-rollback"]);
        let host = stage.serve(JOBS).await;
        assert_eq!(stage.run().await, stage.release.digest(2));
        host.stop().await;
    }

    async fn the_last_three_versions_are_kept(engine: Engine) {
        let stage = Stage::new(engine, UNWATCHED).await;
        let host = stage.serve(JOBS).await;
        for version in 2..=5 {
            stage.release.publish(version);
            stage.done(&["plugin", "reload", "--wait"]);
        }
        let folder = std::fs::read_dir(stage.scene.dir().join("data/components")).expect("they are kept there");
        let mut kept: Vec<_> = folder.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        let file = |version| format!("{}.wasm", stage.release.digest(version).replace(':', "-"));
        let mut last = [file(3), file(4), file(5)];
        kept.sort();
        last.sort();
        assert_eq!(kept, last);
        host.stop().await;
    }

    async fn what_was_deployed_by_restarts_is_kept_in_three_versions_as_well(engine: Engine) {
        let stage = Stage::new(engine, UNWATCHED).await;
        let folder = stage.scene.dir().join("data/components");
        for version in 1..=4 {
            stage.release.publish(version);
            stage.serve(JOBS).await.stop().await;
        }
        // One that no store knows of, from long ago; and one that may be somebody's in a moment.
        let [old, young] = ["0", "1"].map(|digit| folder.join(format!("sha256-{}.wasm", digit.repeat(64))));
        for (path, age) in [(&old, UNKNOWN_FOR * 2), (&young, UNKNOWN_FOR / 2)] {
            std::fs::write(path, "?").expect("it can be written");
            let file = File::options().append(true).open(path).expect("it is there");
            file.set_modified(SystemTime::from(innkeeper::clock::now()) - age).expect("it is ours");
        }
        let host = stage.serve(JOBS).await;
        let count = || std::fs::read_dir(&folder).expect("it is there").count();
        until("three are left, and the young one", async || (count() == 4).then_some(())).await;
        assert!(!old.exists() && young.exists());
        host.stop().await;
    }

    async fn a_version_that_hosts_keep_no_more_is_refused(engine: Engine) {
        let mut stage = Stage::new(engine, UNWATCHED).await;
        let host = stage.serve(JOBS).await;
        for version in 2..=4 {
            stage.release.publish(version);
            stage.done(&["plugin", "reload", "--wait"]);
        }
        let oldest = stage.release.digest(1);
        let (code, told) = stage.command(&["plugin", "rollback", "probe", "--to", &oldest, "--wait"]);
        assert_eq!(code, Some(2), "{told}");
        assert!(told.contains(&oldest) && told.contains("older than the last 3 versions"), "{told}");
        stage.done(&["host", "reload", "--wait"]);
        assert_eq!(stage.run().await, stage.release.digest(4));
        host.stop().await;
    }

    async fn what_runs_already_is_not_read_again(engine: Engine) {
        let mut stage = Stage::new(engine, UNWATCHED).await;
        let host = stage.serve(JOBS).await;
        stage.release.publish(2);
        stage.done(&["plugin", "reload", "--wait"]);
        stage.done(&["plugin", "rollback", "probe", "--wait"]);
        std::fs::remove_dir_all(stage.scene.dir().join("data/components")).expect("they are kept there");
        stage.done(&["host", "reload", "--wait"]);
        stage.done(&["plugin", "reload", "--wait"]);
        assert_eq!(stage.run().await, stage.release.digest(1));
        host.stop().await;
    }

    async fn a_check_and_a_refusal_name_the_rollback(engine: Engine) {
        let stage = Stage::new(engine, UNWATCHED).await;
        stage.release.put(&std::fs::read(guest("bench")).expect("it is there"));
        let host = stage.serve("").await;
        stage.release.publish(2);
        stage.done(&["plugin", "reload", "--wait"]);
        stage.done(&["plugin", "rollback", "probe", "--wait"]);
        stage.configure("inn-1", JOBS);
        let (code, told) = stage.command(&["host", "reload", "--wait"]);
        assert_eq!(code, Some(1), "{told}");
        assert!(told.contains("has no handler `echo`") && told.contains("the plugin is rolled back to"), "{told}");
        assert!(told.contains("plugin reload probe --end-rollback"), "{told}");
        // Without a database, whose login `check` may have something to say about.
        stage.configure_as("inn-1", JOBS, |text| text.replace("[[plugins.probe.databases]]\nname = \"app\"", ""));
        let told = stage.done(&["check"]);
        assert!(told.contains("plugin `probe` has been rolled back since"), "{told}");
        host.stop().await;
    }
}
