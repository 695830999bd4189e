//! A server that is restarted, throws the host out, or takes no writes.

use innkeeper_tests::host::until;
use innkeeper_tests::raw::Raw;
use innkeeper_tests::server::{OwnServer, Shutdown};

use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_delays_completions_and_loses_none() {
    go_on_after_a_restart(Shutdown::Fast).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_the_server_delays_completions_and_loses_none() {
    go_on_after_a_restart(Shutdown::Immediate).await;
}

async fn go_on_after_a_restart(how: Shutdown) {
    let mut server = OwnServer::start(&[]).await;
    let (mut stage, _relay) = Stage::on(&server, "").await;
    stage.until_busy().await;
    server.stop(how);
    stage.until_unready("the store fails").await;
    // Their completions meet a server that is not there.
    stage.release().await;
    server.start_again().await;
    stage.all_ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_connections_are_ended_opens_others() {
    let server = OwnServer::start(&[]).await;
    let (mut stage, _relay) = Stage::on(&server, "").await;
    stage.until_busy().await;
    for _ in 0..3 {
        server
            .execute(
                "create table if not exists ended (pid int);
                 insert into ended select pid from pg_stat_activity
                 where application_name like 'innkeeper-%' and pg_terminate_backend(pid)",
            )
            .await;
        let others = "select count(*) from pg_stat_activity
            where application_name = 'innkeeper-store' and pid not in (select pid from ended)";
        let mut looking = Raw::connect(&server.database("postgres")).await;
        until("there are others", async || (looking.count(others).await > 0).then_some(())).await;
    }
    // Those that nobody used at the moment are replaced without a word.
    let log = stage.ends_well().await;
    assert!(log.matches("the store failed").count() < 12, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_writes_is_said_to_be_so_and_waited_for() {
    let server = OwnServer::start(&[]).await;
    let (mut stage, _relay) = Stage::on(&server, "").await;
    stage.until_busy().await;
    server.execute("alter system set default_transaction_read_only = on; select pg_reload_conf()").await;
    stage.until_unready("it is a standby, or `default_transaction_read_only` is on").await;
    stage.release().await;
    server.execute("alter system reset default_transaction_read_only; select pg_reload_conf()").await;
    stage.all_ends_well().await;
}
