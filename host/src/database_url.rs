//! Where a database is, on which of the two engines.
//!
//! Pure. A URL carries a password: neither `Debug` nor `Display` shows it.

use std::fmt;
use std::path::PathBuf;

/// A database of one of the two engines.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A SQLite file, its path resolved.
    Sqlite(PathBuf),
    /// A `postgres://` URL, password and all.
    Postgres(String),
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
