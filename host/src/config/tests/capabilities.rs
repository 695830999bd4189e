//! What a plugin is granted besides databases and jobs.

use crate::capability::{HttpLimits, SecretSource};

use super::*;

/// The file that is right, with more keys of its plugin.
fn with(keys: &str) -> String {
    VALID.replace("[[plugins.maintenance.databases]]", &format!("{keys}\n[[plugins.maintenance.databases]]"))
}

#[test]
fn nothing_is_granted_by_default() {
    let config = valid(VALID);
    let capabilities = &config.plugins[&name("maintenance")].capabilities;
    assert!(capabilities.http.is_none() && capabilities.env.is_empty());
    assert!(capabilities.secrets.is_empty() && capabilities.files.is_empty());
}

#[test]
fn every_grant_is_read() {
    let text = with(
        r#"
env = { TZ = "UTC", PASSED_ON = "${SET}", EMPTY = "" }
secrets = { plain = "${SECRET}", filed = { file = "key", hosts = ["api.test", "http://h.test:81"] } }
[plugins.maintenance.http]
allow = ["POST https://api.test/v2", "GET,HEAD http://*.h.test:81"]
addresses = ["10.0.0.0/8", "::1"]
ca = "ca.pem"
timeout = "5s"
max_response_bytes = "1 KiB"
[[plugins.maintenance.files]]
path = "/srv/reports"
as = "/reports/"
access = "read-write"
[[plugins.maintenance.files]]
path = "/etc/ssl"
"#,
    );
    let config = valid(&text);
    let capabilities = &config.plugins[&name("maintenance")].capabilities;
    let env: Vec<_> = capabilities.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(env, ["EMPTY=", "PASSED_ON=value", "TZ=UTC"]);
    assert!(capabilities.secrets["plain"].source == SecretSource::Value("hunter2".to_owned()));
    assert!(capabilities.secrets["filed"].source == SecretSource::File("key".into()));
    assert_eq!(capabilities.secrets["filed"].hosts.len(), 2);
    let http = capabilities.http.as_ref().unwrap();
    assert_eq!(http.allow[0].to_string(), "POST https://api.test/v2");
    assert_eq!(http.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "::1"]);
    assert_eq!(http.ca.as_deref(), Some(Path::new("ca.pem")));
    let limits =
        HttpLimits { timeout: Duration::from_secs(5), max_response_bytes: 1024, ..HttpLimits::default() };
    assert_eq!(http.limits, limits);
    let files: Vec<_> = capabilities.files.iter().map(ToString::to_string).collect();
    assert_eq!(files, ["/srv/reports as /reports (read-write)", "/etc/ssl as /etc/ssl (read-only)"]);
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn what_is_wrong_with_a_grant_is_told_at_its_place_and_shows_no_secret() {
    let http = "[plugins.maintenance.http]\nallow = [\"GET https://h.test/\"]\n";
    for (keys, line, message) in [
        ("[plugins.maintenance.http]\n", 8, "needs `allow`"),
        ("[plugins.maintenance.http]\nallow = [\"GET h.test\"]\n", 9, "must name `https://`"),
        ("[plugins.maintenance.http]\nallow = [\"${SECRET}\"]\n", 9, "this is \"${SECRET}\""),
        ("[plugins.maintenance.http]\nallow = []\naddresses = [\"10.0.0.1/8\"]\n", 10, "first address"),
        ("[plugins.maintenance.http]\nallow = []\ntimeout = \"2h\"\n", 10, "a time from 1ms to 1h"),
        ("env = { A = 1 }\n", 8, "must be a string"),
        ("env = { \"A=B\" = \"x\" }\n", 8, "no name of a variable"),
        ("secrets = { key = \"${SECRET}\" }\n", 8, "granted none: add `http`"),
        (&format!("secrets = {{ \"a.b\" = \"${{SECRET}}\" }}\n{http}"), 8, "no name of a secret"),
        (&format!("secrets = {{ key = \"hunter2\\n\" }}\n{http}"), 8, "must fit a header"),
        (&format!("secrets = {{ key = {{ }} }}\n{http}"), 8, "needs `value`"),
        (&format!("secrets = {{ key = {{ value = \"a\", file = \"b\" }} }}\n{http}"), 8, "not both"),
        (
            &format!("secrets = {{ key = {{ value = \"${{SECRET}}\", hosts = [\"a b\"] }} }}\n{http}"),
            8,
            "a host",
        ),
        (
            &format!(
                "config = {{ secrets = {{ key = \"x\" }} }}\nsecrets = {{ key = \"${{SECRET}}\" }}\n{http}"
            ),
            9,
            "`secrets.key`",
        ),
        ("[[plugins.maintenance.files]]\nas = \"/a\"\n", 8, "needs `path`"),
        ("[[plugins.maintenance.files]]\npath = \"a\"\n", 8, "needs `as`"),
        ("[[plugins.maintenance.files]]\npath = \"a\"\nas = \"/a/../b\"\n", 10, "without `.`"),
        (
            "[[plugins.maintenance.files]]\npath = \"/a\"\n[[plugins.maintenance.files]]\npath = \"/a\"\n",
            11,
            "same place",
        ),
    ] {
        let found = errors(&with(keys));
        let expected = found.iter().find(|error| error.contains(message));
        let expected = expected.unwrap_or_else(|| panic!("{message:?} is not in {found:?} of {keys}"));
        assert!(expected.starts_with(&format!("{line}:")), "{line}: {expected}");
        assert!(!found.join("\n").contains("hunter2"), "{found:?}");
    }
}
