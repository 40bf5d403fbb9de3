//! The partitions that this relay holds, and what each is at.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    fault::{Bug, is_planted},
    model::backoff::jittered,
    store::Lease,
};

#[derive(Debug, Default)]
pub(super) struct Partitions(Mutex<BTreeMap<u16, Held>>);

#[derive(Debug)]
struct Held {
    lease: Lease,
    /// Nothing is published or settled after this moment: the lease ends a little later, by the database's clock.
    until: Instant,
    /// A batch of it is being published or settled.
    busy: bool,
    /// Another relay is to have it.
    leaving: bool,
    /// After a death, how much may be published at once: one event, then twice as much each time.
    ramp: Option<usize>,
    /// Its ramp is over, and the database does not know yet.
    recovered: bool,
    /// Keys may be parked in it, so that reading has to look for them.
    parked: bool,
    /// `parked` is not what the database says any more.
    stale: bool,
    /// A postponement was not answered and may still happen: `parked` stays as it is for as long as the lease.
    unanswered: bool,
    /// What a sink said of an event could not be written so many times in a row.
    unwritten: u32,
    /// Nothing of it is read before: the sink is not to be asked over and over.
    rests_until: Option<Instant>,
    /// The routes whose sink knows that the partition is ours.
    assigned: HashSet<usize>,
}

/// A partition that may be read.
#[derive(Debug, Clone)]
pub(super) struct Idle {
    pub(super) lease: Lease,
    pub(super) ramp: Option<usize>,
    pub(super) parked: bool,
    pub(super) stale: bool,
}

/// How a batch ended for one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    /// Nothing unusual: the ramp may go on.
    Well,
    /// The sink panicked: one event at a time from here.
    Panicked,
    /// Events were published and could not be settled.
    Unsettled,
    /// The database refuses what a sink has said of an event.
    Unwritten,
}

/// The pause after the database has refused to write once, and the longest. Each is twice the one before.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);

impl Partitions {
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Those that may be read.
    pub(super) fn idle(&self) -> Vec<Idle> {
        let now = Instant::now();
        let held = self.lock();
        let idle = held
            .values()
            .filter(|held| !held.busy && !held.leaving && held.until > now)
            .filter(|held| held.rests_until.is_none_or(|until| until <= now));
        idle.map(|held| Idle {
            lease: held.lease,
            ramp: held.ramp,
            parked: held.parked,
            stale: held.stale && !held.unanswered,
        })
        .collect()
    }

    /// A key of these may be parked now: that is asked for before they are read, however a batch of them ends.
    pub(super) fn set_stale(&self, leases: &[Lease]) {
        let mut all = self.lock();
        for lease in leases {
            if let Some(held) = same(&mut all, *lease) {
                held.parked = true;
                held.stale = true;
            }
        }
    }

    /// Something that waited in these was moved: keys that were parked may be no longer.
    pub(super) fn promoted(&self, leases: &[Lease]) {
        let mut all = self.lock();
        for lease in leases {
            if let Some(held) = same(&mut all, *lease) {
                held.stale |= held.parked;
            }
        }
    }

    pub(super) fn set_parked(&self, lease: Lease, parked: bool) {
        if let Some(held) = same(&mut self.lock(), lease) {
            held.parked = parked;
            held.stale = false;
        }
    }

    /// An event of it was to be postponed, and whether that happened is not known.
    pub(super) fn unanswered(&self, lease: Lease) {
        if let Some(held) = same(&mut self.lock(), lease) {
            held.parked = true;
            held.unanswered = true;
        }
    }

    /// A batch of these begins. A lease that was lost since it was read, and has come back under another epoch, has no batch: its end
    /// would be nobody's, and the partition would not be read again.
    pub(super) fn start(&self, leases: &[Lease]) {
        let mut all = self.lock();
        for lease in leases {
            if let Some(held) = same(&mut all, *lease) {
                held.busy = true;
            }
        }
    }

    /// A batch ended. `full`: how much a batch is when nothing is wrong.
    pub(super) fn finish(&self, lease: Lease, finish: Finish, full: usize) {
        let mut all = self.lock();
        let Some(held) = same(&mut all, lease) else {
            return;
        };
        held.busy = false;
        match finish {
            Finish::Well => held.climb(full),
            Finish::Panicked => held.ramp = Some(1),
            // The sinks say again what they have published, before anything more is.
            Finish::Unsettled => held.assigned.clear(),
            Finish::Unwritten => held.rest(),
        }
        if finish != Finish::Unwritten {
            held.unwritten = 0;
        }
    }

    /// Nothing waits in it, so nothing in it can have killed anybody.
    pub(super) fn trust(&self, lease: Lease) {
        if let Some(held) = same(&mut self.lock(), lease)
            && held.ramp.take().is_some()
        {
            held.recovered = true;
        }
    }

    /// Whether the sink of this route has to be told of the partition.
    pub(super) fn is_assigned(&self, lease: Lease, route: usize) -> bool {
        same(&mut self.lock(), lease).is_some_and(|held| held.assigned.contains(&route))
    }

    pub(super) fn assign(&self, lease: Lease, route: usize) {
        if let Some(held) = same(&mut self.lock(), lease) {
            held.assigned.insert(route);
        }
    }

    /// It is not clear what the sink of this route has published: it is asked before anything more is.
    pub(super) fn unassign(&self, leases: &[Lease], route: usize) {
        let mut all = self.lock();
        for lease in leases {
            if let Some(held) = same(&mut all, *lease) {
                held.assigned.remove(&route);
            }
        }
    }

    /// Until when all of these leases hold, as far as is known now; `None` when one is lost. They are extended meanwhile, so ask
    /// again when the time has come.
    pub(super) fn until(&self, leases: &[Lease]) -> Option<Instant> {
        let mut all = self.lock();
        let until = |lease: &Lease| same(&mut all, *lease).map(|held| held.until);
        let until: Option<Vec<Instant>> = leases.iter().map(until).collect();
        until?
            .into_iter()
            .min()
            .filter(|until| *until > Instant::now())
    }

    /// Those whose ramp is over.
    pub(super) fn recovered(&self) -> Vec<u16> {
        let all = self.lock();
        let recovered = all.values().filter(|held| held.recovered);
        recovered.map(|held| held.lease.partition).collect()
    }

    /// The database has extended these leases and no others. Answers those that are lost.
    ///
    /// One that is not known here is ours as well: the answer to an acquisition was lost, or a giving up failed. Nobody else can
    /// have it as long as it is extended, so it must be worked on.
    pub(super) fn renewed(&self, leases: &[Lease], until: Instant, recovered: &[u16]) -> Vec<Lost> {
        let mut all = self.lock();
        let mut lost = Vec::new();
        all.retain(|partition, held| {
            let same_epoch = |lease: &Lease| {
                lease.epoch == held.lease.epoch || is_planted(Bug::RenewalIgnoresEpoch)
            };
            let ours = |lease: &&Lease| lease.partition == *partition && same_epoch(lease);
            let still = leases.iter().any(|lease| ours(&lease));
            if still {
                held.until = until;
                held.recovered &= !recovered.contains(partition);
            } else {
                lost.push(held.lost());
            }
            still
        });
        for lease in leases {
            all.entry(lease.partition)
                .or_insert_with(|| Held::new(*lease, until));
        }
        lost
    }

    pub(super) fn acquired(&self, leases: Vec<Lease>, until: Instant) {
        let mut all = self.lock();
        for lease in leases {
            all.insert(lease.partition, Held::new(lease, until));
        }
    }

    /// Marks so many as leaving, and gives out those of them that nothing is in flight of.
    pub(super) fn leave(&self, surplus: usize) -> Vec<Lost> {
        let mut all = self.lock();
        let leaving = all.values().filter(|held| held.leaving).count();
        let more = all.values_mut().filter(|held| !held.leaving);
        for held in more.take(surplus.saturating_sub(leaving)) {
            held.leaving = true;
        }
        let mut left = Vec::new();
        all.retain(|_, held| {
            let goes = held.leaving && !held.busy;
            if goes {
                left.push(held.lost());
            }
            !goes
        });
        left
    }

    /// Gives all out: the relay ends.
    pub(super) fn take_all(&self) -> Vec<Lost> {
        let all = std::mem::take(&mut *self.lock());
        all.values().map(Held::lost).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u16, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A partition that is not ours any more, and the routes whose sink has to hear of it.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) lease: Lease,
    pub(super) assigned: Vec<usize>,
}

impl Held {
    fn new(lease: Lease, until: Instant) -> Self {
        Self {
            lease,
            until,
            busy: false,
            leaving: false,
            ramp: (lease.deaths > 0).then_some(1),
            recovered: false,
            parked: true,
            stale: true,
            unanswered: false,
            unwritten: 0,
            rests_until: None,
            assigned: HashSet::new(),
        }
    }

    fn climb(&mut self, full: usize) {
        let Some(level) = self.ramp else {
            return;
        };
        self.ramp = Some(level * 2).filter(|level| *level < full);
        self.recovered = self.ramp.is_none();
    }

    fn rest(&mut self) {
        let full = FIRST_REST * 2_u32.pow(self.unwritten.min(6));
        self.unwritten = self.unwritten.saturating_add(1);
        self.rests_until = Some(Instant::now() + jittered(full.min(LONGEST_REST)));
    }

    fn lost(&self) -> Lost {
        Lost {
            lease: self.lease,
            assigned: self.assigned.iter().copied().collect(),
        }
    }
}

/// The partition, if it is still held under the same lease.
fn same(held: &mut BTreeMap<u16, Held>, lease: Lease) -> Option<&mut Held> {
    held.get_mut(&lease.partition)
        .filter(|held| held.lease.epoch == lease.epoch)
}
