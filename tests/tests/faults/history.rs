//! What was asked and answered, by all processes, held against what the database says at the end.
//!
//! An operation has its own mark, so a definite failure must have left no order with that mark, an answer of its own exactly
//! one, and a replay an answer that another operation made. What was cut off may have happened or not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use effectively::{ErrorKind, Failure};
use serde::{Deserialize, Serialize};

use crate::marks::{Answer, Book, key_of};
use crate::shop::ShopError;

/// One line of the history, as a process writes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Line {
    Began {
        mark: String,
        at: u64,
    },
    Ended {
        mark: String,
        at: u64,
        end: End,
    },
    /// The handler of events took one, for the first time or not.
    Received {
        again: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// Its body ran and this was answered.
    Ran(String),
    /// Another's body had run.
    Replayed(String),
    /// The caller was told that nothing happened; why.
    Failed(String),
    /// The caller was told that it is not known.
    Unknown,
}

pub fn began(mark: &str) -> Line {
    Line::Began {
        mark: mark.to_owned(),
        at: now(),
    }
}

pub fn ended(mark: &str, answer: Result<Answer, ()>) -> (Line, End) {
    let end = match answer {
        Err(()) => End::Failed("panicked".into()),
        Ok(Ok(outcome)) => {
            let replay = outcome.is_replay();
            let answer = outcome.into_result().expect("a mark");
            if replay {
                End::Replayed(answer)
            } else {
                End::Ran(answer)
            }
        }
        Ok(Err(Failure::Handler(ShopError::GaveUp))) => End::Failed("gave up".into()),
        Ok(Err(Failure::Handler(_))) => End::Failed("broken".into()),
        Ok(Err(Failure::Toolkit(error))) => match error.kind() {
            ErrorKind::CommitUnknown => End::Unknown,
            ErrorKind::Unavailable | ErrorKind::NotCommitted => End::Failed("broken".into()),
            other => End::Failed(format!("{other:?}")),
        },
    };
    let line = Line::Ended {
        mark: mark.to_owned(),
        at: now(),
        end: end.clone(),
    };
    (line, end)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}

#[derive(Debug)]
struct Operation {
    began: u64,
    /// `None`: the process was killed, or its words were lost with it.
    ended: Option<(u64, End)>,
}

#[derive(Debug, Default)]
pub struct History {
    operations: BTreeMap<String, Operation>,
    /// How many events were taken for the first time and how many again, as far as it was heard.
    pub received: [usize; 2],
}

impl History {
    pub fn add(&mut self, line: Line) {
        match line {
            Line::Began { mark, at } => {
                let operation = Operation {
                    began: at,
                    ended: None,
                };
                assert!(
                    self.operations.insert(mark, operation).is_none(),
                    "a mark came twice"
                );
            }
            Line::Ended { mark, at, end } => {
                let operation = self.operations.get_mut(&mark).expect("it began");
                operation.ended = Some((at, end));
            }
            Line::Received { again } => self.received[usize::from(again)] += 1,
        }
    }

    pub fn keys(&self) -> BTreeSet<String> {
        self.operations
            .keys()
            .map(|mark| key_of(mark).to_owned())
            .collect()
    }

    /// How many operations ended in a way.
    pub fn count(&self, is_such: impl Fn(&Option<&End>) -> bool) -> usize {
        let ends = self
            .operations
            .values()
            .map(|operation| operation.ended.as_ref());
        ends.filter(|end| is_such(&end.map(|(_, end)| end))).count()
    }

    /// C1, C2 and C6.
    pub fn check(&self, book: &Book) -> Result<(), String> {
        book.is_whole()?;
        let orders: BTreeSet<_> = book.orders.iter().map(String::as_str).collect();
        if let Some(order) = orders
            .iter()
            .find(|mark| !self.operations.contains_key(**mark))
        {
            return Err(format!("{order} was never asked for"));
        }
        let mut answers = BTreeMap::new();
        for (mark, operation) in &self.operations {
            let Some((at, end)) = &operation.ended else {
                continue;
            };
            let stayed = orders.contains(mark.as_str());
            let right = match end {
                End::Ran(answer) => answer == mark && stayed,
                End::Replayed(answer) => {
                    answer != mark
                        && !stayed
                        && self.happened_before(answer, *at)
                        && orders.contains(answer.as_str())
                }
                End::Failed(_) => !stayed,
                End::Unknown => true,
            };
            if !right {
                return Err(format!("{mark} ended with {end:?}; it stayed: {stayed}"));
            }
            if let End::Ran(answer) | End::Replayed(answer) = end {
                let first = answers.entry(key_of(mark)).or_insert(answer);
                if *first != answer {
                    return Err(format!(
                        "{mark} was answered with {answer}, another call with {first}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// No answer comes before the question that it answers.
    fn happened_before(&self, mark: &str, at: u64) -> bool {
        self.operations
            .get(mark)
            .is_some_and(|operation| operation.began <= at)
    }
}

/// A checker that finds nothing is worth nothing: each of these histories is wrong in one way.
#[test]
fn wrong_histories_are_found_out() {
    let ran = |mark: &str| End::Ran(mark.into());
    let replayed = |mark: &str| End::Replayed(mark.into());
    let failed = || End::Failed("InFlight".into());
    let right = [
        ("a#1", ran("a#1")),
        ("a#2", replayed("a#1")),
        ("a#3", failed()),
        ("b#1", End::Unknown),
    ];
    assert_eq!(judge(&right, &["a#1"], &["a#1"]), Ok(()));
    assert_eq!(judge(&right, &["a#1", "b#1"], &["b#1", "a#1"]), Ok(()));
    type Case<'a> = (&'a [(&'a str, End)], &'a [&'a str], &'a [&'a str]);
    let wrong: [Case<'_>; 9] = [
        (&right, &["a#1", "a#1"], &["a#1"]),
        (&right, &["a#1", "a#3"], &["a#1", "a#3"]),
        (&right, &["a#3"], &["a#3"]),
        (&right, &["a#1"], &[]),
        (&right, &["a#1"], &["a#1", "b#1"]),
        (&right, &[], &[]),
        (&right, &["a#1", "c#1"], &["a#1", "c#1"]),
        (
            &[("a#1", ran("a#1")), ("a#2", ran("a#2"))],
            &["a#1"],
            &["a#1"],
        ),
        (
            &[("a#2", replayed("a#3")), ("a#3", ran("a#3"))],
            &["a#3"],
            &["a#3"],
        ),
    ];
    for (lines, orders, events) in wrong {
        assert!(
            judge(lines, orders, events).is_err(),
            "{lines:?} {orders:?} {events:?}"
        );
    }
}

#[cfg(test)]
fn judge(lines: &[(&str, End)], orders: &[&str], events: &[&str]) -> Result<(), String> {
    let mut history = History::default();
    for (at, (mark, end)) in (0..).step_by(2).zip(lines) {
        let mark = (*mark).to_owned();
        history.add(Line::Began {
            mark: mark.clone(),
            at,
        });
        history.add(Line::Ended {
            mark,
            at: at + 1,
            end: end.clone(),
        });
    }
    let texts = |marks: &[&str]| {
        marks
            .iter()
            .map(|mark| (*mark).to_owned())
            .collect::<Vec<_>>()
    };
    let keys: BTreeSet<_> = orders.iter().map(|mark| key_of(mark)).collect();
    history.check(&Book {
        orders: texts(orders),
        events: texts(events),
        claims: (keys.len() as i64, 0),
    })
}
