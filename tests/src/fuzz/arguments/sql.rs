//! Statements of a small grammar: most of them are in order, some are not, and some are hardly any.

use std::fmt::Write as _;

use super::values::Choices;

/// Some statement for an engine.
pub(super) fn statement(choices: &mut Choices<'_>, postgres: bool) -> String {
    let mut text = match choices.below(12) {
        0..3 => format!("select {}", columns(choices, postgres)),
        3 => {
            format!("select {} from t where {}", columns(choices, postgres), expression(choices, postgres, 2))
        }
        4 => "select * from t".to_owned(),
        5 => format!(
            "insert into t (id, a) values ({}, {})",
            parameter(choices),
            expression(choices, postgres, 1)
        ),
        6 => format!("update t set a = {} where id < {}", expression(choices, postgres, 1), choices.byte()),
        7 => "delete from t returning *".to_owned(),
        8 => many_rows(choices, postgres),
        9 => deep(choices),
        _ => choices.of(if postgres { ODD_POSTGRES } else { ODD_SQLITE }).to_owned(),
    };
    if choices.rarely(8) {
        let at = text.floor_char_boundary(choices.below(text.len() + 1));
        text.insert_str(at, choices.of(MARKS));
    }
    text
}

const MARKS: &[&str] = &[
    "'", "\"", "\0", ";", "--", "/*", "*/", "$$", "$a$", "$0", "$65536", "?", "?0", "?32767", ":a", "@a",
    "\u{feff}", "é", "\\", "\n", "E'\\", "U&'", "x'", "[", "`", "(", ")",
];

fn parameter(choices: &mut Choices<'_>) -> String {
    // One place has one value, of which more can be right.
    format!("${}", [1, 1, 1, 2, 3][choices.below(5)])
}

fn columns(choices: &mut Choices<'_>, postgres: bool) -> String {
    let count = if choices.rarely(64) { 2_000 } else { 1 + choices.below(4) };
    (0..count).map(|_| expression(choices, postgres, 2)).collect::<Vec<_>>().join(", ")
}

fn expression(choices: &mut Choices<'_>, postgres: bool, depth: usize) -> String {
    let inner = |choices: &mut Choices<'_>| match depth {
        0 => parameter(choices),
        _ => expression(choices, postgres, depth - 1),
    };
    match choices.below(9) {
        0..3 => parameter(choices),
        3 => choices.of(LITERALS).to_owned(),
        4 if postgres => format!("{}::{}", parameter(choices), choices.of(TYPES)),
        5 if postgres => choices.of(VALUES).to_owned(),
        6 => format!("({} || {})", inner(choices), inner(choices)),
        7 => format!("coalesce({}, {})", inner(choices), inner(choices)),
        8 => format!("({} + {})", inner(choices), inner(choices)),
        _ => choices.of(&["id", "a", "n", "b", "count(*)", "null"]).to_owned(),
    }
}

const LITERALS: &[&str] = &[
    "0",
    "-1",
    "9223372036854775807",
    "9223372036854775808",
    "1e308",
    "1e309",
    "0.1",
    "''",
    "'a'",
    "x'00'",
    "null",
    "true",
    "current_timestamp",
    "'\u{10ffff}'",
];

const TYPES: &[&str] = &[
    "int2",
    "int4",
    "int8",
    "float4",
    "float8",
    "numeric",
    "numeric(3,1)",
    "text",
    "bpchar(3)",
    "varchar(2)",
    "name",
    "\"char\"",
    "bytea",
    "bool",
    "date",
    "time",
    "timetz",
    "timestamp",
    "timestamptz",
    "interval",
    "uuid",
    "json",
    "jsonb",
    "jsonpath",
    "xml",
    "inet",
    "cidr",
    "macaddr",
    "bit(3)",
    "varbit",
    "money",
    "oid",
    "regclass",
    "point",
    "box",
    "int4range",
    "nummultirange",
    "tsvector",
    "tsquery",
    "int8[]",
    "text[]",
    "float8[]",
    "bool[]",
    "numeric[]",
    "pg_lsn",
    "xid8",
    "record",
    "void",
    "hstore",
    "mood",
    "pair",
    "tiny",
];

const VALUES: &[&str] = &[
    "'infinity'::timestamptz",
    "'-infinity'::date",
    "'294276-12-31'::timestamp",
    "'4713-01-01 BC'::date",
    "'24:00'::time",
    "'NaN'::numeric",
    "'Infinity'::numeric",
    "'1e131071'::numeric",
    "'1e-16383'::numeric",
    "'{1,NULL,3}'::int8[]",
    "'{{1,2},{3,4}}'::int4[]",
    "'[5:6]={1,2}'::int4[]",
    "'{}'::text[]",
    "array[null]::float8[]",
    "'(1,a)'::pair",
    "row(1, row(2))",
    "'sad'::mood",
    "'[1,)'::int4range",
    "'1 mon -1 day'::interval",
    "'$1,000.00'::money",
    "'\\x00ff'::bytea",
    "b'101'",
    "'\"a\\u0000\"'::json",
    "'{\"a\":1e400}'::jsonb",
    "'a b'::tsvector",
    "'::1/128'::inet",
    "array(select generate_series(1, 3000))",
    "t",
    "t.*",
    "pg_sleep(0.01)",
    "repeat('x', 100000)",
    "current_setting('a.b', true)",
    "'<a/>'::xml",
    "null::record",
];

fn many_rows(choices: &mut Choices<'_>, postgres: bool) -> String {
    let count = 1_u32 << choices.below(19);
    let column = if choices.rarely(3) { "null" } else { "n" };
    match postgres {
        true => format!("select {column} from generate_series(1, {count}) n"),
        false => format!(
            "with recursive c(n) as (select 1 union all select n + 1 from c where n < {count}) select {column} from c"
        ),
    }
}

fn deep(choices: &mut Choices<'_>) -> String {
    let depth = 1 << choices.below(15);
    let mut text = String::from("select ");
    match choices.below(4) {
        0 => {
            let _ = write!(text, "{}1{}", "(".repeat(depth), ")".repeat(depth));
        }
        1 => {
            let _ = write!(text, "{}1", "- ".repeat(depth));
        }
        2 => {
            let _ = write!(text, "1{}", " + 1".repeat(depth));
        }
        _ => {
            let _ = write!(text, "{}1", "/*".repeat(depth));
        }
    }
    text
}

const ODD_SQLITE: &[&str] = &[
    "",
    " ",
    ";",
    "-- nothing",
    "begin",
    "commit",
    "savepoint a",
    "pragma user_version",
    "pragma journal_mode = delete",
    "attach ':memory:' as x",
    "vacuum",
    "select zeroblob(100000000)",
    "select randomblob(100000)",
    "select typeof($1), quote($1)",
    "select json_extract($1, '$')",
    "select printf('%1000000d', 1)",
    "create temp table x (a)",
    "create table u (a unique)",
    "drop table t",
    "alter table t rename to s",
    "explain select 1",
    "reindex",
    "select load_extension('x')",
    "with recursive c(n) as (select 1 union all select n + 1 from c) select count(*) from c",
    "select 1; select 2",
    "values (1), (2)",
    "insert into t (id) values (1), (1)",
    "insert into t (id, a) values (null, cast(x'ff' as text)) returning *",
    "select cast(x'c328' as text)",
    "select 9e999, -9e999",
    "select abs(-9223372036854775808)",
    "select ?1, ?9",
    "select :a, @b",
];

const ODD_POSTGRES: &[&str] = &[
    "",
    " ",
    ";",
    "-- nothing",
    "begin",
    "commit",
    "rollback",
    "savepoint a",
    "set role none",
    "set local statement_timeout = 0",
    "listen x",
    "notify x",
    "prepare p as select 1",
    "execute p",
    "declare c cursor for select 1",
    "fetch c",
    "copy t to stdout",
    "do $$ begin raise exception 'x' using errcode = '12345', detail = repeat('d', 100000); end $$",
    "do $$ begin commit; end $$",
    "do $$ begin raise notice '%', repeat('n', 100000); end $$",
    "create temp table x (a int)",
    "create table u (a int unique)",
    "drop table t",
    "lock table t",
    "explain select 1",
    "select 1; select 2",
    "values (1), (2)",
    "insert into t (id) values (1), (1)",
    "select pg_sleep(10)",
    "select pg_advisory_lock(1)",
    "with x as (delete from t returning *) select * from x",
    "select 1/0",
    "select $1::int / $2::int",
    "table t",
    "select from t",
    "select",
    "set transaction isolation level serializable",
    "select generate_series(1, 100000000)",
    "create function f() returns int language sql as 'select f()'",
    "select f()",
    "select * from t for update",
    "merge into t using t s on false when not matched then do nothing",
    "show all",
    "reset all",
    "discard all",
    "unlisten *",
    "set search_path = ''",
    "select set_config('search_path', '', true)",
    "create type mood as enum ('sad')",
    "create type pair as (a int, b text)",
    "create domain tiny as int check (value < 3)",
    "analyze t",
    "vacuum",
];
