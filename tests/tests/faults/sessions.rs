//! The words in which each server speaks of its sessions.

use effectively_tests::{TestDb, process_list};

use crate::shop::{ShopDb, ShopError};

/// The server's number of this session.
pub async fn number_of<DB: ShopDb>(tx: &mut DB::Connection) -> Result<i64, ShopError> {
    let sql = match DB::NAME {
        "PostgreSQL" => "select pg_backend_pid()::bigint",
        _ => "select cast(connection_id() as signed)",
    };
    Ok(DB::number(tx, sql).await?)
}

/// Ends a session from outside. It may need a moment to notice: see [`is_there`].
pub async fn end<DB: ShopDb>(db: &TestDb<DB>, session: i64) {
    let sql = match DB::NAME {
        "PostgreSQL" => format!("select pg_terminate_backend({session})"),
        _ => format!("kill {session}"),
    };
    db.execute(&sql).await;
}

pub async fn is_there<DB: ShopDb>(db: &TestDb<DB>, session: i64) -> bool {
    let sql = match DB::NAME {
        "PostgreSQL" => format!("select count(*) from pg_stat_activity where pid = {session}"),
        _ => format!(
            "select count(*) from {} where id = {session}",
            list(db).await
        ),
    };
    db.number(&sql).await > 0
}

/// How many sessions on this database wait for the holder of a key.
pub async fn waiting<DB: ShopDb>(db: &TestDb<DB>) -> i64 {
    let sql = match DB::NAME {
        "PostgreSQL" => {
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'".to_owned()
        }
        _ => format!(
            "select count(*) from {} \
             where db = database() and id <> connection_id() and info like '%LOCK IN SHARE MODE%'",
            list(db).await
        ),
    };
    db.number(&sql).await
}

async fn list<DB: ShopDb>(db: &TestDb<DB>) -> &'static str {
    process_list(&db.texts("select version()").await.concat())
}

/// Bytes that only the message with the COMMIT of a call holds.
pub fn commit_message<DB: ShopDb>(literals: bool) -> &'static [u8] {
    match DB::NAME {
        "PostgreSQL" if literals => b"COMMIT AND CHAIN",
        // With the end of the message: BEGIN names a level that begins like it.
        "PostgreSQL" => b"COMMIT\0",
        _ => b"; COMMIT AND NO CHAIN",
    }
}
