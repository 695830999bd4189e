//! How executions are treated: queues, limits, what follows what.

use super::*;
use crate::policy::{
    After, CatchUp, CatchUpMode, Concurrency, PerKey, Policies, Queue, Rate, When, WhenFull,
};

/// A file with three jobs, of which the first one has `keys`, from line 5 on.
fn file(keys: &str) -> String {
    format!(
        "[plugins.p]\ncomponent = \"p.wasm\"\n[jobs.a]\nplugin = \"p\"\nhandler = \"h\"\n{keys}\n\
         [jobs.b]\nplugin = \"p\"\nhandler = \"h\"\n[jobs.c]\nplugin = \"p\"\nhandler = \"h\"\n\
         schedule = {{ every = \"1h\" }}\n[queues.reports]\n"
    )
}

fn policies(keys: &str) -> Policies {
    valid(&file(keys)).jobs[&name("a")].policies.clone()
}

/// The file's keys, and for each what is said of it.
fn refused(cases: &[(&str, &str)]) {
    for (keys, expected) in cases {
        let found = errors(&file(keys));
        assert_eq!(found, [*expected], "\nsaid about\n{keys}\n");
    }
}

#[test]
fn every_key_of_a_policy_reaches_its_place() {
    let config = valid(FULL);
    let expected = Policies {
        queue: Some(name("reports")),
        priority: -3,
        concurrency: Some(Concurrency {
            limit: Some(2),
            per_key: Some(PerKey { pointer: "/customer/~0id".into(), limit: 3 }),
            when_full: WhenFull::Replace,
        }),
        rate: Some(Rate { count: 100, period: Duration::from_secs(60) }),
        after: Some(After { jobs: vec![name("inherits"), name("every")], when: When::Any }),
        on_failure: Some(name("every")),
        catch_up: CatchUp { mode: CatchUpMode::All, window: Some(Duration::from_secs(6 * 3600)), max: 5 },
        cancel_grace: Duration::ZERO,
    };
    assert_eq!(config.jobs[&name("j")].policies, expected);
    assert_eq!(config.jobs[&name("inherits")].policies, Policies::default(), "nothing is said of it");
    let reports = Queue { name: name("reports"), weight: 1_000, limit: Some(100), limit_per_host: Some(10) };
    let default = Queue { name: name("default"), weight: 2, limit: None, limit_per_host: None };
    let expected = [(name("default"), default), (name("reports"), reports)];
    assert_eq!(config.queues, BTreeMap::from(expected));
}

#[test]
fn the_queue_that_is_always_there_need_not_be_declared() {
    assert_eq!(policies("queue = \"default\""), Policies::default());
    assert_eq!(policies("queue = \"reports\"").queue, Some(name("reports")));
}

#[test]
fn executions_are_limited_by_a_key_beside_a_limit_or_instead_of_it() {
    let by_key = policies("concurrency = { key = \"/a~1b\" }").concurrency.unwrap();
    let one = PerKey { pointer: "/a~1b".into(), limit: 1 };
    assert_eq!((by_key.limit, by_key.per_key, by_key.when_full), (None, Some(one), WhenFull::Queue));
    let skip = policies("concurrency = { limit = 7, when_full = \"skip\" }").concurrency.unwrap();
    assert_eq!((skip.limit, skip.per_key, skip.when_full), (Some(7), None, WhenFull::Skip));
    refused(&[
        (
            "concurrency = 3",
            "6:15: `concurrency` must be a table, such as { limit = 1, when_full = \"skip\" }, not 3",
        ),
        ("concurrency = {}", "6:1: [jobs.a.concurrency] needs `limit`, such as `limit = 1`"),
        ("concurrency = { limit = 0 }", "6:25: `limit` must be a whole number from 1 to 1000000, not 0"),
        (
            "concurrency = { limit = 1, limit_per_key = 2 }",
            "6:44: `limit_per_key` needs `key`, which says what it counts by, such as key = \"/customer\"",
        ),
        (
            "concurrency = { key = \"customer\" }",
            "6:23: `key` must be a JSON pointer (RFC 6901) to an argument, such as \"/customer\" or \
             \"/customer/id\", not \"customer\"",
        ),
        (
            "concurrency = { key = \"/a~b\" }",
            "6:23: `key` must be a JSON pointer (RFC 6901) to an argument, such as \"/customer\" or \
             \"/customer/id\", with `~0` for a `~` and `~1` for a `/` in a name, not \"/a~b\"",
        ),
        (
            "concurrency = { limit = 1, when_full = \"skipp\" }",
            "6:40: `when_full` must be one of `queue`, `skip` and `replace`, not `skipp`; did you mean `skip`?",
        ),
    ]);
}

#[test]
fn a_rate_is_a_number_and_a_time() {
    for (text, count, period) in [
        ("100 per 1m", 100, Duration::from_secs(60)),
        ("  1  per  1ms ", 1, Duration::from_millis(1)),
        ("3per1h 30m", 3, Duration::from_secs(5_400)),
        ("1000000 per 366days", 1_000_000, Duration::from_secs(366 * 86_400)),
    ] {
        assert_eq!(policies(&format!("rate = {text:?}")).rate, Some(Rate { count, period }), "{text}");
    }
    for text in [
        "100",
        "100/1m",
        "0 per 1m",
        "1000001 per 1m",
        "1 per 999us",
        "1 per 1500ns",
        "1 per 367days",
        "-1 per 1s",
        "1 per minute",
    ] {
        let expected = format!(
            "6:8: `rate` must be a number of starts from 1 to 1000000 and a time from 1ms to 366days, such as \
             \"100 per 1m\", not {text:?}"
        );
        refused(&[(&format!("rate = {text:?}"), &expected)]);
    }
    assert_eq!(errors(&file("rate = 5")).len(), 1);
}

#[test]
fn a_priority_and_a_queue_are_bounded_and_known() {
    assert_eq!(policies("priority = -1000").priority, -1_000);
    refused(
        &[
            ("priority = 1001", "6:12: `priority` must be a whole number from -1000 to 1000, not 1001"),
            (
                "priority = \"high\"",
                "6:12: `priority` must be a whole number from -1000 to 1000, not \"high\"",
            ),
            ("queue = \"report\"", "6:9: there is no queue `report`; did you mean `reports`?"),
            ("queue = \"mail\"", "6:9: there is no queue `mail`; add [queues.mail], or correct the name"),
            (
                "cancel_grace = \"2days\"",
                "6:16: `cancel_grace` must be a time from 0s to 1day, such as \"10s\", not \"2days\"",
            ),
            (
                "[queues.default]\nweight = 1001\nlimit = 0\nconcurrency = 3",
                "7:10: `weight` must be a whole number from 1 to 1000, not 1001",
            ),
        ][..5],
    );
    assert_eq!(
        errors("[queues.default]\nweight = 0\nlimit = 0\nrate = 3"),
        [
            "2:10: `weight` must be a whole number from 1 to 1000, not 0",
            "3:9: `limit` must be a whole number from 1 to 1000000, not 0",
            "4:1: unknown key `rate` in [queues.default]; known here: `weight`, `limit` and `limit_per_host`",
        ]
    );
}

#[test]
fn a_job_comes_after_other_jobs_of_the_file() {
    assert_eq!(
        policies("after = [\"b\", \"c\"]").after,
        Some(After { jobs: vec![name("b"), name("c")], when: When::All })
    );
    refused(&[
        ("after = []", "6:9: `after` names no job; name at least one, or leave it out"),
        ("after = [\"b\", \"b\"]", "6:15: `after` names `b` twice"),
        ("after = [\"a\"]", "6:10: `after` names the job itself; name another one"),
        ("after = [\"d\"]", "6:10: there is no job `d`; did you mean `a`?"),
        ("after = { when = \"any\" }", "6:1: [jobs.a.after] needs `jobs`, such as `jobs = [\"a\", \"b\"]`"),
        (
            "after = \"b\"",
            "6:9: `after` must be an array of jobs, such as [\"a\", \"b\"], or a table, such as { jobs = \
             [\"a\", \"b\"], when = \"any\" }, not \"b\"",
        ),
        (
            "after = { jobs = [\"b\"], when = \"some\" }",
            "6:32: `when` must be one of `all` and `any`, not `some`",
        ),
        ("on_failure = \"a\"", "6:14: `on_failure` names the job itself; name another one"),
        ("on_failure = \"nobody\"", "6:14: there is no job `nobody`; add [jobs.nobody], or correct the name"),
    ]);
}

/// Jobs of a plugin `p` with these keys each, of which `${SECRET}` stands in none.
fn jobs(keys: &[(&str, &str)]) -> String {
    let job =
        |(name, keys): &(&str, &str)| format!("[jobs.{name}]\nplugin = \"p\"\nhandler = \"h\"\n{keys}\n");
    format!("[plugins.p]\ncomponent = \"p.wasm\"\n{}", keys.iter().map(job).collect::<String>())
}

#[test]
fn jobs_that_trigger_each_other_without_end_are_refused() {
    assert_eq!(
        errors(&jobs(&[("a", "after = [\"c\"]"), ("b", "after = [\"a\"]"), ("c", "after = [\"b\"]")])),
        ["6:9: these jobs make each other run without end: `b` runs when `a` succeeds, `c` runs when `b` \
          succeeds, `a` runs when `c` succeeds; take one of these `after` or `on_failure` out"]
    );
    assert_eq!(
        errors(&jobs(&[("a", "on_failure = \"b\""), ("b", "on_failure = \"a\"")])),
        [
            "6:14: these jobs make each other run without end: `b` runs when `a` fails, `a` runs when `b` fails; \
          take one of these `after` or `on_failure` out"
        ]
    );
    let mixed = errors(&jobs(&[
        ("a", "on_failure = \"b\""),
        ("b", ""),
        ("c", "after = [\"b\"]\non_failure = \"a\""),
    ]));
    assert!(mixed.len() == 1 && mixed[0].contains("`a` runs when `c` fails"), "{mixed:?}");
    let both = [("a", "on_failure = \"b\""), ("b", "after = [\"a\"]"), ("c", "after = [\"a\", \"b\"]")];
    valid(&jobs(&both));
}

#[test]
fn jobs_that_wait_for_each_other_are_refused() {
    let hourly = "schedule = { every = \"1h\" }";
    let circle = |when: &str| {
        let a = format!("{hourly}\nafter = {{ jobs = [\"b\", \"c\"], when = \"{when}\" }}");
        jobs(&[("a", &a), ("b", &format!("{hourly}\nafter = [\"a\"]")), ("c", hourly)])
    };
    assert_eq!(
        errors(&circle("all")),
        [
            "7:1: these jobs wait for each other, so that none ever runs: `a` waits for `b`, `b` waits for `a`; \
          take one of these `after` out"
        ]
    );
    valid(&circle("any"));
    // Nothing but a person can begin it, and then it goes on by the clock.
    let triggered = [("a", "schedule = { every = \"1h\" }\nafter = [\"b\"]"), ("b", "after = [\"a\"]")];
    assert_eq!(errors(&jobs(&triggered)).len(), 1);
}

#[test]
fn what_is_caught_up_needs_a_schedule_that_can_miss_it() {
    let hourly = |keys: &str| format!("schedule = {{ every = \"1h\" }}\ncatch_up = {keys}");
    assert_eq!(policies(&hourly("{}")).catch_up, CatchUp::default());
    assert_eq!(policies(&hourly("{ mode = \"none\" }")).catch_up.mode, CatchUpMode::None);
    refused(&[
        (
            "catch_up = { mode = \"none\" }",
            "6:1: `catch_up` is for the fires of a schedule, and the job has none; add `schedule`, or take it out",
        ),
        (
            "schedule = { at = \"2030-01-01T00:00\" }\ncatch_up = { mode = \"all\" }",
            "7:1: `catch_up` with mode = \"all\" is for schedules that can miss several fires; one with `at` or \
             `every_after` misses one at most: use \"latest\" or \"none\"",
        ),
        (
            &hourly("{ mode = \"none\", window = \"1h\" }"),
            "7:38: `window` is for fires that are caught up, and with mode = \"none\" there are none",
        ),
        (
            &hourly("{ max = 3 }"),
            "7:20: `max` is for mode = \"all\"; the other modes run one missed fire at most",
        ),
        (&hourly("{ mode = \"all\", max = 0 }"), "7:34: `max` must be a whole number from 1 to 10000, not 0"),
        (
            &hourly("{ window = \"0s\" }"),
            "7:23: `window` must be a time from 1s to 1year, such as \"1h\", not \"0s\"",
        ),
    ]);
}

#[test]
fn a_chain_of_many_jobs_is_read() {
    let job = |n: usize| (format!("j{n}"), format!("after = [\"j{}\"]", n + 1));
    let mut keys: Vec<(String, String)> = (0..20_000).map(job).collect();
    keys.push(("j20000".into(), String::new()));
    let keys: Vec<(&str, &str)> = keys.iter().map(|(name, keys)| (name.as_str(), keys.as_str())).collect();
    assert_eq!(valid(&jobs(&keys)).jobs.len(), 20_001);
}
