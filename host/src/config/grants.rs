//! `[[plugins.NAME.databases]]`: what a plugin may do in which database.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::document::Text;
use super::login::Login;
use super::places::{GrantKey, GrantPlaces, Places};
use super::references::Names;
use super::table::{Table, in_binary_units};
use super::{DatabaseConfig, GrantConfig, LONGEST_TIMEOUT, SHORTEST_TIMEOUT, StoreConfig};
use crate::database_url::{self, DatabaseUrl};
use crate::job::Name;

/// What the rest of the file says that grants refer to.
pub(super) struct Surroundings<'a> {
    pub(super) names: &'a Names,
    /// Those that have nothing wrong.
    pub(super) databases: &'a BTreeMap<Name, DatabaseConfig>,
    pub(super) store: &'a StoreConfig,
}

/// The databases of a plugin and its default one. A single one is the default unless it says
/// otherwise.
pub(super) fn grants(
    tables: Vec<Table<'_>>,
    plugin: &Name,
    memory: u64,
    around: &Surroundings<'_>,
    places: &mut Places,
) -> (BTreeMap<Name, GrantConfig>, Option<Name>) {
    let single = tables.len() == 1;
    let (mut granted, mut default) = (BTreeMap::new(), None);
    for table in tables {
        let text = table.required_text("name", "\"app\"");
        let name = text.as_ref().and_then(|text| around.names.database(table.doc, text));
        let is_default = table.boolean("default");
        if is_default == Some(true) && default.is_some() {
            table.doc.error(table.at, "a plugin has one default database at most: leave one `default` out");
        }
        let mut place = GrantPlaces { header: table.doc.location(table.at), keys: BTreeMap::new() };
        let grant = grant(&table, name.as_ref(), memory, around, &mut place);
        if let (Some(text), Some(name)) = (text, name) {
            if is_default.unwrap_or(single) && default.is_none() {
                default = Some(name.clone());
            }
            places.grants.entry((plugin.clone(), name.clone())).or_insert(place);
            if granted.insert(name, grant).is_some() {
                table.doc.error(text.at, format!("the database `{}` is granted twice", text.written));
            }
        }
        table.finish();
    }
    (granted, default)
}

fn grant(
    table: &Table<'_>,
    name: Option<&Name>,
    memory: u64,
    around: &Surroundings<'_>,
    place: &mut GrantPlaces,
) -> GrantConfig {
    let defaults = GrantConfig::default();
    // Nothing is said about the engine of a database that has something wrong itself.
    let database = name.and_then(|name| Some((name, &around.databases.get(name)?.url)));
    let mut postgres_text = |key, noted, what| {
        let text = postgres_only(table, key, what, database)?;
        place.keys.insert(noted, table.doc.location(text.at));
        Some(text)
    };
    let url = postgres_text("url", GrantKey::Url, "a login of the plugin's own");
    let url = url.and_then(|text| login(table, &text, around.store));
    let role = postgres_text("role", GrantKey::Role, "the role that transactions take");
    let role = role.and_then(|text| identifier(table, "role", &text));
    let schema = postgres_text("schema", GrantKey::Schema, "where names are looked up");
    let schema = schema.and_then(|text| identifier(table, "schema", &text));
    let access = [("read-write", false), ("read-only", true)];
    let read_only = table.choice("access", defaults.read_only, &access);
    let many = 1..=u32::MAX;
    let max_rows = u32::try_from(defaults.max_rows).unwrap_or(u32::MAX);
    GrantConfig {
        url,
        role,
        schema,
        read_only,
        fence: fence(table, read_only, place),
        statement_timeout: table.entry("statement_timeout").map(|_| {
            let such_as = Duration::from_secs(30);
            table.duration("statement_timeout", such_as, SHORTEST_TIMEOUT..=LONGEST_TIMEOUT)
        }),
        max_rows: table.integer("max_rows", max_rows, many.clone()).into(),
        max_bytes: max_bytes(table, memory),
        max_open_transactions: {
            let key = "max_open_transactions";
            let written = table.entry(key).map(|entry| table.doc.location(entry.at()));
            place.keys.extend(written.map(|at| (GrantKey::MaxOpenTransactions, at)));
            table.integer(key, defaults.max_open_transactions, many.clone())
        },
        max_open_cursors: table.integer("max_open_cursors", defaults.max_open_cursors, many.clone()),
        max_running_statements: table
            .entry("max_running_statements")
            .map(|_| table.integer("max_running_statements", 1, many)),
    }
}

/// The text of a key that only PostgreSQL knows.
fn postgres_only<'a>(
    table: &Table<'a>,
    key: &'static str,
    what: &str,
    database: Option<(&Name, &DatabaseUrl)>,
) -> Option<Text<'a>> {
    let entry = table.entry(key)?;
    if let Some((name, DatabaseUrl::Sqlite(_))) = database {
        let message = format!(
            "`{key}` is for PostgreSQL only: it is {what}, and database `{name}` is a SQLite file, which has \
             no logins, roles and schemas; leave it out"
        );
        table.doc.error(entry.key_at, message);
        return None;
    }
    entry.text()
}

/// A login of the plugin's own.
fn login(table: &Table<'_>, text: &Text<'_>, store: &StoreConfig) -> Option<String> {
    let wrong = |problem: String| {
        table.doc.error(text.at, format!("`url` {problem}"));
        None
    };
    let url = match DatabaseUrl::parse(text.value(), Path::new("")) {
        Ok(DatabaseUrl::Postgres(url)) => url,
        Err(error) if text.value().starts_with("postgres") => return wrong(error.to_string()),
        Ok(DatabaseUrl::Sqlite(_)) | Err(_) => {
            return wrong(
                "must begin with `postgres://`, such as `postgres://maintenance@db.example/app`: it is a login \
                 of the plugin's own"
                    .to_owned(),
            );
        }
    };
    if database_url::servers(&url).len() > 1 {
        return wrong("must name one server: plugins have no choice of several".to_owned());
    }
    if let DatabaseUrl::Postgres(of_store) = &store.url
        && let Some(login) = Login::of(&url)
        && database_url::servers(of_store)
            .iter()
            .any(|server| Login::of(&server.url).as_ref() == Some(&login))
    {
        return wrong(
            "is the login and the database of the host's own store, whose records the plugin could then \
             change; create a login for the plugin (`CREATE ROLE … LOGIN`), without rights in the store's schema"
                .to_owned(),
        );
    }
    Some(url)
}

/// What PostgreSQL takes as a name, between double quotes.
fn identifier(table: &Table<'_>, key: &str, text: &Text<'_>) -> Option<String> {
    /// Longer names are cut, and then mean another thing (`NAMEDATALEN`).
    const LONGEST: usize = 63;
    let name = text.value();
    let problem = if name.contains('\0') {
        "must not contain the character NUL, which PostgreSQL has not".to_owned()
    } else if name.len() > LONGEST {
        format!("must have {LONGEST} bytes at most, as names in PostgreSQL have; this has {}", name.len())
    } else if key == "role" && ["none", "public"].contains(&name) {
        format!("must be the name of a role, and `{name}` is a word of PostgreSQL's for no role")
    } else {
        return Some(name.to_owned());
    };
    table.doc.error(text.at, format!("`{key}` {problem}"));
    None
}

/// Whether commits pass a fence, of which there are none where nothing is written.
fn fence(table: &Table<'_>, read_only: bool, place: &mut GrantPlaces) -> bool {
    let Some(entry) = table.entry("fence") else { return false };
    place.keys.insert(GrantKey::Fence, table.doc.location(entry.at()));
    let fence = table.boolean("fence") == Some(true);
    if fence && read_only {
        let message = "`fence` keeps late commits out, and a plugin with `access = \"read-only\"` has nothing to \
                       commit; leave one of the two out";
        table.doc.error(entry.key_at, message);
    }
    fence
}

/// Bytes of one result, which the guest has to have memory for.
fn max_bytes(table: &Table<'_>, memory: u64) -> Option<u64> {
    let entry = table.entry("max_bytes")?;
    let bytes = table.bytes("max_bytes", 1 << 20, 1 << 10..=4 << 30);
    if bytes > memory {
        let memory = in_binary_units(memory);
        let message = format!(
            "`max_bytes` must not be more than the plugin's memory, which a result has to fit into: lower it, or \
             raise `limits.memory`, which is {memory}"
        );
        table.doc.error(entry.at(), message);
    }
    Some(bytes)
}
