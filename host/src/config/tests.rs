mod capabilities;
mod example;
mod grants;
mod policies;
mod schedules;

use super::*;
use proptest::prelude::*;
use serde_json::json;

const FILE: &str = "innkeeper.toml";

/// A file that is right, for cases that break one thing in it.
const VALID: &str = r#"
[databases.app]
url = "sqlite:app.db"

[plugins.maintenance]
component = "plugins/maintenance.wasm"

[[plugins.maintenance.databases]]
name = "app"

[jobs.cleanup]
plugin = "maintenance"
handler = "cleanup-expired-sessions"
"#;

fn environment(name: &str) -> Option<String> {
    let value = match name {
        "SET" => "value",
        "EMPTY" => "",
        "SECRET" => "hunter2",
        "SECRET_URL" => "mysql://app:hunter2@db/app",
        "PG" => "postgres://app:hunter2@db.example/app",
        _ => return None,
    };
    Some(value.to_owned())
}

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, Path::new(FILE), &environment)
}

fn valid(text: &str) -> Config {
    parse(text).unwrap_or_else(|errors| panic!("{errors}\nin\n{text}"))
}

fn name(name: &str) -> Name {
    Name::new(name).unwrap()
}

/// What is said about a file, without the file's name.
fn errors(text: &str) -> Vec<String> {
    let errors = parse(text).err().unwrap_or_default().to_string();
    errors.lines().map(|line| line.strip_prefix("innkeeper.toml:").unwrap_or(line).to_owned()).collect()
}

#[test]
fn every_problem_is_told_with_its_place() {
    let cases = include_str!("tests/errors.txt");
    let mut checked = 0;
    for case in cases.split("\n====\n").skip(1) {
        let (text, expected) = case.split_once("\n----\n").expect("a case has an expectation");
        let found = errors(text);
        let expected: Vec<&str> = expected.lines().collect();
        assert_eq!(found, expected, "\nsaid about\n{text}\n\nnamely\n{}\n", found.join("\n"));
        checked += 1;
    }
    assert!(checked > 50, "{checked} cases were found");
}

#[test]
fn an_empty_file_is_a_host_with_its_defaults_and_no_jobs() {
    let config = valid("");
    let host = gethostname::gethostname().to_string_lossy().into_owned();
    assert_eq!(config.host.name, host);
    assert_eq!(config.host.data_dir, Path::new("innkeeper-data"));
    assert_eq!(config.host.listen, None, "nothing is opened");
    assert_eq!(config.host.concurrency, 32);
    assert_eq!(config.host.drain_timeout, Duration::from_secs(30));
    assert_eq!(config.host.session_timeout, Duration::from_secs(15));
    assert_eq!(config.store.url, DatabaseUrl::Sqlite("innkeeper-data/innkeeper.db".into()));
    assert_eq!((config.store.max_connections, config.store.timeout), (4, Duration::from_secs(10)));
    let keep = Some(Duration::from_secs(90 * 86_400));
    assert_eq!(config.store.history, History { keep, last: None });
    assert!(config.databases.is_empty() && config.plugins.is_empty() && config.jobs.is_empty());
}

#[test]
fn what_is_left_out_of_a_database_a_plugin_and_a_job_has_its_default() {
    let config = valid(VALID);
    let database = &config.databases[&name("app")];
    assert_eq!(database.url, DatabaseUrl::Sqlite("innkeeper-data/app.db".into()));
    assert_eq!((database.max_connections, database.acquire_timeout), (16, Duration::from_secs(5)));
    let plugin = &config.plugins[&name("maintenance")];
    assert_eq!(plugin.component, ComponentRef::File("plugins/maintenance.wasm".into()));
    assert_eq!(plugin.digest, None);
    assert!(config.registries.is_empty());
    assert!(plugin.config.is_empty() && plugin.jobs.is_empty());
    assert_eq!(plugin.limits, Limits::default());
    assert_eq!(plugin.default_database, Some(name("app")), "the only one is the default");
    assert_eq!(database.max_size, None, "as large as the disk allows");
    let grant = &plugin.databases[&name("app")];
    assert_eq!((&grant.url, &grant.role, &grant.schema), (&None, &None, &None));
    assert_eq!((grant.read_only, grant.fence, grant.statement_timeout), (false, false, None));
    assert_eq!((grant.max_rows, grant.max_bytes), (100_000, None));
    assert_eq!((grant.max_open_transactions, grant.max_open_cursors), (8, 8));
    assert_eq!(grant.max_running_statements, None);
    let job = &config.jobs[&name("cleanup")];
    let expected = Job {
        name: name("cleanup"),
        plugin: name("maintenance"),
        handler: "cleanup-expired-sessions".into(),
        args: json!({}),
        schedule: None,
        enabled: true,
        retry: crate::retry::RetryPolicy::default(),
        timeout: Duration::from_secs(300),
        on_crash: crate::job::OnCrash::Retry,
        history: crate::job::History::default(),
        policies: crate::policy::Policies::default(),
    };
    assert_eq!(*job, expected);
}

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Every key, with a value that is not its default.
const FULL: &str = r#"
[host]
name = "inn-1"
data_dir = "/srv/inn"
listen = "[::1]:7878"
concurrency = 1_000
drain_timeout = "0s"
session_timeout = "1s"
[store]
url = "postgres://inn@db.example/inn"
max_connections = 1
pooler = "transaction"
history = { keep = "30days", last = 5 }
timeout = "30s"
[databases.app]
url = "sqlite:/srv/app.db"
max_connections = 2
acquire_timeout = "250ms"
max_size = "2 GiB"
[databases.other]
url = "postgres://db.example/other"
[plugins.p]
component = "oci://registry.example:5000/team/p:1@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
digest = "sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855"
jobs = ["j"]
[plugins.p.limits]
memory = 1_048_576
timeout = "1h30m"
fuel = 5_000_000_000
concurrency = 1_000
log_lines = 0
log_bytes = "1 KiB"
result_bytes = 65_536
[[plugins.p.databases]]
name = "app"
fence = true
[[plugins.p.databases]]
name = "other"
default = true
url = "${PG}"
role = "Owner \"of\" all"
schema = "tenant"
access = "read-only"
statement_timeout = "30s"
max_rows = 1
max_bytes = "1 MiB"
max_open_transactions = 2
max_open_cursors = 3
max_running_statements = 4
[jobs.j]
plugin = "p"
handler = "h"
enabled = false
timeout = "10s"
retry = { max_attempts = 5, backoff = "linear", initial = "1s", maximum = "1s", jitter = 0 }
on_crash = "fail"
history = { keep = "forever" }
schedule = { cron = "30 2 * * *", timezone = "Europe/Berlin", gap = "skip", overlap = "both", calendars = ["business", "summer"], when_excluded = "next-day" }
queue = "reports"
priority = -3
concurrency = { limit = 2, key = "/customer/~0id", limit_per_key = 3, when_full = "replace" }
rate = "100 per 1m"
after = { jobs = ["inherits", "every"], when = "any" }
on_failure = "every"
catch_up = { mode = "all", window = "6h", max = 5 }
cancel_grace = "0s"
[jobs.inherits]
plugin = "p"
handler = "h"
schedule = { at = 2030-01-31T08:00:00 }
[jobs.every]
plugin = "p"
handler = "h"
schedule = { every = "1h", anchor = 2026-01-01T00:10:00Z, jitter = "2s", not_before = 2026-02-01, not_after = "2030-01-01" }
[jobs.every-after]
plugin = "p"
handler = "h"
schedule = { every_after = "10m" }
[queues.reports]
weight = 1_000
limit = 100
limit_per_host = 10
[queues.default]
weight = 2
[registries."registry.example:5000"]
username = "me"
password = "${SET}"
insecure = true
[registries."127.0.0.1"]
[calendars.business]
exclude = ["2026-12-25", 2026-12-26]
exclude_weekdays = ["SAT", "Sunday"]
include = [2026-12-19]
[calendars.summer]
include_weekdays = ["mon", "tue", "wed", "thu", "fri"]
"#;

#[test]
fn every_key_of_the_host_and_its_databases_reaches_its_place() {
    let config = valid(FULL);
    assert_eq!((config.host.name.as_str(), config.host.owner.as_str()), ("inn-1", "inn-1"));
    assert_eq!(config.host.concurrency, 1000);
    assert_eq!(config.host.drain_timeout, Duration::ZERO);
    assert_eq!(config.host.session_timeout, Duration::from_secs(1));
    assert_eq!(config.store.url, DatabaseUrl::Postgres("postgres://inn@db.example/inn".into()));
    assert_eq!((config.store.max_connections, config.store.timeout), (1, Duration::from_secs(30)));
    assert!(config.store.transaction_pooler && !valid("").store.transaction_pooler);
    let app = &config.databases[&name("app")];
    assert_eq!(app.url, DatabaseUrl::Sqlite("/srv/app.db".into()));
    assert_eq!((app.max_connections, app.acquire_timeout), (2, Duration::from_millis(250)));
    assert_eq!(app.max_size, Some(2 << 30));
    let other = &config.databases[&name("other")];
    assert_eq!(other.url, DatabaseUrl::Postgres("postgres://db.example/other".into()));
    assert_eq!(other.max_size, None);
}

#[test]
fn every_key_of_a_registry_reaches_its_place_and_no_login_is_shown() {
    let config = valid(FULL);
    let access = &config.registries["registry.example:5000"];
    assert_eq!(access.login, Some(("me".to_owned(), "value".to_owned())));
    assert_eq!(access.insecure, Some(true));
    assert_eq!(config.registries["127.0.0.1"], crate::component::RegistryAccess::default());
    assert!(!format!("{config:?}").contains("\"value\""));
}

#[test]
fn every_key_of_a_plugin_and_its_jobs_reaches_its_place() {
    let config = valid(FULL);
    let plugin = &config.plugins[&name("p")];
    assert_eq!(plugin.component.to_string(), format!("oci://registry.example:5000/team/p:1@{DIGEST}"));
    assert_eq!(plugin.digest.as_ref().map(crate::component::Digest::as_str), Some(DIGEST));
    assert_eq!(plugin.jobs, BTreeSet::from([name("j")]));
    let timeout = Duration::from_secs(5400);
    let limits = Limits {
        memory: 1 << 20,
        timeout,
        fuel: Some(5_000_000_000),
        concurrency: Some(1000),
        log_lines: 0,
        log_bytes: 1024,
        result_bytes: 65_536,
    };
    assert_eq!(plugin.limits, limits);
    assert_eq!(plugin.databases.keys().collect::<Vec<_>>(), [&name("app"), &name("other")]);
    assert_eq!(plugin.default_database, Some(name("other")));
    let grant = &plugin.databases[&name("other")];
    assert_eq!(grant.url.as_deref(), Some("postgres://app:hunter2@db.example/app"));
    assert_eq!(grant.role.as_deref(), Some("Owner \"of\" all"));
    assert_eq!(grant.schema.as_deref(), Some("tenant"));
    let app = &plugin.databases[&name("app")];
    assert_eq!((grant.read_only, app.read_only), (true, false));
    assert_eq!((grant.fence, app.fence), (false, true));
    assert_eq!(grant.statement_timeout, Some(Duration::from_secs(30)));
    assert_eq!((grant.max_rows, grant.max_bytes), (1, Some(1 << 20)));
    assert_eq!((grant.max_open_transactions, grant.max_open_cursors), (2, 3));
    assert_eq!(grant.max_running_statements, Some(4));
    let job = &config.jobs[&name("j")];
    assert_eq!((job.enabled, job.timeout), (false, Duration::from_secs(10)));
    assert_eq!((job.retry.max_attempts, job.retry.backoff), (5, crate::retry::Backoff::Linear));
    let second = Duration::from_secs(1);
    assert_eq!((job.retry.initial, job.retry.maximum, job.retry.jitter), (second, second, 0.0));
    assert_eq!(job.on_crash, crate::job::OnCrash::Fail);
    assert_eq!(job.history, History { keep: None, last: Some(5) }, "what it leaves out is the store's");
    let inherits = &config.jobs[&name("inherits")];
    let days = |days: u64| Some(Duration::from_secs(days * 86_400));
    assert_eq!(inherits.history, History { keep: days(30), last: Some(5) }, "the store's");
    assert_eq!(inherits.timeout, Duration::from_secs(5400), "the plugin's");
    let at: jiff::Timestamp = "2030-01-31T08:00:00Z".parse().unwrap();
    assert_eq!(inherits.schedule.as_ref().unwrap().next_after(jiff::Timestamp::UNIX_EPOCH), Some(at));
}

#[test]
fn relative_paths_start_at_the_folder_of_the_file() {
    let config = Config::parse(VALID, Path::new("/etc/inn/innkeeper.toml"), &environment).unwrap();
    assert_eq!(config.host.data_dir, Path::new("/etc/inn/innkeeper-data"));
    assert_eq!(
        config.plugins[&name("maintenance")].component,
        ComponentRef::File("/etc/inn/plugins/maintenance.wasm".into())
    );
    let database = &config.databases[&name("app")];
    assert_eq!(database.url, DatabaseUrl::Sqlite("/etc/inn/innkeeper-data/app.db".into()));
}

#[test]
fn several_databases_without_a_default_have_none_and_a_single_one_can_refuse_to_be_it() {
    let two = VALID.replace("[jobs.", "[[plugins.maintenance.databases]]\nname = \"b\"\n[jobs.")
        + "[databases.b]\nurl = \"sqlite:b.db\"";
    assert_eq!(valid(&two).plugins[&name("maintenance")].default_database, None);
    let one = VALID.replace("name = \"app\"", "name = \"app\"\ndefault = false");
    assert_eq!(valid(&one).plugins[&name("maintenance")].default_database, None);
}

#[test]
fn variables_are_replaced_in_every_string_and_nowhere_else() {
    for (written, value) in [
        ("a ${SET} b", "a value b"),
        ("${SET}${SET}", "valuevalue"),
        ("${UNSET:-default}", "default"),
        ("${UNSET:-}x", "x"),
        ("${UNSET:-a:-b}", "a:-b"),
        ("${EMPTY:-default}", "default"),
        ("${SET:-default}", "value"),
        ("x${EMPTY}", "x"),
        ("$${SET}", "${SET}"),
        ("$$${SET}", "$${SET}"),
        ("$SET $ $$ {SET} }", "$SET $ $$ {SET} }"),
        ("ä$ü${SET}ö", "ä$üvalueö"),
    ] {
        let name = valid(&format!("[host]\nname = '{written}'")).host.name;
        assert_eq!(name, value, "{written}");
    }
    let config = valid(&format!("{VALID}args = {{ '${{SET}}' = ['${{SET}}', {{ b = '$${{SET}}' }}] }}"));
    assert_eq!(config.jobs[&name("cleanup")].args, json!({ "${SET}": ["value", { "b": "${SET}" }] }));
}

#[test]
fn arguments_become_json() {
    let config = valid(&format!(
        "{VALID}{}",
        r#"
        [jobs.cleanup.args]
        text = "a\nb"
        integer = -7
        hex = 0xff
        big = 18446744073709551615
        float = 1e3
        bool = true
        array = [1, "two", [3.5]]
        table.nested = {}
        instant = 2026-12-24T08:00:00+01:00
        local = 2026-12-24 08:00:00.5
        date = 2026-12-24
        time = 08:00:00
        "#
    ));
    let expected = json!({
        "text": "a\nb", "integer": -7, "hex": 255, "big": u64::MAX, "float": 1000.0, "bool": true,
        "array": [1, "two", [3.5]], "table": { "nested": {} },
        "instant": "2026-12-24T08:00:00+01:00", "local": "2026-12-24T08:00:00.5",
        "date": "2026-12-24", "time": "08:00:00",
    });
    assert_eq!(config.jobs[&name("cleanup")].args, expected);
    assert_eq!(valid(&format!("{VALID}args = [1]")).jobs[&name("cleanup")].args, json!([1]));
}

#[test]
fn arguments_nested_too_deep_are_refused() {
    let nested = |depth: usize| format!("{VALID}args = {}{}", "[".repeat(depth), "]".repeat(depth));
    valid(&nested(60));
    assert_eq!(errors(&nested(70)), ["14:73: arguments may be nested 64 deep at most"]);
}

#[test]
fn a_plugins_configuration_becomes_dotted_keys_and_text() {
    let text = VALID.replace(
        "[[plugins.maintenance.databases]]",
        r#"
        [plugins.maintenance.config]
        table = "sessions"
        empty = ""
        key = "${SECRET}"
        rows.batch = 0x10
        rows.ratio = 1.50
        rows.deep.er = false
        since = 2026-12-24
        columns = ["id", { a = 1 }]
        nothing = {}
        [[plugins.maintenance.databases]]"#,
    );
    let expected = [
        ("columns", r#"["id",{"a":1}]"#),
        ("empty", ""),
        ("key", "hunter2"),
        ("rows.batch", "16"),
        ("rows.deep.er", "false"),
        ("rows.ratio", "1.50"),
        ("since", "2026-12-24"),
        ("table", "sessions"),
    ];
    let config = valid(&text);
    let config = &config.plugins[&name("maintenance")].config;
    let found: Vec<(&str, &str)> = config.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(found, expected);
}

/// Keys whose values a message could show, with their tables.
const TEXTS: &[(&str, &str)] = &[
    ("host", "name"),
    ("host", "owner"),
    ("host", "data_dir"),
    ("host", "listen"),
    ("host", "concurrency"),
    ("host", "drain_timeout"),
    ("host", "session_timeout"),
    ("store", "url"),
    ("store", "max_connections"),
    ("store", "pooler"),
    ("store", "history"),
    ("store.history", "keep"),
    ("store.history", "last"),
    ("databases.d", "url"),
    ("databases.d", "acquire_timeout"),
    ("databases.d", "max_size"),
    ("plugins.p", "jobs"),
    ("plugins.p", "config"),
    ("plugins.p.limits", "memory"),
    ("plugins.p.limits", "timeout"),
    ("plugins.p.limits", "fuel"),
    ("plugins.p.limits", "concurrency"),
    ("plugins.p.limits", "log_lines"),
    ("plugins.p.limits", "log_bytes"),
    ("plugins.p.limits", "result_bytes"),
    ("plugins.p", "databases"),
    ("jobs.j", "plugin"),
    ("jobs.j", "schedule"),
    ("jobs.j.schedule", "cron"),
    ("jobs.j.schedule", "every"),
    ("jobs.j.schedule", "at"),
    ("jobs.j.schedule", "timezone"),
    ("jobs.j", "enabled"),
    ("jobs.j", "on_crash"),
    ("jobs.j", "retry"),
    ("jobs.j.schedule", "every_after"),
    ("jobs.j.schedule", "anchor"),
    ("jobs.j.schedule", "jitter"),
    ("jobs.j.schedule", "gap"),
    ("jobs.j.schedule", "overlap"),
    ("jobs.j.schedule", "not_before"),
    ("jobs.j.schedule", "not_after"),
    ("jobs.j.schedule", "calendars"),
    ("jobs.j.schedule", "when_excluded"),
    ("jobs.j", "queue"),
    ("jobs.j", "priority"),
    ("jobs.j", "concurrency"),
    ("jobs.j.concurrency", "limit"),
    ("jobs.j.concurrency", "key"),
    ("jobs.j.concurrency", "limit_per_key"),
    ("jobs.j.concurrency", "when_full"),
    ("jobs.j", "rate"),
    ("jobs.j", "after"),
    ("jobs.j.after", "jobs"),
    ("jobs.j.after", "when"),
    ("jobs.j", "on_failure"),
    ("jobs.j", "catch_up"),
    ("jobs.j.catch_up", "mode"),
    ("jobs.j.catch_up", "window"),
    ("jobs.j.catch_up", "max"),
    ("jobs.j", "cancel_grace"),
    ("queues.q", "weight"),
    ("queues.q", "limit"),
    ("queues.q", "limit_per_host"),
    ("calendars.c", "exclude"),
    ("calendars.c", "exclude_weekdays"),
    ("calendars.c", "include"),
    ("calendars.c", "include_weekdays"),
    ("jobs.j.retry", "backoff"),
    ("jobs.j.retry", "initial"),
    ("jobs.j.retry", "jitter"),
];

#[test]
fn neither_messages_nor_debug_output_show_what_the_environment_holds() {
    let config = valid(&format!(
        "{}\n[databases.pg]\nurl = '${{PG}}'",
        VALID.replace("[jobs.", "[plugins.maintenance.config]\nkey = '${SECRET}'\n[jobs.")
    ));
    let shown = format!("{config:?}");
    assert!(shown.contains("postgres://app@db.example/app") && !shown.contains("hunter2"), "{shown}");

    for (table, key) in TEXTS {
        for value in ["\"${SECRET_URL}\"", "[\"${SECRET}\"]"] {
            let shown = errors(&format!("[{table}]\n{key} = {value}")).join("\n");
            assert!(!shown.contains("hunter2"), "{table} {key}: {shown}");
        }
    }
}

#[test]
fn a_database_that_is_the_stores_file_is_found_through_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("innkeeper-data");
    std::fs::create_dir(&data).unwrap();
    let file = dir.path().join(FILE);
    let errors = || Config::parse(VALID, &file, &environment).err().unwrap_or_default().to_string();
    assert_eq!(errors(), "", "a file of its own");

    std::os::unix::fs::symlink("innkeeper.db", data.join("app.db")).unwrap();
    let same = format!("{}:3:7: `sqlite:app.db` is the file of the host's own store", file.display());
    assert!(errors().starts_with(&same), "before the store exists: {}", errors());
    std::fs::write(data.join("innkeeper.db"), "").unwrap();
    assert!(errors().starts_with(&same), "a symbolic link: {}", errors());

    std::fs::remove_file(data.join("app.db")).unwrap();
    std::fs::hard_link(data.join("innkeeper.db"), data.join("app.db")).unwrap();
    assert!(errors().starts_with(&same), "a hard link: {}", errors());
}

#[test]
fn a_missing_file_is_said_to_be_missing_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let error = Config::load(&path).unwrap_err().to_string();
    let start = format!("{}: the configuration file cannot be read: No such file", path.display());
    assert!(error.starts_with(&start) && error.contains("innkeeper init"), "{error}");
    assert!(error.contains("--config"), "{error}");

    let error = Config::load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("Is a directory") && !error.contains("innkeeper init"), "{error}");

    std::fs::write(&path, b"[host]\nname = \"\xff\"").unwrap();
    let error = Config::load(&path).unwrap_err().to_string();
    assert_eq!(error, format!("{}:2:9: the file is not UTF-8 text from here on", path.display()));

    std::fs::write(&path, VALID).unwrap();
    assert_eq!(Config::load(&path).unwrap().jobs.len(), 1);
}

#[test]
fn later_checks_find_the_place_of_a_job_its_keys_and_a_plugin() {
    let config = valid(VALID);
    let at = |location: Location| (location.line, location.column);
    let job = name("cleanup");
    assert_eq!(at(config.location_of_job(&job, JobKey::Plugin)), (12, 10));
    assert_eq!(at(config.location_of_job(&job, JobKey::Handler)), (13, 11));
    assert_eq!(at(config.location_of_job(&job, JobKey::Args)), (11, 7), "left out: the header");
    assert_eq!(at(config.location_of_plugin(&name("maintenance"))), (6, 13));
    assert_eq!(at(config.location_of_database(&name("app"))), (2, 12));
    assert_eq!(at(config.location_of_store()), (1, 1));
    assert_eq!(at(valid("[host]\nlisten = '[::1]:0'").location_of_listen()), (2, 10));
    assert_eq!(config.location_of_job(&name("other"), JobKey::Args).to_string(), FILE);
    let grant = |key| at(config.location_of_grant(&name("maintenance"), &name("app"), key));
    assert_eq!(grant(GrantKey::Url), (8, 1), "left out: the header");
    let config = valid(&VALID.replace("sqlite:app.db", "${PG}").replace(
        "name = \"app\"\n",
        "name = \"app\"\nurl = \"postgres://m@db/app\"\nschema = \"s\"\nrole = \"r\"\n",
    ));
    let grant = |key| at(config.location_of_grant(&name("maintenance"), &name("app"), key));
    assert_eq!([GrantKey::Url, GrantKey::Schema, GrantKey::Role].map(grant), [(10, 7), (11, 10), (12, 8)]);
}

#[test]
fn arguments_that_do_not_fit_are_reported_at_their_place_and_without_secrets() {
    let config = valid(&format!(
        "{VALID}{}",
        "[jobs.cleanup.args]\nretention_days = -1\nlist = [1, 'x']\ntoken = '${SECRET}'\nnest.key = '${SECRET}'"
    ));
    let job = name("cleanup");
    let schema = json!({
        "type": "object",
        "required": ["table"],
        "properties": {
            "retention_days": { "type": "integer", "minimum": 0 },
            "list": { "items": { "type": "integer" } },
            "token": { "type": "integer" },
            "nest": { "type": "string" },
        },
    });
    let error = crate::args::check_args(Some(&schema), &config.jobs[&job].args).unwrap_err();
    assert!(error.to_string().contains("hunter2"), "the check itself does not know: {error}");
    let shown = config.args_errors(&job, &error).to_string();
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(
        lines,
        [
            "innkeeper.toml:14:15: \"table\" is a required property",
            "innkeeper.toml:15:18: /retention_days: -1 is less than the minimum of 0",
            "innkeeper.toml:16:12: /list/1: \"x\" is not of type \"integer\"",
            "innkeeper.toml:17:9: /token: the value is not of type \"integer\"",
            "innkeeper.toml:18:1: /nest: the value is not of type \"string\"",
        ]
    );
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text: String) {
        let _ = parse(&text);
    }

    #[test]
    fn no_bytes_in_the_place_of_others_make_the_reader_panic(
        at: prop::sample::Index, length in 0usize..20, bytes: Vec<u8>
    ) {
        let mut text = example::uncommented().into_bytes();
        let at = at.index(text.len());
        let end = (at + length).min(text.len());
        text.splice(at..end, bytes);
        let _ = parse(&String::from_utf8_lossy(&text));
    }

    #[test]
    fn no_value_in_the_place_of_another_makes_the_reader_panic(
        line: prop::sample::Index,
        value in prop_oneof![
            "\"[^\"\\\\\\x00-\\x1f]{0,20}\"",
            "'(\\$|\\{|\\}|:|-|[A-Z]){0,12}'",
            "[-+]?[0-9]{1,25}(\\.[0-9]{1,5})?(e[0-9]{1,3})?",
            "\\{ [a-z]{1,6} = (1|'x'|\\[\\]|\\{\\}) \\}",
            "\\[(1|'x'|\\{\\}|nan)?\\]",
            "\"[0-9]{1,21} ?[a-zA-Zµ]{0,4}\"",
        ],
    ) {
        let all = example::uncommented();
        let settings: Vec<&str> = all.lines().filter(|line| line.contains(" = ")).collect();
        let old = settings[line.index(settings.len())];
        let key = old.split(" = ").next().unwrap();
        let text = all.replace(old, &format!("{key} = {value}"));
        let said = parse(&text).err().map(|errors| errors.to_string()).unwrap_or_default();
        prop_assert!(said.lines().all(|line| line.starts_with("innkeeper.toml:")), "{}", said);
    }
}
