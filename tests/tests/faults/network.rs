//! A network that loses everything and says nothing.

use innkeeper_tests::server::OwnServer;

use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn a_host_in_a_silent_network_says_so_and_goes_on_when_it_is_heard_again() {
    let server = OwnServer::start(&[]).await;
    let (mut stage, relay) = Stage::on(&server, "").await;
    stage.until_busy().await;
    relay.silence();
    stage.until_unready("no answer within").await;
    stage.release().await;
    // What was open when the network fell silent is never heard of again.
    relay.restore();
    stage.all_ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_under_load_is_neither_lost_nor_done_twice() {
    let server = OwnServer::start(&[]).await;
    let (mut stage, relay) = Stage::on(&server, "").await;
    stage.until_busy().await;
    for times in 1..=4 {
        relay.silence_after("commit");
        relay.until_silent().await;
        stage.until_unready("the store fails").await;
        relay.restore();
        stage.until_logged("the store works again", times).await;
    }
    stage.all_ends_well().await;
}
