//! Whether two PostgreSQL URLs are one login on one database, as far as their text tells.

use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;

/// Who connects, and to what.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Login {
    server: Server,
    database: String,
    user: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Server {
    Host(String, u16),
    /// A socket's folder, and the number in its name.
    Socket(String, u16),
}

impl Login {
    /// As it would be connected to, with what the URL leaves out. `None` for a URL that cannot
    /// be connected to at all.
    pub(super) fn of(url: &str) -> Option<Self> {
        let options = PgConnectOptions::from_str(url).ok()?;
        let port = options.get_port();
        let server = match options.get_socket() {
            Some(folder) => Server::Socket(folder.display().to_string(), port),
            None => Server::Host(host(options.get_host()), port),
        };
        let user = options.get_username().to_owned();
        // The server takes the user's name where none is named.
        let database = options.get_database().unwrap_or(&user).to_owned();
        Some(Self { server, database, user })
    }
}

/// The ways to name this machine are one.
fn host(name: &str) -> String {
    let name = name.trim_matches(['[', ']']).to_ascii_lowercase();
    if ["127.0.0.1", "::1"].contains(&name.as_str()) { "localhost".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_login_is_found_however_it_is_written() {
        let same = |a: &str, b: &str| Login::of(a).unwrap() == Login::of(b).unwrap();
        let login = "postgres://inn@db.example/inn";
        assert!(same(login, "postgresql://inn:other-password@DB.example:5432/inn?application_name=x"));
        assert!(same("postgres://inn@localhost/inn", "postgres://inn@127.0.0.1/inn"));
        assert!(same("postgres://inn@[::1]/inn", "postgres://inn@127.0.0.1/inn"));
        assert!(same("postgres://inn@db.example", login), "the database has the user's name");
        for other in [
            "postgres://app@db.example/inn",
            "postgres://inn@db.example/app",
            "postgres://inn@db.example:5433/inn",
            "postgres://inn@other.example/inn",
            "postgres:///inn?host=/run/postgresql&user=inn",
        ] {
            assert!(!same(login, other), "{other}");
        }
    }
}
