//! The names of the toolkit's tables: prefix and, on Postgres, schema.

use std::sync::Arc;

use sqlx::AssertSqlSafe;

use crate::error::{Error, ErrorKind};

/// The default prefix of every table.
const PREFIX: &str = "effectively_";

const TABLES: [&str; 8] = [
    "gate",
    "claims",
    "outbox",
    "published",
    "dead_letters",
    "leases",
    "relays",
    "migrations",
];

/// Procedures and functions, on Postgres.
const ROUTINES: [&str; 7] = [
    "protect_session",
    "claim",
    "complete_or_raise",
    "check_attempt",
    "due",
    "settle",
    "settle_and_keep",
];

/// Where the tables are. Both names are checked to be plain identifiers, so they need no quotes in any database.
#[derive(Debug, Clone)]
pub struct Names {
    schema: Option<String>,
    prefix: String,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            schema: None,
            prefix: PREFIX.to_owned(),
        }
    }
}

impl Names {
    /// # Errors
    /// [`ErrorKind::Settings`] when a name is not 1 to 32 characters out of `a-z 0-9 _`, beginning with no digit.
    pub(crate) fn new(schema: Option<String>, prefix: Option<String>) -> Result<Self, Error> {
        if schema.as_deref().is_some_and(|schema| !is_plain(schema)) {
            return Err(ErrorKind::Settings(
                "a schema is 1 to 32 characters out of `a-z 0-9 _` and begins with no digit",
            )
            .into());
        }
        let prefix = prefix.unwrap_or_else(|| PREFIX.to_owned());
        if !is_plain(&prefix) {
            return Err(ErrorKind::Settings(
                "a table prefix is 1 to 32 characters out of `a-z 0-9 _` and begins with no digit",
            )
            .into());
        }
        Ok(Self { schema, prefix })
    }

    pub(crate) fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// The full name of a table, a procedure or a function.
    pub(crate) fn full(&self, name: &str) -> String {
        match &self.schema {
            Some(schema) => format!("{schema}.{}{name}", self.prefix),
            None => format!("{}{name}", self.prefix),
        }
    }

    /// A statement with `{claims}` and the like filled in.
    pub(crate) fn fill(&self, template: &str) -> String {
        TABLES.iter().fold(template.to_owned(), |sql, name| {
            sql.replace(&format!("{{{name}}}"), &self.full(name))
        })
    }

    /// A migration, which is written with the default names so that other tools can run it as it is.
    pub(crate) fn rename(&self, migration: &str) -> String {
        let names = TABLES.iter().chain(&ROUTINES);
        let words = [
            "TABLE ",
            "ON ",
            "REFERENCES ",
            "PROCEDURE ",
            "FUNCTION ",
            "INTO ",
            "UPDATE ",
            "FROM ",
            "JOIN ",
        ];
        // Indexes and constraints keep to the schema of their table and must not be qualified: only the prefix changes.
        let sql = migration.replace(PREFIX, &self.prefix);
        match &self.schema {
            None => sql,
            Some(schema) => names.fold(sql, |sql, name| {
                let bare = format!("{}{name}", self.prefix);
                words.iter().fold(sql, |sql, word| {
                    sql.replace(
                        &format!("{word}{bare} "),
                        &format!("{word}{schema}.{bare} "),
                    )
                })
            }),
        }
    }
}

/// A statement with this ledger's table names in it, built once.
#[derive(Debug, Clone)]
pub struct Statement(Arc<str>);

impl Statement {
    pub(crate) fn new(template: &str, names: &Names) -> Self {
        Self(names.fill(template).into())
    }

    pub(crate) fn sql(&self) -> AssertSqlSafe<Arc<str>> {
        AssertSqlSafe(Arc::clone(&self.0))
    }
}

fn is_plain(name: &str) -> bool {
    let first_is_letter = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
    first_is_letter
        && name.len() <= 32
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_need_quotes_is_refused() {
        for bad in ["", "1a", "A", "a-b", "a;b", "a b", "ä", &"a".repeat(33)] {
            assert!(Names::new(Some(bad.into()), None).is_err(), "{bad}");
            assert!(Names::new(None, Some(bad.into())).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_schema_goes_before_tables_and_procedures_and_not_before_indexes() {
        let names = Names::new(Some("app".into()), Some("once_".into())).unwrap();
        assert_eq!(
            names.fill("SELECT 1 FROM {claims}"),
            "SELECT 1 FROM app.once_claims"
        );
        assert_eq!(
            names.rename(
                "CREATE INDEX effectively_claims_expires_at ON effectively_claims (expires_at)"
            ),
            "CREATE INDEX once_claims_expires_at ON app.once_claims (expires_at)"
        );
        assert_eq!(
            names
                .rename("DELETE FROM effectively_outbox AS o USING e JOIN effectively_leases AS l"),
            "DELETE FROM app.once_outbox AS o USING e JOIN app.once_leases AS l"
        );
        assert_eq!(
            names.rename("CREATE PROCEDURE effectively_claim () AS $$ UPDATE effectively_claims SET gate = NULL $$"),
            "CREATE PROCEDURE app.once_claim () AS $$ UPDATE app.once_claims SET gate = NULL $$"
        );
    }
}
