//! What is asked and done about the schema: where the tables are, and how migrations get there.

use std::future::Future;

use sqlx::{
    Connection, Database,
    migrate::{Migrate, MigrateError, Migration},
};

use super::{Limits, Names, Spelling};

/// The version of the tables: 0 while the first migration is unfinished, none where another tool has applied the files.
pub(crate) const VERSION: &str =
    "SELECT max(CASE WHEN success THEN version ELSE 0 END) FROM {migrations}";

/// What connections to this database are opened with.
pub(crate) type OptionsOf<DB> = <<DB as Database>::Connection as Connection>::Options;

/// What a session says about where it works.
#[derive(Debug)]
pub struct FoundSchema {
    /// The schema in which it finds the claims, or would create them.
    pub(crate) schema: Option<String>,
    /// Whether the session differs from what its options ask for: a borrower changed it, or the pool's `after_connect` did.
    pub(crate) changed: bool,
}

/// One verb per thing that is done about the schema.
#[doc(hidden)]
pub trait SchemaVerbs: Database<Connection: Migrate> {
    /// How names are quoted, and where they must not be qualified.
    const SPELLING: Spelling;

    /// Where this session finds the table of the claims, or would create it.
    fn schema(
        conn: &mut Self::Connection,
        options: &OptionsOf<Self>,
        claims: &str,
    ) -> impl Future<Output = sqlx::Result<FoundSchema>> + Send;
    /// What the database takes in one message.
    fn limits(conn: &mut Self::Connection) -> impl Future<Output = sqlx::Result<Limits>> + Send;
    /// Creates the schema that the builder was given, unless it is there.
    fn create_schema(
        conn: &mut Self::Connection,
        names: &Names,
    ) -> impl Future<Output = Result<(), MigrateError>> + Send;
    /// Waits until no other process migrates.
    fn lock_migrations(
        conn: &mut Self::Connection,
        names: &Names,
    ) -> impl Future<Output = Result<(), MigrateError>> + Send;
    fn unlock_migrations(
        conn: &mut Self::Connection,
        names: &Names,
    ) -> impl Future<Output = Result<(), MigrateError>> + Send;
    /// Whether a migration failed over what another process is doing at the same time, where no lock keeps them apart: those of a
    /// MySQL cluster are local to a node.
    fn meets_another(error: &sqlx::Error) -> bool {
        let refused = error.as_database_error();
        refused.is_some_and(|refused| refused.is_unique_violation())
    }
    /// Applies a migration and notes it in the table, together or so that the next try goes on where this one stopped.
    fn apply(
        conn: &mut Self::Connection,
        table: &str,
        migration: &Migration,
    ) -> impl Future<Output = Result<(), MigrateError>> + Send {
        async move { conn.apply(table, migration).await.map(drop) }
    }
}
