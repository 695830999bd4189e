//! What of a configuration cannot take effect while the host runs.

use crate::config::{Config, ConfigError, ConfigErrors};

/// Every key that is another one now and that the host is built on, with its place in the new file.
#[must_use]
pub fn complaints(before: &Config, after: &Config) -> ConfigErrors {
    let (host, store) = ((&before.host, &after.host), (&before.store, &after.store));
    let fixed = [
        ("host", "name", host.0.name != host.1.name),
        ("host", "owner", host.0.owner != host.1.owner),
        ("host", "data_dir", host.0.data_dir != host.1.data_dir),
        ("host", "compiled_cache", host.0.compiled_cache != host.1.compiled_cache),
        ("host", "listen", host.0.listen != host.1.listen),
        ("host", "concurrency", host.0.concurrency != host.1.concurrency),
        ("host", "session_timeout", host.0.session_timeout != host.1.session_timeout),
        ("store", "url", store.0.url != store.1.url),
        ("store", "max_connections", store.0.max_connections != store.1.max_connections),
        ("store", "timeout", store.0.timeout != store.1.timeout),
        ("store", "pooler", store.0.transaction_pooler != store.1.transaction_pooler),
    ];
    let changed = fixed.into_iter().filter(|(.., is_changed)| *is_changed);
    let complaints: Vec<ConfigError> = changed
        .map(|(part, key, _)| ConfigError {
            location: after.location_of_setting(part, key),
            message: format!(
                "`{key}` of [{part}] is another one than the host was started with: restart the host"
            ),
        })
        .collect();
    ConfigErrors::new(complaints)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("/etc/innkeeper.toml"), &|_| None).unwrap()
    }

    fn complaints_of(before: &str, after: &str) -> Vec<String> {
        let (before, after) = (config(before), config(after));
        complaints(&before, &after).iter().map(ToString::to_string).collect()
    }

    const BEFORE: &str = "[host]\nname = \"inn\"\n[store]\nmax_connections = 4\n\
                          [plugins.p]\ncomponent = \"p.wasm\"\n";

    #[test]
    fn what_the_host_is_built_on_is_named_with_its_line() {
        let after = "[host]\nname = \"out\"\nconcurrency = 7\ncompiled_cache = \"7MiB\"\n\
                     [store]\nmax_connections = 5\n[plugins.p]\ncomponent = \"p.wasm\"\n";
        let complaints = complaints_of(BEFORE, after);
        let starts = [
            "/etc/innkeeper.toml:2:1: `name` of [host]",
            // The owner is the name, which stands nowhere itself.
            "/etc/innkeeper.toml: `owner` of [host]",
            "/etc/innkeeper.toml:3:1: `concurrency` of [host]",
            "/etc/innkeeper.toml:4:1: `compiled_cache` of [host]",
            "/etc/innkeeper.toml:6:1: `max_connections` of [store]",
        ];
        for start in starts {
            assert!(
                complaints.iter().any(|complaint| complaint.starts_with(start)),
                "{start}: {complaints:#?}"
            );
        }
        assert_eq!(complaints.len(), starts.len(), "{complaints:#?}");
    }

    #[test]
    fn what_can_change_is_let_through() {
        let after = "[host]\nname = \"inn\"\ndrain_timeout = \"1m\"\nwatch = false\n[store]\nmax_connections = 4\n\
                     history = { last = 7 }\n[plugins.p]\ncomponent = \"p.wasm\"\nlimits = { memory = \"1GiB\" }\n\
                     [plugins.q]\ncomponent = \"q.wasm\"\n[databases.d]\nurl = \"sqlite:d.db\"\n";
        assert_eq!(complaints_of(BEFORE, after), [""; 0]);
    }
}
