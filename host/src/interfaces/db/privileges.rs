//! What the logins of the plugins may do that they should not: the login is the boundary
//! against SQL that means harm, and so it has to be one.
//!
//! `innkeeper check` refuses what is an error here, and `serve` logs it.

mod facts;
mod fence;

use std::collections::{BTreeMap, BTreeSet};

use self::facts::{Login, Names, Rights, Session};
use crate::config::{Config, ConfigError, GrantConfig, GrantKey, Location};
use crate::database_url::{self, DatabaseUrl};
use crate::job::Name;

/// Where the store keeps its tables.
const STORE_SCHEMA: &str = "innkeeper";

/// What was found out about the logins of all plugins.
#[derive(Debug, Default)]
pub struct Inspection {
    /// What must not be: a plugin could change the host's records, or cannot begin at all.
    pub errors: Vec<ConfigError>,
    /// What an operator should know.
    pub warnings: Vec<ConfigError>,
    /// Logins of a plugin's own that cannot be used now. That of a database is not among them:
    /// [`super::Database::check`] tells.
    pub unreachable: Vec<ConfigError>,
}

/// A grant in a PostgreSQL database.
#[derive(Clone, Copy)]
struct Granted<'a> {
    plugin: &'a Name,
    database: &'a Name,
    grant: &'a GrantConfig,
    /// The URL of the database, which those without a login of their own use.
    of_database: &'a str,
}

/// A login in a database, and the plugins that use it.
type Shared<'a> = (Login, Vec<Granted<'a>>);

/// Connects with each login that plugins have on PostgreSQL, one after the other, and asks what
/// it may do. Changes nothing.
pub async fn inspect(config: &Config) -> Inspection {
    let mut logins: BTreeMap<&str, Vec<Granted<'_>>> = BTreeMap::new();
    for (plugin, settings) in &config.plugins {
        for (database, grant) in &settings.databases {
            let of_database = match config.databases.get(database).map(|database| &database.url) {
                Some(DatabaseUrl::Postgres(url)) => url,
                _ => continue,
            };
            let url = grant.url.as_ref().unwrap_or(of_database);
            logins.entry(url).or_default().push(Granted { plugin, database, grant, of_database });
        }
    }
    let mut inspector = Inspector { config, store: None, found: Inspection::default() };
    if logins.is_empty() {
        return inspector.found;
    }
    if let DatabaseUrl::Postgres(url) = &config.store.url {
        // Whoever needs the store says why it cannot be reached.
        for server in database_url::servers(url) {
            inspector.store = Session::open(&server.url).await.ok();
            if inspector.store.is_some() {
                break;
            }
        }
    }
    let mut shared: Vec<Shared<'_>> = Vec::new();
    for (url, grants) in logins {
        if let Some(login) = inspector.look_at(url, &grants).await {
            let same = |(other, _): &&mut Shared<'_>| {
                other.user == login.user && other.database == login.database && other.is_on_server_of(&login)
            };
            match shared.iter_mut().find(same) {
                Some((_, others)) => others.extend(grants),
                None => shared.push((login, grants)),
            }
        }
    }
    for (login, grants) in &shared {
        inspector.look_at_sharing(login, grants);
    }
    if let Some(store) = inspector.store {
        store.close().await;
    }
    let mut found = inspector.found;
    for findings in [&mut found.errors, &mut found.warnings, &mut found.unreachable] {
        findings.sort();
    }
    found
}

struct Inspector<'a> {
    config: &'a Config,
    /// The host's own store, where it is on PostgreSQL and can be reached.
    store: Option<Session>,
    found: Inspection,
}

impl Inspector<'_> {
    /// Looks at one login for all that use it. Returns it where sharing it is worth a word.
    async fn look_at(&mut self, url: &str, grants: &[Granted<'_>]) -> Option<Login> {
        let mut session = match Session::open(url).await {
            Ok(session) => session,
            Err(why) => {
                self.note_unreachable(url, grants, &why);
                return None;
            }
        };
        let login = session.login.clone();
        for &granted in grants {
            self.note_other_database(granted, url);
            let GrantConfig { role, schema, .. } = granted.grant;
            let asked = match session.names(role.as_deref(), schema.as_deref()).await {
                Ok(names) => {
                    self.note_names(granted, &login, names);
                    self.look_at_fence(granted, &mut session).await
                }
                Err(why) => Err(why),
            };
            if let Err(why) = asked {
                self.note_unreachable(url, grants, &why);
                return None;
            }
        }
        session.close().await;
        if let Some(problem) = self.reach_into_store(&login).await {
            for granted in grants {
                let message = format!("{}: {problem}; {}", login_of(granted, &login), advice(granted));
                self.found.errors.push(self.at(granted, GrantKey::Url, message));
            }
            return None;
        }
        if let Some(powers) = powers(&login) {
            for granted in grants {
                let message = format!("{} {powers}; {}", login_of(granted, &login), advice(granted));
                self.found.warnings.push(self.at(granted, GrantKey::Url, message));
            }
        }
        (!login.superuser).then_some(login)
    }

    /// How a login reaches the host's own records, if it does.
    async fn reach_into_store(&mut self, login: &Login) -> Option<String> {
        let store = self.store.as_mut()?;
        if !login.is_on_server_of(&store.login) {
            return None;
        }
        if login.user == store.login.user {
            return Some(
                "it is the login of the host's own store, so that SQL of the plugin could change the host's \
                 records and end its sessions"
                    .to_owned(),
            );
        }
        if login.superuser {
            return Some(
                "it is a superuser, or may become one, on the server that has the host's own store, so that \
                 SQL of the plugin could change the host's records"
                    .to_owned(),
            );
        }
        match store.rights_of(&login.user, STORE_SCHEMA).await {
            Ok(Rights { is_store: true, .. }) => Some(format!(
                "it is a member of `{}`, the login of the host's own store, so that SQL of the plugin could \
                 change the host's records",
                store.login.user
            )),
            Ok(Rights { in_schema: true, .. }) => Some(format!(
                "it has rights, of its own or by a role, in schema `{STORE_SCHEMA}` of database `{}`, which is \
                 the host's own store",
                store.login.database
            )),
            Ok(_) => None,
            Err(why) => {
                tracing::debug!(error = why, "the store could not be asked what a plugin's login may do");
                None
            }
        }
    }

    fn note_names(&mut self, granted: Granted<'_>, login: &Login, names: Names) {
        let GrantConfig { role, schema, .. } = granted.grant;
        let (role, schema) = (role.as_deref().unwrap_or(&login.user), schema.as_deref().unwrap_or_default());
        let Granted { plugin, database, .. } = granted;
        match names {
            Names::Fine => {}
            Names::NoRole(why) => {
                let message = format!(
                    "plugin `{plugin}`: no transaction can begin in database `{database}`, because its login \
                     `{}` cannot take `role`: {why}; create the role, and `GRANT \"{role}\" TO \"{}\"`",
                    login.user, login.user
                );
                self.found.errors.push(self.at(&granted, GrantKey::Role, message));
            }
            Names::NoSchema => {
                let message = format!(
                    "plugin `{plugin}`: database `{database}` has no schema `{schema}`, so that names without \
                     one are found nowhere; create it, or correct the name"
                );
                self.found.warnings.push(self.at(&granted, GrantKey::Schema, message));
            }
            Names::SchemaDenied => {
                let message = format!(
                    "plugin `{plugin}`: `{role}` may not use schema `{schema}` of database `{database}`, so that \
                     names without one are found nowhere; `GRANT USAGE ON SCHEMA \"{schema}\" TO \"{role}\"`"
                );
                self.found.warnings.push(self.at(&granted, GrantKey::Schema, message));
            }
        }
    }

    /// The bound on connections, and all that is said about a database, is meant for one.
    fn note_other_database(&mut self, granted: Granted<'_>, url: &str) {
        let named = [url, granted.of_database].map(facts::database_named);
        if let [Some(own), Some(of_database)] = named
            && own != of_database
        {
            let Granted { plugin, database, .. } = granted;
            let message = format!(
                "plugin `{plugin}`: its `url` names database `{own}`, and that of [databases.{database}] names \
                 `{of_database}`: give `{own}` a [databases.NAME] of its own, or correct the `url`"
            );
            self.found.warnings.push(self.at(&granted, GrantKey::Url, message));
        }
    }

    /// Two plugins with one login have nothing between them but `role` and `schema`.
    fn look_at_sharing(&mut self, login: &Login, grants: &[Granted<'_>]) {
        let plugins: BTreeSet<&Name> = grants.iter().map(|granted| granted.plugin).collect();
        let Some(granted) = grants.iter().min_by_key(|granted| granted.plugin) else { return };
        if plugins.len() < 2 {
            return;
        }
        let message = format!(
            "plugins {} have one login, `{}`, in database `{}`: each can change what the other has and stop its \
             statements, since `role` and `schema` prevent accidents only; give each a login of its own, as `url` \
             in its [[plugins.NAME.databases]]",
            listed(&plugins),
            login.user,
            granted.database
        );
        self.found.warnings.push(self.at(granted, GrantKey::Url, message));
    }

    fn note_unreachable(&mut self, url: &str, grants: &[Granted<'_>], why: &str) {
        let url = DatabaseUrl::Postgres(url.to_owned());
        for granted in grants.iter().filter(|granted| granted.grant.url.is_some()) {
            let Granted { plugin, database, .. } = granted;
            let message = format!(
                "plugin `{plugin}`: its login in database `{database}` ({url}) cannot be used: {why}"
            );
            self.found.unreachable.push(self.at(granted, GrantKey::Url, message));
        }
    }

    fn at(&self, granted: &Granted<'_>, key: GrantKey, message: String) -> ConfigError {
        let location: Location = self.config.location_of_grant(granted.plugin, granted.database, key);
        ConfigError { location, message }
    }
}

fn login_of(granted: &Granted<'_>, login: &Login) -> String {
    format!("plugin `{}`: its login in database `{}`, `{}`", granted.plugin, granted.database, login.user)
}

/// What a login may do that no plugin needs.
fn powers(login: &Login) -> Option<String> {
    if login.superuser {
        return Some(
            "is a superuser, or may become one: SQL of the plugin can run programs and read files on the \
             server, and `role` and `schema` do not keep it from that"
                .to_owned(),
        );
    }
    if login.powers.is_empty() {
        return None;
    }
    let powers = login.powers.iter().map(String::as_str);
    Some(format!(
        "has {}: SQL of the plugin can reach beyond its database by that, and `role` and `schema` do not keep it \
         from doing so",
        listed(powers)
    ))
}

fn advice(granted: &Granted<'_>) -> String {
    let Granted { plugin, grant, .. } = granted;
    let place = if grant.url.is_some() { "here" } else { "in its grant" };
    format!(
        "create a login with no more rights than plugin `{plugin}` needs (`CREATE ROLE … LOGIN`), and name it as \
         `url` {place}"
    )
}

/// `a`, `b` and `c`.
fn listed(words: impl IntoIterator<Item = impl std::fmt::Display>) -> String {
    let mut words: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match words.pop() {
        Some(last) if words.is_empty() => last,
        Some(last) => format!("{} and {last}", words.join(", ")),
        None => String::new(),
    }
}
