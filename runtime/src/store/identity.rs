//! Which database this is, and which function uses which scope in it.

use std::{future::Future, time::Duration};

use uuid::Uuid;

use super::Verbs;

/// For how long a function counts as a user of its scope after it was last seen. A process notes its scopes once a day, so that
/// code which moved to another function is forgotten after this time.
pub(super) const IN_USE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The tables that a ledger works on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The row that the migration has made.
    pub(crate) id: Uuid,
    /// Where the tables are, in the server's own words: tells a copy of the database, which has the same row, from its original.
    pub(crate) location: String,
}

/// A function that uses a scope: `module::function (file:line)`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScopeUse {
    /// The scope.
    pub scope: String,
    /// The function, with its file and line.
    pub place: String,
}

/// One verb per question.
#[doc(hidden)]
pub trait IdentityVerbs: Verbs {
    /// Reads the identity; makes the row again if it is missing, for example after all tables were emptied.
    fn identity(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
    ) -> impl Future<Output = sqlx::Result<Identity>> + Send;
    /// The events at these places of a partition: their places and ids.
    fn at_places(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        partition: u16,
        places: &[i64],
    ) -> impl Future<Output = sqlx::Result<Vec<(i64, Uuid)>>> + Send;

    /// Notes that the function at this place uses the scope, and returns the places of the others that do.
    fn note_scope(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
        scope: &str,
        place: &str,
    ) -> impl Future<Output = sqlx::Result<Vec<String>>> + Send;
    /// All uses of the scopes that more than one function uses, ordered by scope, at most 1,000.
    fn shared_scopes(
        conn: &mut Self::Connection,
        sql: &Self::Sql,
    ) -> impl Future<Output = sqlx::Result<Vec<ScopeUse>>> + Send;
}

/// The function without its file and line, which change whenever something above it does. Cut to what the column holds.
pub(super) fn path_of(place: &str) -> String {
    const LONGEST: usize = 512;
    let path = place.split_once(" (").map_or(place, |(path, _)| path);
    path.chars().take(LONGEST).collect()
}

pub(super) fn scope_use((scope, place): (String, String)) -> ScopeUse {
    ScopeUse { scope, place }
}
