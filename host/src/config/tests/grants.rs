//! What a plugin is granted.

use super::*;

#[test]
fn no_message_about_a_grant_shows_what_a_variable_holds() {
    for database in ["${PG}", "sqlite:app.db"] {
        for key in [
            "name",
            "default",
            "url",
            "role",
            "schema",
            "access",
            "fence",
            "statement_timeout",
            "max_rows",
            "max_bytes",
            "max_open_transactions",
            "max_open_cursors",
            "max_running_statements",
            "other",
        ] {
            let name = if key == "name" { "" } else { "name = \"app\"\n" };
            let text = VALID
                .replace("sqlite:app.db", database)
                .replace("name = \"app\"\n", &format!("{name}{key} = \"${{SECRET_URL}}\"\n"));
            let shown = errors(&text).join("\n");
            let fine = ["role", "schema"].contains(&key) && database == "${PG}";
            assert!(fine != shown.contains(':') && !shown.contains("hunter2"), "{key}: {shown}");
        }
    }
}

#[test]
fn the_stores_login_on_another_database_and_another_login_on_its_database_are_not_told_by_the_text() {
    let with_url = |url: &str| {
        format!(
            "[store]\nurl = \"${{PG}}\"\n{}",
            VALID
                .replace("sqlite:app.db", "postgres://db.example/app")
                .replace("name = \"app\"\n", &format!("name = \"app\"\nurl = \"{url}\"\n"))
        )
    };
    assert_eq!(errors(&with_url("postgres://app@db.example/other")), [""; 0]);
    assert_eq!(errors(&with_url("postgres://other@db.example/app")), [""; 0]);
    let found = errors(&with_url("postgresql://app:any@DB.example:5432/app?sslmode=disable"));
    assert!(
        found[0].starts_with("12:7: `url` is the login and the database of the host's own store"),
        "{found:?}"
    );
}
