//! The identity of the database, and the uses of scopes.

use sqlx::{PgConnection, Postgres, Row, postgres::PgRow, raw_sql};
use uuid::Uuid;

use super::Sql;
use crate::store::{
    hex::Hex,
    identity::{IN_USE, Identity, IdentityVerbs, ScopeUse, path_of, scope_use},
    leases::ttl_ms,
    relay::number,
};

/// The table has the same number in a copy that was made with `TEMPLATE`, the database has not.
const IDENTITY: &str = "SELECT id, tableoid::bigint, \
    (SELECT d.oid::bigint FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()) FROM {identity}";

const SHARED: &str = "SELECT s.scope, s.place FROM {scopes} AS s WHERE s.seen_at > {since} AND EXISTS \
    (SELECT 1 FROM {scopes} AS o WHERE o.scope = s.scope AND o.path <> s.path AND o.seen_at > {since}) \
    ORDER BY s.scope, s.path LIMIT 1000";

impl IdentityVerbs for Postgres {
    // Raw messages: they come through every pooler.
    async fn identity(conn: &mut PgConnection, sql: &Sql) -> sqlx::Result<Identity> {
        let found = raw_sql(sql.fill(IDENTITY))
            .fetch_optional(&mut *conn)
            .await?;
        let row = match found {
            Some(row) => row,
            None => {
                let made = format!(
                    "INSERT INTO {{identity}} (one, id) VALUES (1, '{}') ON CONFLICT DO NOTHING",
                    Uuid::new_v4()
                );
                raw_sql(sql.fill(&made)).execute(&mut *conn).await?;
                // Another process may have been first.
                raw_sql(sql.fill(IDENTITY)).fetch_one(conn).await?
            }
        };
        let (table, database): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
        Ok(Identity {
            id: row.try_get(0)?,
            location: format!("{database}/{table}"),
        })
    }

    async fn at_places(
        conn: &mut PgConnection,
        sql: &Sql,
        partition: u16,
        places: &[i64],
    ) -> sqlx::Result<Vec<(i64, Uuid)>> {
        let statement =
            sql.fill("SELECT id, event_id FROM {outbox} WHERE partition_no = $1 AND id = ANY ($2)");
        // Planned anew each time: what suits an empty outbox would read all of a full one.
        let query = sqlx::query_as(statement).persistent(false);
        let query = query.bind(number(partition)).bind(places.to_vec());
        query.fetch_all(conn).await
    }

    async fn note_scope(
        conn: &mut PgConnection,
        sql: &Sql,
        scope: &str,
        place: &str,
    ) -> sqlx::Result<Vec<String>> {
        let path = path_of(place);
        let [scope, path, place] = [scope, &path, place].map(text);
        let message = format!(
            "INSERT INTO {{scopes}} (scope, path, place, seen_at) VALUES ({scope}, {path}, {place}, now()) \
             ON CONFLICT (scope, path) DO UPDATE SET place = excluded.place, seen_at = excluded.seen_at; \
             SELECT place FROM {{scopes}} WHERE scope = {scope} AND path <> {path} AND seen_at > {} ORDER BY path",
            since()
        );
        let rows = raw_sql(sql.fill(&message)).fetch_all(conn).await?;
        rows.iter().map(|row| row.try_get(0)).collect()
    }

    async fn shared_scopes(conn: &mut PgConnection, sql: &Sql) -> sqlx::Result<Vec<ScopeUse>> {
        let statement = sql.fill(&SHARED.replace("{since}", &since()));
        let rows = raw_sql(statement).fetch_all(conn).await?;
        let scope_use = |row: &PgRow| Ok(scope_use((row.try_get(0)?, row.try_get(1)?)));
        rows.iter().map(scope_use).collect()
    }
}

fn since() -> String {
    let in_use = ttl_ms(IN_USE);
    format!("now() - {in_use} * interval '1 millisecond'")
}

fn text(text: &str) -> String {
    let hex = Hex(text.as_bytes());
    format!("convert_from(decode('{hex}', 'hex'), 'UTF8')")
}
