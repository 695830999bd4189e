//! A primary that is gone, and the synchronous standby that takes its place.

use innkeeper_tests::host::until;
use innkeeper_tests::raw::Raw;
use innkeeper_tests::server::{OwnServer, Shutdown};

use crate::stage::{DATABASE, Stage};

/// A primary that commits nothing which its standby has not written.
async fn pair() -> (OwnServer, OwnServer) {
    let primary = OwnServer::start(&["synchronous_commit=on"]).await;
    let standby = primary.standby().await;
    primary.execute("alter system set synchronous_standby_names = 'standby'; select pg_reload_conf()").await;
    let mut looking = Raw::connect(&primary.database("postgres")).await;
    let waited_for = "select count(*) from pg_stat_replication where sync_state = 'sync'";
    until("the primary waits for its standby", async || (looking.count(waited_for).await == 1).then_some(()))
        .await;
    (primary, standby)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_the_host_goes_on_at_the_same_address_and_nothing_is_lost() {
    let (mut primary, standby) = pair().await;
    let (mut stage, relay) = Stage::on(&primary, "").await;
    stage.until_busy().await;
    // The machine is gone: it says nothing, and neither does the address.
    relay.silence();
    let done = stage.done().await;
    primary.stop(Shutdown::Immediate);
    stage.until_unready("no answer within").await;
    stage.release().await;
    standby.promote().await;
    relay.redirect(standby.address());
    relay.restore();
    stage.store = standby.database(DATABASE);
    stage.until_ready().await;
    let still = stage.done().await;
    assert!(done.is_subset(&still), "lost: {:?}", done.difference(&still).collect::<Vec<_>>());
    stage.all_ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_knows_both_servers_finds_the_one_that_takes_writes() {
    let (mut primary, standby) = pair().await;
    primary.execute(&format!("create database {DATABASE}")).await;
    let url =
        format!("postgres://postgres@{},{}/{DATABASE}?sslmode=disable", standby.address(), primary.address());
    let mut stage = Stage::at(&primary.database(DATABASE), &url, "timeout = \"1s\"").await;
    stage.until_busy().await;
    let done = stage.done().await;
    primary.stop(Shutdown::Immediate);
    stage.until_unready("none of its servers can be used").await;
    stage.release().await;
    standby.promote().await;
    stage.store = standby.database(DATABASE);
    stage.until_ready().await;
    assert!(done.is_subset(&stage.done().await));
    stage.all_ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_leaves_an_old_primary_that_takes_no_more_writes() {
    let (primary, standby) = pair().await;
    let (mut stage, relay) = Stage::on(&primary, "").await;
    stage.until_busy().await;
    // The connections to the old primary stay open, and the address means another.
    primary.execute("alter system set default_transaction_read_only = on; select pg_reload_conf()").await;
    stage.until_unready("it is a standby, or `default_transaction_read_only` is on").await;
    let done = stage.done().await;
    stage.release().await;
    standby.promote().await;
    relay.redirect(standby.address());
    stage.store = standby.database(DATABASE);
    stage.until_ready().await;
    assert!(done.is_subset(&stage.done().await));
    stage.all_ends_well().await;
}
