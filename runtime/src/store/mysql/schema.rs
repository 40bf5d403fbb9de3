//! Where the tables are, and their migrations.

use sqlx::{
    MySql, MySqlConnection, Row,
    migrate::{Migrate, MigrateError},
    mysql::MySqlConnectOptions,
    raw_sql,
};

use crate::store::{FoundSchema, Names, SchemaVerbs, Spelling};

/// One lock per database, waited for at most a minute.
const LOCK: &str = "SELECT GET_LOCK(LEFT(CONCAT('effectively migrates ', ?), 64), 60)";
const UNLOCK: &str = "DO RELEASE_LOCK(LEFT(CONCAT('effectively migrates ', ?), 64))";

impl SchemaVerbs for MySql {
    const SPELLING: Spelling = Spelling::MySql;

    async fn schema(
        conn: &mut MySqlConnection,
        options: &MySqlConnectOptions,
        _: &str,
    ) -> sqlx::Result<FoundSchema> {
        let schema = raw_sql("SELECT DATABASE()").fetch_one(conn).await?;
        let schema: Option<String> = schema.try_get(0)?;
        Ok(FoundSchema {
            changed: schema.as_deref() != options.get_database(),
            schema,
        })
    }

    async fn create_schema(conn: &mut MySqlConnection, names: &Names) -> Result<(), MigrateError> {
        let there =
            "SELECT EXISTS (SELECT 1 FROM information_schema.schemata WHERE schema_name = ?)";
        let there = sqlx::query_scalar(there)
            .bind(names.schema())
            .fetch_one(&mut *conn)
            .await?;
        // Even with IF NOT EXISTS the statement takes the right to create it.
        if there {
            return Ok(());
        }
        conn.create_schema_if_not_exists(&names.quoted(names.schema()))
            .await
    }

    // MariaDB refuses the time limit of sqlx's lock, so that there it is none.
    async fn lock_migrations(
        conn: &mut MySqlConnection,
        names: &Names,
    ) -> Result<(), MigrateError> {
        let lock = sqlx::query_scalar(LOCK).bind(names.schema());
        match lock.fetch_one(conn).await? {
            Some(1_i64) => Ok(()),
            _ => Err(sqlx::Error::PoolTimedOut.into()),
        }
    }

    async fn unlock_migrations(
        conn: &mut MySqlConnection,
        names: &Names,
    ) -> Result<(), MigrateError> {
        let unlock = sqlx::query(UNLOCK).bind(names.schema());
        Ok(unlock.execute(conn).await.map(drop)?)
    }
}
