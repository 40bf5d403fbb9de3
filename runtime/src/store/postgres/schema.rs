//! Where the tables are, and their migrations.

use sqlx::{
    AssertSqlSafe, PgConnection, Postgres, Row,
    migrate::{Migrate, MigrateError},
    postgres::PgConnectOptions,
    raw_sql,
};

use crate::store::{Fault, FoundSchema, Limits, Names, SchemaVerbs, Spelling, Verbs};

/// Whether it changed: the search path begins as `reset_val`, which holds what role, database and start-up options set. Another role
/// means another `"$user"` in it.
const SCHEMA: &str = "SELECT coalesce((SELECT path.name FROM unnest(pg_catalog.current_schemas(false)) WITH ORDINALITY AS path (name, place) \
     JOIN pg_catalog.pg_namespace AS s ON s.nspname = path.name JOIN pg_catalog.pg_class AS t ON t.relnamespace = s.oid \
     WHERE t.relname = '{claims}' AND s.oid <> pg_catalog.pg_my_temp_schema() ORDER BY path.place LIMIT 1), pg_catalog.current_schema())::text, \
     current_user <> session_user OR (SELECT setting <> reset_val FROM pg_catalog.pg_settings WHERE name = 'search_path')";

impl SchemaVerbs for Postgres {
    const SPELLING: Spelling = Spelling::Postgres;

    /// The path may name several schemas: tables that are there already count, as they did for every statement without a schema.
    async fn schema(
        conn: &mut PgConnection,
        _: &PgConnectOptions,
        claims: &str,
    ) -> sqlx::Result<FoundSchema> {
        let found = SCHEMA.replace("{claims}", claims);
        let found = raw_sql(AssertSqlSafe(found)).fetch_one(conn).await?;
        Ok(FoundSchema {
            schema: found.try_get(0)?,
            changed: found.try_get(1)?,
        })
    }

    // A message, and each value in it, is less than 1 GiB.
    async fn limits(_: &mut PgConnection) -> sqlx::Result<Limits> {
        Ok(Limits {
            message: (1 << 30) - 1,
            text: usize::MAX,
            all_at_once: true,
        })
    }

    async fn create_schema(conn: &mut PgConnection, names: &Names) -> Result<(), MigrateError> {
        let there = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)";
        let there = sqlx::query_scalar(there)
            .persistent(false)
            .bind(names.schema())
            .fetch_one(&mut *conn)
            .await?;
        // Even with IF NOT EXISTS the statement takes a right on the whole database.
        if there {
            return Ok(());
        }
        conn.create_schema_if_not_exists(&names.quoted(names.schema()))
            .await
    }

    // An advisory lock on the database.
    async fn lock_migrations(conn: &mut PgConnection, _: &Names) -> Result<(), MigrateError> {
        // What a borrower may have set, and never what the server or the role says. The connection is closed afterwards.
        raw_sql(super::TAKE_WRITES).execute(&mut *conn).await?;
        conn.lock().await
    }

    /// A relay that settles takes its locks in another order.
    fn meets_another(error: &sqlx::Error) -> bool {
        let refused = error.as_database_error();
        Postgres::fault(error) == Fault::Conflict
            || refused.is_some_and(|refused| refused.is_unique_violation())
    }

    async fn unlock_migrations(conn: &mut PgConnection, _: &Names) -> Result<(), MigrateError> {
        conn.unlock().await
    }
}
