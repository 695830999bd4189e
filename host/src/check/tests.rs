//! Warnings of a file, without a component, a store or a clock.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::difference::{Changed, Difference, Key, QueueDifference, Stored};
use super::durations::{self, Taken};
use super::*;
use crate::job::Job;
use crate::policy::Queue;

const PLUGIN: &str = "[plugins.p]\ncomponent = \"p.wasm\"\n";

fn config(text: &str) -> Config {
    Config::parse(&format!("{PLUGIN}{text}"), Path::new("innkeeper.toml"), &|_| None)
        .unwrap_or_else(|errors| panic!("{errors}\nin\n{text}"))
}

fn job(name: &str, keys: &str) -> String {
    format!("[jobs.{name}]\nplugin = \"p\"\nhandler = \"h\"\n{keys}\n")
}

/// Jobs of which the first one's schedule stands in line 6.
fn jobs(count: usize, schedule: &str) -> String {
    (0..count).map(|n| job(&format!("j{n:06}"), &format!("schedule = {schedule}"))).collect()
}

fn name(name: &str) -> Name {
    Name::new(name).unwrap()
}

/// A Monday in autumn.
fn now() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

fn told(text: &str) -> Vec<String> {
    lines(&warnings(&config(text), now()))
}

fn lines(errors: &ConfigErrors) -> Vec<String> {
    let lines = errors.iter().map(ToString::to_string);
    lines.map(|line| line.strip_prefix("innkeeper.toml:").unwrap().to_owned()).collect()
}

#[test]
fn more_jobs_at_one_instant_than_the_host_runs_at_once_are_told_where_and_when() {
    let nightly = jobs(33, "{ cron = \"30 2 * * *\" }");
    assert_eq!(
        told(&nightly),
        ["6:1: 33 jobs fire at the same instant, first at 2026-11-24T02:30:00Z, and 7 times within 7 days: \
          `j000000`, `j000001`, `j000002` and 30 others; this host runs 32 at once, and the others wait; spread \
          them with `H` in place of the minute of `cron`, as in `H 2 * * *`, or with `jitter`"]
    );
    assert_eq!(told(&jobs(32, "{ cron = \"30 2 * * *\" }")), [""; 0], "that many it runs at once");
    assert_eq!(told(&jobs(33, "{ cron = \"30 2 * * *\", jitter = \"10m\" }")), [""; 0], "they are spread");
    let small = |count| told(&format!("[host]\nconcurrency = 2\n{}", jobs(count, "{ every = \"1h\" }")));
    assert_eq!((small(4).len(), small(5).len()), (0, 1), "four of them are nothing to speak of");
    let off = nightly.replace("handler", "enabled = false\nhandler");
    assert_eq!(told(&off), [""; 0], "what does not fire");
}

#[test]
fn each_bunch_of_jobs_is_told_once() {
    let two = jobs(33, "{ cron = \"30 2 * * *\" }")
        + &jobs(40, "{ cron = \"0 * * * *\" }").replace("[jobs.j", "[jobs.k");
    let told = told(&two);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[1].contains("40 jobs") && told[1].contains("168 times"), "{told:?}");
    let many = |minute: usize| {
        jobs(33, &format!("{{ cron = \"{minute} 2 * * *\" }}")).replace("jobs.j", &format!("jobs.j{minute}"))
    };
    let told = self::told(&(0..20).map(many).collect::<String>());
    assert_eq!(told.len(), 11, "{told:?}");
    assert!(told[10].contains("33 other jobs fire at the same instant as well"), "{told:?}");
}

#[test]
fn a_clock_change_that_touches_a_job_is_told_with_the_key_that_decides() {
    let berlin =
        |keys: &str| told(&job("a", &format!("schedule = {{ timezone = \"Europe/Berlin\", {keys} }}")));
    assert_eq!(
        berlin("cron = \"30 2 * * *\""),
        [
            "6:1: job `a`: on 2027-03-28 the clock in Europe/Berlin leaves out 02:30:00, and it fires at 03:00:00 \
          instead (2027-03-28T01:00:00Z); with gap = \"skip\" it would not"
        ]
    );
    assert_eq!(
        berlin("cron = \"30 2 * * *\", gap = \"skip\""),
        [
            "6:1: job `a`: on 2027-03-28 the clock in Europe/Berlin leaves out 02:30:00, and it does not fire; with \
          gap = \"run-after\" it would, right after"
        ]
    );
    let list = berlin("cron = \"0,10,20,30,40,50 1,2,3 * 10 *\", overlap = \"both\"");
    assert!(list[0].contains("shows 02:00:00 twice"), "{list:?}");
    assert_eq!(
        berlin("cron = \"30 2 * 10 *\", overlap = \"both\""),
        [
            "6:1: job `a`: on 2027-10-31 the clock in Europe/Berlin shows 02:30:00 twice, and it fires both times; \
          with overlap = \"first\" or \"last\" it would fire once"
        ]
    );
    for untouched in [
        "cron = \"30 4 * * *\"",
        "cron = \"30 * * * *\"",
        "cron = \"* * * * *\", overlap = \"both\"",
        "cron = \"30 2 * * TUE\"",
        "every = \"1h\"",
        "at = \"2027-03-29T02:30\"",
    ] {
        assert_eq!(berlin(untouched), [""; 0], "{untouched}");
    }
    assert_eq!(told(&job("a", "schedule = { cron = \"30 2 * * *\" }")), [""; 0], "UTC has no changes");
}

#[test]
fn many_jobs_of_one_kind_are_told_in_few_words() {
    let schedule = "{ cron = \"H 2 * * *\", timezone = \"Europe/Berlin\", jitter = \"1s\" }";
    let told = told(&jobs(30, schedule));
    assert_eq!(told.len(), 21, "{told:#?}");
    assert!(told[20].contains("clock changes also touch 10 more jobs: `j000020`"), "{told:#?}");
}

#[test]
fn concurrency_that_nothing_can_serve_is_told() {
    let text = "
[host]
concurrency = 40
[databases.app]
url = \"sqlite:app.db\"
max_connections = 4
[[plugins.p.databases]]
name = \"app\"
max_open_transactions = 5
[queues.a]
limit = 50
limit_per_host = 41
[queues.b]
limit = 3
limit_per_host = 4
[jobs.a]
plugin = \"p\"
handler = \"h\"
concurrency = { limit = 41 }
[jobs.b]
plugin = \"p\"
handler = \"h\"
queue = \"b\"
concurrency = { limit = 4 }
[jobs.c]
plugin = \"p\"
handler = \"h\"
concurrency = { limit = 5 }
[jobs.d]
plugin = \"p\"
handler = \"h\"
concurrency = { limit = 4 }
";
    let expected = [
        ("5:15: ", "runs 40 executions at once, which is more than the 4 connections of database `app`"),
        ("11:25: ", "may have 5 transactions open in database `app`, which has 4 connections"),
        ("12:9: ", "queue `a` may run 41 executions at once on one host, and this host runs 40"),
        ("12:9: ", "queue `a` may run 50 executions at once, and this host, the only one"),
        ("15:9: ", "queue `b` may run 4 executions at once on one host, and 3 on all hosts together"),
        ("21:1: ", "41 executions of job `a` may run at once, and this host, the only one"),
        (
            "26:1: ",
            "4 executions of job `b` may run at once, and its queue `b` runs 3: raise `limit` of [queues.b]",
        ),
        ("30:1: ", "5 executions of job `c` may run at once, and database `app`"),
    ];
    let told = told(text);
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (line, (place, what)) in told.iter().zip(expected) {
        assert!(line.starts_with(place) && line.contains(what), "{place}{what} is not {line}");
    }
    let several = "[store]\nurl = \"postgres://db/inn\"\n[queues.a]\nlimit = 50\n";
    assert_eq!(self::told(several), [""; 0], "several hosts may share it");
}

#[test]
fn a_plugin_s_concurrency_that_is_never_reached_or_keeps_a_job_from_its_own_is_told() {
    let text = |concurrency: u32, limit: u32| {
        format!(
            "[host]\nconcurrency = 40\n[databases.app]\nurl = \"sqlite:app.db\"\nmax_connections = 4\n\
             [[plugins.p.databases]]\nname = \"app\"\n[plugins.p.limits]\nconcurrency = {concurrency}\n\
             [jobs.a]\nplugin = \"p\"\nhandler = \"h\"\nconcurrency = {{ limit = {limit} }}\n"
        )
    };
    assert_eq!(told(&text(4, 4)), [""; 0], "no more of it run than its database has connections");
    let never = told(&text(41, 4));
    assert_eq!(never.len(), 2, "{never:#?}");
    let what = "plugin `p` may run 41 executions at once on this host, and this host runs 40";
    assert!(never.iter().any(|line| line.contains(what)), "{never:#?}");
    let job = told(&text(4, 5));
    assert_eq!(job.len(), 1, "{job:#?}");
    let what = "5 executions of job `a` may run at once, and this host, the only one that a SQLite store has, runs \
                4 of its plugin: raise `concurrency` of [plugins.p.limits]";
    assert!(job[0].contains(what), "{job:#?}");
    let shared = format!("[store]\nurl = \"postgres://db/inn\"\n{}", text(4, 5));
    assert_eq!(told(&shared), [""; 0], "two hosts may run five");
}

#[test]
fn what_is_left_out_is_nothing_to_warn_of() {
    let text = "[databases.app]\nurl = \"sqlite:app.db\"\nmax_connections = 1\n[[plugins.p.databases]]\nname = \"app\"\n";
    assert_eq!(told(&format!("{text}{}", job("a", "schedule = { every = \"1s\" }"))), [""; 0]);
}

#[test]
fn a_job_that_fires_more_often_than_it_takes_is_told_with_what_comes_of_it() {
    let taken = Taken { median: Duration::from_millis(25_400), count: 20 };
    let told = |keys: &str| {
        let config = config(&job("a", keys));
        let looked_at = durations::worth_a_look(&config, now());
        let history: BTreeMap<Name, Taken> = looked_at.into_iter().map(|name| (name, taken)).collect();
        lines(&ConfigErrors::new(durations::warnings(&config, now(), &history)))
    };
    let often = "schedule = { every = \"10s\" }";
    assert_eq!(
        told(often),
        [
            "6:1: job `a` fires about every 10s and takes 25s, the median of its last 20 successes: about 3 run at \
          once; let it fire less often, or say with `concurrency` what becomes of a fire while another one runs"
        ]
    );
    let limited = |limit: u32, when_full: &str| {
        told(&format!("{often}\nconcurrency = {{ limit = {limit}, when_full = \"{when_full}\" }}"))
    };
    for (when_full, what) in [("queue", "grows without end"), ("skip", "skipped"), ("replace", "cancelled")] {
        let told = limited(2, when_full);
        assert!(told[0].contains("with a limit of 2 at once") && told[0].contains(what), "{told:?}");
    }
    assert_eq!(limited(3, "queue"), [""; 0], "the limit has room for them");
    assert_eq!(told("schedule = { every = \"26s\" }"), [""; 0]);
    assert_eq!(told("schedule = { every_after = \"1s\" }"), [""; 0], "it waits for the end");
    assert_eq!(told("schedule = { every = \"10m\" }"), [""; 0], "no attempt takes as long");
}

#[test]
fn a_median_is_of_three_at_least() {
    let seconds = |times: &[u64]| Taken::of(times.iter().map(|time| Duration::from_secs(*time)).collect());
    assert_eq!(seconds(&[]), None);
    assert_eq!(seconds(&[1, 2]), None);
    assert_eq!(seconds(&[100, 1, 2]), Some(Taken { median: Duration::from_secs(2), count: 3 }));
}

#[test]
fn the_difference_to_a_store_is_what_a_host_would_change() {
    let config = config(&format!(
        "[host]\nname = \"inn-1\"\n{}{}{}{}",
        job("new", ""),
        job("same", "schedule = { every = \"1h\" }"),
        job(
            "other",
            "timeout = \"10s\"\npriority = 3\nschedule = { every = \"1h\" }\nargs = { secs = 1, nanos = 2 }"
        ),
        job("taken", ""),
    ));
    let mut other = config.jobs[&name("other")].clone();
    other.timeout = Duration::from_secs(90);
    other.policies = crate::policy::Policies::default();
    other.schedule = None;
    other.args = json!({});
    let gone = Job { name: name("gone"), ..other.clone() };
    let theirs = Job { name: name("theirs"), ..other.clone() };
    let stored = |definition, owner: &str| Stored { definition, owner: owner.to_owned() };
    let jobs = [
        stored(&config.jobs[&name("same")], "inn-1"),
        stored(&other, "inn-1"),
        stored(&gone, "inn-1"),
        stored(&theirs, "inn-2"),
        stored(&config.jobs[&name("taken")], "inn-2"),
    ];
    let difference = Difference::new(&config, &jobs, &[]);
    assert_eq!(
        serde_json::to_value(&difference).unwrap(),
        json!({
            "added": ["new"],
            "changed": [
                { "name": "other", "owner": null, "keys": [
                    { "key": "args", "store": {}, "file": { "secs": 1, "nanos": 2 } },
                    { "key": "priority", "store": null, "file": 3 },
                    { "key": "schedule", "store": null, "file": { "every": "1h" } },
                    { "key": "timeout", "store": "1m 30s", "file": "10s" },
                ] },
                { "name": "taken", "owner": "inn-2", "keys": [] },
            ],
            "retired": ["gone"],
            "queues": { "added": [], "changed": [], "reset": [] },
        })
    );
    let text = difference.to_string();
    assert!(text.contains("+ new: ") && text.contains("- gone: ") && !text.contains("theirs"), "{text}");
    assert!(text.contains("~ taken: it is defined by `inn-2`, and would be taken over"), "{text}");
    assert!(text.contains("    timeout: \"1m 30s\" in the store, \"10s\" in the file"), "{text}");
    let all: Vec<_> = config.jobs.values().map(|job| stored(job, "inn-1")).collect();
    assert!(Difference::new(&config, &all, &[]).is_empty());
}

#[test]
fn queues_are_compared_as_jobs_are() {
    let config = config(
        "[host]\nname = \"inn-1\"\n[queues.new]\n[queues.other]\nweight = 2\nlimit = 3\n[queues.taken]\n[queues.default]\n",
    );
    let queue = |of: &str, owner: &str| Stored {
        definition: Queue { name: name(of), weight: 1, limit: None, limit_per_host: None },
        owner: owner.to_owned(),
    };
    let stored = ["other", "gone", "taken", "default"]
        .map(|of| queue(of, if of == "taken" { "inn-2" } else { "inn-1" }));
    let difference = Difference::new(&config, &[], &stored);
    let keys = vec![
        Key { key: "limit".into(), store: json!(null), file: json!(3) },
        Key { key: "weight".into(), store: json!(1), file: json!(2) },
    ];
    let expected = QueueDifference {
        added: vec![name("new")],
        changed: vec![
            Changed { name: name("other"), owner: None, keys },
            Changed { name: name("taken"), owner: Some("inn-2".into()), keys: vec![] },
        ],
        reset: vec![name("gone")],
    };
    assert_eq!(difference.queues, expected);
    let text = difference.to_string();
    assert!(
        text.contains("~ queue other: ") && text.contains("    limit: nothing in the store, 3 in the file"),
        "{text}"
    );
    let unnamed = self::config("[host]\nname = \"inn-1\"\n");
    assert!(Difference::new(&unnamed, &[], &[queue("default", "")]).is_empty(), "what is nobody's");
}

#[test]
fn a_file_with_very_many_jobs_is_forecast_with_bounded_work() {
    let config = config(&jobs(2_000, "{ every = \"1m\", timezone = \"Europe/Berlin\" }"));
    let told = lines(&warnings(&config, now()));
    assert!(told.len() == 1 && told[0].contains("2000 jobs") && told[0].contains("at least"), "{told:?}");
}
