//! Pages of documentation whose tables name tests: a test reads the page and asks whether those are there.

use std::path::Path;
use std::{fs, iter};

/// The cells of each row of the tables of a page, which all have `N` columns. The heads are left out.
///
/// # Panics
/// If a row has another number of columns.
pub fn rows<const N: usize>(page: &str) -> Vec<[&str; N]> {
    let (mut rows, mut before) = (Vec::new(), "");
    for line in page.lines() {
        let is_row = line.starts_with("| ");
        // Below a head stands the line that makes it one.
        if is_row && before.starts_with('|') {
            let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let cells = cells.try_into();
            rows.push(cells.unwrap_or_else(|_| panic!("not {N} cells: {line}")));
        }
        before = line;
    }
    rows
}

/// A test that a page names as `` `file.rs::name` ``.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedTest<'a> {
    /// The file, from the top of the workspace.
    pub file: &'a str,
    /// The function.
    pub name: &'a str,
}

impl<'a> NamedTest<'a> {
    /// All that a cell names.
    pub fn all_of(cell: &'a str) -> impl Iterator<Item = Self> {
        let code = cell.split('`').skip(1).step_by(2);
        code.filter_map(|code| code.split_once("::"))
            .filter(|(file, _)| file.ends_with(".rs"))
            .map(|(file, name)| Self { file, name })
    }

    /// The text of its file.
    ///
    /// # Panics
    /// If there is no such file below `top`.
    pub fn source(&self, top: &Path) -> String {
        let source = fs::read_to_string(top.join(self.file));
        source.unwrap_or_else(|error| panic!("{}: {error}", self.file))
    }

    /// Whether this text of its file has a function of this name.
    pub fn is_in(&self, source: &str) -> bool {
        source
            .match_indices(&format!("fn {}", self.name))
            .any(|(place, found)| source[place + found.len()..].starts_with(['(', '<']))
    }

    /// Whether it runs on a database: [`on_every_database!`](crate::on_every_database) lists it there, or nowhere and it is a test by
    /// itself.
    pub fn runs_on(&self, database: &str, source: &str) -> bool {
        let mut listed = false;
        for (databases, tests) in lists(source) {
            if tests.split(',').any(|test| test.trim() == self.name) {
                if databases.is_none_or(|list| list.split(", ").any(|one| one == database)) {
                    return true;
                }
                listed = true;
            }
        }
        !listed && self.is_test(source)
    }

    /// Whether its function has the attribute of a test.
    fn is_test(&self, source: &str) -> bool {
        let signature = format!("fn {}(", self.name);
        let lines: Vec<_> = source.lines().collect();
        let place = lines.iter().position(|line| line.contains(&signature));
        place.is_some_and(|place| {
            let before = lines[..place].iter().rev();
            let mut attributes = before.take_while(|line| line.trim_start().starts_with('#'));
            attributes.any(|line| line.contains("test"))
        })
    }
}

/// The databases, unless all, and the tests of each `on_every_database!(…)`.
fn lists(source: &str) -> impl Iterator<Item = (Option<&str>, &str)> {
    let mut rest = source;
    iter::from_fn(move || {
        let (_, list) = rest.split_once("on_every_database!(")?;
        let (list, after) = list.split_once(')')?;
        rest = after;
        match list.trim_start().strip_prefix('[') {
            Some(list) => {
                let (databases, tests) = list.split_once(']')?;
                Some((Some(databases), tests))
            }
            None => Some((None, list)),
        }
    })
}
