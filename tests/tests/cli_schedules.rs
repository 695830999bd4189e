//! What an operator is shown of schedules, jobs and queues, and what they can do about them.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{Scene, binary, until};
use innkeeper_tests::on_both_engines;
use innkeeper_tests::raw::{Raw, make_gate, open_gate};
use serde_json::{Value, json};

fn innkeeper(dir: &Path, args: &[&str]) -> Output {
    Command::new(binary()).current_dir(dir).args(args).stdin(Stdio::null()).output().expect("it starts")
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// `schedule next` in a folder without any file.
fn schedule(args: &[&str]) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let output = innkeeper(dir.path(), &[&["schedule", "next", "--json"], args].concat());
    assert!(output.status.success(), "{args:?}: {}", told(&output));
    serde_json::from_slice(&output.stdout).expect("it is one document")
}

fn fire(utc: &str, local: &str, note: Option<&str>) -> Value {
    json!({ "utc": utc, "local": local, "note": note })
}

#[test]
fn the_fires_of_any_expression_are_shown_without_a_configuration() {
    let spring = schedule(&["30 2 * * *", "--timezone", "Europe/Berlin", "--from", "2026-03-28", "-n", "3"]);
    assert_eq!(
        spring["fires"],
        json!([
            fire("2026-03-28T01:30:00Z", "2026-03-28T02:30:00+01:00", None),
            fire(
                "2026-03-29T01:00:00Z",
                "2026-03-29T03:00:00+02:00",
                Some("the clock leaves out 2026-03-29 02:30: runs right after the gap"),
            ),
            fire("2026-03-30T00:30:00Z", "2026-03-30T02:30:00+02:00", None),
        ])
    );
    let zone = ["--timezone", "Europe/Berlin"];
    let day = ["--from", "2026-03-29", "--until", "2026-03-29"];
    let skipped = schedule(&[&["30 2 * * *", "--gap", "skip"], &zone[..], &day[..]].concat());
    assert_eq!(skipped["fires"], json!([]));
    assert!(skipped["reason"].as_str().is_some_and(|why| why.contains("no fire time")), "{skipped}");
    let autumn = ["--from", "2026-10-25", "--until", "2026-10-25"];
    let both = schedule(&[&["30 2 * * *", "--overlap", "both"], &zone[..], &autumn[..]].concat());
    let utc: Vec<&str> = both["fires"].as_array().unwrap().iter().filter_map(|f| f["utc"].as_str()).collect();
    assert_eq!(utc, ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"]);

    let every = schedule(&["--every", "6h", "--from", "2026-01-01T00:00Z", "--until", "2026-01-01T12:00Z"]);
    assert_eq!(
        every["fires"],
        json!([
            fire("2026-01-01T00:00:00Z", "2026-01-01T00:00:00+00:00", None),
            fire("2026-01-01T06:00:00Z", "2026-01-01T06:00:00+00:00", None),
        ])
    );
}

#[test]
fn an_expression_that_is_wrong_is_told_as_in_a_configuration() {
    let dir = tempfile::tempdir().unwrap();
    for (args, what) in [
        (vec!["61 * * * *"], "is not a cron expression"),
        (vec!["0 0 30 2 *"], "never"),
        (vec!["0 0 * * *", "--timezone", "Europe/Berln"], "did you mean `Europe/Berlin`?"),
        (vec!["H 2 * * *"], "`--name JOB` gives one"),
        (vec!["0 0 * * *", "--from", "tomorrow"], "2026-10-25T02:30"),
        (vec!["0 0 * * *", "--from", "2026-10-25", "--until", "2026-10-24"], "has to be after"),
        (vec!["0 0 * * *", "--every", "1h"], "cannot be used with"),
        (vec![], "required"),
    ] {
        let output = innkeeper(dir.path(), &[&["schedule", "next"], &args[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", told(&output));
        assert!(told(&output).contains(what), "{args:?}: {}", told(&output));
    }
    assert!(schedule(&["H 2 * * *", "--name", "nightly"])["fires"][0]["utc"].is_string());
}

const JOBS: &str = r#"
[calendars.workdays]
exclude_weekdays = ["sat", "sun"]

[jobs.nightly]
plugin = "probe"
handler = "echo"
schedule = { cron = "30 2 * * *", timezone = "Europe/Berlin" }

[jobs.report]
plugin = "probe"
handler = "echo"
schedule = { cron = "0 9 * * *", timezone = "America/New_York", calendars = ["workdays"] }

[jobs.off]
plugin = "probe"
handler = "echo"
enabled = false
schedule = { cron = "@hourly" }

[jobs.alert]
plugin = "probe"
handler = "echo"

[jobs.extract]
plugin = "probe"
handler = "fail"
args = { kind = "permanent", message = "no such file" }
on_failure = "alert"

[jobs.load]
plugin = "probe"
handler = "echo"
after = ["extract"]

[jobs.hold]
plugin = "probe"
handler = "hold"
args = { gate = "main" }
concurrency = { limit = 1 }
timeout = "2m"

[jobs.slow]
plugin = "probe"
handler = "echo"
queue = "reports"

[jobs.rated]
plugin = "probe"
handler = "echo"
rate = "1 per 1h"

[queues.reports]
weight = 3
limit_per_host = 2
"#;

/// What is said of a job right now, and the same in JSON.
fn explain(scene: &Scene, job: &str) -> (String, Value) {
    let text = scene.innkeeper(&["job", "explain", job]);
    assert!(text.status.success(), "{}", told(&text));
    (told(&text), scene.innkeeper_json(&["job", "explain", job]))
}

fn fact<'a>(explained: &'a Value, about: &str) -> &'a Value {
    let facts = explained["now"].as_array().expect("there are facts");
    facts.iter().find(|fact| fact["about"] == about).unwrap_or_else(|| panic!("no {about} in {explained:#}"))
}

on_both_engines! {
    async fn the_fires_of_jobs_are_shown_one_by_one_and_all_together_in_their_order(engine: Engine) {
        let scene = Scene::new(engine).await;
        scene.serve(JOBS).await.stop().await;
        let next = scene.innkeeper_json(&["job", "next", "report", "--from", "2026-11-20", "-n", "2"]);
        assert_eq!((&next["job"], &next["reason"]), (&json!("report"), &json!(null)));
        let note = "calendar `workdays` excludes Saturday 2026-11-21 before it, and 1 more day";
        assert_eq!(next["fires"], json!([
            fire("2026-11-20T14:00:00Z", "2026-11-20T09:00:00-05:00", None),
            fire("2026-11-23T14:00:00Z", "2026-11-23T09:00:00-05:00", Some(note)),
        ]));
        let period = ["schedule", "calendar", "--from", "2026-11-20", "--until", "2026-11-21"];
        let all = scene.innkeeper_json(&period);
        let fires = |all: &Value| -> Vec<(String, String)> {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            all["fires"].as_array().unwrap().iter().map(|f| (text(&f["utc"]), text(&f["job"]))).collect()
        };
        let [night, day] = ["2026-11-20T01:30:00Z", "2026-11-21T01:30:00Z"].map(|at| (at.to_owned(), "nightly".to_owned()));
        let morning = ("2026-11-20T14:00:00Z".to_owned(), "report".to_owned());
        assert_eq!(fires(&all), [night.clone(), morning.clone(), day]);
        assert_eq!((&all["complete"], &all["silent"][0]["job"]), (&json!(true), &json!("off")));

        let few = scene.innkeeper_json(&[&period[..], &["--limit", "2"]].concat());
        assert_eq!((fires(&few), &few["complete"]), (vec![night, morning], &json!(false)));
        let text = told(&scene.innkeeper(&[&period[..], &["--limit", "2"]].concat()));
        assert!(text.contains("these are the first 2") && text.contains("`off`"), "{text}");
    }

    async fn a_job_that_waits_for_its_limit_says_who_has_reached_it(engine: Engine) {
        let scene = Scene::new(engine).await;
        let mut app = Raw::connect(scene.app.url()).await;
        make_gate(&mut app).await;
        let host = scene.serve(JOBS).await;
        let holder = scene.run("hold", &json!({ "gate": "main" })).to_string();
        until("the handler is inside", async || (app.count("select count(*) from inside").await == 1).then_some(())).await;
        let waits = scene.run("hold", &json!({ "gate": "main" })).to_string();

        // Due, and blocked: that is `queued`, with what it waits for.
        let shown = scene.innkeeper_json(&["execution", "show", &waits]);
        assert_eq!((&shown["state"], &shown["blocker"]), (&json!("queued"), &json!("limit")), "{shown}");
        let ids = |state: &str| -> Vec<String> {
            let list = scene.innkeeper_json(&["execution", "list", "--job", "hold", "--state", state]);
            list["executions"].as_array().unwrap().iter().map(|e| e["id"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!((ids("queued"), ids("scheduled"), ids("retrying")), (vec![waits.clone()], vec![], vec![]));

        let (text, facts) = explain(&scene, "hold");
        let limit = fact(&facts, "limit");
        assert_eq!((&limit["limit"], &limit["waiting"]), (&json!(1), &json!(1)));
        assert_eq!((&limit["holders"][0]["id"], &limit["holders"][0]["host"]), (&json!(holder), &json!("inn-1")));
        assert!(text.contains(&format!("Its limit of 1 at once is reached, by execution {holder} (on host `inn-1`")), "{text}");
        assert!(text.contains("1 execution waits for a place."), "{text}");
        assert!(text.contains("At most 1 of its executions runs at once, over all hosts."), "{text}");

        open_gate(&mut app, "main").await;
        until("both have ended", async || (ids("succeeded").len() == 2).then_some(())).await;
        let (text, facts) = explain(&scene, "hold");
        assert!(text.contains("Nothing keeps it from running."), "{text}");
        assert_eq!(facts["now"].as_array().map(Vec::len), Some(1), "{facts:#}");
        host.stop().await;
    }

    async fn a_job_that_follows_others_says_for_which_of_them_it_waits(engine: Engine) {
        let scene = Scene::new(engine).await;
        let host = scene.serve(JOBS).await;
        let failed = scene.innkeeper(&["job", "run", "extract", "--wait", "--json"]);
        let failed: Value = serde_json::from_slice(&failed.stdout).unwrap();
        let (text, facts) = explain(&scene, "load");
        assert_eq!(fact(&facts, "after")["missing"], json!(["extract"]));
        let last = format!("It waits for the success of `extract` (its last execution {} has failed)", failed["id"].as_str().unwrap());
        assert!(text.contains(&last), "{text}");
        let (text, facts) = explain(&scene, "extract");
        assert!(text.contains("When it has finally failed, `alert` is run."), "{text}");
        assert!(text.contains("`load` comes after it"), "{text}");
        assert_eq!(facts["follows"][0], json!({ "about": "on_failure", "text": "When it has finally failed, `alert` is run.", "job": "alert" }));
        let (text, _) = explain(&scene, "alert");
        assert!(text.contains("It is run when `extract` has finally failed"), "{text}");
        host.stop().await;
    }

    async fn a_job_whose_rate_is_used_up_says_when_the_next_may_start(engine: Engine) {
        let scene = Scene::new(engine).await;
        let host = scene.serve(JOBS).await;
        scene.innkeeper_json(&["job", "run", "rated", "--wait"]);
        let id = scene.innkeeper_json(&["job", "run", "rated"])["id"].clone();
        let shown = scene.innkeeper_json(&["execution", "show", id.as_str().unwrap()]);
        assert_eq!((&shown["state"], &shown["blocker"]), (&json!("queued"), &json!("limit")));
        let (text, facts) = explain(&scene, "rated");
        let rate = fact(&facts, "rate");
        assert_eq!((&rate["used"], &rate["waiting"], &rate["rate"]), (&json!(1), &json!(1), &json!("1 per 1h")));
        assert!(rate["next_at"].is_string() && text.contains("Its rate of 1 per 1h is used up"), "{text}");
        host.stop().await;
    }

    async fn a_paused_job_starts_nothing_says_so_and_goes_on_when_it_is_resumed(engine: Engine) {
        let scene = Scene::new(engine).await;
        let host = scene.serve(JOBS).await;
        let paused = scene.innkeeper_json(&["job", "pause", "nightly", "--reason", "the disk is full"]);
        assert_eq!((&paused["changed"], &paused["reason"]), (&json!(true), &json!("the disk is full")));
        assert_eq!(scene.innkeeper_json(&["job", "pause", "nightly"])["changed"], json!(false));
        let id = scene.innkeeper_json(&["job", "run", "nightly"])["id"].as_str().unwrap().to_owned();
        // What was asked for later has run.
        scene.innkeeper_json(&["job", "run", "alert", "--wait"]);
        let shown = scene.innkeeper_json(&["execution", "show", &id]);
        assert_eq!((&shown["state"], &shown["blocker"]), (&json!("queued"), &json!("paused")));
        let (text, facts) = explain(&scene, "nightly");
        assert_eq!(fact(&facts, "paused")["reason"], json!("the disk is full"));
        assert_eq!(facts["next"], json!(null));
        assert!(text.contains("reason: the disk is full") && text.contains("innkeeper job resume nightly"), "{text}");
        let next = scene.innkeeper_json(&["job", "next", "nightly"]);
        assert!(next["reason"].as_str().is_some_and(|why| why.contains("the disk is full")), "{next}");
        assert_eq!(scene.innkeeper_json(&["job", "show", "nightly"])["paused_reason"], json!("the disk is full"));

        let resumed = scene.innkeeper_json(&["job", "resume", "nightly"]);
        assert_eq!((&resumed["changed"], &resumed["skipped"]), (&json!(true), &json!(0)));
        assert!(resumed["next_fire_at"].is_string(), "{resumed}");
        let store = scene.open_store().await;
        scene.wait_for_end(&store, id.parse().unwrap()).await;
        let text = told(&scene.innkeeper(&["job", "resume", "nightly"]));
        assert!(text.contains("was not paused"), "{text}");
        let unknown = scene.innkeeper(&["job", "pause", "nightli"]);
        assert_eq!(unknown.status.code(), Some(2));
        assert!(told(&unknown).contains("did you mean `nightly`?"), "{}", told(&unknown));
        host.stop().await;
    }

    async fn a_paused_queue_starts_nothing_until_it_is_resumed(engine: Engine) {
        let scene = Scene::new(engine).await;
        scene.serve(JOBS).await.stop().await;
        let paused = scene.innkeeper_json(&["queue", "pause", "reports", "--reason", "month end"]);
        assert!(paused["paused_at"].is_string() && paused["paused_reason"] == "month end", "{paused}");
        let id = scene.run("slow", &json!({})).to_string();
        let (text, facts) = explain(&scene, "slow");
        assert_eq!(fact(&facts, "queue_paused")["reason"], json!("month end"));
        assert!(text.contains("No host is up"), "{text}");
        assert!(text.contains("Its queue `reports` is paused since"), "{text}");

        let host = scene.serve(JOBS).await;
        scene.innkeeper_json(&["job", "run", "alert", "--wait"]);
        assert_eq!(scene.innkeeper_json(&["execution", "show", &id])["state"], "queued");
        let queues = scene.innkeeper_json(&["queue", "list"]);
        let reports = &queues["queues"][1];
        assert_eq!((&reports["name"], &reports["weight"], &reports["ready"]), (&json!("reports"), &json!(3), &json!(1)));
        assert_eq!((&reports["limit_per_host"], &reports["running"]), (&json!(2), &json!(0)));

        let text = told(&scene.innkeeper(&["queue", "resume", "reports"]));
        assert!(text.contains("1 execution waits to start"), "{text}");
        let store = scene.open_store().await;
        scene.wait_for_end(&store, id.parse().unwrap()).await;
        let unknown = scene.innkeeper(&["queue", "resume", "report"]);
        assert_eq!(unknown.status.code(), Some(2));
        assert!(told(&unknown).contains("did you mean `reports`?"), "{}", told(&unknown));
        host.stop().await;
    }

    async fn a_backfill_says_of_each_time_what_becomes_of_it(engine: Engine) {
        let scene = Scene::new(engine).await;
        let host = scene.serve(JOBS).await;
        let period = ["job", "backfill", "nightly", "--from", "2026-03-01", "--until", "2026-03-02"];
        let fates = |document: &Value| -> Vec<(String, String)> {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            document["times"].as_array().unwrap().iter().map(|t| (text(&t["utc"]), text(&t["fate"]))).collect()
        };
        let each = |fate: &str| vec![
            ("2026-03-01T01:30:00Z".to_owned(), fate.to_owned()),
            ("2026-03-02T01:30:00Z".to_owned(), fate.to_owned()),
        ];
        let dry = scene.innkeeper_json(&[&period[..], &["--dry-run"]].concat());
        assert_eq!((fates(&dry), &dry["made"]), (each("would-be-made"), &json!(0)));
        let made = scene.innkeeper_json(&period);
        assert_eq!((fates(&made), &made["made"]), (each("made"), &json!(2)));
        let store = scene.open_store().await;
        for time in made["times"].as_array().unwrap() {
            scene.wait_for_end(&store, time["execution"].as_str().unwrap().parse().unwrap()).await;
        }
        let again = scene.innkeeper_json(&period);
        assert_eq!((fates(&again), &again["made"]), (each("succeeded"), &json!(0)));
        let text = told(&scene.innkeeper(&period));
        assert!(text.contains("2 times were left out") && text.contains("`--again`"), "{text}");
        let later = scene.innkeeper(&["job", "backfill", "nightly", "--from", "2026-03-01", "--until", "9000-01-01"]);
        assert_eq!(later.status.code(), Some(2), "{}", told(&later));
        host.stop().await;
    }

    async fn what_is_due_while_no_host_is_up_is_shown_with_what_catch_up_does(engine: Engine) {
        let scene = Scene::new(engine).await;
        let jobs = "[jobs.often]\nplugin = \"probe\"\nhandler = \"echo\"\nschedule = { every = \"1s\" }\n";
        scene.serve(jobs).await.stop().await;
        let skipped = until("two fires are due", async || {
            let next = scene.innkeeper_json(&["job", "next", "often", "-n", "1"]);
            next["skipped"].is_object().then_some(next)
        })
        .await;
        assert_eq!(skipped["fires"][0]["note"], json!("due now: runs as soon as a host looks"), "{skipped}");
        assert!(skipped["skipped"]["why"].as_str().is_some_and(|why| why.contains("catch-up `latest`")), "{skipped}");
        let (text, facts) = explain(&scene, "often");
        assert!(text.contains("No host is up") && text.contains("no host has made an execution of that yet"), "{text}");
        assert!(fact(&facts, "overdue")["at"].is_string());
    }

    async fn a_unique_key_makes_one_execution_until_it_has_ended(engine: Engine) {
        let scene = Scene::new(engine).await;
        scene.serve(JOBS).await.stop().await;
        let run = || scene.innkeeper_json(&["job", "run", "alert", "--unique-key", "today"]);
        let first = run();
        assert_eq!(run()["id"], first["id"]);
        let text = told(&scene.innkeeper(&["job", "run", "alert", "--unique-key", "today"]));
        assert!(text.contains("nothing was enqueued"), "{text}");
        assert_ne!(scene.innkeeper_json(&["job", "run", "alert"])["id"], first["id"]);
    }
}
