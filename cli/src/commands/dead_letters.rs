//! `effectively dead-letters list | show | retry | discard`

use std::io::{self, BufRead, IsTerminal, Write};

use effectively::{DeadLetter, Dialect, Ledger};
use serde_json::{Value, json};

use crate::{
    args::{DeadLetters, Selection},
    failure::{End, Failure},
    output::{Output, count, hex, plain, progress, say, table, time},
};

/// How many are read at once. They come with their data.
const PAGE: u32 = 100;

pub(crate) async fn run<DB: Dialect>(
    ledger: &Ledger<DB>,
    command: &DeadLetters,
    out: &Output,
) -> Result<End, Failure> {
    match command {
        DeadLetters::List {
            topic,
            limit,
            after,
        } => list(ledger, topic.as_deref(), *limit, *after, out).await,
        DeadLetters::Show { id } => show(ledger, *id, out).await,
        DeadLetters::Retry(selection) => each(ledger, selection, Fate::Retry, out).await,
        DeadLetters::Discard { selection, yes } => {
            each(ledger, selection, Fate::Discard { asked: !yes }, out).await
        }
    }
}

async fn list<DB: Dialect>(
    ledger: &Ledger<DB>,
    topic: Option<&str>,
    limit: u32,
    after: i64,
    out: &Output,
) -> Result<End, Failure> {
    let mut letters = Vec::new();
    let (mut after, mut more) = (after, true);
    while more && letters.len() < limit as usize {
        let page = ledger.outbox().dead_letters(after, PAGE).await?;
        more = page.len() == PAGE as usize;
        for letter in page {
            if letters.len() == limit as usize {
                more = true;
                break;
            }
            after = letter.id;
            if topic.is_none_or(|topic| topic == letter.topic) {
                // Never printed, and there may be many.
                letters.push(DeadLetterHead::of(letter));
            }
        }
    }
    let next = more.then_some(after);
    let json = json!({
        "dead_letters": letters.iter().map(|letter| &letter.json).collect::<Vec<_>>(),
        "next_after": next,
    });
    out.result(&json, || {
        if letters.is_empty() {
            return "no dead letters".to_owned();
        }
        let titles = [
            "id",
            "topic",
            "type",
            "attempts",
            "failed at",
            "event id",
            "reason",
        ];
        let mut rows = vec![titles.map(str::to_owned).to_vec()];
        rows.extend(letters.into_iter().map(|letter| letter.row));
        table(&rows)
    })?;
    if let (Some(next), false) = (next, out.json) {
        say(&format!("there may be more: --after {next}"));
    }
    Ok(End::Fine)
}

/// What a list tells of one.
struct DeadLetterHead {
    row: Vec<String>,
    json: Value,
}

impl DeadLetterHead {
    fn of(letter: DeadLetter) -> Self {
        Self {
            json: head(&letter),
            row: vec![
                letter.id.to_string(),
                plain(&letter.topic),
                plain(&letter.name),
                letter.attempts.to_string(),
                time(letter.failed_at),
                letter.event_id.to_string(),
                plain(&letter.error),
            ],
        }
    }
}

fn head(letter: &DeadLetter) -> Value {
    json!({
        "id": letter.id,
        "event_id": letter.event_id.to_string(),
        "topic": letter.topic,
        "type": letter.name,
        "attempts": letter.attempts,
        "reason": letter.error,
        "staged_at": time(letter.staged_at),
        "failed_at": time(letter.failed_at),
    })
}

async fn show<DB: Dialect>(ledger: &Ledger<DB>, id: i64, out: &Output) -> Result<End, Failure> {
    let found = ledger
        .outbox()
        .dead_letters(id.saturating_sub(1), 1)
        .await?;
    let letter = found.into_iter().find(|letter| letter.id == id);
    let Some(letter) = letter else {
        return Err(Failure::Failed(format!("there is no dead letter {id}")));
    };
    let mut json = head(&letter);
    json["partition_key"] = json!(letter.partition_key);
    json["headers"] = json!(letter.headers);
    match serde_json::from_slice::<Value>(&letter.data) {
        Ok(data) => json["data"] = data,
        Err(_) => match std::str::from_utf8(&letter.data) {
            Ok(text) => json["data_text"] = json!(text),
            Err(_) => json["data_hex"] = json!(hex(&letter.data)),
        },
    }
    out.result(&json, || {
        serde_json::to_string_pretty(&json).unwrap_or_default()
    })?;
    Ok(End::Fine)
}

#[derive(Clone, Copy)]
enum Fate {
    Retry,
    Discard { asked: bool },
}

async fn each<DB: Dialect>(
    ledger: &Ledger<DB>,
    selection: &Selection,
    fate: Fate,
    out: &Output,
) -> Result<End, Failure> {
    let ids = selected(ledger, selection).await?;
    if let Fate::Discard { asked: true } = fate
        && !ids.is_empty()
        && !confirmed(ids.len() as u64)?
    {
        return Err(Failure::Failed("nothing was discarded".to_owned()));
    }
    let doing = match fate {
        Fate::Retry => "putting back",
        Fate::Discard { .. } => "discarding",
    };
    let bar = progress(Some(ids.len() as u64), doing);
    let (mut done, mut missing) = (0_u64, Vec::new());
    for id in ids {
        let was_one = match fate {
            Fate::Retry => ledger.outbox().retry(id).await,
            Fate::Discard { .. } => ledger.outbox().discard(id).await,
        };
        // What is done stays done: say how much that is.
        let was_one = was_one.map_err(|error| match Failure::from(error) {
            Failure::Unreachable(error) => Failure::Unreachable(format!(
                "{error}; {} done before",
                count(done, "dead letter")
            )),
            failure => failure,
        })?;
        if was_one {
            done += 1;
        } else {
            missing.push(id);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let (verb, word) = match fate {
        Fate::Retry => ("retried", "put back"),
        Fate::Discard { .. } => ("discarded", "discarded"),
    };
    out.result(&json!({ verb: done, "missing": missing }), || {
        format!("{word} {}", count(done, "dead letter"))
    })?;
    if missing.is_empty() {
        return Ok(End::Fine);
    }
    let missing: Vec<_> = missing.iter().map(i64::to_string).collect();
    say(&format!("error: no dead letters: {}", missing.join(", ")));
    Ok(End::Findings)
}

/// Their ids, before anything changes: what fails again and comes back must not be met twice.
async fn selected<DB: Dialect>(
    ledger: &Ledger<DB>,
    selection: &Selection,
) -> Result<Vec<i64>, Failure> {
    if !selection.ids.is_empty() {
        return Ok(selection.ids.clone());
    }
    let (mut ids, mut after) = (Vec::new(), 0);
    loop {
        let page = ledger.outbox().dead_letters(after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(ids);
        };
        after = last.id;
        let wanted = |letter: &&DeadLetter| {
            let topic = selection.topic.as_ref();
            topic.is_none_or(|topic| *topic == letter.topic)
        };
        ids.extend(page.iter().filter(wanted).map(|letter| letter.id));
    }
}

/// Asks on the terminal.
fn confirmed(letters: u64) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::Usage(
            "discarding cannot be undone, and there is no terminal to ask on; say --yes".to_owned(),
        ));
    }
    let letters = count(letters, "dead letter");
    // Where the question cannot be written, the answer is no.
    let _ = write!(io::stderr().lock(), "Discard {letters} for ever? [y/N] ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
