//! From times of a clock to instants, and back, across changes of the clock.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use super::spec::{Gap, Overlap};

/// The clocks of a time zone go forward or back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Change {
    /// The first instant with the new offset.
    pub(super) at: Timestamp,
    pub(super) before: Offset,
    pub(super) after: Offset,
}

impl Change {
    /// What the clock would have shown without the change: the start of a gap, the end of a
    /// repeated time.
    pub(super) fn from(&self) -> DateTime {
        self.before.to_datetime(self.at)
    }

    /// What the clock shows: the end of a gap, the start of a repeated time.
    pub(super) fn to(&self) -> DateTime {
        self.after.to_datetime(self.at)
    }
}

/// When a clock shows something.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Shown {
    Once(Timestamp),
    Never(Change),
    Twice(Timestamp, Timestamp),
}

/// When the clock shows this; nothing at the ends of what can be represented.
pub(super) fn shown(zone: &TimeZone, civil: DateTime) -> Option<Shown> {
    Some(match zone.to_ambiguous_timestamp(civil).offset() {
        AmbiguousOffset::Unambiguous { offset } => Shown::Once(offset.to_timestamp(civil).ok()?),
        AmbiguousOffset::Fold { before, after } => {
            Shown::Twice(before.to_timestamp(civil).ok()?, after.to_timestamp(civil).ok()?)
        }
        // With the offset after the change it is an instant before it.
        AmbiguousOffset::Gap { after, .. } => {
            Shown::Never(next_change(zone, after.to_timestamp(civil).ok()?)?)
        }
    })
}

/// The instants that a time of day means by these rules, none to two, in order.
pub(super) fn meant(
    zone: &TimeZone,
    civil: DateTime,
    gap: Gap,
    overlap: Overlap,
) -> impl Iterator<Item = Timestamp> + use<> {
    let instants = match (shown(zone, civil), overlap) {
        (None, _) => [None, None],
        (Some(Shown::Once(at)), _) => [Some(at), None],
        (Some(Shown::Never(change)), _) => [Some(change.at).filter(|_| gap == Gap::RunAfter), None],
        (Some(Shown::Twice(first, _)), Overlap::First) => [Some(first), None],
        (Some(Shown::Twice(_, last)), Overlap::Last) => [Some(last), None],
        (Some(Shown::Twice(first, last)), Overlap::Both) => [Some(first), Some(last)],
    };
    instants.into_iter().flatten()
}

/// The first instant at which the clock shows this or, where it leaves it out, something later.
pub(super) fn first_shown(zone: &TimeZone, civil: DateTime) -> Option<Timestamp> {
    Some(match shown(zone, civil)? {
        Shown::Once(at) | Shown::Twice(at, _) => at,
        Shown::Never(change) => change.at,
    })
}

/// The first instant that is later than every one at which the clock shows something earlier.
fn last_shown(zone: &TimeZone, civil: DateTime) -> Option<Timestamp> {
    Some(match shown(zone, civil)? {
        Shown::Once(at) | Shown::Twice(_, at) => at,
        Shown::Never(change) => change.at,
    })
}

/// The first instant of a date.
pub(super) fn start_of(zone: &TimeZone, date: Date) -> Option<Timestamp> {
    first_shown(zone, date.to_datetime(Time::midnight()))
}

/// The last microsecond of a date.
pub(super) fn end_of(zone: &TimeZone, date: Date) -> Option<Timestamp> {
    before(last_shown(zone, date.tomorrow().ok()?.to_datetime(Time::midnight()))?)
}

/// A microsecond earlier.
pub(super) fn before(time: Timestamp) -> Option<Timestamp> {
    time.checked_sub(SignedDuration::from_micros(1)).ok()
}

/// What the clock of the zone shows.
pub(super) fn clock(zone: &TimeZone, at: Timestamp) -> DateTime {
    zone.to_offset(at).to_datetime(at)
}

/// The first change after an instant.
pub(super) fn next_change(zone: &TimeZone, after: Timestamp) -> Option<Change> {
    let before = zone.to_offset(after);
    // A transition may change the name only.
    let found = zone.following(after).find(|transition| transition.offset() != before)?;
    Some(Change { at: found.timestamp(), before, after: found.offset() })
}

/// The last change that is not after an instant.
pub(super) fn last_change(zone: &TimeZone, until: Timestamp) -> Option<Change> {
    let nanosecond = SignedDuration::from_nanos(1);
    let end = until.checked_add(nanosecond).unwrap_or(until);
    zone.preceding(end).find_map(|transition| {
        let earlier = transition.timestamp().checked_sub(nanosecond).ok()?;
        let (before, after) = (zone.to_offset(earlier), transition.offset());
        (before != after).then_some(Change { at: transition.timestamp(), before, after })
    })
}
