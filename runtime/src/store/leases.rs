//! The leases of relays: who is alive, and who may publish which partition.

use std::{fmt::Write, future::Future, time::Duration};

use uuid::Uuid;

use super::Verbs;
#[cfg(any(feature = "mysql", feature = "sqlite"))]
use crate::model::PARTITIONS;

/// The right to publish one partition, until a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub(crate) partition: u16,
    /// The fencing token: grows with each holder.
    pub(crate) epoch: i64,
    /// How many holders in a row have died with it.
    pub(crate) deaths: u16,
}

/// A relay, and the group that it shares leases with.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    pub(crate) relay: Uuid,
    pub(crate) group: i64,
    /// A JSON list of the topics that the group publishes.
    pub(crate) routes: &'a str,
}

/// What a heartbeat finds.
#[derive(Debug, Clone, Copy)]
pub struct Pulse {
    /// How many relays of the group are alive, itself included. `None`: it is not alive itself, or relays of an earlier version,
    /// which know no groups, are alive as well.
    pub(crate) alive: Option<u64>,
    /// How many leases the group has, held or not.
    pub(crate) leases: u64,
}

/// The leases that a statement stands on.
#[derive(Debug, Clone, Copy)]
pub struct Fence<'a> {
    pub(crate) relay: Uuid,
    pub(crate) leases: &'a [Lease],
}

/// Who may publish a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseState {
    /// The partition, 0 to 63.
    pub partition: u16,
    /// The relay that holds it; `None` when it is free.
    pub holder: Option<Uuid>,
    /// The fencing token.
    pub epoch: i64,
    /// How long the lease still holds.
    pub expires_in: Duration,
    /// The topics that its holder publishes, a JSON list. Relays with other topics have leases of their own on the partition.
    pub routes: Option<String>,
}

/// One verb per thing that a relay does with its leases. Each is one statement, or one transaction of its own.
#[doc(hidden)]
pub trait LeaseVerbs: Verbs {
    /// Makes this relay one of those that are alive, unless one of another group is that it does not stand `apart` from by its
    /// routes. Answers the routes of those; empty: it has joined. One relay after the other, so that no two join that overlap.
    fn join(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        member: Member<'_>,
        ttl: Duration,
        apart: impl Fn(Option<&str>) -> bool + Send + Sync,
    ) -> impl Future<Output = sqlx::Result<Vec<Option<String>>>> + Send;
    /// Says that this relay is alive for so long, if it has joined and its time is not over.
    fn heartbeat(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        member: Member<'_>,
        ttl: Duration,
    ) -> impl Future<Output = sqlx::Result<Pulse>> + Send;
    /// Makes the leases that the group does not have: it is new, or somebody has emptied the table. Their epochs begin with the
    /// time, so that none comes twice. Leases of groups that ended long ago are deleted.
    fn make_leases(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        group: i64,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;
    /// Extends the leases that this relay still holds until its own time is over, and answers which: so none outlives what
    /// keeps other groups away. `recovered`: their deaths are forgotten.
    fn renew(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        relay: Uuid,
        recovered: &[u16],
    ) -> impl Future<Output = sqlx::Result<Vec<Lease>>> + Send;
    /// Takes up to `limit` leases of the group that nobody holds, until this relay's own time is over.
    fn acquire(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        member: Member<'_>,
        limit: i64,
    ) -> impl Future<Output = sqlx::Result<Vec<Lease>>> + Send;
    /// The partitions of these leases that are held at this moment.
    fn still_held(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        fence: Fence<'_>,
    ) -> impl Future<Output = sqlx::Result<Vec<i16>>> + Send;
    /// Gives these leases up.
    fn give_up(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        fence: Fence<'_>,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;
    /// Gives everything up: this relay ends.
    fn resign(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        relay: Uuid,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;
    /// All leases of all groups.
    fn leases(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
    ) -> impl Future<Output = sqlx::Result<Vec<LeaseState>>> + Send;
}

pub(super) fn ttl_ms(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX)
}

/// All partitions of a group as rows of the leases: number, group, epoch and end.
#[cfg(any(feature = "mysql", feature = "sqlite"))]
pub(super) fn leases_of(group: i64, epoch: &str, now: &str) -> String {
    let row = |partition| format!("({partition}, {group}, {epoch}, {now})");
    let rows: Vec<_> = (0..PARTITIONS).map(row).collect();
    rows.join(", ")
}

/// The partitions of a fence that are held right now: the whole fence as a subquery. `id` is the relay as a literal.
pub(super) fn held(fence: Fence<'_>, now: &str, id: &str) -> String {
    format!(
        "SELECT l.partition_no FROM {{leases}} AS l WHERE {}",
        holding(fence, now, id)
    )
}

/// The same as a condition on the leases `l`.
pub(super) fn holding(fence: Fence<'_>, now: &str, id: &str) -> String {
    let mut pairs = String::new();
    for lease in fence.leases {
        let or = if pairs.is_empty() { "" } else { " OR " };
        let (partition, epoch) = (lease.partition, lease.epoch);
        // Writing to a String does not fail.
        let _ = write!(
            pairs,
            "{or}(l.partition_no = {partition} AND l.epoch = {epoch})"
        );
    }
    if pairs.is_empty() {
        pairs.push_str("1 = 0");
    }
    format!("l.holder = {id} AND l.expires_at > {now} AND ({pairs})")
}

/// The id of a relay as a binary literal: `X'…'`.
#[cfg(any(feature = "mysql", feature = "sqlite"))]
pub(super) fn binary(relay: Uuid) -> String {
    format!("X'{}'", super::hex::Hex(relay.as_bytes()))
}
