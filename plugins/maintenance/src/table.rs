//! A table to delete from: the plugin's configuration, and the SQL that follows from it.

use std::collections::BTreeMap;

use innkeeper_sdk::config::Error;
use innkeeper_sdk::db::Value;

use crate::cutoff::TimeFormat;

/// The part of the configuration that a handler reads, with its defaults.
pub struct Section {
    /// What its keys begin with.
    pub name: &'static str,
    table: &'static str,
    key_column: &'static str,
    /// The key that names the column with the time, and the column that it names by default.
    time_column: (&'static str, &'static str),
}

/// The sessions of a web application.
pub const SESSIONS: Section = Section {
    name: "sessions",
    table: "sessions",
    key_column: "id",
    time_column: ("expires_column", "expires_at"),
};

/// What was done, and when.
pub const AUDIT: Section = Section {
    name: "audit",
    table: "audit_log",
    key_column: "id",
    time_column: ("created_column", "created_at"),
};

/// A table whose rows are deleted when their time is before a cutoff.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Quoted, with its schema if it has one.
    table: String,
    /// Quoted.
    key_column: String,
    /// Quoted.
    time_column: String,
    time_format: TimeFormat,
}

/// What a run executes.
#[derive(Clone, Debug, PartialEq)]
pub struct Statements {
    /// Counts the rows to delete.
    pub count: String,
    /// The parameters of `count`.
    pub count_params: Vec<Value>,
    /// Deletes some of them.
    pub delete: String,
    /// The parameters of `delete`.
    pub delete_params: Vec<Value>,
}

impl Table {
    /// Reads the section of the plugin's configuration.
    ///
    /// # Errors
    /// A value that is not valid, or a key that is none of the plugin's: with a default in its
    /// place, a misspelt one would point the plugin at another table.
    pub fn from_config(section: &Section, config: &BTreeMap<String, String>) -> Result<Self, Error> {
        refuse_unknown_keys(config)?;
        let read = |key: &str, default: &str, quote: fn(&str) -> Result<String, String>| {
            let key = format!("{}.{key}", section.name);
            let value = config.get(&key).map_or(default, String::as_str);
            quote(value).map_err(|reason| Error::Invalid { key, value: value.to_owned(), reason })
        };
        let format_key = format!("{}.time_format", section.name);
        let format = config.get(&format_key).map_or("timestamp", String::as_str);
        Ok(Self {
            table: read("table", section.table, quote_table)?,
            key_column: read("key_column", section.key_column, quote)?,
            time_column: read(section.time_column.0, section.time_column.1, quote)?,
            time_format: format.parse().map_err(|reason| Error::Invalid {
                key: format_key,
                value: format.to_owned(),
                reason,
            })?,
        })
    }

    /// How the table stores times.
    #[must_use]
    pub fn time_format(&self) -> TimeFormat {
        self.time_format
    }

    /// The statements for a cutoff, in microseconds since 1970.
    ///
    /// Columns are qualified because SQLite takes a quoted name that is no column to be text,
    /// but not a qualified one.
    ///
    /// The condition is there twice because the rows are chosen before they are locked: on
    /// PostgreSQL another transaction can renew a session in between, and only the condition of
    /// the `delete` itself is looked at again. It also keeps what is not old if the key column
    /// should not be unique.
    ///
    /// The rows have no order, so that the database takes them from where it finds them first:
    /// an index on the time, or the table itself where many rows are old. With an order, each
    /// batch of a table that has no such index would read the whole table.
    #[must_use]
    pub fn statements(&self, cutoff: i64, batch_size: u32) -> Statements {
        let Self { table, key_column, time_column, time_format } = self;
        let (condition, count_params) = time_format.before(&format!("t.{time_column}"), cutoff);
        let limit = count_params.len() + 1;
        let mut delete_params = count_params.clone();
        delete_params.push(Value::from(batch_size));
        Statements {
            count: format!("select count(*) from {table} as t where {condition}"),
            delete: format!(
                "delete from {table} as t where t.{key_column} in \
                 (select t.{key_column} from {table} as t where {condition} limit ${limit}) and {condition}"
            ),
            count_params,
            delete_params,
        }
    }
}

fn refuse_unknown_keys(config: &BTreeMap<String, String>) -> Result<(), Error> {
    let known: Vec<String> = [SESSIONS, AUDIT]
        .iter()
        .flat_map(|section| {
            ["table", "key_column", section.time_column.0, "time_format"]
                .map(|key| format!("{}.{key}", section.name))
        })
        .collect();
    match config.iter().find(|(key, _)| !known.contains(key)) {
        None => Ok(()),
        Some((key, value)) => Err(Error::Invalid {
            key: key.clone(),
            value: value.clone(),
            reason: format!("there is no such setting; the settings are {}", known.join(", ")),
        }),
    }
}

/// Quotes the name of a table, or of a schema and a table with a dot between them.
fn quote_table(name: &str) -> Result<String, String> {
    match name.split('.').collect::<Vec<_>>()[..] {
        [table] => quote(table),
        [schema, table] => Ok(format!("{}.{}", quote(schema)?, quote(table)?)),
        _ => Err("it must be \"table\" or \"schema.table\"".to_owned()),
    }
}

/// Quotes a name as SQL does: between double quotes, with those in it doubled.
fn quote(name: &str) -> Result<String, String> {
    if name.is_empty() {
        return Err("a name must not be empty".to_owned());
    }
    if name.contains('\0') {
        return Err("a name must not contain the character NUL".to_owned());
    }
    Ok(format!("\"{}\"", name.replace('"', "\"\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn refusal(pairs: &[(&str, &str)]) -> String {
        Table::from_config(&SESSIONS, &config(pairs)).unwrap_err().to_string()
    }

    #[test]
    fn names_are_quoted_so_that_nothing_in_them_is_sql() {
        assert_eq!(quote("plain").unwrap(), "\"plain\"");
        assert_eq!(quote("Mixed Case").unwrap(), "\"Mixed Case\"");
        assert_eq!(quote("x\"; drop table y; --").unwrap(), "\"x\"\"; drop table y; --\"");
        assert_eq!(quote("größe").unwrap(), "\"größe\"");
        assert_eq!(quote_table("web.django_session").unwrap(), "\"web\".\"django_session\"");
        assert_eq!(quote_table("a\".\"b").unwrap(), "\"a\"\"\".\"\"\"b\"");
        for wrong in ["", ".", "a.", ".b", "a.b.c", "a\0b"] {
            assert!(quote_table(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn without_configuration_there_are_defaults() {
        let sessions = Table::from_config(&SESSIONS, &config(&[])).unwrap();
        assert_eq!(
            sessions,
            Table {
                table: "\"sessions\"".into(),
                key_column: "\"id\"".into(),
                time_column: "\"expires_at\"".into(),
                time_format: TimeFormat::Timestamp,
            }
        );
        let audit = Table::from_config(&AUDIT, &config(&[])).unwrap();
        assert_eq!((&*audit.table, &*audit.time_column), ("\"audit_log\"", "\"created_at\""));
    }

    #[test]
    fn each_handler_reads_its_own_section() {
        let config = config(&[
            ("sessions.table", "django_session"),
            ("sessions.key_column", "session_key"),
            ("sessions.expires_column", "expire_date"),
            ("sessions.time_format", "text"),
            ("audit.created_column", "at"),
        ]);
        let sessions = Table::from_config(&SESSIONS, &config).unwrap();
        assert_eq!(sessions.table, "\"django_session\"");
        assert_eq!(sessions.key_column, "\"session_key\"");
        assert_eq!(sessions.time_column, "\"expire_date\"");
        assert_eq!(sessions.time_format, TimeFormat::Text);
        let audit = Table::from_config(&AUDIT, &config).unwrap();
        assert_eq!((&*audit.table, &*audit.time_column), ("\"audit_log\"", "\"at\""));
    }

    #[test]
    fn a_setting_that_is_not_valid_is_refused_by_its_key() {
        assert!(refusal(&[("sessions.table", "")]).starts_with("sessions.table = \"\""));
        assert!(
            refusal(&[("sessions.time_format", "epoch")]).starts_with("sessions.time_format = \"epoch\"")
        );
        let misspelt = refusal(&[("sessions.expire_column", "x")]);
        assert!(misspelt.starts_with("sessions.expire_column"), "{misspelt}");
        assert!(misspelt.contains("sessions.expires_column"), "{misspelt}");
        assert!(refusal(&[("table", "x")]).contains("there is no such setting"));
    }

    #[test]
    fn a_batch_deletes_only_what_the_condition_holds_for() {
        let pairs = [("sessions.table", "web.s"), ("sessions.time_format", "seconds")];
        let table = Table::from_config(&SESSIONS, &config(&pairs)).unwrap();
        let statements = table.statements(5_000_000, 100);
        assert_eq!(
            statements.delete,
            "delete from \"web\".\"s\" as t where t.\"id\" in (select t.\"id\" from \"web\".\"s\" as t where \
             t.\"expires_at\" < cast($1 as bigint) and t.\"expires_at\" > 0 limit $2) and \
             t.\"expires_at\" < cast($1 as bigint) and t.\"expires_at\" > 0"
        );
        assert_eq!(statements.delete_params, [Value::Integer(5), Value::Integer(100)]);
        assert_eq!(
            statements.count,
            "select count(*) from \"web\".\"s\" as t where \
             t.\"expires_at\" < cast($1 as bigint) and t.\"expires_at\" > 0"
        );
        assert_eq!(statements.count_params, [Value::Integer(5)]);
    }
}
