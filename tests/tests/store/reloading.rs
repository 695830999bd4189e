//! A running host becomes another one, hosts are asked to, and plugins go back to what they were.

use innkeeper::job::Job;
use innkeeper::policy::{Concurrency, Policies, Queue, WhenFull};
use innkeeper::store::{
    DefineError, Definitions, PluginDefinition, ReloadWish, Rollback, SessionId, StoreError,
};
use innkeeper_tests::database::Engine;
use serde_json::json;

use crate::rule;
use crate::world::{TTL, World, job, name};

/// The plugin `p` with this component.
pub fn plugin(component: &str) -> PluginDefinition {
    configured(component, component)
}

fn configured(component: &str, configured: &str) -> PluginDefinition {
    PluginDefinition {
        name: name("p"),
        component: component.to_owned(),
        descriptions: json!([{ "name": component }]),
        configured: configured.to_owned(),
    }
}

/// One plugin and the job `j`, in the name of `file`.
pub async fn define(
    world: &World,
    session: Option<SessionId>,
    plugin: PluginDefinition,
    jobs: &[&str],
) -> Result<(), DefineError> {
    let jobs: Vec<_> = jobs.iter().map(|name| job(name)).collect();
    let definitions = Definitions {
        host: "inn-1",
        owner: "file",
        session,
        plugins: &[plugin],
        jobs: Some(&jobs),
        queues: Some(&[]),
    };
    world.store.define(&definitions).await.map(drop)
}

async fn versions(world: &World) -> Vec<String> {
    let versions = world.store.plugin_versions(&name("p"), 10).await.unwrap();
    versions.into_iter().map(|version| version.component).collect()
}

rule!(an_attempt_names_the_component_that_the_host_had_at_its_start, async |world: &World| {
    let session = world.host("inn-1").await;
    define(world, Some(session), plugin("sha256:1"), &["j"]).await.unwrap();
    world.enqueue("j").await;
    assert_eq!(&*world.claim_one(session).await.component, "sha256:1");
    define(world, Some(session), plugin("sha256:2"), &["j"]).await.unwrap();
    world.enqueue("j").await;
    assert_eq!(&*world.claim_one(session).await.component, "sha256:2");
    let listed = world.store.plugins().await.unwrap();
    assert_eq!((listed.len(), listed[0].digest.as_str()), (1, "sha256:2"));
    assert_eq!(world.store.plugin_handlers(&name("p")).await.unwrap(), Some(json!([{ "name": "sha256:2" }])));
});

/// PostgreSQL only: on SQLite, whoever writes is alone.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_claimed_while_its_host_is_given_another_component_starts_with_that_one() {
    let world = World::new(Engine::Postgres).await;
    let session = world.host("inn-1").await;
    define(&world, Some(session), plugin("sha256:1"), &["j"]).await.unwrap();
    let execution = world.enqueue("j").await;
    // A START waits where it has seen the first component, and not yet the job.
    world
        .tamper(
            "create function {}wait() returns trigger language plpgsql as
                 'begin perform pg_advisory_xact_lock(42); return new; end';
             create trigger wait before insert on {}start for each row execute function {}wait()",
        )
        .await;
    let lock = world.hold("begin; select pg_advisory_xact_lock(42)").await;
    let store = world.another_store(1).await;
    let claim = tokio::spawn(async move { store.claim(session, 10).await });
    world.until_blocked(|| claim.is_finished()).await;
    define(&world, Some(session), plugin("sha256:2"), &["j", "k"]).await.unwrap();
    drop(lock);
    let claimed = claim.await.unwrap().unwrap();
    assert!(claimed.is_empty(), "the job may be for the second one: {claimed:?}");
    let attempt = world.claim_one(session).await;
    assert_eq!((attempt.execution, attempt.attempt, &*attempt.component), (execution, 1, "sha256:2"));
}

rule!(what_waits_is_looked_at_when_definitions_are_written_again, async |world: &World| {
    let session = world.host("inn-1").await;
    let concurrency = Some(Concurrency { limit: Some(1), per_key: None, when_full: WhenFull::Queue });
    let limited = Job { policies: Policies { concurrency, ..Policies::default() }, ..job("j") };
    world.jobs(std::slice::from_ref(&limited)).await;
    for _ in 0..2 {
        world.enqueue("j").await;
    }
    world.store.plan(10).await.unwrap();
    world.tamper("delete from {}gate").await;
    let (plugins, jobs) = ([plugin("sha256:1")], [limited]);
    let definitions = Definitions {
        host: "inn-1",
        owner: "file",
        session: Some(session),
        plugins: &plugins,
        jobs: Some(&jobs),
        queues: None,
    };
    world.store.define(&definitions).await.unwrap();
    assert_eq!(world.count("gate", "true").await, 0, "nothing has changed");
    world.store.define_again(&definitions).await.unwrap();
    assert_eq!(world.count("gate", "true").await, 1);
});

rule!(what_a_host_no_longer_has_it_does_not_start, async |world: &World| {
    let session = world.host_with("inn-1", &["p", "q"]).await;
    world.jobs(&[job("j")]).await;
    let definitions = Definitions {
        host: "inn-1",
        owner: "another",
        session: Some(session),
        plugins: &[],
        jobs: Some(&[]),
        queues: Some(&[]),
    };
    world.store.define(&definitions).await.unwrap();
    world.enqueue("j").await;
    assert_eq!(world.store.claim(session, 10).await.unwrap().len(), 0);
    assert!(world.store.live_hosts_with_plugin(&name("q")).await.unwrap().is_empty());
});

rule!(jobs_and_queues_that_are_not_given_stay_as_they_are, async |world: &World| {
    let session = world.host("inn-1").await;
    world.jobs(&[job("j")]).await;
    let queue = Queue { name: name("slow"), weight: 3, limit: Some(2), limit_per_host: None };
    world.store.sync_queues("file", &[queue]).await.unwrap();
    let definitions = Definitions {
        host: "inn-1",
        owner: "file",
        session: Some(session),
        plugins: &[plugin("sha256:2")],
        jobs: None,
        queues: None,
    };
    let defined = world.store.define(&definitions).await.unwrap();
    assert_eq!((defined.jobs.retired, defined.queues), (vec![], vec![]));
    world.enqueue("j").await;
    assert_eq!(&*world.claim_one(session).await.component, "sha256:2");
});

rule!(nothing_is_defined_for_a_host_session_that_is_dead, async |world: &World| {
    let session = world.host("inn-1").await;
    define(world, Some(session), plugin("sha256:1"), &["j"]).await.unwrap();
    world.crash_all().await;
    let late = define(world, Some(session), plugin("sha256:2"), &["k"]).await;
    assert!(matches!(late, Err(DefineError::Refused(StoreError::SessionLost))), "{late:?}");
    assert_eq!(versions(world).await, ["sha256:1"]);
    assert_eq!(world.store.component_descriptions("sha256:2").await.unwrap(), None);
    assert!(world.store.job(&name("k")).await.is_err());
});

rule!(
    a_version_is_noted_when_it_is_another_one_and_never_for_what_runs_in_its_place,
    async |world: &World| {
        for (component, configured_as) in
            [("1", "1"), ("1", "1"), ("2", "2"), ("1", "2"), ("3", "3"), ("1", "1")]
        {
            let [component, configured_as] =
                [component, configured_as].map(|number| format!("sha256:{number}"));
            define(world, None, configured(&component, &configured_as), &[]).await.unwrap();
        }
        assert_eq!(versions(world).await, ["sha256:1", "sha256:3", "sha256:2", "sha256:1"]);
        assert_eq!(world.store.superseded_components(2).await.unwrap(), ["sha256:2"]);
        assert_eq!(world.store.superseded_components(3).await.unwrap(), [""; 0]);
        world.store.roll_back(&name("p"), "sha256:2", "sha256:1", None).await.unwrap();
        assert_eq!(world.store.superseded_components(2).await.unwrap(), [""; 0], "it runs");
    }
);

rule!(a_plugin_is_rolled_back_once_at_most_until_that_is_ended, async |world: &World| {
    for component in ["sha256:1", "sha256:2", "sha256:3"] {
        define(world, None, plugin(component), &[]).await.unwrap();
    }
    let p = name("p");
    world.store.roll_back(&p, "sha256:2", "sha256:3", None).await.unwrap();
    world.store.roll_back(&p, "sha256:1", "sha256:3", Some("it is slow")).await.unwrap();
    let rollback = Rollback {
        plugin: p.clone(),
        component: "sha256:1".to_owned(),
        replaces: "sha256:3".to_owned(),
        since: world.clock.now(),
        reason: Some("it is slow".to_owned()),
    };
    assert_eq!(world.store.rollbacks().await.unwrap(), [rollback]);
    let unknown = world.store.roll_back(&p, "sha256:9", "sha256:3", None).await;
    assert!(matches!(unknown, Err(StoreError::Invalid(_))), "{unknown:?}");
    assert!(world.store.end_rollback(&p).await.unwrap());
    assert!(!world.store.end_rollback(&p).await.unwrap());
    assert_eq!(world.store.rollbacks().await.unwrap(), []);
});

rule!(a_host_learns_of_a_request_by_its_heartbeat_until_it_has_answered, async |world: &World| {
    let (one, two) = (world.host("inn-1").await, world.host("inn-2").await);
    let is_asked = async |session| world.store.heartbeat(session, TTL, None).await.unwrap().reload_requested;
    assert!(!is_asked(one).await);
    let wish = ReloadWish::Plugin(name("p"));
    let asked = world.store.request_reload(&wish, Some("inn-1")).await.unwrap();
    assert_eq!((asked.len(), is_asked(one).await, is_asked(two).await), (1, true, false));
    let boot = async |host: &str| {
        let filter = innkeeper::store::HostFilter { host: Some(host), ended: 0, executions: 0 };
        world.store.hosts(&filter).await.unwrap()[0].boot_id
    };
    let open = world.store.open_reloads(boot("inn-1").await).await.unwrap();
    assert_eq!(
        open.iter().map(|request| (request.id, request.wish.clone())).collect::<Vec<_>>(),
        [(asked[0], wish)]
    );
    assert_eq!(world.store.open_reloads(boot("inn-2").await).await.unwrap(), []);
    let before = world.store.reloads(&asked).await.unwrap();
    assert_eq!((before[0].host.as_str(), before[0].done_at, before[0].is_alive), ("inn-1", None, true));
    world.store.answer_reload(asked[0], Some("no")).await.unwrap();
    world.store.answer_reload(asked[0], None).await.unwrap();
    let after = world.store.reloads(&asked).await.unwrap();
    assert_eq!((after[0].done_at, after[0].error.as_deref()), (Some(world.clock.now()), Some("no")));
    assert!(!is_asked(one).await, "it has answered");
});

rule!(every_live_process_is_asked_that_has_the_plugin_knows_of_it_and_goes_on, async |world: &World| {
    world.host_with("dead", &["p"]).await;
    world.clock.advance(TTL);
    world.host_with("one", &["p"]).await;
    world.host_with("two", &["q"]).await;
    world.host_with("drains", &["p"]).await;
    world.store.request_drain("drains").await.unwrap();
    let old = world.host_with("old", &["p"]).await;
    world.tamper(&format!("update {{}}host_session set knows_migration = 5 where id = {}", old.0)).await;
    let hosts = async |wish| {
        let asked = world.store.request_reload(&wish, None).await.unwrap();
        let asked = world.store.reloads(&asked).await.unwrap();
        asked.into_iter().map(|asked| asked.host).collect::<Vec<_>>()
    };
    assert_eq!(hosts(ReloadWish::Plugin(name("p"))).await, ["one"]);
    assert_eq!(hosts(ReloadWish::Plugins).await, ["one", "two"]);
    assert_eq!(hosts(ReloadWish::Configuration).await, ["one", "two"]);
});
