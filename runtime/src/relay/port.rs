//! What the relay asks of the database. No connection outlives a call, and a broken one closes. A database that does not answer
//! is given up: the connection closes, and another one is asked.

use std::{collections::HashMap, time::Duration};

use tokio::time::timeout;
use uuid::Uuid;

use super::group::{Group, Standing};
use crate::{
    engine::Ledger,
    error::{Error, ErrorKind},
    fault,
    model::{Envelope, EventRef},
    store::{self, Dialect, Due, Fence, Lease, Member, Postponed, Pulse},
};

#[derive(Debug)]
pub(super) struct Port<DB: Dialect> {
    ledger: Ledger<DB>,
    /// Who asks: another one in each run, so that what an earlier run still has in flight is a stranger's.
    relay: Uuid,
    group: Group,
    /// For how long what is settled is kept.
    keep: Option<Duration>,
}

/// One verb on a connection of the pool; `write` takes a turn in the queue of SQLite's one writer first.
macro_rules! ask {
    (write $port:ident.$verb:ident($($argument:expr),*)) => {{
        let _writer = $port.ledger.writers().turn().await?;
        ask!($port.$verb($($argument),*))
    }};
    ($port:ident.$verb:ident($($argument:expr),*)) => {
        in_time(async {
            let mut lent = $port.ledger.session().await?;
            fault::point(concat!("before_", stringify!($verb))).await.map_err(store::error::<DB>)?;
            let answer = DB::$verb(lent.conn(), $port.ledger.sql(), $($argument),*).await;
            let answer = answer.map_err(store::error::<DB>)?;
            fault::point(concat!("after_", stringify!($verb))).await.map_err(store::error::<DB>)?;
            $port.ledger.end_session(lent).await;
            Ok(answer)
        })
        .await
    };
}

/// How long one statement may take, with the connection for it. As long as a lease holds by default: a relay that waits longer
/// has lost what the statement stands on.
const PATIENCE: Duration = Duration::from_secs(10);

async fn in_time<T>(asked: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(PATIENCE, asked)
        .await
        .unwrap_or_else(|silence| Err(Error::caused_by(ErrorKind::Unavailable, silence)))
}

impl<DB: Dialect> Port<DB> {
    pub(super) fn new(ledger: Ledger<DB>, group: Group, keep: Option<Duration>) -> Self {
        Self {
            ledger,
            relay: Uuid::new_v4(),
            group,
            keep,
        }
    }

    pub(super) fn ledger(&self) -> &Ledger<DB> {
        &self.ledger
    }

    pub(super) fn group(&self) -> &Group {
        &self.group
    }

    fn member(&self) -> Member<'_> {
        Member {
            relay: self.relay,
            group: self.group.number,
            routes: &self.group.routes,
        }
    }

    fn fence<'a>(&self, leases: &'a [Lease]) -> Fence<'a> {
        Fence {
            relay: self.relay,
            leases,
        }
    }

    /// Fails when the tables are missing or of another version.
    pub(super) async fn check(&self) -> Result<(), Error> {
        in_time(async { self.ledger.lend().await.map(crate::engine::Lent::give_back) }).await
    }

    /// The routes of the relays that this one does not stand apart from; empty: it has joined its group.
    pub(super) async fn join(&self, ttl: Duration) -> Result<Vec<Option<String>>, Error> {
        let apart = |routes: Option<&str>| self.group.beside(routes) == Standing::Apart;
        ask!(write self.join(self.member(), ttl, apart))
    }

    pub(super) async fn heartbeat(&self, ttl: Duration) -> Result<Pulse, Error> {
        ask!(write self.heartbeat(self.member(), ttl))
    }

    pub(super) async fn make_leases(&self) -> Result<(), Error> {
        ask!(write self.make_leases(self.group.number))
    }

    pub(super) async fn renew(&self, recovered: &[u16]) -> Result<Vec<Lease>, Error> {
        ask!(write self.renew(self.relay, recovered))
    }

    pub(super) async fn acquire(&self, limit: usize) -> Result<Vec<Lease>, Error> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        ask!(write self.acquire(self.member(), limit))
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
        ask!(write self.acquit(lease, outbox_id))
    }
}
