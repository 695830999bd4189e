//! Values to the database and back, exactly.

use innkeeper::interfaces::db::{ErrorKind, Value};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::database::Engine;
use crate::{Scene, assert_kind, int, on_both_engines, show, text};

on_both_engines!(
    what_goes_in_comes_out,
    one_statement_takes_null_a_number_and_a_text_in_turn,
    any_scalar_value_comes_back_as_it_went,
);

/// A table with a column for each type, the same values on both engines where both have them.
const POSTGRES: &str = "CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN small AS int2; \
    CREATE TABLE v (b bool, i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, n numeric, tx text, \
    vc varchar(50), ch char(5), nm name, by bytea, d date, t time, ts timestamp, tz timestamptz, \
    u uuid, j json, jb jsonb, e mood, dom small, o oid, ab bool[], a2 int2[], a4 int4[], a8 int8[], \
    f4s float4[], f8s float8[], txs text[], vcs varchar(50)[], nms name[], es mood[], doms small[], os oid[])";
const SQLITE: &str = "CREATE TABLE v (b BOOLEAN, i2, i4 INTEGER, i8 INTEGER, f4, f8 REAL, n, tx TEXT, \
    vc VARCHAR(50), by BLOB, d DATE, t, ts, tz DATETIME, u, j, e)";

async fn scene_with_columns(engine: Engine) -> Scene {
    let scene = Scene::new(engine).await;
    scene.outside.run(if engine == Engine::Postgres { POSTGRES } else { SQLITE }).await;
    scene
}

/// Stores the value in the column and reads it again.
async fn through(
    scene: &Scene,
    column: &str,
    value: Value,
) -> Result<Value, innkeeper::interfaces::db::Error> {
    let session = scene.session();
    let id = session.begin(crate::options()).await.unwrap();
    let insert = format!("INSERT INTO v ({column}) VALUES ($1)");
    let stored = session.execute_in(id, insert, vec![value]).await;
    let read = match stored {
        Ok(_) => session.query_in(id, format!("SELECT {column} FROM v"), vec![]).await,
        Err(error) => Err(error),
    };
    session.rollback(id).await.unwrap();
    read.map(|mut rows| rows.rows.remove(0).remove(0))
}

async fn what_goes_in_comes_out(engine: Engine) {
    let scene = scene_with_columns(engine).await;
    let all = [
        ("b", Value::Null),
        ("i8", Value::Null),
        ("tx", Value::Null),
        ("i2", int(i16::MIN.into())),
        ("i4", int(i32::MAX.into())),
        ("i8", int(i64::MIN)),
        ("i8", int(i64::MAX)),
        ("f8", Value::Float(f64::MIN_POSITIVE / 8.0)),
        ("f8", Value::Float(f64::MAX)),
        ("f8", Value::Float(f64::NEG_INFINITY)),
        ("f4", Value::Float(0.5)),
        ("tx", text("")),
        ("tx", text("Zoë, 宿屋, 🛎")),
        ("vc", text("x")),
        ("by", Value::Bytes(vec![])),
        ("by", Value::Bytes((0..=255).collect())),
    ];
    for (column, value) in all {
        assert_eq!(show(&through(&scene, column, value.clone()).await.unwrap()), show(&value), "{column}");
    }
    let own: Vec<(&str, Value, Value)> = match engine {
        Engine::Postgres => postgres_values(),
        Engine::Sqlite => sqlite_values(),
    };
    for (column, value, expected) in own {
        let read = through(&scene, column, value.clone()).await;
        let read = read.unwrap_or_else(|error| panic!("{column} {value:?}: {error:?}"));
        assert_eq!(show(&read), show(&expected), "{column} {value:?}");
    }
}

fn postgres_values() -> Vec<(&'static str, Value, Value)> {
    use Value::{Boolean, Date, Decimal, Float, Instant, Json, Other, Time, Timestamp, Uuid};
    let same = |column, value: Value| (column, value.clone(), value);
    let uuid = || Uuid("0190163d-8694-739b-aea5-966c26f8ad91".into());
    vec![
        same("b", Boolean(true)),
        same("b", Boolean(false)),
        same("f8", Float(f64::NAN)),
        same("f8", Float(-0.0)),
        same("f4", Float(f64::INFINITY)),
        same("n", Decimal("12.50".into())),
        same("n", Decimal("-0.000000000000000000000000000000000000000001".into())),
        same("n", Decimal("1234567890123456789012345678901234567890.5".into())),
        same("n", Decimal("NaN".into())),
        same("n", Decimal("-Infinity".into())),
        ("n", int(7), Decimal("7".into())),
        ("n", Float(0.1), Decimal("0.1".into())),
        ("f8", int(3), Float(3.0)),
        ("ch", text("ab"), text("ab   ")),
        same("nm", text("a_name")),
        same("d", Date(0)),
        same("d", Date(-719_163 - 1000)),
        same("d", Date(2_932_896)),
        same("d", Other("-infinity".into())),
        ("d", text("2024-02-29"), Date(19_782)),
        same("t", Time(86_399_999_999)),
        same("ts", Timestamp(-1)),
        same("ts", Timestamp(1_709_210_096_789_001)),
        same("ts", Other("infinity".into())),
        same("tz", Instant(-62_135_596_800_000_001)),
        same("tz", Instant(-200_000_000_000_000_000)),
        same("tz", Instant(1_709_210_096_789_001)),
        same("tz", Other("-infinity".into())),
        ("tz", text("2024-02-29T12:34:56.789001+00:00"), Instant(1_709_210_096_789_001)),
        same("u", uuid()),
        ("u", text("0190163D-8694-739B-AEA5-966C26F8AD91"), uuid()),
        ("tx", uuid(), text("0190163d-8694-739b-aea5-966c26f8ad91")),
        same("j", Json("{\"b\": 1,  \"a\": [null]}".into())),
        ("jb", Json("{\"b\": 1,  \"a\": [null]}".into()), Json("{\"a\": [null], \"b\": 1}".into())),
        same("e", Other("happy".into())),
        ("e", text("sad"), Other("sad".into())),
        same("dom", int(-7)),
        same("o", int(4_294_967_295)),
        same("ab", Value::BooleanArray(vec![])),
        same("a2", Value::IntegerArray(vec![Some(i16::MIN.into()), None])),
        same("doms", Value::IntegerArray(vec![Some(-7), None])),
        same("os", Value::IntegerArray(vec![Some(4_294_967_295)])),
        same("nms", Value::TextArray(vec![Some("a_name".into()), None])),
        same("es", Value::TextArray(vec![Some("sad".into()), None, Some("happy".into())])),
        same("txs", Value::TextArray(vec![None; 3])),
        ("a4", text("{1,NULL}"), Value::IntegerArray(vec![Some(1), None])),
        ("a8", Value::TextArray(vec![Some("7".into())]), Value::IntegerArray(vec![Some(7)])),
        ("txs", Value::IntegerArray(vec![Some(7)]), Value::TextArray(vec![Some("7".into())])),
        ("f8s", Value::IntegerArray(vec![Some(7)]), Value::FloatArray(vec![Some(7.0)])),
    ]
}

fn sqlite_values() -> Vec<(&'static str, Value, Value)> {
    use Value::{Boolean, Date, Decimal, Instant, Json, Other, Time, Timestamp, Uuid};
    vec![
        ("b", Boolean(true), int(1)),
        ("b", Boolean(false), int(0)),
        ("n", Decimal("12.50".into()), text("12.50")),
        ("n", int(7), int(7)),
        ("d", Date(19_782), text("2024-02-29")),
        ("d", Date(-719_528), text("0000-01-01")),
        ("t", Time(45_296_000_001), text("12:34:56.000001")),
        ("ts", Timestamp(0), text("1970-01-01 00:00:00")),
        ("ts", Timestamp(-1), text("1969-12-31 23:59:59.999999")),
        ("tz", Instant(1_709_210_096_789_000), text("2024-02-29 12:34:56.789000")),
        (
            "u",
            Uuid("0190163d-8694-739b-aea5-966c26f8ad91".into()),
            text("0190163d-8694-739b-aea5-966c26f8ad91"),
        ),
        ("j", Json("{\"a\":  1}".into()), text("{\"a\":  1}")),
        ("e", Other("happy".into()), text("happy")),
        ("tx", text("a\0b"), text("a\0b")),
    ]
}

async fn one_statement_takes_null_a_number_and_a_text_in_turn(engine: Engine) {
    let scene = scene_with_columns(engine).await;
    let session = scene.session();
    for _ in 0..2 {
        for value in [Value::Null, int(5), text("five"), Value::Float(0.5), Value::Boolean(true)] {
            let rows = session.query("SELECT $1".into(), vec![value.clone()]).await.unwrap();
            let expected = match (engine, &value) {
                (Engine::Sqlite, Value::Boolean(_)) => int(1),
                (Engine::Sqlite, _) | (_, Value::Null | Value::Text(_)) => value,
                // PostgreSQL takes a parameter that nothing tells the type of for a text.
                (_, Value::Integer(_)) => text("5"),
                (_, Value::Float(_)) => text("0.5"),
                (_, _) => text("true"),
            };
            assert_eq!(show(&rows.rows[0][0]), show(&expected));
        }
        let insert = "INSERT INTO v (i4) VALUES ($1) RETURNING i4";
        for (value, expected) in [(Value::Null, Value::Null), (int(5), int(5)), (text("6"), int(6))] {
            let rows = session.query(insert.into(), vec![value]).await.unwrap();
            assert_eq!(show(&rows.rows[0][0]), show(&expected));
        }
    }
}

/// Values, and the column of `v` that holds them.
fn any_value(engine: Engine) -> BoxedStrategy<(&'static str, Value)> {
    // The years 1 to 9999, which both engines and every text form can write.
    let days = -719_162..=2_932_896;
    let micros = -62_135_596_800_000_000..=253_402_300_799_999_999_i64;
    let common = prop_oneof![
        any::<i64>().prop_map(|x| ("i8", int(x))),
        any::<i32>().prop_map(|x| ("i4", int(x.into()))),
        any::<i16>().prop_map(|x| ("i2", int(x.into()))),
        // SQLite stores a negative zero as zero.
        any::<f64>()
            .prop_filter("no NaN, no -0", |x| !x.is_nan() && *x != 0.0)
            .prop_map(|x| ("f8", Value::Float(x))),
        any::<f32>()
            .prop_filter("no NaN, no -0", |x| !x.is_nan() && *x != 0.0)
            .prop_map(|x| ("f4", Value::Float(x.into()))),
        "[^\0]{0,40}".prop_map(|x| ("tx", Value::Text(x))),
        proptest::collection::vec(any::<u8>(), 0..60).prop_map(|x| ("by", Value::Bytes(x))),
    ];
    if engine == Engine::Sqlite {
        return common.boxed();
    }
    prop_oneof![
        common,
        any::<bool>().prop_map(|x| ("b", Value::Boolean(x))),
        "-?[1-9][0-9]{0,50}(\\.[0-9]{1,40})?".prop_map(|x| ("n", Value::Decimal(x))),
        days.prop_map(|x| ("d", Value::Date(x))),
        (0..86_400_000_000_i64).prop_map(|x| ("t", Value::Time(x))),
        micros.clone().prop_map(|x| ("ts", Value::Timestamp(x))),
        micros.prop_map(|x| ("tz", Value::Instant(x))),
        any::<u128>().prop_map(|x| ("u", Value::Uuid(uuid::Uuid::from_u128(x).to_string()))),
        "\"[a-z ]{0,20}\"".prop_map(|x| ("jb", Value::Json(x))),
        any_array(any::<bool>()).prop_map(|x| ("ab", Value::BooleanArray(x))),
        any_array(any::<i16>().prop_map(i64::from)).prop_map(|x| ("a2", Value::IntegerArray(x))),
        any_array(any::<i32>().prop_map(i64::from)).prop_map(|x| ("a4", Value::IntegerArray(x))),
        any_array(any::<i64>()).prop_map(|x| ("a8", Value::IntegerArray(x))),
        any_array(any::<f32>().prop_map(f64::from)).prop_map(|x| ("f4s", Value::FloatArray(x))),
        any_array(any::<f64>()).prop_map(|x| ("f8s", Value::FloatArray(x))),
        any_array("[^\0]{0,10}").prop_map(|x| ("txs", Value::TextArray(x))),
        any_array("[^\0]{0,10}").prop_map(|x| ("vcs", Value::TextArray(x))),
    ]
    .boxed()
}

/// NULLs among them.
fn any_array<T: Clone + std::fmt::Debug>(
    element: impl Strategy<Value = T>,
) -> impl Strategy<Value = Vec<Option<T>>> {
    proptest::collection::vec(proptest::option::of(element), 0..6)
}

async fn any_scalar_value_comes_back_as_it_went(engine: Engine) {
    let scene = scene_with_columns(engine).await;
    let runtime = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| {
        let mut runner =
            TestRunner::new(Config { failure_persistence: None, cases: 300, ..Config::default() });
        runner
            .run(&any_value(engine), |(column, value)| {
                let read = runtime.block_on(through(&scene, column, value.clone()));
                let read = read.map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
                prop_assert_eq!(show(&read), show(&value), "{}", column);
                Ok(())
            })
            .unwrap();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_postgres_can_hold_but_no_value_can_count_arrives_as_text() {
    let scene = Scene::new(Engine::Postgres).await;
    let session = scene.session();
    for (expression, expected) in [
        ("timestamp '294276-12-31 23:59:59.999999'", "294276-12-31 23:59:59.999999"),
        ("timestamptz '294276-12-31 23:59:59+00'", "294276-12-31 23:59:59+00"),
        ("timestamp 'infinity'", "infinity"),
        ("date '-infinity'", "-infinity"),
        ("pg_sleep(0)", ""),
    ] {
        let rows = session.query(format!("SELECT {expression}"), vec![]).await.unwrap();
        assert_eq!(show(&rows.rows[0][0]), show(&Value::Other(expected.into())), "{expression}");
    }
    // The first and the last day, and the first microsecond.
    for (expression, expected) in [
        ("date '4714-11-24 BC'", Value::Date(-2_440_588)),
        ("date '5874897-12-31'", Value::Date(2_145_042_905)),
        ("timestamp '4714-11-24 00:00:00 BC'", Value::Timestamp(-210_866_803_200_000_000)),
        ("xmin FROM pg_class LIMIT 1", Value::Null),
    ] {
        let rows = session.query(format!("SELECT {expression}"), vec![]).await.unwrap();
        if !matches!(expected, Value::Null) {
            assert_eq!(show(&rows.rows[0][0]), show(&expected), "{expression}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_postgres_values_cannot_carry_is_refused_with_the_cast_to_write() {
    let scene = scene_with_columns(Engine::Postgres).await;
    scene.outside.run("CREATE TABLE w (ip inet, span interval, list int4[])").await;
    let session = scene.session();
    for (column, value, name) in [
        ("ip", int(1), "inet"),
        ("span", Value::Time(1), "interval"),
        ("list", int(1), "int4[]"),
        ("list", Value::IntegerArray(vec![Some(1 << 40)]), "int4[]"),
        ("list", Value::TextArray(vec![Some("seven".into())]), "int4[]"),
    ] {
        let insert = format!("INSERT INTO w ({column}) VALUES ($1)");
        let error = assert_kind(session.execute(insert, vec![value]).await, ErrorKind::Conversion);
        assert!(error.message.contains(&format!("`$1::text::{name}`")), "{}", error.message);
    }
    for (column, value) in [
        ("i2", int(40_000)),
        ("i4", int(i64::MAX)),
        ("i4", text("seven")),
        ("o", int(-1)),
        ("b", int(1)),
        ("f8", int(i64::MAX)),
        ("f4", Value::Float(1e300)),
        ("n", text("a number")),
        ("n", Value::IntegerArray(vec![])),
        ("ts", Value::Instant(0)),
        ("tz", Value::Timestamp(0)),
        ("tz", text("2024-02-29 12:00:00")),
        ("ts", Value::Timestamp(i64::MIN)),
        ("d", Value::Timestamp(0)),
        ("u", text("no uuid")),
        ("by", text("bytes")),
        ("tx", Value::Bytes(vec![1])),
        ("j", int(1)),
    ] {
        let error = through(&scene, column, value.clone()).await;
        let error = assert_kind(error, ErrorKind::Conversion);
        assert!(error.message.contains("parameter $1 is of type"), "{column} {value:?}: {}", error.message);
    }
    // What only the server can judge, it refuses.
    for (column, value) in [("e", text("angry")), ("jb", Value::Json("{".into())), ("tx", text("a\0b"))] {
        assert_kind(through(&scene, column, value).await, ErrorKind::Statement);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_sqlite_cannot_hold_is_refused() {
    let scene = scene_with_columns(Engine::Sqlite).await;
    for (column, value) in [
        ("f8", Value::Float(f64::NAN)),
        ("d", Value::Date(-719_529)),
        ("d", Value::Date(2_932_897)),
        ("ts", Value::Timestamp(i64::MAX)),
        ("tz", Value::Instant(i64::MIN)),
        ("t", Value::Time(-1)),
    ] {
        let error = assert_kind(through(&scene, column, value).await, ErrorKind::Conversion);
        assert!(error.message.contains("parameter $1"), "{}", error.message);
    }
    let session = scene.session();
    let broken = session.query("SELECT CAST(x'ff' AS TEXT) AS note".into(), vec![]).await;
    let error = assert_kind(broken, ErrorKind::Conversion);
    assert!(error.message.contains("`CAST(note AS BLOB)`"), "{}", error.message);
}
