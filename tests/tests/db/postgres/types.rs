//! Types that pass as text, by the host's casts.

use std::time::{Duration, Instant};

use innkeeper::interfaces::db::{ErrorKind, Value};

use super::{first_column, one};
use crate::database::Engine;
use crate::{Scene, assert_kind, int, options, show, text};

fn other(text: &str) -> Value {
    Value::Other(text.to_owned())
}

/// Columns of types that the host has no binary form for, and a value of each as the server
/// writes it.
const TYPES: [(&str, &str, &str); 22] = [
    ("a", "inet", "10.0.0.1"),
    ("b", "cidr", "10.0.0.0/8"),
    ("c", "interval", "1 day 02:03:04"),
    ("d", "tsvector", "'cat':3 'fat':2"),
    ("e", "int4range", "[1,5)"),
    ("f", "money", "$12.50"),
    ("g", "point", "(1,2)"),
    ("h", "timetz", "12:34:56+00"),
    ("i", "bit(3)", "101"),
    ("j", "varbit", "10101"),
    ("k", "macaddr", "08:00:2b:01:02:03"),
    ("l", "pair", "(1,\"a b\")"),
    ("m", "inet[]", "{10.0.0.1,NULL}"),
    ("n", "numeric[]", "{1.50,NULL}"),
    ("o", "uuid[]", "{0190163d-8694-739b-aea5-966c26f8ad91}"),
    ("p", "timestamptz[]", "{\"2024-02-29 12:34:56.789+00\"}"),
    ("q", "jsonb[]", "{\"{\\\"a\\\": 1}\"}"),
    ("r", "bytea[]", "{\"\\\\x00ff\"}"),
    ("s", "address", "10.0.0.1"),
    ("t", "xml", "<a>1</a>"),
    ("u", "regclass", "pg_class"),
    ("v", "int4[]", "{{1,2},{3,4}}"),
];

async fn scene_with_types() -> Scene {
    let scene = Scene::new(Engine::Postgres).await;
    let columns: Vec<String> = TYPES.iter().map(|(name, kind, _)| format!("{name} {kind}")).collect();
    let create = format!(
        "CREATE TYPE pair AS (x int4, y text); CREATE DOMAIN address AS inet; CREATE TABLE w ({})",
        columns.join(", ")
    );
    scene.outside.run(&create).await;
    scene
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_type_goes_in_and_comes_out_as_the_servers_text() {
    let scene = scene_with_types().await;
    let session = scene.session();
    for (column, kind, value) in TYPES {
        for given in [text(value), other(value)] {
            let insert = format!("INSERT INTO w ({column}) VALUES ($1) RETURNING {column}");
            let returned = one(&session, &insert, vec![given.clone()]).await;
            assert_eq!(show(&returned), show(&other(value)), "{kind}");
            let read = one(&session, &format!("SELECT {column} FROM w"), vec![]).await;
            assert_eq!(show(&read), show(&other(value)), "{kind}");
            session.execute("DELETE FROM w".into(), vec![]).await.unwrap();
        }
        // NULL needs no text.
        session.execute(format!("INSERT INTO w ({column}) VALUES ($1)"), vec![Value::Null]).await.unwrap();
        let read = one(&session, &format!("SELECT {column} FROM w"), vec![]).await;
        assert_eq!(show(&read), show(&Value::Null), "{kind}");
        session.execute("DELETE FROM w".into(), vec![]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_columns_are_called_as_the_statement_calls_them() {
    let scene = scene_with_types().await;
    let session = scene.session();
    let rows = session.query("SELECT 1 AS a, a, a AS \"A b\" FROM w".into(), vec![]).await.unwrap();
    let columns: Vec<_> = rows.columns.iter().map(|c| (c.name.as_str(), c.type_name.as_str())).collect();
    assert_eq!(columns, [("a", "int4"), ("a", "inet"), ("A b", "inet")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_statement_brings_any_type() {
    let scene = scene_with_types().await;
    let session = scene.session();
    for (sql, params, expected) in [
        ("SELECT inet '1.2.3.4' -- a comment", vec![], "1.2.3.4"),
        (" ;; /* ; */ SELECT inet '1.2.3.4'; --;", vec![], "1.2.3.4"),
        ("(SELECT inet '1.2.3.4') UNION ALL (SELECT NULL LIMIT 0)", vec![], "1.2.3.4"),
        ("VALUES (inet '1.2.3.4')", vec![], "1.2.3.4"),
        ("WITH w AS (SELECT inet '1.2.3.4' AS a) SELECT a FROM w", vec![], "1.2.3.4"),
        ("INSERT INTO w (a) VALUES ($1) RETURNING a", vec![text("1.2.3.4")], "1.2.3.4"),
        ("TABLE shown", vec![], "1.2.3.4"),
        ("UPDATE w SET a = $1 WHERE a = $2 RETURNING a", vec![text("5.6.7.8"), text("1.2.3.4")], "5.6.7.8"),
        ("SELECT a FROM w FOR UPDATE", vec![], "5.6.7.8"),
        ("WITH x AS (SELECT 1) DELETE FROM w RETURNING a", vec![], "5.6.7.8"),
        ("SELECT ROW(1, NULL, 'a')", vec![], "(1,,a)"),
        ("SELECT ROW(NULL, NULL)", vec![], "(,)"),
        ("SELECT interval '1 day' * $1", vec![Value::Float(2.0)], "2 days"),
        ("SELECT '$1 ''$1' || $1 || $$ $1 $$, inet '1.2.3.4'", vec![text("x")], "$1 '$1x $1 "),
        ("SELECT E'\\'$1' || abbrev($1::inet)", vec![text("10.1.0.0")], "'$110.1.0.0"),
        ("SELECT host($1), $1::cidr", vec![text("10.0.0.0")], "10.0.0.0"),
    ] {
        if sql == "TABLE shown" {
            scene.outside.run("CREATE VIEW shown AS SELECT a FROM w").await;
        }
        let read = session.query(sql.into(), params).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let shown = show(&read.rows[0][0]);
        assert!([show(&other(expected)), show(&text(expected))].contains(&shown), "{sql}: {shown}");
        assert_eq!(read.rows.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_of_the_rows_is_that_of_the_statement() {
    let scene = Scene::new(Engine::Postgres).await;
    scene
        .outside
        .run(
            "CREATE TABLE n AS SELECT i, inet '10.0.0.0' + i AS ip FROM generate_series(1, 20000) i \
             ORDER BY random(); ANALYZE n",
        )
        .await;
    let session = scene.session();
    let rows = session.query("SELECT i, ip FROM n ORDER BY i DESC".into(), vec![]).await.unwrap();
    let numbers: Vec<String> = rows.rows.iter().map(|row| show(&row[0])).collect();
    assert_eq!(numbers, (1..=20_000).rev().map(|i| show(&int(i))).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_cast_cannot_be_put_the_error_says_which_to_write() {
    let scene = scene_with_types().await;
    let session = scene.session();
    for (sql, params, advice) in [
        // Such a WITH is only allowed at the top.
        ("WITH x AS (INSERT INTO w (a) VALUES ('1.2.3.4') RETURNING a) SELECT a FROM x", vec![], "`a::text`"),
        ("SELECT '\\' || abbrev($1::inet) || '", vec![text("1.2.3.4")], "`$1::text::inet`"),
        ("SELECT int4multirange(int4range(1, 5)) AS m", vec![], "`::text`"),
    ] {
        if sql.ends_with('\'') {
            // Whether a backslash hides a quote depends on a setting.
            let sql = "SELECT 'a\\' || abbrev($1) || ''";
            let refused = session.query(sql.into(), params).await;
            let error = assert_kind(refused, ErrorKind::Conversion);
            assert!(error.message.contains(advice), "{}", error.message);
            continue;
        }
        let error = assert_kind(session.query(sql.into(), params).await, ErrorKind::Conversion);
        assert!(error.message.contains(advice), "{}", error.message);
    }
    // What the server finds wrong with the text, it says.
    let refused = session.execute("INSERT INTO w (a) VALUES ($1)".into(), vec![text("no address")]).await;
    let error = assert_kind(refused, ErrorKind::Statement);
    assert_eq!(error.code.as_deref(), Some("22P02"));
    assert_eq!(scene.outside.number("SELECT count(*) FROM w").await, 0);
    scene.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arrays_of_another_shape_arrive_as_the_server_writes_them() {
    let scene = Scene::new(Engine::Postgres).await;
    let session = scene.session();
    for array in [
        "'[0:1]={1,NULL}'::int4[]",
        "'{{t,f},{NULL,t}}'::bool[]",
        "'[2:3][0:1]={{1,2},{3,4}}'::int8[]",
        "ARRAY[[1e14,1e15,123456789012345680],[0.0001,0.00001,-1.5e-300],['NaN','-Infinity',-0.0]]::float8[]",
        "ARRAY[[1e5,1e6,1234567],[0.0001,0.00001,-1.5e-30]]::float4[]",
        "ARRAY[['', 'null', 'a b', 'a,b'],['a\"b', 'a\\b', '{}', 'é'],[NULL, E'\\t', 'plain', E'\\u00a0']]",
        "ARRAY[[5::oid]]",
    ] {
        let sql = format!("SELECT {array}, ({array})::text");
        let rows = session.query(sql.clone(), vec![]).await.unwrap();
        let Value::Text(expected) = &rows.rows[0][1] else { panic!("{sql}") };
        assert_eq!(show(&rows.rows[0][0]), show(&other(expected)), "{array}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_array_of_values_goes_into_any_array_whose_elements_take_them() {
    let scene = scene_with_types().await;
    let session = scene.session();
    let texts = |texts: &[&str]| Value::TextArray(texts.iter().map(|t| Some((*t).to_owned())).collect());
    for (column, value, expected) in [
        ("m", texts(&["10.0.0.1"]), "{10.0.0.1}"),
        ("n", texts(&["1.50", "NaN"]), "{1.50,NaN}"),
        ("n", Value::IntegerArray(vec![Some(1), None]), "{1,NULL}"),
        ("o", texts(&["0190163D-8694-739B-AEA5-966C26F8AD91"]), "{0190163d-8694-739b-aea5-966c26f8ad91}"),
        ("p", texts(&["2024-02-29T12:34:56Z"]), "{\"2024-02-29 12:34:56+00\"}"),
        ("q", texts(&["{\"a\": 1}"]), "{\"{\\\"a\\\": 1}\"}"),
    ] {
        let insert = format!("INSERT INTO w ({column}) VALUES ($1) RETURNING {column}");
        let returned = one(&session, &insert, vec![value.clone()]).await;
        assert_eq!(show(&returned), show(&other(expected)), "{value:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn far_dates_go_in_as_they_came_out() {
    let scene = Scene::new(Engine::Postgres).await;
    let session = scene.session();
    scene.outside.run("CREATE TABLE far (a timestamp, b timestamptz)").await;
    let (a, b) = (other("294276-12-31 23:59:59.999999"), other("294276-12-31 23:59:59+00"));
    let insert = "INSERT INTO far VALUES ($1, $2) RETURNING a, b";
    let rows = session.query(insert.into(), vec![a.clone(), b.clone()]).await.unwrap();
    assert_eq!([show(&rows.rows[0][0]), show(&rows.rows[0][1])], [show(&a), show(&b)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_place_of_an_error_is_that_in_the_statement_as_it_was_written() {
    let scene = scene_with_types().await;
    let session = scene.session();
    // The server folds the constant when it plans what the host has put its casts into, and
    // says no place; what it parses, it parses as it was written.
    let error = session.query("SELECT a, wrong FROM w".into(), vec![]).await.unwrap_err();
    assert_eq!(error.position, Some(11));
    // The domain's own cast in the statement is parsed with the casts around it.
    let id = session.begin(options()).await.unwrap();
    let error = session.open_cursor(id, " SELECT é FROM w".into(), vec![]).await.unwrap_err();
    assert_eq!(error.position, Some(9));
    session.rollback(id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_may_mix_values_that_pass_as_they_are_and_as_text() {
    let scene = scene_with_types().await;
    let session = scene.session();
    let lists = vec![
        vec![Value::Null],
        vec![Value::TextArray(vec![Some("10.0.0.1".into())])],
        vec![text("{10.0.0.2}")],
        vec![Value::Null],
        vec![other("{}")],
    ];
    let insert = "INSERT INTO w (m) VALUES ($1)";
    assert_eq!(session.execute_many(insert.into(), lists).await.unwrap(), 5);
    let read = session.query("SELECT m FROM w ORDER BY m".into(), vec![]).await;
    let expected: Vec<String> =
        ["{}", "{10.0.0.1}", "{10.0.0.2}"].iter().map(|text| show(&other(text))).collect();
    assert_eq!(first_column(read)[..3], expected[..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_names_the_parameter_list_that_it_is_about() {
    let scene = Scene::new(Engine::Postgres).await;
    let session = scene.session();
    let insert = "INSERT INTO t VALUES ($1, 'a')";
    let twice = vec![vec![int(1)], vec![int(2)], vec![int(1)]];
    let error = assert_kind(session.execute_many(insert.into(), twice).await, ErrorKind::UniqueViolation);
    assert!(error.message.starts_with("parameter list 3 of 3: "), "{}", error.message);
    assert_eq!(error.constraint.as_deref(), Some("t_pkey"));
    let wrong = vec![vec![int(1)], vec![text("two")]];
    let error = assert_kind(session.execute_many(insert.into(), wrong).await, ErrorKind::Conversion);
    assert!(error.message.starts_with("parameter list 2 of 2: parameter $1"), "{}", error.message);
    let short = vec![vec![int(1)], vec![]];
    let error = assert_kind(session.execute_many(insert.into(), short).await, ErrorKind::Statement);
    assert!(error.message.starts_with("parameter list 2 of 2: the statement has 1 parameter"));
    assert_eq!(scene.rows().await, 0);
    let many = (0..1_000).map(|i| vec![int(i)]).collect();
    assert_eq!(session.execute_many(insert.into(), many).await.unwrap(), 1_000);
    assert_eq!(session.execute_many(insert.into(), vec![]).await.unwrap(), 0);
    assert_eq!(scene.rows().await, 1_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_cannot_be_read_ends_the_statement() {
    let scene = Scene::new(Engine::Postgres).await;
    let session = scene.session();
    // Not UTF-8 from the second row on, and many rows, so that the server does not keep them back.
    let unreadable = "SELECT CASE i WHEN 1 THEN set_config('client_encoding', 'LATIN1', true) \
                      WHEN 10001 THEN pg_sleep(600)::text ELSE 'é' END AS x FROM generate_series(1, 10001) i";
    let started = Instant::now();
    let error = assert_kind(session.query(unreadable.into(), vec![]).await, ErrorKind::Conversion);
    assert!(error.message.contains("column `x`"), "{}", error.message);
    assert!(started.elapsed() < Duration::from_secs(30), "it took {:?}", started.elapsed());
    scene.assert_clean().await;
    session.query("SELECT 1".into(), vec![]).await.unwrap();
}
