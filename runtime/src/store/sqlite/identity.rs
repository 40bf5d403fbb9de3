//! The identity of the database, and the uses of scopes.

use sqlx::{Sqlite, SqliteConnection};
use uuid::Uuid;

use super::Sql;
use crate::store::{
    identity::{IN_USE, Identity, IdentityVerbs, ScopeUse, path_of, scope_use},
    leases::ttl_ms,
    relay::{list, number},
};

/// A database in memory has no file.
const IDENTITY: &str = "SELECT id, COALESCE((SELECT file FROM pragma_database_list WHERE name = 'main'), '') FROM {identity}";

const SHARED: &str = "SELECT s.scope, s.place FROM {scopes} AS s WHERE s.seen_at > {now} - ? \
    AND EXISTS (SELECT 1 FROM {scopes} AS o WHERE o.scope = s.scope AND o.path <> s.path \
    AND o.seen_at > {now} - ?) ORDER BY s.scope, s.path LIMIT 1000";

impl IdentityVerbs for Sqlite {
    async fn identity(conn: &mut SqliteConnection, sql: &Sql) -> sqlx::Result<Identity> {
        let read = || sqlx::query_as(sql.fill(IDENTITY)).persistent(false);
        let found: Option<(Uuid, String)> = read().fetch_optional(&mut *conn).await?;
        let (id, file) = match found {
            Some(found) => found,
            None => {
                let made = sql
                    .fill("INSERT INTO {identity} (one, id) VALUES (1, ?) ON CONFLICT DO NOTHING");
                let query = sqlx::query(made).persistent(false).bind(Uuid::new_v4());
                query.execute(&mut *conn).await?;
                // Another process may have been first.
                read().fetch_one(conn).await?
            }
        };
        Ok(Identity {
            id,
            location: format!("{file} {}", sql.names.full("identity")),
        })
    }

    async fn at_places(
        conn: &mut SqliteConnection,
        sql: &Sql,
        partition: u16,
        places: &[i64],
    ) -> sqlx::Result<Vec<(i64, Uuid)>> {
        let statement = sql.fill(&format!(
            "SELECT id, event_id FROM {{outbox}} WHERE partition_no = {} AND id IN ({})",
            number(partition),
            list(places.iter().copied())
        ));
        let query = sqlx::query_as(statement).persistent(false);
        query.fetch_all(conn).await
    }

    async fn note_scope(
        conn: &mut SqliteConnection,
        sql: &Sql,
        scope: &str,
        place: &str,
    ) -> sqlx::Result<Vec<String>> {
        let path = path_of(place);
        let note = sql.fill(
            "INSERT INTO {scopes} (scope, path, place, seen_at) VALUES (?, ?, ?, {now}) \
             ON CONFLICT (scope, path) DO UPDATE SET place = excluded.place, seen_at = excluded.seen_at",
        );
        let query = sqlx::query(note).persistent(false);
        let query = query.bind(scope.to_owned()).bind(path.clone());
        query.bind(place.to_owned()).execute(&mut *conn).await?;
        let others = sql.fill(
            "SELECT place FROM {scopes} WHERE scope = ? AND path <> ? AND seen_at > {now} - ? ORDER BY path",
        );
        let query = sqlx::query_scalar(others).persistent(false);
        let query = query.bind(scope.to_owned()).bind(path);
        query.bind(ttl_ms(IN_USE)).fetch_all(conn).await
    }

    async fn shared_scopes(conn: &mut SqliteConnection, sql: &Sql) -> sqlx::Result<Vec<ScopeUse>> {
        let query = sqlx::query_as(sql.fill(SHARED)).persistent(false);
        let query = query.bind(ttl_ms(IN_USE)).bind(ttl_ms(IN_USE));
        let rows: Vec<(String, String)> = query.fetch_all(conn).await?;
        Ok(rows.into_iter().map(scope_use).collect())
    }
}
