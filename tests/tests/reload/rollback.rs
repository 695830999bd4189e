//! Plugins go back to the version before.

use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{TestHost, guest};
use innkeeper_tests::on_both_engines;

use super::stage::{JOBS, Stage, UNWATCHED};

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
}
