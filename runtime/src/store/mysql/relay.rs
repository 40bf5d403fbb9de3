//! The relay: leases, reading what is due, settling.

use std::time::Duration;

use sqlx::{Connection, MySql, MySqlConnection, Row, mysql::MySqlRow, raw_sql};
use uuid::Uuid;

use super::{Envelope, Sql, dead_letters, outbox, published};
use crate::store::relay::{
    Backlog, DeadLetter, Due, Fence, Lease, LeaseState, Postponed, RelayVerbs, binary, held,
    holding, list, number, ttl_ms, waiting_room,
};
use crate::store::topics;

impl RelayVerbs for MySql {
    async fn put_right(conn: &mut MySqlConnection) -> sqlx::Result<bool> {
        super::put_right(conn).await
    }

    async fn put_back(conn: &mut MySqlConnection) -> sqlx::Result<()> {
        super::put_back(conn).await
    }

    async fn heartbeat(
        conn: &mut MySqlConnection,
        sql: &Sql,
        relay: Uuid,
        ttl: Duration,
    ) -> sqlx::Result<u64> {
        let alive = sql.fill("INSERT INTO {relays} (id, expires_at) VALUES (?, {now} + INTERVAL ? * 1000 MICROSECOND) ON DUPLICATE KEY UPDATE expires_at = VALUES(expires_at)");
        let query = sqlx::query(alive).bind(relay).bind(ttl_ms(ttl));
        query.execute(&mut *conn).await?;
        let gone = sql.fill("DELETE FROM {relays} WHERE expires_at <= {now}");
        sqlx::query(gone).execute(&mut *conn).await?;
        let count = sql.fill("SELECT count(*) FROM {relays}");
        let alive: i64 = sqlx::query_scalar(count).fetch_one(conn).await?;
        Ok(alive.unsigned_abs())
    }

    async fn renew(
        conn: &mut MySqlConnection,
        sql: &Sql,
        relay: Uuid,
        ttl: Duration,
        recovered: &[u16],
    ) -> sqlx::Result<Vec<Lease>> {
        let recovered = if recovered.is_empty() {
            "-1".to_owned()
        } else {
            list(recovered.iter().copied().map(i64::from))
        };
        let statement = format!(
            "UPDATE {{leases}} SET expires_at = {{now}} + INTERVAL ? * 1000 MICROSECOND, \
             deaths = CASE WHEN partition_no IN ({recovered}) THEN 0 ELSE deaths END \
             WHERE holder = ? AND expires_at > {{now}}"
        );
        let query = sqlx::query(sql.fill(&statement)).persistent(false);
        query
            .bind(ttl_ms(ttl))
            .bind(relay)
            .execute(&mut *conn)
            .await?;
        held_by(conn, sql, relay).await
    }

    async fn acquire(
        conn: &mut MySqlConnection,
        sql: &Sql,
        relay: Uuid,
        ttl: Duration,
        limit: i64,
    ) -> sqlx::Result<Vec<Lease>> {
        let before = held_by(conn, sql, relay).await?;
        // Assignments go from left to right: deaths are counted before the holder is the new one.
        let statement = sql.fill(
            "UPDATE {leases} SET deaths = CASE WHEN holder IS NULL THEN deaths ELSE LEAST(deaths + 1, 1000) END, \
             holder = ?, epoch = epoch + 1, expires_at = {now} + INTERVAL ? * 1000 MICROSECOND \
             WHERE holder IS NULL OR expires_at <= {now} ORDER BY rand() LIMIT ?",
        );
        let query = sqlx::query(statement).bind(relay).bind(ttl_ms(ttl));
        query.bind(limit).execute(&mut *conn).await?;
        let mut leases = held_by(conn, sql, relay).await?;
        leases.retain(|lease| !before.contains(lease));
        Ok(leases)
    }

    async fn still_held(
        conn: &mut MySqlConnection,
        sql: &Sql,
        fence: Fence<'_>,
    ) -> sqlx::Result<Vec<i16>> {
        let query = sqlx::query_scalar(sql.fill(&still_held(fence)));
        query.persistent(false).fetch_all(conn).await
    }

    async fn give_up(conn: &mut MySqlConnection, sql: &Sql, fence: Fence<'_>) -> sqlx::Result<()> {
        for lease in fence.leases {
            let statement = sql.fill(
                "UPDATE {leases} SET holder = NULL, expires_at = {now} \
                 WHERE partition_no = ? AND epoch = ? AND holder = ?",
            );
            let query = sqlx::query(statement).bind(number(lease.partition));
            let query = query.bind(lease.epoch).bind(fence.relay);
            query.execute(&mut *conn).await?;
        }
        Ok(())
    }

    async fn resign(conn: &mut MySqlConnection, sql: &Sql, relay: Uuid) -> sqlx::Result<()> {
        let leases =
            sql.fill("UPDATE {leases} SET holder = NULL, expires_at = {now} WHERE holder = ?");
        sqlx::query(leases).bind(relay).execute(&mut *conn).await?;
        let gone = sql.fill("DELETE FROM {relays} WHERE id = ?");
        sqlx::query(gone).bind(relay).execute(conn).await.map(drop)
    }

    async fn promote(conn: &mut MySqlConnection, sql: &Sql, fence: Fence<'_>) -> sqlx::Result<u64> {
        // Read first, without locks: a locking scan would wait for every call that is just inserting a delayed event.
        let rooms = fence
            .leases
            .iter()
            .map(|lease| waiting_room(lease.partition));
        let due = format!(
            "SELECT partition_no, id FROM {{outbox}} WHERE partition_no IN ({}) AND available_at <= {{now}} LIMIT 1000",
            list(rooms.map(i64::from))
        );
        let due = sqlx::query_as::<_, (i16, i64)>(sql.fill(&due)).persistent(false);
        let due = due.fetch_all(&mut *conn).await?;
        if due.is_empty() {
            return Ok(0);
        }
        let statement = format!(
            "UPDATE {} SET o.partition_no = -1 - o.partition_no WHERE {}",
            by_key("-1 - e.p", due.into_iter()),
            holding(fence, "{now}", &binary(fence.relay))
        );
        let done = raw_sql(sql.fill(&statement)).execute(conn).await?;
        Ok(done.rows_affected())
    }

    async fn parked(
        conn: &mut MySqlConnection,
        sql: &Sql,
        partitions: &[u16],
    ) -> sqlx::Result<Vec<u16>> {
        let of_one = |partition: &u16| {
            format!(
                "(SELECT partition_no FROM {{outbox}} FORCE INDEX (parked) WHERE partition_no = {} AND parked IS NOT NULL LIMIT 1)",
                waiting_room(*partition)
            )
        };
        let each: Vec<_> = partitions.iter().map(of_one).collect();
        let query = sqlx::query_scalar(sql.fill(&each.join(" UNION ALL "))).persistent(false);
        let rooms: Vec<i16> = query.fetch_all(conn).await?;
        Ok(rooms.into_iter().map(crate::store::partition_of).collect())
    }

    async fn due(
        conn: &mut MySqlConnection,
        sql: &Sql,
        due: Due<'_>,
    ) -> sqlx::Result<Vec<Envelope>> {
        let mut filter = String::new();
        if !due.topics.is_empty() {
            let readable = topics::readable("o.topic", due.topics, literal);
            filter = format!(" AND {readable} = 1");
        }
        let [waits, route] =
            ["w.topic", "o.topic"].map(|topic| topics::place(topic, due.routes, literal));
        // A subquery that a LIMIT keeps from being made a join: it looks its one row up by the hash. Each costs the server about
        // as much as a branch does, so it stands where it has something to find.
        let behind_parked = |partition: u16| {
            format!(
                " AND (SELECT 1 FROM {{outbox}} AS w FORCE INDEX (parked) WHERE w.partition_no = {} \
                 AND w.parked = UNHEX(SHA2(o.partition_key, 256)) AND {waits} = {route} LIMIT 1) IS NULL",
                waiting_room(partition)
            )
        };
        let columns = outbox::ENVELOPE;
        let of_one = |partition: &u16| {
            let parked = match due.parked.contains(partition) {
                true => behind_parked(*partition),
                false => String::new(),
            };
            format!(
                "(SELECT {columns} FROM {{outbox}} AS o FORCE INDEX (PRIMARY) \
                 WHERE o.partition_no = {partition}{filter}{parked} ORDER BY o.id LIMIT {})",
                due.per_partition
            )
        };
        let each: Vec<_> = due.partitions.iter().map(of_one).collect();
        let statement = format!("{} LIMIT {}", each.join(" UNION ALL "), due.limit);
        let query = sqlx::query(sql.fill(&statement)).persistent(false);
        let rows = query.fetch_all(conn).await?;
        rows.iter().map(outbox::envelope_of).collect()
    }

    async fn settle(
        conn: &mut MySqlConnection,
        sql: &Sql,
        fence: Fence<'_>,
        events: &[(u16, i64)],
        keep: Option<Duration>,
    ) -> sqlx::Result<u64> {
        let rows = events
            .iter()
            .map(|(partition, id)| (number(*partition), *id));
        let settled = format!(
            "{} WHERE {}",
            by_key("e.p", rows),
            holding(fence, "{now}", &binary(fence.relay))
        );
        let remove = sql.fill(&format!("DELETE o FROM {settled}"));
        let Some(keep) = keep else {
            return Ok(raw_sql(remove).execute(conn).await?.rows_affected());
        };
        let mut tx = conn.begin().await?;
        published::keep(&mut tx, sql, &settled, keep).await?;
        crate::fault::point("after_keep").await?;
        let done = raw_sql(remove).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(done.rows_affected())
    }

    async fn purge_published(
        conn: &mut MySqlConnection,
        sql: &Sql,
        limit: i64,
    ) -> sqlx::Result<u64> {
        published::purge(conn, sql, limit).await
    }

    async fn postpone(
        conn: &mut MySqlConnection,
        sql: &Sql,
        relay: Uuid,
        lease: Lease,
        outbox_id: i64,
        how: Postponed<'_>,
    ) -> sqlx::Result<bool> {
        let statement = format!(
            "UPDATE {{outbox}} SET partition_no = -1 - partition_no, available_at = {{now}} + INTERVAL ? * 1000 MICROSECOND, \
             attempts = LEAST(attempts + 1, 32767), last_error = ?, passable = ? WHERE partition_no = ? AND id = ? AND partition_no IN ({})",
            still_held(Fence {
                relay,
                leases: &[lease]
            })
        );
        let query = sqlx::query(sql.fill(&statement)).persistent(false);
        let query = query.bind(ttl_ms(how.delay)).bind(how.reason.to_owned());
        let query = query.bind(how.passable).bind(number(lease.partition));
        let query = query.bind(outbox_id);
        Ok(query.execute(conn).await?.rows_affected() == 1)
    }

    async fn bury(
        conn: &mut MySqlConnection,
        sql: &Sql,
        relay: Uuid,
        lease: Lease,
        outbox_id: i64,
        reason: &str,
    ) -> sqlx::Result<bool> {
        let held = still_held(Fence {
            relay,
            leases: &[lease],
        });
        dead_letters::bury(conn, sql, lease, outbox_id, reason, &held).await
    }

    async fn suspect(
        conn: &mut MySqlConnection,
        sql: &Sql,
        relay: Uuid,
        lease: Lease,
        outbox_id: i64,
    ) -> sqlx::Result<Option<u16>> {
        let statement = format!(
            "UPDATE {{outbox}} SET crashes = CASE WHEN suspected_by = ? THEN crashes ELSE LEAST(crashes + 1, 1000) END, \
             suspected_by = ? WHERE partition_no = ? AND id = ? AND partition_no IN ({})",
            still_held(Fence {
                relay,
                leases: &[lease]
            })
        );
        let query = sqlx::query(sql.fill(&statement)).persistent(false);
        let query = query.bind(lease.epoch).bind(lease.epoch);
        let query = query.bind(number(lease.partition)).bind(outbox_id);
        if query.execute(&mut *conn).await?.rows_affected() == 0 {
            return Ok(None);
        }
        let crashes = sql.fill("SELECT crashes FROM {outbox} WHERE id = ?");
        let crashes: Option<i16> = sqlx::query_scalar(crashes)
            .bind(outbox_id)
            .fetch_optional(conn)
            .await?;
        Ok(crashes.map(i16::unsigned_abs))
    }

    async fn acquit(
        conn: &mut MySqlConnection,
        sql: &Sql,
        relay: Uuid,
        lease: Lease,
        outbox_id: i64,
    ) -> sqlx::Result<()> {
        let statement = format!(
            "UPDATE {{outbox}} SET crashes = GREATEST(crashes - 1, 0), suspected_by = NULL \
             WHERE partition_no = ? AND id = ? AND suspected_by = ? AND partition_no IN ({})",
            still_held(Fence {
                relay,
                leases: &[lease]
            })
        );
        let query = sqlx::query(sql.fill(&statement)).persistent(false);
        let query = query.bind(number(lease.partition)).bind(outbox_id);
        query.bind(lease.epoch).execute(conn).await.map(drop)
    }

    async fn notify(_: &mut MySqlConnection, _: &Sql) -> sqlx::Result<bool> {
        Ok(false)
    }

    async fn dead_letters(
        conn: &mut MySqlConnection,
        sql: &Sql,
        after: i64,
        limit: i64,
    ) -> sqlx::Result<Vec<DeadLetter>> {
        dead_letters::list(conn, sql, after, limit).await
    }

    async fn retry(conn: &mut MySqlConnection, sql: &Sql, id: i64) -> sqlx::Result<bool> {
        dead_letters::retry(conn, sql, id).await
    }

    async fn discard(conn: &mut MySqlConnection, sql: &Sql, id: i64) -> sqlx::Result<bool> {
        dead_letters::discard(conn, sql, id).await
    }

    async fn backlog(conn: &mut MySqlConnection, sql: &Sql) -> sqlx::Result<Backlog> {
        dead_letters::backlog(conn, sql).await
    }

    async fn leases(conn: &mut MySqlConnection, sql: &Sql) -> sqlx::Result<Vec<LeaseState>> {
        dead_letters::leases(conn, sql).await
    }
}

/// These rows `o`, each by its whole primary key, with the lease `l` of their partition. In this order, whatever the statistics
/// say: a scan, also of another index, would wait for the rows of calls that have not committed yet, and lock the gaps that
/// others insert into.
fn by_key(partition: &str, rows: impl Iterator<Item = (i16, i64)>) -> String {
    let rows: Vec<_> = rows
        .map(|(partition_no, id)| format!("[{partition_no},{id}]"))
        .collect();
    format!(
        "JSON_TABLE('[{}]', '$[*]' COLUMNS (p SMALLINT PATH '$[0]', i BIGINT PATH '$[1]')) AS e \
         STRAIGHT_JOIN {{leases}} AS l ON l.partition_no = {partition} \
         STRAIGHT_JOIN {{outbox}} AS o FORCE INDEX (PRIMARY) ON o.partition_no = e.p AND o.id = e.i",
        rows.join(",")
    )
}

/// Bytes, so that every byte of a topic counts: the collation of text passes over spaces at its end.
fn literal(hex: &str) -> String {
    format!("x'{hex}'")
}

fn still_held(fence: Fence<'_>) -> String {
    held(fence, "{now}", &binary(fence.relay))
}

async fn held_by(conn: &mut MySqlConnection, sql: &Sql, relay: Uuid) -> sqlx::Result<Vec<Lease>> {
    let statement = sql.fill(
        "SELECT partition_no, epoch, deaths FROM {leases} WHERE holder = ? AND expires_at > {now}",
    );
    let rows = sqlx::query(statement).bind(relay).fetch_all(conn).await?;
    let lease = |row: &MySqlRow| {
        Ok(Lease {
            partition: row.try_get::<i16, _>(0)?.unsigned_abs(),
            epoch: row.try_get(1)?,
            deaths: row.try_get::<i16, _>(2)?.unsigned_abs(),
        })
    };
    rows.iter().map(lease).collect()
}
