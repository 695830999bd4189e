//! The tables that attacks are made on.

use innkeeper_tests::database::Engine;
use innkeeper_tests::raw::Raw;

/// What the operator makes, past the host.
pub async fn prepare(outside: &mut Raw) {
    outside.execute("create table marks (attack bigint, part bigint)").await;
    match outside {
        Raw::Postgres(_) => outside.execute("grant select, insert, delete on marks to public").await,
        Raw::Sqlite(_) => {
            let sql = "create table late (x integer primary key); insert into late values (1), (2);
                       create table trap (x integer);
                       create trigger spring before insert on trap begin select raise(rollback, 'gone'); end";
            outside.execute(sql).await;
        }
    }
}

/// What the hostile plugin makes for itself, each a statement.
pub fn own_statements(engine: Engine) -> &'static [&'static str] {
    if engine == Engine::Sqlite {
        return &[];
    }
    &[
        "CREATE PROCEDURE finish() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO marks VALUES (-1, 1); COMMIT; END $$",
        "CREATE PROCEDURE begin_again() LANGUAGE plpgsql AS $$ BEGIN ROLLBACK; INSERT INTO marks VALUES (-1, 2); END $$",
        "CREATE FUNCTION finish_in_a_function() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN COMMIT; RETURN 1; END $$",
        "CREATE SEQUENCE late_sequence",
        "CREATE TABLE late (x integer)",
        "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM set_config('search_path', 'pg_temp', false);
             PERFORM set_config('statement_timeout', '424242', false);
             PERFORM set_config('default_transaction_read_only', 'on', false);
             PERFORM set_config('innkeeper.test', 'late', false);
             PERFORM pg_advisory_lock(4245);
             EXECUTE 'CREATE TEMP TABLE IF NOT EXISTS late_left_behind (x integer)';
             EXECUTE 'LISTEN evil';
             RETURN NULL;
         END $$",
        "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION late()",
    ]
}
