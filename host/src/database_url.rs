//! Where a database is, on which of the two engines.
//!
//! Pure. A URL carries a password: neither `Debug` nor `Display` shows it.

use std::fmt;
use std::path::{Path, PathBuf};

/// A database of one of the two engines.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A SQLite file, its path resolved.
    Sqlite(PathBuf),
    /// A `postgres://` URL, password and all. It may name several servers; see [`servers`].
    Postgres(String),
}

/// Why a text is no [`DatabaseUrl`]. The text itself is not part of it: it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// It begins with nothing that is known.
    #[error(
        "must begin with `sqlite:` or `postgres://`, such as `sqlite:app.db` or \
         `postgres://app@db.example/app`"
    )]
    Scheme,
    /// No file after `sqlite:`.
    #[error("must name a file after `sqlite:`, such as `sqlite:app.db`")]
    NoFile,
    /// `sqlite::memory:`.
    #[error(
        "must name a file: a SQLite database in memory would be a new, empty one for each connection; \
         write `sqlite:app.db`"
    )]
    Memory,
    /// A SQLite URL with parameters.
    #[error("must not have parameters after the file (`?…`): SQLite databases take none here")]
    SqliteParameters,
    /// No server, or a port that is none.
    #[error(
        "must name a server and a port that exists, as in `postgres://app@db.example:5432/app`; write `/`, \
         `?`, `#` and `%` in a password as `%2F`, `%3F`, `%23` and `%25`"
    )]
    Server,
    /// `target_session_attrs` with another value than those that are known.
    #[error(
        "has a `target_session_attrs` that is not known here: write `read-write` for a server that takes \
         writes, or `any`"
    )]
    TargetSessionAttrs,
}

/// One of the servers that a URL names.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    /// A URL that names it alone.
    pub url: String,
    /// Its host, and its port if the URL has one.
    pub name: String,
    /// A connection to it is of use only if it takes writes.
    pub must_take_writes: bool,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The servers of a `postgres://` URL, in the order in which they are tried:
/// `postgres://app@a.example:5432,b.example/app?target_session_attrs=read-write`, as libpq
/// writes it (<https://www.postgresql.org/docs/current/libpq-connect.html>). Where there are
/// several, they are to take writes unless the URL says `any`: all but one will be standbys.
#[must_use]
pub fn servers(url: &str) -> Vec<Server> {
    let (start, parameters) = url.split_once('?').unwrap_or((url, ""));
    let (scheme, rest) = start.split_once("://").unwrap_or(("postgres", start));
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let (login, hosts) = authority
        .rsplit_once('@')
        .map_or(("", authority), |(_, hosts)| authority.split_at(authority.len() - hosts.len()));
    let wanted = parameters.split('&').find_map(|one| one.strip_prefix(TARGET)).unwrap_or_default();
    let kept = parameters.split('&').filter(|one| !one.starts_with(TARGET)).collect::<Vec<_>>().join("&");
    let kept = if kept.is_empty() { kept } else { format!("?{kept}") };
    let must_take_writes = match wanted {
        "" => hosts.contains(','),
        wanted => wanted != "any",
    };
    let server = |name: &str| Server {
        url: format!("{scheme}://{login}{name}{path}{kept}"),
        name: name.to_owned(),
        must_take_writes,
    };
    hosts.split(',').map(server).collect()
}

/// What a server must be like, and what it may be.
const TARGET: &str = "target_session_attrs=";
const TARGETS: &[&str] = &["any", "read-write", "primary"];

impl DatabaseUrl {
    /// Reads `sqlite:PATH`, `sqlite://PATH`, `postgres://…` or `postgresql://…`. A relative
    /// path is one in `data_dir`; a path is taken as it is written, `%` and all.
    ///
    /// # Errors
    /// Where it is none of these, or asks for what is not supported.
    pub fn parse(text: &str, data_dir: &Path) -> Result<Self, InvalidUrl> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" => Err(InvalidUrl::NoFile),
                ":memory:" => Err(InvalidUrl::Memory),
                path if path.contains('?') => Err(InvalidUrl::SqliteParameters),
                path if path.ends_with(['/', '\0']) => Err(InvalidUrl::NoFile),
                path => Ok(Self::Sqlite(data_dir.join(path))),
            };
        }
        let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
        let rest = rest.ok_or(InvalidUrl::Scheme)?;
        if !names_servers(rest) {
            return Err(InvalidUrl::Server);
        }
        let parameters = rest.split_once('?').map_or("", |(_, parameters)| parameters);
        let mut targets = parameters.split('&').filter_map(|one| one.strip_prefix(TARGET));
        if targets.any(|target| !TARGETS.contains(&target)) {
            return Err(InvalidUrl::TargetSessionAttrs);
        }
        Ok(Self::Postgres(text.to_owned()))
    }
}

/// Whether `[user[:password]@][host][:port],…[/database][?parameters]` has hosts, or a
/// parameter that names one (a socket's folder), and ports that fit 16 bits where it has any.
fn names_servers(rest: &str) -> bool {
    let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = place.split('/').next().unwrap_or_default();
    let servers = authority.rsplit_once('@').map_or(authority, |(_, servers)| servers);
    let has_parameter = parameters.split('&').any(|one| one.starts_with("host"));
    servers.split(',').all(|server| {
        let (host, port) = match server.rsplit_once(':') {
            // The colons of an IPv6 address are inside its brackets.
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (server, None),
        };
        let has_host = !host.is_empty() || (has_parameter && !servers.contains(','));
        has_host && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
    })
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => f.write_str(&without_password(url)),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Cuts out what stands between the user's name and the host, and every parameter, since
/// `password` and `sslpassword` may be given as one.
fn without_password(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else { return "postgres://…".to_owned() };
    // The last `@` before the path ends the login, since a password may hold one itself.
    let Some((login, place)) = rest.rsplit_once('@') else { return url.to_owned() };
    let user = login.split(':').next().unwrap_or_default();
    format!("{scheme}://{user}@{place}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlite_path_is_relative_to_the_data_directory_or_absolute() {
        for (url, path) in [
            ("sqlite:app.db", "/data/app.db"),
            ("sqlite://app.db", "/data/app.db"),
            ("sqlite:sub/app.db", "/data/sub/app.db"),
            ("sqlite:/srv/app.db", "/srv/app.db"),
            ("sqlite:///srv/app.db", "/srv/app.db"),
        ] {
            assert_eq!(
                DatabaseUrl::parse(url, Path::new("/data")),
                Ok(DatabaseUrl::Sqlite(path.into())),
                "{url}"
            );
        }
    }

    #[test]
    fn a_postgres_url_is_kept_as_it_is() {
        for url in [
            "postgres://app:s3cret@db.example:5432/app?sslmode=verify-full",
            "postgresql://db.example",
            "postgres://app@[::1]/app",
            "postgres://app@[::1]:5432/app",
            "postgres:///app?host=/run/postgresql",
        ] {
            let parsed = DatabaseUrl::parse(url, Path::new("/data"));
            assert_eq!(parsed, Ok(DatabaseUrl::Postgres(url.into())), "{url}");
        }
    }

    #[test]
    fn a_url_may_name_several_servers_one_of_which_takes_writes() {
        let all = |url: &str| {
            let DatabaseUrl::Postgres(url) = DatabaseUrl::parse(url, Path::new("/")).unwrap() else {
                panic!("{url}")
            };
            let one = |server: Server| (server.url, server.name, server.must_take_writes);
            servers(&url).into_iter().map(one).collect::<Vec<_>>()
        };
        let server = |url: &str, name: &str, writes| (url.to_owned(), name.to_owned(), writes);
        assert_eq!(
            all("postgres://inn:s3,c@ret@a.example:5433,[::1],c/inn?sslmode=require"),
            [
                server("postgres://inn:s3,c@ret@a.example:5433/inn?sslmode=require", "a.example:5433", true),
                server("postgres://inn:s3,c@ret@[::1]/inn?sslmode=require", "[::1]", true),
                server("postgres://inn:s3,c@ret@c/inn?sslmode=require", "c", true),
            ]
        );
        assert_eq!(
            all("postgres://a,b/inn?target_session_attrs=any"),
            [server("postgres://a/inn", "a", false), server("postgres://b/inn", "b", false)]
        );
        assert_eq!(all("postgres://inn@a"), [server("postgres://inn@a", "a", false)]);
        assert_eq!(
            all("postgres://a/inn?target_session_attrs=read-write&sslmode=disable"),
            [server("postgres://a/inn?sslmode=disable", "a", true)]
        );
        let socket = "postgres:///app?host=/run/postgresql";
        assert_eq!(all(socket), [server(socket, "", false)]);
    }

    #[test]
    fn what_is_no_url_is_told_apart() {
        use InvalidUrl::{Memory, NoFile, Scheme, Server, SqliteParameters, TargetSessionAttrs};
        for (url, error) in [
            ("", Scheme),
            ("app.db", Scheme),
            ("mysql://db/app", Scheme),
            ("postgres:app", Scheme),
            ("sqlite:", NoFile),
            ("sqlite://", NoFile),
            ("sqlite:data/", NoFile),
            ("sqlite::memory:", Memory),
            ("sqlite:app.db?mode=ro", SqliteParameters),
            ("postgres://", Server),
            ("postgres:///app", Server),
            ("postgres://app@/app", Server),
            ("postgres://db:port/app", Server),
            ("postgres://db:0/app", Server),
            ("postgres://db:99999/app", Server),
            ("postgres://app:pass/word@db/app", Server),
            ("postgres://a,/app", Server),
            ("postgres://a,b:0/app", Server),
            ("postgres://,/app?host=/run", Server),
            ("postgres://a,b/app?target_session_attrs=standby", TargetSessionAttrs),
        ] {
            assert_eq!(DatabaseUrl::parse(url, Path::new("/data")), Err(error), "{url}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        for url in [
            "postgres://app:s3cret@db.example:5432/app",
            "postgres://app:s3c@ret@db.example/app",
            "postgres://app@db.example/app?password=s3cret",
        ] {
            let url = DatabaseUrl::Postgres(url.to_owned());
            for shown in [url.to_string(), format!("{url:?}")] {
                assert!(!shown.contains("ret") && !shown.contains("s3c"), "{shown}");
                assert!(shown.contains("app@db.example"), "{shown}");
            }
        }
    }
}
