//! What is said about schedules that are none.

use std::time::Duration;

use super::{Spec, at, cron, every, refused};
use crate::schedule::{Gap, Overlap, WhenExcluded};

#[test]
fn what_is_wrong_is_said_with_the_key_that_is_wrong() {
    let (key, text) = refused(&Spec { timezone: Some("Europe/Berlim".into()), ..every(1) });
    assert_eq!(key, Some("timezone"));
    assert!(text.contains("did you mean `Europe/Berlin`"), "{text}");
    assert_eq!(refused(&Spec::default()).0, None);
    assert_eq!(refused(&Spec { every: every(60).every, ..cron("0 0 * * *", "UTC") }).0, None);
    assert_eq!(refused(&at("tomorrow", "UTC")).0, Some("at"));
}

/// The key, and what is wrong with it.
#[test]
fn what_has_no_meaning_beside_the_rest_is_refused() {
    let after = |period| Spec { every_after: Some(period), ..Spec::default() };
    let minute = Duration::from_secs(60);
    for (key, spec) in [
        ("every", every(0)),
        ("every", Spec { every: Some(Duration::from_millis(99)), ..Spec::default() }),
        ("every", Spec { every: Some(Duration::from_nanos(1_000_000_001)), ..Spec::default() }),
        ("every", Spec { every: Some(Duration::MAX), ..Spec::default() }),
        ("every_after", after(Duration::ZERO)),
        ("anchor", Spec { anchor: Some("2026-01-01".into()), ..cron("0 0 * * *", "UTC") }),
        ("anchor", Spec { anchor: Some("once".into()), ..every(60) }),
        ("gap", Spec { gap: Gap::Skip, ..every(60) }),
        ("overlap", Spec { overlap: Overlap::Both, ..after(minute) }),
        ("when_excluded", Spec { when_excluded: WhenExcluded::NextDay, ..cron("0 0 * * *", "UTC") }),
    ] {
        let (found, message) = refused(&spec);
        assert_eq!(found, Some(key), "{message}");
        assert!(message.contains(&format!("`{key}`")) || message.contains("`once`"), "{message}");
    }
}
