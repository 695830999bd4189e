use super::*;
use crate::schedule::Spec;
use proptest::prelude::*;

fn every(period: Duration) -> Schedule {
    Schedule::new(&Spec { every: Some(period), ..Spec::default() }).unwrap()
}

fn cron(expression: &str, zone: &str) -> Schedule {
    Schedule::new(&Spec { cron: Some(expression.into()), timezone: Some(zone.into()), ..Spec::default() })
        .unwrap()
}

fn policy(mode: CatchUpMode, window: Option<u64>, max: u32) -> CatchUp {
    CatchUp { mode, window: window.map(Duration::from_secs), max }
}

fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

fn times(fires: &[Timestamp]) -> Vec<String> {
    fires.iter().map(ToString::to_string).collect()
}

const HOURLY: Duration = Duration::from_secs(3_600);

fn after_a_night(policy: &CatchUp, now: &str) -> Gap {
    catch_up(&every(HOURLY), policy, at("2026-11-01T22:00:00Z"), at(now))
}

#[test]
fn a_fire_that_is_on_time_runs_whatever_the_policy() {
    for mode in [CatchUpMode::None, CatchUpMode::Latest, CatchUpMode::All] {
        // Also one that is later than the window.
        let gap = after_a_night(&policy(mode, Some(1), 1), "2026-11-01T22:01:00Z");
        assert_eq!((times(&gap.run), gap.skip), (vec!["2026-11-01T22:00:00Z".into()], Skips::default()));
    }
}

#[test]
fn none_runs_no_missed_fire() {
    let gap = after_a_night(&policy(CatchUpMode::None, None, 1), "2026-11-02T00:01:00.000001Z");
    assert_eq!(gap.run, []);
    assert_eq!(
        times(&gap.skip.single),
        ["2026-11-01T22:00:00Z", "2026-11-01T23:00:00Z", "2026-11-02T00:00:00Z"]
    );
}

#[test]
fn latest_runs_the_newest_of_any_age() {
    let gap = after_a_night(&CatchUp::default(), "2026-11-02T00:59:00Z");
    assert_eq!(times(&gap.run), ["2026-11-02T00:00:00Z"]);
    assert_eq!(times(&gap.skip.single), ["2026-11-01T22:00:00Z", "2026-11-01T23:00:00Z"]);
}

#[test]
fn latest_runs_nothing_missed_beside_a_fire_that_is_on_time() {
    let gap = after_a_night(&CatchUp::default(), "2026-11-01T23:00:01Z");
    assert_eq!(times(&gap.run), ["2026-11-01T23:00:00Z"]);
    assert_eq!(times(&gap.skip.single), ["2026-11-01T22:00:00Z"]);
}

#[test]
fn latest_runs_nothing_that_is_older_than_its_window() {
    let within = policy(CatchUpMode::Latest, Some(59 * 60), 1);
    assert_eq!(after_a_night(&within, "2026-11-02T00:59:00Z").run.len(), 1);
    assert_eq!(after_a_night(&within, "2026-11-02T00:59:00.000001Z").run, []);
}

#[test]
fn all_runs_the_newest_within_window_and_number_the_earliest_first() {
    let gap = after_a_night(&policy(CatchUpMode::All, None, 2), "2026-11-02T03:30:00Z");
    assert_eq!(times(&gap.run), ["2026-11-02T02:00:00Z", "2026-11-02T03:00:00Z"]);
    assert_eq!(gap.skip.single.len(), 4);
    let gap = after_a_night(&policy(CatchUpMode::All, Some(3 * 3_600), 100), "2026-11-02T03:30:00Z");
    assert_eq!(gap.run.len(), 3);
    // A fire on time is not missed, and does not count.
    let gap = after_a_night(&policy(CatchUpMode::All, None, 2), "2026-11-02T03:00:00Z");
    assert_eq!(gap.run.len(), 3);
}

#[test]
fn a_single_time_that_was_missed_is_caught_up_or_not_like_any_other() {
    let once = Schedule::new(&Spec { at: Some("2026-11-01T22:00:00Z".into()), ..Spec::default() }).unwrap();
    let first = at("2026-11-01T22:00:00Z");
    let now = at("2026-11-05T22:00:00Z");
    assert_eq!(catch_up(&once, &CatchUp::default(), first, now).run, [first]);
    let never = catch_up(&once, &policy(CatchUpMode::None, None, 1), first, now);
    assert_eq!((never.run, never.skip.single), (vec![], vec![first]));
}

#[test]
fn a_year_of_ten_fires_a_second_is_a_hundred_records_and_a_range() {
    let gap = catch_up(
        &every(Duration::from_millis(100)),
        &CatchUp::default(),
        at("2025-11-01T00:00:00.1Z"),
        at("2026-11-01T00:00:00Z"),
    );
    assert_eq!(times(&gap.run), ["2026-11-01T00:00:00Z"]);
    assert_eq!(gap.skip.single.len(), ONE_BY_ONE);
    let range = gap.skip.range.unwrap();
    assert_eq!(times(&[range.first, range.last]), ["2025-11-01T00:00:00.1Z", "2026-10-31T23:59:49.9Z"]);
    assert_eq!(range.fires, None);
}

#[test]
fn a_year_of_a_cron_expression_is_bounded_as_well() {
    let gap = catch_up(
        &cron("*/5 * * * *", "America/New_York"),
        &policy(CatchUpMode::All, None, u32::MAX),
        at("2025-11-01T00:00:00Z"),
        at("2026-11-01T00:00:00Z"),
    );
    assert_eq!(gap.run.len(), MOST_RUNS + 1, "one is on time");
    assert_eq!(gap.skip.single.len(), ONE_BY_ONE);
    assert_eq!(gap.skip.range.unwrap().first, at("2025-11-01T00:00:00Z"));
}

#[test]
fn what_is_few_enough_is_counted() {
    let skips = skip_all(&every(HOURLY), at("2026-11-01T00:00:00Z"), at("2026-11-11T00:00:00Z"), ONE_BY_ONE);
    assert_eq!((skips.range.unwrap().fires, skips.single.len()), (Some(141), 100));
    let none = skip_all(&every(HOURLY), at("2026-11-01T00:00:00Z"), at("2026-10-31T23:59:59Z"), ONE_BY_ONE);
    assert!(none.is_empty());
}

#[test]
fn a_rule_says_what_is_run_and_what_is_not() {
    assert!(rule(&policy(CatchUpMode::None, None, 1)).contains("are not run"));
    let latest = rule(&policy(CatchUpMode::Latest, Some(3_600), 1));
    assert!(latest.contains("only the latest is run, where it is at most 1h late"), "{latest}");
    let all = rule(&policy(CatchUpMode::All, None, 5));
    assert!(all.contains("only the latest 5 are run"), "{all}");
}

fn schedule() -> impl Strategy<Value = Schedule> {
    prop_oneof![
        (1_u64..20_000).prop_map(|seconds| every(Duration::from_secs(seconds))),
        Just(cron("*/7 * * * *", "Europe/Berlin")),
        Just(cron("30 2 * * *", "Europe/Berlin")),
        Just(cron("15 */3 * * MON-FRI", "America/New_York")),
    ]
}

fn any_policy() -> impl Strategy<Value = CatchUp> {
    let mode = prop_oneof![Just(CatchUpMode::None), Just(CatchUpMode::Latest), Just(CatchUpMode::All)];
    (mode, prop::option::of(0_u64..2_000_000), 1_u32..300)
        .prop_map(|(mode, window, max)| policy(mode, window, max))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn every_fire_of_a_gap_is_in_exactly_one_place(
        schedule in schedule(),
        policy in any_policy(),
        // Around the end of summer time, up to some weeks.
        from in 1_792_800_000_i64..1_793_000_000,
        length in 0_i64..2_000_000,
    ) {
        let start = Timestamp::from_second(from).unwrap();
        let now = Timestamp::from_second(from + length).unwrap();
        let first = schedule.next_after(start).unwrap();
        let gap = catch_up(&schedule, &policy, first, now);

        let fires: Vec<Timestamp> =
            std::iter::successors(Some(first), |fire| schedule.next_after(*fire)).take_while(|fire| *fire <= now).collect();
        let in_range: Vec<Timestamp> = gap.skip.range.map_or(vec![], |range| {
            fires.iter().copied().filter(|fire| (range.first..=range.last).contains(fire)).collect()
        });
        let told: Vec<Timestamp> = [in_range.clone(), gap.skip.single.clone(), gap.run.clone()].concat();
        prop_assert_eq!(&told, &fires, "each once, in order");
        if let Some(range) = gap.skip.range {
            prop_assert_eq!(range.first, first);
            prop_assert!(range.fires.is_none_or(|count| count == in_range.len() as u64));
        }

        let late = |fire: Timestamp| now.duration_since(fire).as_secs().unsigned_abs();
        let missed: Vec<Timestamp> = gap.run.iter().copied().filter(|fire| late(*fire) > 60 || Some(fire) != fires.last()).collect();
        prop_assert!(gap.skip.single.len() <= ONE_BY_ONE);
        prop_assert!(policy.window.is_none_or(|window| missed.iter().all(|fire| late(*fire) <= window.as_secs())));
        let most = match policy.mode {
            CatchUpMode::None => 0,
            CatchUpMode::Latest => 1,
            CatchUpMode::All => policy.max as usize,
        };
        prop_assert!(missed.len() <= most);
        if fires.last().is_some_and(|newest| late(*newest) <= 60) {
            prop_assert_eq!(gap.run.last(), fires.last());
        }
    }
}
