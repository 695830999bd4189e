//! Raids with the real binary and real components, a good plugin always at work beside them.

use innkeeper::execution::{FailureKind, State};
use innkeeper_tests::database::Engine;
use innkeeper_tests::host::until;
use innkeeper_tests::on_both_engines;
use serde_json::{Value, json};

use crate::attacks::{self, Attack};
use crate::ground::Ground;

on_both_engines! {
    async fn a_raid_with_every_statement_leaves_nothing_and_hurts_nobody(engine: Engine) {
        let mut ground = Ground::new(engine, "").await;
        let mut attacks = attacks::all(engine);
        // A part of the disguises; each of them is tried with sessions alone.
        attacks.extend(attacks::hidden().into_iter().step_by(7));
        let said: Vec<&String> = attacks.iter().map(|attack| &attack.sql).collect();
        let result = ground.succeed("raid", &json!({"attacks": said, "look": attacks::look(engine)})).await;
        let mut wrong = Vec::new();
        for (number, (attack, attacked)) in attacks.iter().zip(result.as_array().expect("a list")).enumerate() {
            let marks = format!("select cast(coalesce(sum(part), 0) as bigint) from marks where attack = {number}");
            let marks = ground.app.count(&marks).await;
            if let Some(why) = unfit(attack, attacked, marks) {
                wrong.push(format!("{attack:?}: {why}"));
            }
        }
        assert!(wrong.is_empty(), "{} attacks:\n{}", wrong.len(), wrong.join("\n"));
        assert_eq!(ground.app.count("select count(*) from marks where attack < 0").await, 0);
        ground.end("the raid").await;
    }

    async fn a_forged_handle_ends_the_guest_and_its_transaction(engine: Engine) {
        let mut ground = Ground::new(engine, "").await;
        for how in ["commit", "commit-far", "drop-twice", "transaction-as-cursor", "answer-outside", "answer-unaligned"] {
            let record = ground.run("forge", &json!({"how": how})).await;
            let kind = record.error.map(|error| error.kind);
            assert_eq!((record.state, kind), (State::Failed, Some(FailureKind::Trap)), "{how}");
            ground.assert_clean(how).await;
            assert_eq!(ground.app.count("select count(*) from marks").await, 0, "{how}");
        }
        ground.end("forged handles").await;
    }

    async fn whatever_is_hoarded_is_bounded_and_given_back(engine: Engine) {
        let mut ground = Ground::new(engine, "max_open_transactions = 2\nmax_open_cursors = 3").await;
        let transactions = ground.succeed("hoard", &json!({"what": "transactions", "count": 5_000})).await;
        assert_eq!(transactions, json!({"ok": 2, "limit-exceeded": 4_998}));
        ground.assert_clean("5000 transactions").await;
        let rows = json!({"what": "cursors", "count": 5_000, "sql": "select attack from marks"});
        assert_eq!(ground.succeed("hoard", &rows).await, json!({"ok": 3, "limit-exceeded": 4_997}));
        ground.assert_clean("5000 cursors").await;
        let savepoints = ground.succeed("hoard", &json!({"what": "savepoints", "count": 2_000})).await;
        assert_eq!(savepoints, json!({"ok": 2_000}));
        ground.assert_clean("2000 savepoints").await;
        let endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select i from n";
        let fetches = json!({"what": "fetches", "count": 4_000_000_000_u32, "sql": endless});
        let record = ground.run("short-hoard", &fetches).await;
        let kind = record.error.map(|error| error.kind);
        assert_eq!((record.state, kind), (State::Failed, Some(FailureKind::Timeout)));
        ground.assert_clean("a cursor without an end").await;
        ground.end("hoards").await;
    }

    async fn what_a_plugin_has_a_database_make_never_fills_the_host(engine: Engine) {
        let ground = Ground::new(engine, "").await;
        let attacks = match engine {
            Engine::Postgres => json!([
                "select repeat('x', 30000000)",
                "select repeat('x', 15000000), repeat('y', 15000000) from generate_series(1, 10)",
                "select g, repeat('x', 100000) from generate_series(1, 2000) g",
                "select array_agg(repeat('x', 1000)) from generate_series(1, 40000)",
                "do $$ begin for i in 1..20 loop raise notice '%', repeat('x', 1000000); end loop; end $$",
                "do $$ begin raise exception '%', repeat('x', 10000000); end $$",
            ]),
            Engine::Sqlite => json!([
                "select replace(hex(zeroblob(200000000)), '0', '0000')",
                "select zeroblob(900000000)",
                "with recursive n(i) as (select 1 union all select i + 1 from n limit 60) \
                 select group_concat(hex(zeroblob(1000000))) from n",
                "with recursive n(i) as (select 1 union all select i + 1 from n limit 1000) \
                 select zeroblob(100000 + i) from n",
            ]),
        };
        ground.succeed("raid", &json!({"attacks": [], "look": ["select 1"]})).await;
        let (before, (_, own)) = (ground.host().peak_memory(), ground.host().memory());
        let result = ground.succeed("raid", &json!({"attacks": attacks, "look": ["select 1"]})).await;
        let grown = (ground.host().peak_memory() - before) >> 20;
        // PostgreSQL sends a value whole, and what may pass is copied on its way to the guest.
        let most = if engine == Engine::Postgres { 300 } else { 150 };
        assert!(grown < most, "the host has grown by {grown} MiB for a plugin of 32 MiB: {result}");
        // What an allocator keeps by itself was 200 MiB.
        until("what the host grew by is the machine's again", async || {
            (ground.host().memory().1.saturating_sub(own) >> 20 < 64).then_some(())
        })
        .await;
        ground.end("huge values").await;
    }
}

/// What is wrong with what became of an attack. The sum of its marks is 1 + 2 where its
/// transaction was committed.
fn unfit(attack: &Attack, attacked: &Value, marks: i64) -> Option<String> {
    let answers = attacked["answers"].as_array().expect("a list");
    if !answers.iter().all(|answer| attack.expect.allows(answer.as_str().expect("a kind"))) {
        return Some(format!("it was answered {answers:?}"));
    }
    if !attacked["left"].is_null() {
        return Some(format!("it left {}", attacked["left"]));
    }
    let committed = attacked["commit"] == "ok";
    let refused = attack.expect.kinds().is_some();
    let expected = if committed && !refused { 3 } else { 0 };
    (marks != expected || (committed && refused))
        .then(|| format!("its marks are {marks}, and its commit was answered {}", attacked["commit"]))
}

#[tokio::test(flavor = "multi_thread")]
async fn json_that_sqlite_collects_never_fills_the_host() {
    let ground = Ground::new(Engine::Sqlite, "").await;
    ground.succeed("raid", &json!({"attacks": [], "look": ["select 1"]})).await;
    let before = ground.host().peak_memory();
    // 400 MB each, in one value that is too long only once it is whole.
    let attack = |function: &str| {
        format!(
            "with recursive n(i) as (select 1 union all select i + 1 from n limit 20000) \
             select {function}(hex(zeroblob(10000))) from n"
        )
    };
    let attacks = ["json_group_array", "jsonb_group_array", "json_group_object"].map(attack);
    let attacks = attacks.map(|sql| sql.replace("object(", "object(i, "));
    let result = ground.succeed("raid", &json!({"attacks": attacks, "look": ["select 1"]})).await;
    let grown = (ground.host().peak_memory() - before) >> 20;
    // Without a bound it is more than 700.
    assert!(grown < 300, "the host has grown by {grown} MiB for a plugin of 32 MiB: {result}");
    ground.end("much JSON").await;
}
