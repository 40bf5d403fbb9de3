//! The limit: what a bare loop moves on this machine, in this run.

use std::time::Instant;

use sqlx::PgPool;
use sqlx::types::Uuid;

use super::sinks::Produce;

/// What the loop reads of an event: id, partition, event id, topic, partition key, data.
pub type Row = (i64, i16, Uuid, String, Option<String>, Vec<u8>);

/// Events per second until `events` are gone, without the first twentieth: then all connections are open.
pub async fn drain(pool: &PgPool, mut sink: impl Produce, batch: i64, events: u64) -> f64 {
    let mut connection = pool.acquire().await.expect("a connection");
    let mut begun = None;
    let mut moved = 0;
    while moved < events {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, partition_no, event_id, topic, partition_key, data FROM effectively_outbox \
             ORDER BY partition_no, id LIMIT $1",
        )
        .bind(batch)
        .fetch_all(&mut *connection)
        .await
        .expect("a batch");
        assert!(!rows.is_empty(), "events are missing");
        let ids: Vec<i64> = rows.iter().map(|row| row.0).collect();
        let partitions: Vec<i16> = rows.iter().map(|row| row.1).collect();
        sink.produce(rows).await;
        let deleted = sqlx::query(
            "DELETE FROM effectively_outbox o USING unnest($1::smallint[], $2::bigint[]) AS e (partition_no, id) \
             WHERE o.partition_no = e.partition_no AND o.id = e.id",
        )
        .bind(partitions)
        .bind(ids)
        .execute(&mut *connection)
        .await
        .expect("a deletion");
        moved += deleted.rows_affected();
        if moved >= events / 20 {
            begun.get_or_insert_with(|| (Instant::now(), moved));
        }
    }
    let (begun, before) = begun.expect("events");
    (moved - before) as f64 / begun.elapsed().as_secs_f64()
}
