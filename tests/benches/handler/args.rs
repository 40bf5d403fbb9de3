//! What the command line asks for.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Wire,
    Load,
    Build,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Db {
    Postgres,
    Sqlite,
}

#[derive(Debug, Default)]
pub struct Args {
    /// `cargo bench` says `--bench`, `cargo test --all-targets` does not.
    pub measure: bool,
    only: Option<Part>,
    database: Option<Db>,
}

impl Args {
    /// # Errors
    /// What is wrong, and what is right.
    pub fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut args = Self::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--bench" => args.measure = true,
                "--only" => args.only = Some(part(words.next())?),
                "--database" => args.database = Some(database(words.next())?),
                other => {
                    return Err(format!(
                        "unknown argument {other:?}; there are --only and --database"
                    ));
                }
            }
        }
        Ok(args)
    }

    /// The build is only compared when asked for.
    pub fn asks_for(&self, part: Part) -> bool {
        self.only.map_or(part != Part::Build, |only| only == part)
    }

    pub fn on(&self, database: Db) -> bool {
        self.database.is_none_or(|only| only == database)
    }
}

fn part(word: Option<String>) -> Result<Part, String> {
    match word.as_deref() {
        Some("wire") => Ok(Part::Wire),
        Some("load") => Ok(Part::Load),
        Some("build") => Ok(Part::Build),
        _ => Err("--only wire, load or build".to_owned()),
    }
}

fn database(word: Option<String>) -> Result<Db, String> {
    match word.as_deref() {
        Some("postgres") => Ok(Db::Postgres),
        Some("sqlite") => Ok(Db::Sqlite),
        _ => Err("--database postgres or sqlite".to_owned()),
    }
}
