//! The names of the toolkit's tables: schema and prefix.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, Pool};

use super::{SchemaVerbs, Verbs};
use crate::error::{Error, ErrorKind};

/// The default prefix of every table.
const PREFIX: &str = "effectively_";

const TABLES: [&str; 10] = [
    "gate",
    "claims",
    "outbox",
    "published",
    "dead_letters",
    "leases",
    "relays",
    "migrations",
    "identity",
    "scopes",
];

/// Procedures and functions, on Postgres.
const ROUTINES: [&str; 10] = [
    "claim_key",
    "complete_key",
    "protect_session",
    "claim",
    "complete_or_raise",
    "check_attempt",
    "due",
    "due_by_topic",
    "settle",
    "settle_and_keep",
];

/// What the builder was given. Checked to be plain identifiers.
#[derive(Debug, Clone)]
pub struct GivenNames {
    schema: Option<String>,
    prefix: String,
}

/// How a database spells a name of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// In double quotes.
    Postgres,
    /// In backticks, which no SQL mode changes.
    MySql,
    /// In double quotes. An index stands in its schema by its own name, and what it or a foreign key refers to must not be
    /// qualified: it is in the same schema.
    Sqlite,
}

/// Where the tables are. Every name is qualified and quoted: nothing that a session sets (`search_path`, `USE`, a temporary table)
/// leads to another table.
#[derive(Debug, Clone)]
pub struct Names {
    schema: String,
    prefix: String,
    spelling: Spelling,
}

impl Default for GivenNames {
    fn default() -> Self {
        Self {
            schema: None,
            prefix: PREFIX.to_owned(),
        }
    }
}

impl GivenNames {
    /// # Errors
    /// [`ErrorKind::Settings`] when a name is not 1 to 32 characters out of `a-z 0-9 _`, beginning with no digit; for a schema on
    /// SQLite, whose commit over two files in WAL mode is not atomic.
    pub(crate) fn new<DB: SchemaVerbs>(
        schema: Option<String>,
        prefix: Option<String>,
    ) -> Result<Self, Error> {
        if schema.is_some() && DB::SPELLING == Spelling::Sqlite {
            return Err(ErrorKind::Settings(
                "SQLite has no schemas: the tables are in the file that the pool opens, since a commit over two attached files may lose one half",
            )
            .into());
        }
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

    /// The names with their schema. Without one from the builder it is the schema that a session of this pool works in as the
    /// pool opens it. A session that is no longer as it was opened is not believed: a new one is opened and asked.
    ///
    /// # Errors
    /// [`ErrorKind::Settings`] when the session works in no schema; else what the database says.
    pub(crate) async fn resolve<DB: Verbs>(
        &self,
        pool: &Pool<DB>,
        conn: &mut DB::Connection,
    ) -> Result<Names, Error> {
        if let Some(schema) = &self.schema {
            return Ok(self.in_schema::<DB>(schema.clone()));
        }
        let options = pool.connect_options();
        let claims = format!("{}claims", self.prefix);
        let mut found = DB::schema(conn, &options, &claims)
            .await
            .map_err(super::error::<DB>)?;
        if found.changed {
            let opened = pool.options().clone();
            let opened = opened.min_connections(0).max_connections(1);
            let opened = opened.connect_lazy_with((*options).clone());
            let mut conn = opened.acquire().await.map_err(super::error::<DB>)?;
            found = DB::schema(&mut conn, &options, &claims)
                .await
                .map_err(super::error::<DB>)?;
            // What a server says to a goodbye is of no interest.
            let _ = conn.close().await;
        }
        let schema = found.schema.ok_or(ErrorKind::Settings(
            "the connection works in no schema (on MySQL: no database): give `LedgerBuilder::schema`, or name an existing one in the \
             URL or the search path",
        ))?;
        Ok(self.in_schema::<DB>(schema))
    }

    fn in_schema<DB: Verbs>(&self, schema: String) -> Names {
        Names {
            schema,
            prefix: self.prefix.clone(),
            spelling: DB::SPELLING,
        }
    }
}

impl Names {
    /// The schema, unquoted.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    /// The full name of a table, a procedure or a function.
    pub(crate) fn full(&self, name: &str) -> String {
        format!(
            "{}.{}",
            self.quoted(&self.schema),
            self.quoted(&format!("{}{name}", self.prefix))
        )
    }

    /// A statement with `{claims}` and the like filled in.
    pub(crate) fn fill(&self, template: &str) -> String {
        TABLES.iter().fold(template.to_owned(), |sql, name| {
            sql.replace(&format!("{{{name}}}"), &self.full(name))
        })
    }

    /// A migration, which is written with the default names so that other tools can run it as it is. Each word that begins with the
    /// default prefix is replaced, in the bodies of routines, too: tables and routines get their full name, indexes and
    /// constraints the prefix alone.
    pub(crate) fn rename(&self, migration: &str) -> String {
        let mut sql = String::with_capacity(migration.len() * 2);
        let mut before = "";
        for word in words(migration) {
            match word.strip_prefix(PREFIX) {
                Some(name) => sql += &self.renamed(name, before),
                None => sql += word,
            }
            if is_word(word) {
                before = word;
            }
        }
        sql
    }

    fn renamed(&self, name: &str, before: &str) -> String {
        let after = |word: &str| before.eq_ignore_ascii_case(word);
        let ours = TABLES.contains(&name) || ROUTINES.contains(&name);
        let qualified = match self.spelling {
            Spelling::Postgres | Spelling::MySql => ours,
            Spelling::Sqlite if ours => !after("ON") && !after("REFERENCES"),
            Spelling::Sqlite => after("INDEX") || after("EXISTS"),
        };
        if qualified {
            self.full(name)
        } else {
            self.quoted(&format!("{}{name}", self.prefix))
        }
    }

    pub(crate) fn quoted(&self, name: &str) -> String {
        let quote = match self.spelling {
            Spelling::Postgres | Spelling::Sqlite => '"',
            Spelling::MySql => '`',
        };
        let doubled = name.replace(quote, &format!("{quote}{quote}"));
        format!("{quote}{doubled}{quote}")
    }
}

/// The table or routine of ours that the database names when it refuses something. Its message is not kept: it may name users.
pub(crate) fn named_in(refused: &sqlx::Error) -> &'static str {
    let message = refused
        .as_database_error()
        .map(|refused| refused.message())
        .unwrap_or_default();
    let names = TABLES.iter().chain(&ROUTINES);
    words(message)
        .flat_map(|word| names.clone().filter(move |name| word.ends_with(**name)))
        .max_by_key(|name| name.len())
        .copied()
        .unwrap_or("the schema, the file or the tables")
}

/// A text in pieces: words, and what is between them.
fn words(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let in_word = text.starts_with(is_letter);
        let end = text.find(|c| is_letter(c) != in_word);
        let (piece, rest) = text.split_at(end.unwrap_or(text.len()));
        text = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

fn is_letter(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn is_word(piece: &str) -> bool {
    piece.starts_with(is_letter)
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

    fn names(spelling: Spelling) -> Names {
        Names {
            schema: "order".into(),
            prefix: "once_".into(),
            spelling,
        }
    }

    #[test]
    fn a_plain_name_needs_no_quotes() {
        for bad in ["", "1a", "A", "a-b", "a;b", "a b", "ä", &"a".repeat(33)] {
            assert!(!is_plain(bad), "{bad}");
        }
        for good in ["a", "_a1", "order", &"a".repeat(32)] {
            assert!(is_plain(good), "{good}");
        }
    }

    #[test]
    fn every_table_in_a_statement_is_qualified_and_quoted() {
        let filled = |spelling| names(spelling).fill("SELECT 1 FROM {claims}");
        assert_eq!(
            filled(Spelling::Postgres),
            r#"SELECT 1 FROM "order"."once_claims""#
        );
        assert_eq!(
            filled(Spelling::MySql),
            "SELECT 1 FROM `order`.`once_claims`"
        );
        let mut found = names(Spelling::Postgres);
        found.schema = r#"a "b""#.into();
        assert_eq!(found.full("gate"), r#""a ""b"""."once_gate""#);
    }

    #[test]
    fn tables_and_routines_are_qualified_wherever_they_stand_and_indexes_are_not() {
        let names = names(Spelling::Postgres);
        for (migration, renamed) in [
            (
                "CREATE INDEX effectively_claims_expires_at ON effectively_claims(expires_at);",
                r#"CREATE INDEX "once_claims_expires_at" ON "order"."once_claims"(expires_at);"#,
            ),
            (
                "DELETE FROM effectively_outbox AS o USING effectively_leases\n WHERE effectively_leases.epoch = 1",
                "DELETE FROM \"order\".\"once_outbox\" AS o USING \"order\".\"once_leases\"\n WHERE \"order\".\"once_leases\".epoch = 1",
            ),
            (
                "CREATE PROCEDURE effectively_claim() AS $$ UPDATE effectively_claims SET gate = NULL $$",
                r#"CREATE PROCEDURE "order"."once_claim"() AS $$ UPDATE "order"."once_claims" SET gate = NULL $$"#,
            ),
            (
                "CONSTRAINT effectively_body REFERENCES effectively_gate (id) -- of `effectively`",
                r#"CONSTRAINT "once_body" REFERENCES "order"."once_gate" (id) -- of `effectively`"#,
            ),
        ] {
            assert_eq!(names.rename(migration), renamed);
        }
    }

    #[test]
    fn on_sqlite_the_index_is_qualified_and_what_it_refers_to_is_not() {
        assert_eq!(
            names(Spelling::Sqlite).rename(
                "CREATE TABLE effectively_claims (gate REFERENCES effectively_gate (id));\n\
                 CREATE INDEX effectively_claims_expires_at ON effectively_claims (expires_at);"
            ),
            "CREATE TABLE \"order\".\"once_claims\" (gate REFERENCES \"once_gate\" (id));\n\
             CREATE INDEX \"order\".\"once_claims_expires_at\" ON \"once_claims\" (expires_at);"
        );
    }
}
