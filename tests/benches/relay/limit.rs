//! The limit: what a bare loop moves on this machine, in this run.

use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::types::Uuid;
use sqlx::{PgPool, Postgres};

use super::sinks::Produce;

/// What the loop reads of an event: id, partition, event id, topic, partition key, data.
pub type Row = (i64, i16, Uuid, String, Option<String>, Vec<u8>);

/// One connection, one batch after the other.
struct Loop<P> {
    connection: PoolConnection<Postgres>,
    sink: P,
    batch: i64,
}

impl<P: Produce> Loop<P> {
    async fn new(pool: &PgPool, sink: P, batch: i64) -> Self {
        Self {
            connection: pool.acquire().await.expect("a connection"),
            sink,
            batch,
        }
    }

    /// Reads, produces and deletes one batch; answers how many events that were.
    async fn turn(&mut self) -> u64 {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, partition_no, event_id, topic, partition_key, data FROM effectively_outbox \
             ORDER BY partition_no, id LIMIT $1",
        )
        .bind(self.batch)
        .fetch_all(&mut *self.connection)
        .await
        .expect("a batch");
        if rows.is_empty() {
            return 0;
        }
        let ids: Vec<i64> = rows.iter().map(|row| row.0).collect();
        let partitions: Vec<i16> = rows.iter().map(|row| row.1).collect();
        self.sink.produce(rows).await;
        let deleted = sqlx::query(
            "DELETE FROM effectively_outbox o USING unnest($1::smallint[], $2::bigint[]) AS e (partition_no, id) \
             WHERE o.partition_no = e.partition_no AND o.id = e.id",
        )
        .bind(partitions)
        .bind(ids)
        .execute(&mut *self.connection)
        .await
        .expect("a deletion");
        deleted.rows_affected()
    }
}

/// Events per second until `events` are gone, without the first twentieth: then all connections are open.
pub async fn drain(pool: &PgPool, sink: impl Produce, batch: i64, events: u64) -> f64 {
    let mut bare = Loop::new(pool, sink, batch).await;
    let mut begun = None;
    let mut moved = 0;
    while moved < events {
        let of_turn = bare.turn().await;
        assert!(of_turn > 0, "events are missing");
        moved += of_turn;
        if moved >= events / 20 {
            begun.get_or_insert_with(|| (Instant::now(), moved));
        }
    }
    let (begun, before) = begun.expect("events");
    (moved - before) as f64 / begun.elapsed().as_secs_f64()
}

/// Moves what comes, without an end, and looks again after a millisecond when there is nothing.
pub async fn follow(pool: &PgPool, sink: impl Produce, batch: i64) {
    let mut bare = Loop::new(pool, sink, batch).await;
    loop {
        if bare.turn().await == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
