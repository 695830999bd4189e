//! How many executions of each plugin run on this host, and how many more may: `limits.concurrency`.
//!
//! An execution for which there is no room stays in `ready`, where it takes nobody's slot: for another
//! host, or for later. START passes it by, and this remembers from which rank on it did, so that what was
//! passed by is found at once when there is room, and not walked over until then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::floor::SLACK;
use crate::execution::Attempt;
use crate::job::Name;
use crate::store::{PluginRoom, Started};

/// What runs of each plugin.
#[derive(Default)]
pub(super) struct Plugins {
    running: BTreeMap<Name, Arc<AtomicU32>>,
    limits: Vec<(Name, u32)>,
}

impl Plugins {
    /// Takes over the limits of the plugins that have one.
    pub(super) fn limit(&mut self, limits: impl Iterator<Item = (Name, u32)>) {
        self.limits = limits.collect();
    }

    /// How many more may run, of each plugin that has a limit.
    pub(super) fn rooms(&self) -> Vec<PluginRoom> {
        let room = |(plugin, limit): &(Name, u32)| {
            let running = self.running.get(plugin).map_or(0, |running| running.load(Ordering::SeqCst));
            PluginRoom { plugin: plugin.clone(), free: limit.saturating_sub(running) }
        };
        self.limits.iter().map(room).collect()
    }

    /// What counts the executions of a plugin: also where it has no limit now, since it may get one.
    pub(super) fn running(&mut self, plugin: &Name) -> Arc<AtomicU32> {
        match self.running.get(plugin) {
            Some(running) => running.clone(),
            None => self.running.entry(plugin.clone()).or_default().clone(),
        }
    }
}

/// Where in a queue executions were passed by, for want of room.
#[derive(Debug, Default)]
pub(super) struct Passed(BTreeMap<Name, i64>);

/// A scan of a queue, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scan<'a> {
    /// The lowest rank that was looked at. None: all.
    pub(super) floor: Option<i64>,
    /// Candidates at most.
    pub(super) limit: u32,
    /// The rooms that it was made with.
    pub(super) rooms: &'a [PluginRoom],
}

impl Passed {
    /// The lowest rank at which there may be something that has room by now, and how many there is
    /// room for.
    pub(super) fn to_look_at(&self, rooms: &[PluginRoom]) -> Option<(i64, u32)> {
        let free = rooms.iter().filter(|room| room.free > 0);
        let passed = free.filter_map(|room| Some((*self.0.get(&room.plugin)?, room.free)));
        passed.reduce(|(low, room), (rank, free)| (low.min(rank), room.saturating_add(free)))
    }

    /// Notes what a scan has shown.
    pub(super) fn note(&mut self, scan: Scan<'_>, started: &Started) {
        for PluginRoom { plugin, free } in scan.rooms {
            let taken = |attempts: &[Attempt]| attempts.iter().filter(|a| a.job.plugin == *plugin).count();
            if *free == 0 {
                let from = scan.floor.unwrap_or(i64::MIN);
                self.0.entry(plugin.clone()).and_modify(|rank| *rank = from.min(*rank)).or_insert(from);
            } else if started.found > started.claimed && taken(&started.attempts) >= *free as usize {
                // One that was too many comes after those that were taken.
                let from = started.lowest_rank.unwrap_or(i64::MIN);
                self.0.insert(plugin.clone(), from.saturating_sub(SLACK));
            } else if started.to_the_end {
                self.0.remove(plugin);
            } else if let (Some(rank), Some(highest)) = (self.0.get_mut(plugin), started.highest_rank) {
                *rank = highest.saturating_sub(SLACK).max(*rank);
            }
        }
        self.0.retain(|plugin, _| scan.rooms.iter().any(|room| room.plugin == *plugin));
    }

    /// True where something was passed by, as far as is known.
    pub(super) fn is_any(&self) -> bool {
        !self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn room(free: u32) -> Vec<PluginRoom> {
        vec![PluginRoom { plugin: name("p"), free }]
    }

    fn started(claimed: usize, found: usize, ranks: (i64, i64)) -> Started {
        Started {
            attempts: Vec::new(),
            lowest_rank: Some(ranks.0),
            claimed,
            found,
            to_the_end: found < 10,
            highest_rank: Some(ranks.1),
        }
    }

    fn scan(floor: Option<i64>, rooms: &[PluginRoom]) -> Scan<'_> {
        Scan { floor, limit: 10, rooms }
    }

    #[test]
    fn a_plugin_has_as_much_room_as_its_limit_leaves() {
        let mut plugins = Plugins::default();
        plugins.running(&name("p")).store(3, Ordering::SeqCst);
        assert_eq!(plugins.rooms(), [], "there is no limit");
        plugins.limit([(name("p"), 4), (name("q"), 2)].into_iter());
        let free = |plugins: &Plugins| plugins.rooms().iter().map(|room| room.free).collect::<Vec<_>>();
        assert_eq!(free(&plugins), [1, 2]);
        plugins.limit([(name("p"), 2)].into_iter());
        assert_eq!(free(&plugins), [0], "a lower limit ends nothing");
    }

    #[test]
    fn what_was_passed_by_is_looked_at_from_there_on_as_soon_as_there_is_room() {
        let mut passed = Passed::default();
        passed.note(scan(Some(70), &room(0)), &started(10, 10, (700, 800)));
        passed.note(scan(Some(90), &room(0)), &started(10, 10, (900, 990)));
        assert_eq!(passed.to_look_at(&room(0)), None, "there is no room");
        assert_eq!(passed.to_look_at(&room(2)), Some((70, 2)));
    }

    #[test]
    fn what_was_looked_at_with_room_is_not_looked_at_again() {
        let mut passed = Passed::default();
        passed.note(scan(None, &room(0)), &started(10, 10, (0, 0)));
        passed.note(scan(None, &room(2)), &started(10, 10, (0, 2 * SLACK)));
        assert_eq!(passed.to_look_at(&room(1)), Some((SLACK, 1)));
        passed.note(scan(Some(SLACK), &room(2)), &started(3, 3, (0, 3 * SLACK)));
        assert!(!passed.is_any(), "the scan has come to the end");
    }

    #[test]
    fn a_plugin_that_loses_its_limit_has_passed_nothing_by() {
        let mut passed = Passed::default();
        passed.note(scan(None, &room(0)), &started(0, 0, (0, 0)));
        passed.note(scan(None, &[]), &started(0, 0, (0, 0)));
        assert!(!passed.is_any());
    }
}
