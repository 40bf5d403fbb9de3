//! What the relay says to a database: reading what is due, settling, dead letters.
//!
//! Everything that changes a row of a partition carries the lease that it stands on, and changes nothing when that lease is
//! not held any more: its holder, its epoch and its time are asked in the same statement, by the database's clock.

#[cfg(any(feature = "mysql", feature = "sqlite"))]
use std::{collections::BTreeMap, fmt::Write};
use std::{future::Future, time::Duration};

use sqlx::Pool;
use uuid::Uuid;

use super::{
    Verbs,
    leases::{Fence, Lease},
};
use crate::model::{Envelope, Headers, Pattern};

/// Which events to read.
#[cfg_attr(
    not(feature = "mysql"),
    allow(dead_code, reason = "MySQL alone reads all of it")
)]
#[derive(Debug, Clone, Copy)]
pub struct Due<'a> {
    pub(crate) partitions: &'a [u16],
    /// At most so many of each partition, so that one does not keep the others waiting.
    pub(crate) per_partition: i64,
    pub(crate) limit: i64,
    /// Which topics may be read: the first entry that takes a topic says so, and what none takes may not. Empty: all.
    pub(crate) topics: &'a [(Pattern, bool)],
    /// The topics of the routes, the most exact first: a parked key is parked on the route of the event that waits.
    pub(crate) routes: &'a [Pattern],
    /// The partitions in which keys may be parked, see [`RelayVerbs::parked`].
    pub(crate) parked: &'a [u16],
}

/// How an event waits that a sink has rejected.
#[derive(Debug, Clone, Copy)]
pub struct Postponed<'a> {
    pub(crate) delay: Duration,
    /// Why it was rejected.
    pub(crate) reason: &'a str,
    /// Whether later events of its key on its route may pass it; if not, the key is parked.
    pub(crate) passable: bool,
}

/// An event that will not be published by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Its place in the outbox, where it returns to when it is retried. If another dead letter has that number already, because
    /// the database gives places out again after a restore, the next free one.
    pub id: i64,
    /// The event's id.
    pub event_id: Uuid,
    /// Where it was to be published.
    pub topic: String,
    /// Its type.
    pub name: String,
    /// Its partition key.
    pub partition_key: Option<String>,
    /// Its body.
    pub data: Vec<u8>,
    /// Its extra headers.
    pub headers: Headers,
    /// How often it was tried.
    pub attempts: u16,
    /// Why the last attempt failed.
    pub error: String,
    /// When it was staged: the time since 1970 by the database's clock.
    pub staged_at: Duration,
    /// When it was given up: the time since 1970 by the database's clock.
    pub failed_at: Duration,
}

/// How much waits, and how long already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backlog {
    /// Events that are due.
    pub due: u64,
    /// Events that are not due yet.
    pub delayed: u64,
    /// Events that a sink rejected and that are tried again.
    pub retrying: u64,
    /// How long the oldest event that is due has been waiting.
    pub oldest: Duration,
    /// Events that were given up.
    pub dead_letters: u64,
    /// Keys whose call ended its own transaction.
    pub interrupted_keys: u64,
    /// Relays that are alive.
    pub relays: u64,
}

/// One verb per thing the relay does to the database. Each is one statement, or one transaction of its own.
#[doc(hidden)]
pub trait RelayVerbs: Verbs {
    /// Puts a session right for statements outside a call, whatever an earlier borrower has set in it. Returns whether it must be
    /// put back. Where nothing that a session holds moves our statements, there is nothing to do.
    fn put_right(_conn: &mut Self::Connection) -> impl Future<Output = sqlx::Result<bool>> + Send {
        async { Ok(false) }
    }
    /// Gives the session the settings back that it had.
    fn put_back(_conn: &mut Self::Connection) -> impl Future<Output = sqlx::Result<()>> + Send {
        async { Ok(()) }
    }

    /// Moves what has become due into its partition, and answers how much that was.
    fn promote(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        fence: Fence<'_>,
    ) -> impl Future<Output = sqlx::Result<u64>> + Send;
    /// Those of these partitions in which keys may be parked, where a read is quicker that need not look for them.
    fn parked(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        partitions: &[u16],
    ) -> impl Future<Output = sqlx::Result<Vec<u16>>> + Send {
        let _ = (conn, sql);
        std::future::ready(Ok(partitions.to_vec()))
    }
    /// The first events of each partition that may be read, in its order: without those that stand behind one of their key and
    /// route that waits and may not be passed.
    fn due(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        due: Due<'_>,
    ) -> impl Future<Output = sqlx::Result<Vec<Envelope>>> + Send;

    /// Removes published events, and answers how many. Fewer: a lease is lost. `keep`: for how long they are kept elsewhere.
    fn settle(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        fence: Fence<'_>,
        events: &[(u16, i64)],
        keep: Option<Duration>,
    ) -> impl Future<Output = sqlx::Result<u64>> + Send;
    /// Deletes up to `limit` published events that have been kept long enough, and answers how many.
    fn purge_published(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        limit: i64,
    ) -> impl Future<Output = sqlx::Result<u64>> + Send;
    /// Counts an attempt and lets the event wait. `false`: the lease is lost.
    fn postpone(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        relay: Uuid,
        lease: Lease,
        outbox_id: i64,
        how: Postponed<'_>,
    ) -> impl Future<Output = sqlx::Result<bool>> + Send;
    /// Makes a dead letter of it. `false`: the lease is lost.
    fn bury(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        relay: Uuid,
        lease: Lease,
        outbox_id: i64,
        reason: &str,
    ) -> impl Future<Output = sqlx::Result<bool>> + Send;
    /// Notes that this event alone is about to be published, and answers under how many leases that was noted and never taken
    /// back, this one included. `None`: the lease is lost.
    fn suspect(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        relay: Uuid,
        lease: Lease,
        outbox_id: i64,
    ) -> impl Future<Output = sqlx::Result<Option<u16>>> + Send;

    /// Takes back what [`suspect`](Self::suspect) has noted under this lease: publishing has come to an end. The lease may be over: the note
    /// names its epoch, so nobody else's is taken back.
    fn acquit(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        lease: Lease,
        outbox_id: i64,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Tells relays in other processes that there is something. `false`: this database has no such thing.
    fn notify(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
    ) -> impl Future<Output = sqlx::Result<bool>> + Send;

    /// Calls back whenever another process notifies. Never ends; does nothing where there is no such thing.
    fn listen(
        pool: &Pool<Self>,
        heard: impl Fn() + Send + Sync,
    ) -> impl Future<Output = ()> + Send {
        let _ = (pool, heard);
        std::future::pending()
    }

    /// The dead letters after this one, oldest first.
    fn dead_letters(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        after: i64,
        limit: i64,
    ) -> impl Future<Output = sqlx::Result<Vec<DeadLetter>>> + Send;
    /// Puts a dead letter back into the outbox. `false`: it is none.
    fn retry(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        id: i64,
    ) -> impl Future<Output = sqlx::Result<bool>> + Send;
    /// Deletes a dead letter. `false`: it is none.
    fn discard(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        id: i64,
    ) -> impl Future<Output = sqlx::Result<bool>> + Send;
    fn backlog(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
    ) -> impl Future<Output = sqlx::Result<Backlog>> + Send;
}

/// A partition's number in the database.
pub(super) fn number(partition: u16) -> i16 {
    i16::try_from(partition).unwrap_or(i16::MAX)
}

#[cfg(feature = "postgres")]
pub(super) fn numbers(partitions: &[u16]) -> Vec<i16> {
    partitions
        .iter()
        .map(|partition| number(*partition))
        .collect()
}

#[cfg(any(feature = "mysql", feature = "sqlite"))]
impl Due<'_> {
    fn may_read(&self, topic: &str) -> bool {
        let said = self
            .topics
            .iter()
            .find(|(pattern, _)| pattern.matches(topic));
        said.is_some_and(|(_, may)| *may)
    }
}

/// How many topics a read goes through one by one, over all partitions.
#[cfg(any(feature = "mysql", feature = "sqlite"))]
pub(super) const MANY_TOPICS: usize = 2000;

/// The topics that were found, each a partition, how the database knows the topic, and its name: those that may be read, of each
/// partition. `None`: too many.
#[cfg(any(feature = "mysql", feature = "sqlite"))]
pub(super) fn by_partition<T>(
    found: Vec<(i64, T, Option<String>)>,
    due: &Due<'_>,
) -> Option<BTreeMap<u16, Vec<T>>> {
    if found.len() > MANY_TOPICS {
        return None;
    }
    let mut topics: BTreeMap<u16, Vec<T>> = BTreeMap::new();
    for (partition, topic, name) in found {
        let partition = u16::try_from(partition).ok();
        if let (Some(partition), Some(name)) = (partition, name)
            && due.may_read(&name)
        {
            topics.entry(partition).or_default().push(topic);
        }
    }
    Some(topics)
}

/// Where events of a partition wait that may not be published yet.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(super) fn waiting_room(partition: u16) -> i16 {
    -1 - number(partition)
}

/// `1, 2, 3`: integers only, so that they may travel as text.
#[cfg(any(feature = "mysql", feature = "sqlite"))]
pub(super) fn list(numbers: impl IntoIterator<Item = i64>) -> String {
    let mut text = String::new();
    for number in numbers {
        let comma = if text.is_empty() { "" } else { ", " };
        // Writing to a String does not fail.
        let _ = write!(text, "{comma}{number}");
    }
    text
}
