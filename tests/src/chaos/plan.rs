//! Which faults strike, where, and in which order: all of it follows from the seed.

use std::fmt;

use fastrand::Rng;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL; the host starts again under its name.
    Kill,
    /// SIGSTOP until another host has ended the session, then SIGCONT.
    Stop,
    /// SIGTERM; the host starts again.
    Drain,
    /// SIGTERM, and another one while it drains; the host starts again.
    SecondSignal,
    /// Every server process of the store is terminated.
    TerminateStore,
    /// Every server process of the plugin's database is terminated.
    TerminatePlugin,
    /// Both.
    TerminateAll,
    /// PostgreSQL is stopped in the middle of everything, and recovers.
    RestartImmediate,
    /// PostgreSQL is stopped in order, and starts again.
    RestartFast,
    /// The network drops what it carries, in one direction or both, and tells nobody.
    Silence,
    /// The network resets every connection, and perhaps refuses new ones for a while.
    Reset,
    /// The primary only reads for a while.
    ReadOnly,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::Kill,
        Self::Stop,
        Self::Drain,
        Self::SecondSignal,
        Self::TerminateStore,
        Self::TerminatePlugin,
        Self::TerminateAll,
        Self::RestartImmediate,
        Self::RestartFast,
        Self::Silence,
        Self::Reset,
        Self::ReadOnly,
    ];

    /// As the table names it.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Kill => "SIGKILL",
            Self::Stop => "SIGSTOP, SIGCONT",
            Self::Drain => "SIGTERM",
            Self::SecondSignal => "SIGTERM twice",
            Self::TerminateStore => "store's backends ended",
            Self::TerminatePlugin => "plugin's backends ended",
            Self::TerminateAll => "all backends ended",
            Self::RestartImmediate => "PostgreSQL, immediate",
            Self::RestartFast => "PostgreSQL, fast",
            Self::Silence => "network silent",
            Self::Reset => "network resets",
            Self::ReadOnly => "primary read-only",
        }
    }
}

/// Where in an execution's life it strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Wherever the hosts happen to be.
    Anywhere,
    /// At this point, on the host that the fault is for.
    At(Point),
}

/// A point at which a host is held: what it says next, or is told next, does not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// START has claimed executions; its COMMIT does not arrive.
    StartCommit,
    /// START is committed; the host is not told.
    StartAnswer,
    /// The handler has written; its COMMIT does not arrive.
    HandlerCommit,
    /// The handler is between two transactions of its own.
    BetweenTransactions,
    /// The handler has returned; what is to be recorded does not arrive.
    Returned,
    /// The completion is written; its COMMIT does not arrive.
    CompletionCommit,
    /// The completion is committed; the host is not told.
    CompletionAnswer,
}

impl Point {
    /// While a host is held here, a transaction of it holds the lock on its session, which keeps
    /// the rescuers away.
    #[must_use]
    pub fn holds_the_session(self) -> bool {
        match self {
            Self::StartCommit | Self::BetweenTransactions | Self::Returned | Self::CompletionCommit => true,
            Self::StartAnswer | Self::HandlerCommit | Self::CompletionAnswer => false,
        }
    }
}

impl Phase {
    /// Every phase, in the order of an execution's life.
    pub const ALL: [Self; 8] = [
        Self::Anywhere,
        Self::At(Point::StartCommit),
        Self::At(Point::StartAnswer),
        Self::At(Point::HandlerCommit),
        Self::At(Point::BetweenTransactions),
        Self::At(Point::Returned),
        Self::At(Point::CompletionCommit),
        Self::At(Point::CompletionAnswer),
    ];

    /// As the table names it.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Anywhere => "anywhere",
            Self::At(Point::StartCommit) => "before START commits",
            Self::At(Point::StartAnswer) => "between START and call",
            Self::At(Point::HandlerCommit) => "before a COMMIT of the handler",
            Self::At(Point::BetweenTransactions) => "between two of its transactions",
            Self::At(Point::Returned) => "after the call",
            Self::At(Point::CompletionCommit) => "before COMPLETION commits",
            Self::At(Point::CompletionAnswer) => "committed, and not known",
        }
    }

    /// Where a host is held, if anywhere.
    #[must_use]
    pub fn point(self) -> Option<Point> {
        match self {
            Self::Anywhere => None,
            Self::At(point) => Some(point),
        }
    }
}

/// In which direction the network is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Nothing arrives anywhere.
    Both,
    /// What the host says does not arrive.
    ToServer,
    /// What the host is told does not arrive.
    ToHost,
}

impl Direction {
    fn title(self) -> &'static str {
        match self {
            Self::Both => "both ways",
            Self::ToServer => "to the server",
            Self::ToHost => "to the host",
        }
    }
}

/// One fault.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What goes wrong.
    pub kind: Kind,
    /// Where.
    pub phase: Phase,
    /// Which of the hosts it is for.
    pub host: usize,
    /// What is held up arrives late, and is not lost.
    pub arrives_late: bool,
    /// It lasts until host sessions are over, where it can.
    pub is_long: bool,
    /// For a silent network.
    pub direction: Direction,
}

impl Kind {
    /// It may last until host sessions are over.
    fn can_be_long(self) -> bool {
        use Kind::{ReadOnly, Reset, RestartFast, RestartImmediate, Silence};
        matches!(self, RestartImmediate | RestartFast | Silence | Reset | ReadOnly)
    }

    /// What is held up can be lost, or arrive late.
    fn can_be_late(self) -> bool {
        !matches!(self, Self::Drain | Self::SecondSignal | Self::Reset | Self::ReadOnly)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, host {}", self.kind.title(), self.phase.title(), self.host + 1)?;
        if self.kind == Kind::Silence {
            write!(f, ", {}", self.direction.title())?;
        }
        if self.kind.can_be_long() {
            write!(f, ", {}", if self.is_long { "long" } else { "short" })?;
        }
        if self.kind.can_be_late() {
            write!(f, ", what is held {}", if self.arrives_late { "arrives late" } else { "is lost" })?;
        }
        Ok(())
    }
}

/// Deals the faults: with 20 of them each kind and each phase has had its turn, with 96 each pair
/// of both, and nothing comes much more often than anything else.
#[must_use]
pub fn deal(seed: u64, count: usize, hosts: usize) -> Vec<Fault> {
    let mut rng = Rng::with_seed(seed);
    let mut dealt: Vec<Fault> = Vec::with_capacity(count);
    let mut pairs = Vec::new();
    for _ in 0..count {
        if pairs.is_empty() {
            pairs = Kind::ALL.iter().flat_map(|kind| Phase::ALL.map(|phase| (*kind, phase))).collect();
            rng.shuffle(&mut pairs);
        }
        let times = |(kind, phase): &(Kind, Phase)| {
            let kinds = dealt.iter().filter(|fault| fault.kind == *kind).count();
            let phases = dealt.iter().filter(|fault| fault.phase == *phase).count();
            // There are fewer phases than kinds.
            kinds * Kind::ALL.len() + phases * Phase::ALL.len()
        };
        let rarest = (0..pairs.len()).min_by_key(|at| times(&pairs[*at])).unwrap_or(0);
        let (kind, phase) = pairs.swap_remove(rarest);
        let directions = [Direction::Both, Direction::ToServer, Direction::ToHost];
        dealt.push(Fault {
            kind,
            phase,
            host: rng.usize(0..hosts),
            arrives_late: rng.bool(),
            is_long: rng.bool(),
            direction: directions[rng.usize(0..directions.len())],
        });
    }
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_deals_the_same() {
        let deal = |seed| format!("{:?}", deal(seed, 50, 3));
        assert_eq!(deal(7), deal(7));
        assert_ne!(deal(7), deal(8));
    }

    #[test]
    fn every_kind_and_every_phase_has_its_turn() {
        for seed in 0..50 {
            let dealt = deal(seed, 20, 3);
            assert!(Kind::ALL.iter().all(|kind| dealt.iter().any(|fault| fault.kind == *kind)), "{seed}");
            assert!(Phase::ALL.iter().all(|phase| dealt.iter().any(|fault| fault.phase == *phase)), "{seed}");
            let dealt = deal(seed, 96, 3);
            for (kind, phase) in Kind::ALL.iter().flat_map(|kind| Phase::ALL.map(|phase| (*kind, phase))) {
                assert!(dealt.iter().any(|fault| fault.kind == kind && fault.phase == phase), "{seed}");
            }
        }
    }
}
