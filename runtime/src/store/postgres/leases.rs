//! The leases of relays: who is alive, and who may publish which partition.

use std::time::Duration;

use sqlx::{Connection, PgConnection, Postgres, Row, postgres::PgRow, raw_sql};
use uuid::Uuid;

use super::Sql;
use crate::store::{
    leases::{Fence, Lease, LeaseState, LeaseVerbs, Member, Pulse, held, holding, ttl_ms},
    millis,
    relay::numbers,
};

impl LeaseVerbs for Postgres {
    async fn join(
        conn: &mut PgConnection,
        sql: &Sql,
        member: Member<'_>,
        ttl: Duration,
        apart: impl Fn(Option<&str>) -> bool + Send + Sync,
    ) -> sqlx::Result<Vec<Option<String>>> {
        let mut tx = conn.begin().await?;
        // Heartbeats of all groups wait for it, so a relay that comes to a halt in between must not hold it for long.
        raw_sql(sql.fill(
            "SET LOCAL idle_in_transaction_session_timeout = '2s'; SET LOCAL lock_timeout = '2s'; \
             LOCK TABLE {relays} IN SHARE ROW EXCLUSIVE MODE",
        ))
        .execute(&mut *tx)
        .await?;
        // Not `now()`: the lock may have come late in the transaction.
        let others = sql.fill(
            "SELECT routes FROM {relays} WHERE expires_at > clock_timestamp() AND id <> $1 AND group_no IS DISTINCT FROM $2",
        );
        let others = sqlx::query_scalar(others).bind(member.relay);
        let mut others: Vec<Option<String>> = others.bind(member.group).fetch_all(&mut *tx).await?;
        others.retain(|routes| !apart(routes.as_deref()));
        if !others.is_empty() {
            return tx.rollback().await.map(|()| others);
        }
        let join = sql.fill(
            "WITH gone AS (DELETE FROM {relays} WHERE expires_at <= clock_timestamp() AND id <> $1) \
             INSERT INTO {relays} (id, group_no, routes, expires_at) \
             VALUES ($1, $2, $3, clock_timestamp() + $4 * interval '1 millisecond') ON CONFLICT (id) DO UPDATE \
             SET group_no = excluded.group_no, routes = excluded.routes, expires_at = excluded.expires_at",
        );
        let query = sqlx::query(join).bind(member.relay).bind(member.group);
        let query = query.bind(member.routes).bind(ttl_ms(ttl));
        query.execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(Vec::new())
    }

    async fn heartbeat(
        conn: &mut PgConnection,
        sql: &Sql,
        member: Member<'_>,
        ttl: Duration,
    ) -> sqlx::Result<Pulse> {
        let statement = sql.fill(
            "WITH me AS (UPDATE {relays} SET expires_at = now() + $3 * interval '1 millisecond' \
             WHERE id = $1 AND expires_at > now() RETURNING id), \
             alive AS (SELECT count(*) FILTER (WHERE group_no = $2) AS ours, count(*) FILTER (WHERE group_no IS NULL) AS earlier \
             FROM {relays} WHERE expires_at > now()) \
             SELECT (SELECT ours FROM alive WHERE earlier = 0 AND EXISTS (SELECT FROM me)), \
             (SELECT count(*) FROM {leases} WHERE group_no = $2)",
        );
        let query = sqlx::query_as(statement).bind(member.relay);
        let query = query.bind(member.group).bind(ttl_ms(ttl));
        let (alive, leases): (Option<i64>, i64) = query.fetch_one(conn).await?;
        Ok(Pulse {
            alive: alive.map(i64::unsigned_abs),
            leases: leases.unsigned_abs(),
        })
    }

    async fn make_leases(conn: &mut PgConnection, sql: &Sql, group: i64) -> sqlx::Result<()> {
        for statement in [
            "UPDATE {leases} SET group_no = $1 WHERE group_no = 0 AND NOT EXISTS (SELECT FROM {leases} WHERE group_no = $1)",
            "INSERT INTO {leases} (partition_no, group_no, epoch) \
             SELECT p, $1, (extract(epoch FROM now()) * 1000)::bigint FROM generate_series(0, 63) AS p ON CONFLICT DO NOTHING",
            "DELETE FROM {leases} WHERE group_no <> $1 AND expires_at < now() - interval '1 day'",
        ] {
            let query = sqlx::query(sql.fill(statement)).bind(group);
            query.execute(&mut *conn).await?;
        }
        Ok(())
    }

    async fn renew(
        conn: &mut PgConnection,
        sql: &Sql,
        relay: Uuid,
        recovered: &[u16],
    ) -> sqlx::Result<Vec<Lease>> {
        let statement = sql.fill(
            "UPDATE {leases} AS l SET expires_at = r.expires_at, \
             deaths = CASE WHEN l.partition_no = ANY($2) THEN 0 ELSE l.deaths END FROM {relays} AS r \
             WHERE l.holder = $1 AND l.expires_at > now() AND r.id = $1 RETURNING l.partition_no, l.epoch, l.deaths",
        );
        let query = sqlx::query(statement).bind(relay);
        let rows = query.bind(numbers(recovered)).fetch_all(conn).await?;
        rows.iter().map(lease_of).collect()
    }

    async fn acquire(
        conn: &mut PgConnection,
        sql: &Sql,
        member: Member<'_>,
        limit: i64,
    ) -> sqlx::Result<Vec<Lease>> {
        let statement = sql.fill(
            "WITH free AS (SELECT partition_no FROM {leases} WHERE group_no = $2 AND (holder IS NULL OR expires_at <= now()) \
             ORDER BY random() LIMIT $3 FOR UPDATE SKIP LOCKED) \
             UPDATE {leases} AS l SET deaths = CASE WHEN l.holder IS NULL OR l.holder = $1 THEN l.deaths ELSE least(l.deaths + 1, 1000) END, \
             holder = $1, epoch = l.epoch + 1, expires_at = r.expires_at FROM free, {relays} AS r \
             WHERE l.partition_no = free.partition_no AND l.group_no = $2 AND r.id = $1 \
             RETURNING l.partition_no, l.epoch, l.deaths",
        );
        let query = sqlx::query(statement).bind(member.relay);
        let rows = query.bind(member.group).bind(limit).fetch_all(conn).await?;
        rows.iter().map(lease_of).collect()
    }

    async fn still_held(
        conn: &mut PgConnection,
        sql: &Sql,
        fence: Fence<'_>,
    ) -> sqlx::Result<Vec<i16>> {
        let query = sqlx::query_scalar(sql.fill(&still_held(fence)));
        query.persistent(false).fetch_all(conn).await
    }

    async fn give_up(conn: &mut PgConnection, sql: &Sql, fence: Fence<'_>) -> sqlx::Result<()> {
        let statement = format!(
            "UPDATE {{leases}} AS l SET holder = NULL, expires_at = now() WHERE {}",
            holding(fence, "now()", &format!("'{}'", fence.relay))
        );
        raw_sql(sql.fill(&statement)).execute(conn).await.map(drop)
    }

    async fn resign(conn: &mut PgConnection, sql: &Sql, relay: Uuid) -> sqlx::Result<()> {
        let statement = sql.fill(
            "WITH gone AS (DELETE FROM {relays} WHERE id = $1) \
             UPDATE {leases} SET holder = NULL, expires_at = now() WHERE holder = $1",
        );
        let query = sqlx::query(statement).bind(relay);
        query.execute(conn).await.map(drop)
    }

    async fn leases(conn: &mut PgConnection, sql: &Sql) -> sqlx::Result<Vec<LeaseState>> {
        let statement = sql.fill(
            "SELECT l.partition_no, CASE WHEN l.expires_at > now() THEN l.holder END, l.epoch, \
             (extract(epoch FROM l.expires_at - now()) * 1000)::bigint, r.routes FROM {leases} AS l LEFT JOIN {relays} AS r ON r.id = l.holder \
             ORDER BY l.group_no, l.partition_no",
        );
        let rows = sqlx::query(statement).fetch_all(conn).await?;
        let state = |row: &PgRow| {
            Ok(LeaseState {
                partition: row.try_get::<i16, _>(0)?.unsigned_abs(),
                holder: row.try_get(1)?,
                epoch: row.try_get(2)?,
                expires_in: millis(row.try_get(3)?),
                routes: row.try_get(4)?,
            })
        };
        rows.iter().map(state).collect()
    }
}

pub(super) fn still_held(fence: Fence<'_>) -> String {
    held(fence, "now()", &format!("'{}'", fence.relay))
}

fn lease_of(row: &PgRow) -> sqlx::Result<Lease> {
    Ok(Lease {
        partition: row.try_get::<i16, _>(0)?.unsigned_abs(),
        epoch: row.try_get(1)?,
        deaths: row.try_get::<i16, _>(2)?.unsigned_abs(),
    })
}
