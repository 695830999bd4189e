//! What a plugin is granted besides databases and jobs: `http`, `env`, `secrets` and `files` of
//! `[plugins.NAME]`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeValue;

use super::document::Text;
use super::places::Places;
use super::table::{Entry, Table};
use crate::capability::address::Network;
use crate::capability::rule::{Rule, Site};
use crate::capability::{
    Capabilities, CapabilityKey, FolderGrant, HttpGrant, HttpLimits, SecretGrant, SecretSource, config_key,
    fits_header,
};
use crate::job::Name;

const LONGEST_REQUEST: Duration = Duration::from_secs(3600);
const LARGEST_BODY: u64 = 1 << 30;
/// What servers take as one header.
const LONGEST_SECRET: usize = 8 << 10;

/// Reads the grants of one plugin. `config` is what `wasi:config` serves it.
pub(super) fn capabilities(
    table: &Table<'_>,
    base: &Path,
    plugin: &Name,
    config: &BTreeMap<String, String>,
    places: &mut Places,
) -> Capabilities {
    let mut note = |key: CapabilityKey, at: usize| {
        places.capabilities.insert((plugin.clone(), key), table.doc.location(at));
    };
    let http = table.table("http").map(|http| {
        note(CapabilityKey::Http, http.at);
        http_grant(http, base, &mut note)
    });
    let env = table.free_entries("env", "a table, such as { TZ = \"Europe/Berlin\" }");
    let env = env.iter().filter_map(variable).collect();
    let secrets = table.free_entries("secrets", "a table, such as { api_key = \"${API_KEY}\" }");
    let mut granted = BTreeMap::new();
    for entry in &secrets {
        if http.is_none() {
            entry.problem(
                "is for headers of requests, and the plugin is granted none: add `http`, or leave it out",
            );
        }
        if config.contains_key(&config_key(entry.key)) {
            let key = config_key(entry.key);
            entry
                .problem(format!("is what the plugin would read as `{key}`, which its `config` has already"));
        }
        note(CapabilityKey::Secret(entry.key.to_owned()), entry.at());
        granted.extend(secret(entry, base));
    }
    let mut files: Vec<FolderGrant> = Vec::new();
    for folder in table.tables("files") {
        let at = folder.entry("path").map_or(folder.at, |entry| entry.at());
        let Some(folder) = folder_grant(folder, base, &files) else { continue };
        note(CapabilityKey::Folder(folder.seen_as.clone()), at);
        files.push(folder);
    }
    // What folders must not reach is known once every plugin was read.
    Capabilities { http, env, secrets: granted, files, guarded: Arc::default() }
}

fn http_grant(table: Table<'_>, base: &Path, note: &mut impl FnMut(CapabilityKey, usize)) -> HttpGrant {
    let defaults = HttpLimits::default();
    if table.entry("allow").is_none() {
        table.missing("allow", "[\"GET https://api.example.org/v2\"]");
    }
    let allow = table.texts("allow");
    let allow =
        allow.iter().filter_map(|text| read(&table, "allow", text, |value| Rule::parse(value, text.written)));
    let allow = allow.collect();
    let addresses = table.texts("addresses");
    let addresses =
        addresses.iter().filter_map(|text| read(&table, "addresses", text, Network::parse)).collect();
    let ca = table.text("ca").map(|text| {
        note(CapabilityKey::Ca, text.at);
        base.join(text.value())
    });
    let time = |key, default| table.duration(key, default, Duration::from_millis(1)..=LONGEST_REQUEST);
    let limits = HttpLimits {
        connect_timeout: time("connect_timeout", defaults.connect_timeout),
        first_byte_timeout: time("first_byte_timeout", defaults.first_byte_timeout),
        timeout: time("timeout", defaults.timeout),
        max_request_bytes: table.bytes("max_request_bytes", defaults.max_request_bytes, 0..=LARGEST_BODY),
        max_response_bytes: table.bytes("max_response_bytes", defaults.max_response_bytes, 0..=LARGEST_BODY),
        max_open_requests: table.integer("max_open_requests", defaults.max_open_requests, 1..=1000),
    };
    table.finish();
    HttpGrant { allow, addresses, ca, limits }
}

/// A value of an array, which the reader explains without showing it.
fn read<T>(
    table: &Table<'_>,
    key: &str,
    text: &Text<'_>,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Option<T> {
    parse(text.value())
        .map_err(|problem| {
            table.doc.error(text.at, format!("`{key}` {problem}; this is \"{}\"", text.written))
        })
        .ok()
}

/// A variable of the plugin's environment.
fn variable(entry: &Entry<'_>) -> Option<(String, String)> {
    if entry.key.is_empty() || entry.key.contains(['=', '\0']) {
        entry.problem("is no name of a variable: names have no `=`");
        return None;
    }
    let value = match entry.value.get_ref() {
        // An empty variable is one, too.
        DeValue::String(text) => entry.doc.expand(text, entry.value.span())?,
        _ => {
            entry.wrong("a string");
            return None;
        }
    };
    if value.value().contains('\0') {
        entry.problem("must not contain the character NUL, which no variable can");
        return None;
    }
    Some((entry.key.to_owned(), value.value().to_owned()))
}

fn secret(entry: &Entry<'_>, base: &Path) -> Option<(String, SecretGrant)> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if entry.key.is_empty() || entry.key.len() > 64 || !entry.key.chars().all(plain) {
        entry.problem("is no name of a secret: it has letters, digits, `_` and `-`, 64 at most");
        return None;
    }
    if entry.value.get_ref().is_str() {
        let source = SecretSource::Value(value(entry, &entry.text()?)?);
        return Some((entry.key.to_owned(), SecretGrant { source, hosts: Vec::new() }));
    }
    let table = entry
        .table("the secret, or a table with `value` or `file`, such as { file = \"/run/secrets/key\" }")?;
    let source = match (table.text("value"), table.text("file")) {
        (Some(text), None) => value(entry, &text).map(SecretSource::Value),
        (None, Some(file)) => Some(SecretSource::File(base.join(file.value()))),
        (None, None) => {
            // A key that is there and wrong has been told already.
            if table.entry("value").is_none() && table.entry("file").is_none() {
                table.missing("value", "\"${API_KEY}\"` or `file = \"/run/secrets/key\"");
            }
            None
        }
        (Some(_), Some(file)) => {
            table.doc.error(file.at, "a secret has `value` or `file`, not both");
            None
        }
    };
    let hosts = table.texts("hosts");
    let hosts =
        hosts.iter().filter_map(|text| read(&table, "hosts", text, |value| Site::parse(value, text.written)));
    let hosts = hosts.collect();
    table.finish();
    Some((entry.key.to_owned(), SecretGrant { source: source?, hosts }))
}

/// What can stand in a header. No message shows it.
fn value(entry: &Entry<'_>, text: &Text<'_>) -> Option<String> {
    let value = text.value();
    if value.len() > LONGEST_SECRET || !fits_header(value) {
        entry.problem_at(
            text.at,
            "must fit a header: 8 KiB at most, and no line end or other control character",
        );
        return None;
    }
    Some(value.to_owned())
}

fn folder_grant(table: Table<'_>, base: &Path, others: &[FolderGrant]) -> Option<FolderGrant> {
    let path = table.required_text("path", "\"/srv/reports\"");
    let seen_as = match (table.entry("as"), &path) {
        (Some(entry), _) => entry.text().map(|text| (text.at, text.value().to_owned())),
        (None, Some(path)) if path.value().starts_with('/') => Some((path.at, path.value().to_owned())),
        (None, Some(_)) => {
            table.missing("as", "\"/reports\"");
            None
        }
        (None, None) => None,
    };
    let writable = table.choice("access", false, &[("read-only", false), ("read-write", true)]);
    let (at, seen_as) = seen_as.unzip();
    let at = at.unwrap_or(table.at);
    let doc = table.doc;
    table.finish();
    let (path, seen_as) = (path?, seen_as?);
    let trimmed = if seen_as == "/" { "/" } else { seen_as.trim_end_matches('/') };
    let plain = |segment: &str| !matches!(segment, "" | "." | "..");
    let is_plain = trimmed == "/" || trimmed.strip_prefix('/').is_some_and(|rest| rest.split('/').all(plain));
    if !is_plain || trimmed.contains('\0') {
        doc.error(at, "`as` must be a path from the root without `.`, `..` and `//`, such as \"/reports\"");
        return None;
    }
    if others.iter().any(|other| other.seen_as == trimmed) {
        doc.error(at, "two folders of `files` are seen at the same place: give each an `as` of its own");
        return None;
    }
    Some(FolderGrant { path: base.join(path.value()), seen_as: trimmed.to_owned(), writable })
}
