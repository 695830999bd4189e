//! What `innkeeper init` writes.

use super::*;

/// The example with every setting in use.
pub(super) fn uncommented() -> String {
    let setting = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with(' ') => setting.to_owned() + "\n",
        _ => line.to_owned() + "\n",
    };
    EXAMPLE.lines().map(setting).collect()
}

fn settings(config: &Config) -> String {
    let Config { path: _, host, store, databases, plugins, registries, queues, jobs, places: _ } = config;
    format!("{host:#?}\n{store:#?}\n{databases:#?}\n{plugins:#?}\n{registries:#?}\n{queues:#?}\n{jobs:#?}")
}

#[test]
fn the_example_as_it_is_written_is_a_host_without_jobs() {
    assert_eq!(settings(&valid(EXAMPLE)), settings(&valid("")));
}

/// What the text of the example calls an example or needed.
fn is_example(line: &str) -> bool {
    let examples = [
        "name",
        "owner",
        "listen",
        "component",
        "digest",
        "username",
        "password",
        "insecure",
        "config",
        "env",
        "secrets",
        "allow",
        "ca",
        "path",
        "as",
        "plugin",
        "handler",
        "args",
        "schedule",
        "max_size",
        "statement_timeout",
        "max_bytes",
        "max_running_statements",
        "concurrency = { limit",
        "fuel",
        "rate",
        "on_failure",
        "after",
        "limit",
        "limit_per_host",
        "exclude",
        "exclude_weekdays",
        "include",
        "include_weekdays",
    ];
    examples.iter().any(|key| line.starts_with(&format!("{key} = ")))
            || line.starts_with("url = \"${APP")
            // A plugin's: that of the host has a default.
            || line == "concurrency = 4"
            || line.starts_with('[')
            || line.starts_with('#')
}

#[test]
fn the_example_shows_every_key_and_its_true_default() {
    let all = uncommented();
    let needed: String =
        all.lines().filter(|line| is_example(line)).map(|line| line.to_owned() + "\n").collect();
    assert!(needed.len() < all.len());
    let config = valid(&all);
    assert_eq!(settings(&config), settings(&valid(&needed)));
    assert_eq!((config.databases.len(), config.plugins.len(), config.jobs.len()), (1, 1, 2));
    assert_eq!(config.queues[&name("default")].limit_per_host, Some(16));
    assert!(config.jobs[&name("session-cleanup")].schedule.is_some());

    // The reader lists the keys that it knows beside one that it does not: all are there.
    let grant = "[plugins.maintenance.databases]";
    let others = [
        "plugins.maintenance.http",
        "[plugins.maintenance.files]",
        "jobs.session-cleanup",
        "queues.default",
        "calendars.business-days",
        "registries.\"registry.example\"",
    ];
    for table in
        ["host", "store", "databases.app", "plugins.maintenance", "plugins.maintenance.limits", grant]
            .into_iter()
            .chain(others)
    {
        let header = format!("[{table}]\n");
        let unknown = all.replace(&header, &format!("{header}zzzzzzzz = 1\n"));
        let message = errors(&unknown).into_iter().find(|message| message.contains("zzzzzzzz"));
        let message = message.expect("an unknown key is reported");
        let known = message.split("known here: ").nth(1).expect("no known key is near");
        for key in known.split('`').skip(1).step_by(2) {
            assert!(
                all.contains(&format!("\n{key} = "))
                    || all.contains(&format!(".{key}]"))
                    // PostgreSQL's own, which the text explains.
                    || (table == grant && all.contains(&format!("`{key} = \"…\"`"))),
                "`{key}` of [{table}] is not in the example"
            );
        }
    }
}
