//! The leases of relays: who is alive, and who may publish which partition.

use std::time::Duration;

use sqlx::{Connection, Row, Sqlite, SqliteConnection, raw_sql, sqlite::SqliteRow};
use uuid::Uuid;

use super::Sql;
use crate::store::{
    leases::{
        Fence, Lease, LeaseState, LeaseVerbs, Member, Pulse, binary, held, leases_of, ttl_ms,
    },
    millis,
    relay::{list, number},
};

impl LeaseVerbs for Sqlite {
    async fn join(
        conn: &mut SqliteConnection,
        sql: &Sql,
        member: Member<'_>,
        ttl: Duration,
        apart: impl Fn(Option<&str>) -> bool + Send + Sync,
    ) -> sqlx::Result<Vec<Option<String>>> {
        let mut tx = conn.begin_with("BEGIN IMMEDIATE").await?;
        let others = sql.fill(
            "SELECT routes FROM {relays} WHERE expires_at > {now} AND id <> ? AND (group_no IS NULL OR group_no <> ?)",
        );
        let others = sqlx::query_scalar(others).bind(member.relay);
        let mut others: Vec<Option<String>> = others.bind(member.group).fetch_all(&mut *tx).await?;
        others.retain(|routes| !apart(routes.as_deref()));
        if !others.is_empty() {
            return tx.rollback().await.map(|()| others);
        }
        let gone = sql.fill("DELETE FROM {relays} WHERE expires_at <= {now}");
        sqlx::query(gone).execute(&mut *tx).await?;
        let join = sql.fill(
            "INSERT INTO {relays} (id, group_no, routes, expires_at) VALUES (?, ?, ?, {now} + ?) \
             ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at, group_no = excluded.group_no, routes = excluded.routes",
        );
        let query = sqlx::query(join).bind(member.relay).bind(member.group);
        let query = query.bind(member.routes.to_owned()).bind(ttl_ms(ttl));
        query.execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(Vec::new())
    }

    async fn heartbeat(
        conn: &mut SqliteConnection,
        sql: &Sql,
        member: Member<'_>,
        ttl: Duration,
    ) -> sqlx::Result<Pulse> {
        let me = sql
            .fill("UPDATE {relays} SET expires_at = {now} + ? WHERE id = ? AND expires_at > {now}");
        let me = sqlx::query(me).bind(ttl_ms(ttl)).bind(member.relay);
        let me = me.execute(&mut *conn).await?.rows_affected() == 1;
        let counts = sql.fill(
            "SELECT count(CASE WHEN group_no = ? THEN 1 END), count(CASE WHEN group_no IS NULL THEN 1 END), \
             (SELECT count(*) FROM {leases} WHERE group_no = ?) FROM {relays} WHERE expires_at > {now}",
        );
        let counts = sqlx::query_as(counts).bind(member.group).bind(member.group);
        let (ours, earlier, leases): (i64, i64, i64) = counts.fetch_one(conn).await?;
        Ok(Pulse {
            alive: (me && earlier == 0).then_some(ours.unsigned_abs()),
            leases: leases.unsigned_abs(),
        })
    }

    async fn make_leases(conn: &mut SqliteConnection, sql: &Sql, group: i64) -> sqlx::Result<()> {
        let leases = sql.fill("SELECT count(*) FROM {leases} WHERE group_no = ?");
        let leases: i64 = sqlx::query_scalar(leases)
            .bind(group)
            .fetch_one(&mut *conn)
            .await?;
        if leases == 0 {
            let adopt = sql.fill("UPDATE {leases} SET group_no = ? WHERE group_no = 0");
            sqlx::query(adopt).bind(group).execute(&mut *conn).await?;
        }
        let rows = leases_of(group, "{now}", "{now}");
        let missing = format!(
            "INSERT INTO {{leases}} (partition_no, group_no, epoch, expires_at) VALUES {rows} ON CONFLICT DO NOTHING"
        );
        raw_sql(sql.fill(&missing)).execute(&mut *conn).await?;
        let old =
            sql.fill("DELETE FROM {leases} WHERE group_no <> ? AND expires_at < {now} - 86400000");
        sqlx::query(old).bind(group).execute(conn).await.map(drop)
    }

    async fn renew(
        conn: &mut SqliteConnection,
        sql: &Sql,
        relay: Uuid,
        recovered: &[u16],
    ) -> sqlx::Result<Vec<Lease>> {
        let recovered = if recovered.is_empty() {
            "-1".to_owned()
        } else {
            list(recovered.iter().copied().map(i64::from))
        };
        let statement = format!(
            "UPDATE {{leases}} SET expires_at = (SELECT r.expires_at FROM {{relays}} AS r WHERE r.id = ?), \
             deaths = CASE WHEN partition_no IN ({recovered}) THEN 0 ELSE deaths END \
             WHERE holder = ? AND expires_at > {{now}} AND EXISTS (SELECT 1 FROM {{relays}} AS r WHERE r.id = ?)"
        );
        let query = sqlx::query(sql.fill(&statement)).persistent(false);
        let query = query.bind(relay).bind(relay).bind(relay);
        query.execute(&mut *conn).await?;
        held_by(conn, sql, relay).await
    }

    async fn acquire(
        conn: &mut SqliteConnection,
        sql: &Sql,
        member: Member<'_>,
        limit: i64,
    ) -> sqlx::Result<Vec<Lease>> {
        let before = held_by(conn, sql, member.relay).await?;
        let statement = sql.fill(
            "UPDATE {leases} SET deaths = CASE WHEN holder IS NULL OR holder = ? THEN deaths ELSE min(deaths + 1, 1000) END, \
             holder = ?, epoch = epoch + 1, expires_at = (SELECT r.expires_at FROM {relays} AS r WHERE r.id = ?) \
             WHERE group_no = ? AND EXISTS (SELECT 1 FROM {relays} AS r WHERE r.id = ?) AND partition_no IN \
             (SELECT partition_no FROM {leases} WHERE group_no = ? AND (holder IS NULL OR expires_at <= {now}) ORDER BY random() LIMIT ?)",
        );
        let query = sqlx::query(statement).bind(member.relay);
        let query = query.bind(member.relay).bind(member.relay);
        let query = query
            .bind(member.group)
            .bind(member.relay)
            .bind(member.group);
        query.bind(limit).execute(&mut *conn).await?;
        let mut leases = held_by(conn, sql, member.relay).await?;
        leases.retain(|lease| !before.contains(lease));
        Ok(leases)
    }

    async fn still_held(
        conn: &mut SqliteConnection,
        sql: &Sql,
        fence: Fence<'_>,
    ) -> sqlx::Result<Vec<i16>> {
        let query = sqlx::query_scalar(sql.fill(&still_held(fence)));
        query.persistent(false).fetch_all(conn).await
    }

    async fn give_up(conn: &mut SqliteConnection, sql: &Sql, fence: Fence<'_>) -> sqlx::Result<()> {
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

    async fn resign(conn: &mut SqliteConnection, sql: &Sql, relay: Uuid) -> sqlx::Result<()> {
        let leases =
            sql.fill("UPDATE {leases} SET holder = NULL, expires_at = {now} WHERE holder = ?");
        sqlx::query(leases).bind(relay).execute(&mut *conn).await?;
        let gone = sql.fill("DELETE FROM {relays} WHERE id = ?");
        sqlx::query(gone).bind(relay).execute(conn).await.map(drop)
    }

    async fn leases(conn: &mut SqliteConnection, sql: &Sql) -> sqlx::Result<Vec<LeaseState>> {
        let statement = sql.fill(
            "SELECT l.partition_no, CASE WHEN l.expires_at > {now} THEN l.holder END, l.epoch, \
             l.expires_at - {now}, r.routes FROM {leases} AS l LEFT JOIN {relays} AS r ON r.id = l.holder \
             ORDER BY l.group_no, l.partition_no",
        );
        let rows = sqlx::query(statement).fetch_all(conn).await?;
        let state = |row: &SqliteRow| {
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
    held(fence, "{now}", &binary(fence.relay))
}

async fn held_by(conn: &mut SqliteConnection, sql: &Sql, relay: Uuid) -> sqlx::Result<Vec<Lease>> {
    let statement = sql.fill(
        "SELECT partition_no, epoch, deaths FROM {leases} WHERE holder = ? AND expires_at > {now}",
    );
    let rows = sqlx::query(statement).bind(relay).fetch_all(conn).await?;
    let lease = |row: &SqliteRow| {
        Ok(Lease {
            partition: row.try_get::<i16, _>(0)?.unsigned_abs(),
            epoch: row.try_get(1)?,
            deaths: row.try_get::<i16, _>(2)?.unsigned_abs(),
        })
    };
    rows.iter().map(lease).collect()
}
