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
    /// A `postgres://` URL, password and all.
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
}

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
        if names_a_server(rest) { Ok(Self::Postgres(text.to_owned())) } else { Err(InvalidUrl::Server) }
    }
}

/// Whether `[user[:password]@][host][:port][/database][?parameters]` has a host, or a
/// parameter that names one (a socket's folder), and a port that fits 16 bits if it has one.
fn names_a_server(rest: &str) -> bool {
    let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = place.split('/').next().unwrap_or_default();
    let server = authority.rsplit_once('@').map_or(authority, |(_, server)| server);
    let (host, port) = match server.rsplit_once(':') {
        // The colons of an IPv6 address are inside its brackets.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (server, None),
    };
    let has_host = !host.is_empty() || parameters.split('&').any(|one| one.starts_with("host"));
    has_host && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
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
    fn what_is_no_url_is_told_apart() {
        use InvalidUrl::{Memory, NoFile, Scheme, Server, SqliteParameters};
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
