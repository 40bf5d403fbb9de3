//! `effectively keys show | release | interrupted`

use std::time::Duration;

use effectively::{Dialect, Key, KeyPart, KeyState, Ledger};
use serde_json::json;

use crate::{
    args::{KeyChoice, Keys},
    failure::{End, Failure},
    output::{Output, hex, plain, span, table, time},
};

pub(crate) async fn run<DB: Dialect>(
    ledger: &Ledger<DB>,
    command: &Keys,
    out: &Output,
) -> Result<End, Failure> {
    match command {
        Keys::Show(choice) => show(ledger, choice, out).await,
        Keys::Release(choice) => release(ledger, choice, out).await,
        Keys::Interrupted => interrupted(ledger, out).await,
    }
}

/// A key by its name, or by its id.
enum Chosen {
    Key(Key),
    Id([u8; 32]),
}

impl Chosen {
    fn of(choice: &KeyChoice) -> Result<Self, Failure> {
        if let Some(id) = &choice.id {
            return Ok(Self::Id(id_of(id)?));
        }
        let scope = choice.scope.clone().unwrap_or_default();
        if let Some(text) = &choice.key {
            return Ok(Self::Key(Key::filled(scope, text)?));
        }
        let parts: Vec<&(dyn KeyPart + Sync)> = choice.parts.iter().map(|part| part as _).collect();
        Ok(Self::Key(Key::new(scope, &parts)?))
    }
}

fn id_of(text: &str) -> Result<[u8; 32], Failure> {
    let wrong = || {
        Failure::Usage("--id is 64 hex digits, as `effectively keys interrupted` shows".to_owned())
    };
    if text.len() != 64 || !text.is_ascii() {
        return Err(wrong());
    }
    let mut id = [0; 32];
    for (byte, place) in id.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[place..place + 2], 16).map_err(|_| wrong())?;
    }
    Ok(id)
}

async fn show<DB: Dialect>(
    ledger: &Ledger<DB>,
    choice: &KeyChoice,
    out: &Output,
) -> Result<End, Failure> {
    let state = match Chosen::of(choice)? {
        Chosen::Key(key) => ledger.state_of(&key).await?,
        Chosen::Id(id) => ledger.state_of_id(id).await?,
    };
    let (json, text) = match state {
        KeyState::Free => (
            json!({ "state": "free" }),
            "free: the next call with it executes".to_owned(),
        ),
        KeyState::Complete {
            scope,
            expires_in,
            outcome_bytes,
        } => (
            json!({
                "state": "complete", "scope": scope, "outcome_bytes": outcome_bytes,
                "expires_in_ms": u64::try_from(expires_in.as_millis()).unwrap_or(u64::MAX),
            }),
            format!(
                "complete in the scope {}: the outcome of {outcome_bytes} bytes is replayed for another {}",
                plain(&scope),
                span(expires_in)
            ),
        ),
        KeyState::Interrupted { scope, began_at } => (
            json!({ "state": "interrupted", "scope": scope, "began_at": began(began_at) }),
            format!(
                "interrupted in the scope {} since {}: a call ended its own transaction; look whether its effects happened, then release the key",
                plain(&scope),
                began(began_at)
            ),
        ),
        _ => {
            return Err(Failure::Failed(
                "a state that this program does not know".to_owned(),
            ));
        }
    };
    out.result(&json, || text)?;
    Ok(End::Fine)
}

async fn release<DB: Dialect>(
    ledger: &Ledger<DB>,
    choice: &KeyChoice,
    out: &Output,
) -> Result<End, Failure> {
    let released = match Chosen::of(choice)? {
        Chosen::Key(key) => ledger.release(&key).await?,
        Chosen::Id(id) => ledger.release_interrupted(id).await?,
    };
    out.result(&json!({ "released": released }), || {
        let text = if released {
            "released: the next call with this key executes"
        } else {
            "this key is not interrupted; nothing was changed"
        };
        text.to_owned()
    })?;
    Ok(if released { End::Fine } else { End::Findings })
}

async fn interrupted<DB: Dialect>(ledger: &Ledger<DB>, out: &Output) -> Result<End, Failure> {
    let keys = ledger.interrupted().await?;
    let each = |key: &effectively::InterruptedKey| json!({ "id": hex(&key.id), "scope": key.scope, "began_at": began(key.began_at) });
    let json = json!({ "interrupted": keys.iter().map(each).collect::<Vec<_>>() });
    out.result(&json, || {
        if keys.is_empty() {
            return "no interrupted keys".to_owned();
        }
        let mut rows = vec![["id", "scope", "began at"].map(str::to_owned).to_vec()];
        rows.extend(
            keys.iter()
                .map(|key| vec![hex(&key.id), plain(&key.scope), began(key.began_at)]),
        );
        table(&rows)
    })?;
    Ok(End::Fine)
}

fn began(seconds: i64) -> String {
    time(Duration::from_secs(seconds.max(0).unsigned_abs()))
}
