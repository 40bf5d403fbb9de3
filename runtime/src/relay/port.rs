//! What the relay asks of the database. No connection outlives a call, and a broken one closes.

use std::{collections::HashMap, time::Duration};

use uuid::Uuid;

use crate::{
    engine::Ledger,
    error::Error,
    fault,
    model::{Envelope, EventRef},
    store::{self, Dialect, Due, Fence, Lease, Postponed},
};

#[derive(Debug)]
pub(super) struct Port<DB: Dialect> {
    ledger: Ledger<DB>,
    /// Who asks: another one in each run, so that what an earlier run still has in flight is a stranger's.
    relay: Uuid,
    /// For how long what is settled is kept.
    keep: Option<Duration>,
}

/// One verb on a connection of the pool; `write` takes a turn in the queue of SQLite's one writer first.
macro_rules! ask {
    (write $port:ident.$verb:ident($($argument:expr),*)) => {{
        let _writer = $port.ledger.writers().turn().await?;
        ask!($port.$verb($($argument),*))
    }};
    ($port:ident.$verb:ident($($argument:expr),*)) => {{
        let mut lent = $port.ledger.session().await?;
        fault::point(concat!("before_", stringify!($verb))).await.map_err(store::error::<DB>)?;
        let answer = DB::$verb(lent.conn(), $port.ledger.sql(), $($argument),*).await;
        let answer = answer.map_err(store::error::<DB>)?;
        fault::point(concat!("after_", stringify!($verb))).await.map_err(store::error::<DB>)?;
        $port.ledger.end_session(lent).await;
        Ok(answer)
    }};
}

impl<DB: Dialect> Port<DB> {
    pub(super) fn new(ledger: Ledger<DB>, keep: Option<Duration>) -> Self {
        Self {
            ledger,
            relay: Uuid::new_v4(),
            keep,
        }
    }

    pub(super) fn ledger(&self) -> &Ledger<DB> {
        &self.ledger
    }

    fn fence<'a>(&self, leases: &'a [Lease]) -> Fence<'a> {
        Fence {
            relay: self.relay,
            leases,
        }
    }

    /// Fails when the tables are missing or of another version.
    pub(super) async fn check(&self) -> Result<(), Error> {
        self.ledger.lend().await.map(crate::engine::Lent::give_back)
    }

    pub(super) async fn heartbeat(&self, ttl: Duration) -> Result<u64, Error> {
        ask!(write self.heartbeat(self.relay, ttl))
    }

    pub(super) async fn renew(
        &self,
        ttl: Duration,
        recovered: &[u16],
    ) -> Result<Vec<Lease>, Error> {
        ask!(write self.renew(self.relay, ttl, recovered))
    }

    pub(super) async fn acquire(&self, ttl: Duration, limit: usize) -> Result<Vec<Lease>, Error> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        ask!(write self.acquire(self.relay, ttl, limit))
    }

    /// The partitions of these leases that are ours at this moment, by the database's clock.
    pub(super) async fn still_held(&self, leases: &[Lease]) -> Result<Vec<u16>, Error> {
        let held: Result<Vec<i16>, Error> = ask!(self.still_held(self.fence(leases)));
        Ok(held?.into_iter().map(i16::unsigned_abs).collect())
    }

    pub(super) async fn give_up(&self, leases: &[Lease]) -> Result<(), Error> {
        ask!(write self.give_up(self.fence(leases)))
    }

    pub(super) async fn resign(&self) -> Result<(), Error> {
        ask!(write self.resign(self.relay))
    }

    pub(super) async fn promote(&self, leases: &[Lease]) -> Result<u64, Error> {
        let promoted: Result<u64, Error> = ask!(write self.promote(self.fence(leases)));
        let promoted = promoted?;
        if promoted > 0 {
            fault::point("after_promotion")
                .await
                .map_err(store::error::<DB>)?;
        }
        Ok(promoted)
    }

    pub(super) async fn parked(&self, partitions: &[u16]) -> Result<Vec<u16>, Error> {
        ask!(self.parked(partitions))
    }

    pub(super) async fn due(&self, due: Due<'_>) -> Result<Vec<Envelope>, Error> {
        ask!(self.due(due))
    }

    /// The places of those of these events that stand in the outbox. A place alone says nothing: a database that was restored,
    /// or whose tables were emptied, has given it to another event.
    pub(super) async fn places_of(
        &self,
        partition: u16,
        events: Vec<EventRef>,
    ) -> Result<Vec<(u16, i64)>, Error> {
        let database = self.ledger.database().await?;
        let ours: HashMap<i64, Uuid> = events
            .into_iter()
            .filter(|event| event.database == database)
            .map(|event| (event.outbox_id, event.id))
            .collect();
        if ours.is_empty() {
            return Ok(Vec::new());
        }
        let places: Vec<i64> = ours.keys().copied().collect();
        let found: Result<Vec<(i64, Uuid)>, Error> = ask!(self.at_places(partition, &places));
        let same = |(place, id): &(i64, Uuid)| ours.get(place) == Some(id);
        let found = found?.into_iter().filter(same);
        Ok(found.map(|(place, _)| (partition, place)).collect())
    }

    pub(super) async fn settle(
        &self,
        leases: &[Lease],
        events: &[(u16, i64)],
    ) -> Result<u64, Error> {
        ask!(write self.settle(self.fence(leases), events, self.keep))
    }

    pub(super) async fn postpone(
        &self,
        lease: Lease,
        outbox_id: i64,
        how: Postponed<'_>,
    ) -> Result<bool, Error> {
        ask!(write self.postpone(self.relay, lease, outbox_id, how))
    }

    pub(super) async fn bury(
        &self,
        lease: Lease,
        outbox_id: i64,
        reason: &str,
    ) -> Result<bool, Error> {
        ask!(write self.bury(self.relay, lease, outbox_id, reason))
    }

    pub(super) async fn suspect(&self, lease: Lease, outbox_id: i64) -> Result<Option<u16>, Error> {
        ask!(write self.suspect(self.relay, lease, outbox_id))
    }

    pub(super) async fn acquit(&self, lease: Lease, outbox_id: i64) -> Result<(), Error> {
        ask!(write self.acquit(self.relay, lease, outbox_id))
    }
}
