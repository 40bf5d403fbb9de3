//! `Transactional`.

use std::collections::BTreeSet;
use std::time::Duration;

use effectively::Envelope;
use effectively::sink::kafka::Transactional;
use effectively::sink::{Delivery, EventRef, Sink, Unavailable};
use effectively::testing::sink::{Received, Rig, events, run};
use effectively_tests::poll_times;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use sqlx::types::Uuid;

use crate::server::{KafkaRig, LIMIT, Server, for_this_case, unique};

effectively::sink_conformance!(rig);

/// The beginning of the request EndTxn in the version that librdkafka speaks: that ends a transaction.
const END_TXN: [u8; 4] = [0, 26, 0, 1];
/// Any topic does.
const PROGRESS: &str = "effectively-progress";

async fn rig() -> Option<KafkaRig<Transactional>> {
    let server = for_this_case().await?;
    server.make_topic_if_missing(PROGRESS).await;
    let make = |server: &Server| sink(server, &unique());
    Some(KafkaRig { server, make })
}

fn sink(server: &Server, prefix: &str) -> Transactional {
    let mut config = server.config();
    config.set("transaction.timeout.ms", "3000");
    let sink = Transactional::new(config, prefix).expect("a sink");
    sink.progress_topic(PROGRESS)
}

fn ids(received: &[Received]) -> Vec<String> {
    received.iter().map(|got| got.id.clone()).collect()
}

fn ids_of(sent: &[Envelope]) -> BTreeSet<String> {
    sent.iter().map(|event| event.id.to_string()).collect()
}

/// Publishes until everything is, as the relay does.
async fn publish_all(sink: &Transactional, batch: &[Envelope]) {
    let mut left = batch.to_vec();
    for _ in 0..200 {
        let answers = sink.publish(&left).await;
        let mut answers = answers.iter();
        left.retain(|_| !answers.next().is_some_and(Delivery::is_published));
        // What is unclear is asked for again: a transaction that took too long looks as if a rival had begun.
        let partitions: BTreeSet<u16> = left.iter().map(|event| event.partition).collect();
        for partition in partitions {
            if let Ok(known) = take_over(sink, partition).await {
                left.retain(|event| !known.contains(&event.into()));
            }
        }
        if left.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never published");
}

/// As the relay does when a partition becomes its own.
async fn take_over(
    sink: &Transactional,
    partition: u16,
) -> Result<BTreeSet<EventRef>, Unavailable> {
    let places = sink.assigned(partition).await?;
    assert!(places.is_empty(), "a place alone says nothing: {places:?}");
    Ok(sink.published(partition).await?.into_iter().collect())
}

fn refs(events: &[Envelope]) -> BTreeSet<EventRef> {
    events.iter().map(EventRef::from).collect()
}

async fn assert_each_once(server: &Server, topic: &str, sent: &[Envelope]) {
    let received = ids(&server.received(topic, sent.len()).await);
    let distinct: BTreeSet<_> = received.iter().cloned().collect();
    assert_eq!(distinct, ids_of(sent));
    assert_eq!(received.len(), sent.len(), "some came twice");
}

#[test]
fn a_zombie_publishes_nothing_that_is_seen() {
    run(async {
        let Some(mut rig) = rig().await else { return };
        let topic = rig.topic().await;
        let prefix = unique();
        let (zombie, heir) = (sink(&rig.server, &prefix), sink(&rig.server, &prefix));
        let first = events(&topic, &[Some("ada"), Some("ada")]);
        let partition = first[0].partition;
        assert_eq!(take_over(&zombie, partition).await, Ok(BTreeSet::new()));
        publish_all(&zombie, &first).await;
        // The relay dies before it writes that down: the heir is told.
        assert_eq!(take_over(&heir, partition).await, Ok(refs(&first)));
        let late = events(&topic, &[Some("ada")]);
        for _ in 0..2 {
            let answers = zombie.publish(&late).await;
            assert!(
                matches!(answers[0], Delivery::Unavailable(_)),
                "{answers:?}"
            );
        }
        // It does not fight: the heir goes on undisturbed.
        let next = events(&topic, &[Some("ada")]);
        assert_eq!(heir.publish(&next).await, [Delivery::Published]);
        let sent = [first, next.clone()].concat();
        assert_each_once(&rig.server, &topic, &sent).await;
        // And it may have the partition back, in order.
        assert_eq!(take_over(&zombie, partition).await, Ok(refs(&next)));
        assert_eq!(zombie.publish(&late).await, [Delivery::Published]);
    });
}

/// The answer to a commit is lost, or the commit, or both: then it is asked, not guessed.
#[test]
fn a_commit_without_an_answer_is_cut_and_neither_lost_nor_repeated() {
    run(async {
        let Some(mut rig) = rig().await else { return };
        let topic = rig.topic().await;
        let sink = sink(&rig.server, &unique());
        let proxy = rig.server.proxy();
        let mut sent = Vec::new();
        for round in 0..9 {
            match round % 3 {
                0 => proxy.cut_next_reply(&END_TXN),
                1 => proxy.lose_next_request(&END_TXN),
                _ => proxy.stall_at(&END_TXN),
            }
            let batch = events(&topic, &[Some("ada"); 5]);
            publish_all(&sink, &batch).await;
            assert!(!proxy.is_armed(), "nothing happened in round {round}");
            sent.extend(batch);
        }
        assert_each_once(&rig.server, &topic, &sent).await;
    });
}

/// The broker has committed, and nothing gets through for a while after that: only the record can tell.
#[test]
fn a_commit_before_the_line_is_cut_is_found_in_the_record() {
    run(async {
        let Some(mut rig) = rig().await else { return };
        let topic = rig.topic().await;
        let sink = sink(&rig.server, &unique());
        let proxy = rig.server.proxy();
        let mut sent = Vec::new();
        for _ in 0..2 {
            let before = events(&topic, &[Some("ada")]);
            publish_all(&sink, &before).await;
            let batch = events(&topic, &[Some("ada"); 5]);
            proxy.cut_next_reply(&END_TXN);
            let silence = async {
                while proxy.is_armed() {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                // The broker takes some milliseconds, and the client learns of the cut after 50. If either is not so this time,
                // this tests another outcome, which must be right as well.
                tokio::time::sleep(Duration::from_millis(25)).await;
                proxy.black_hole(true);
            };
            tokio::join!(sink.publish(&batch), silence);
            proxy.black_hole(false);
            publish_all(&sink, &batch).await;
            sent.extend([before, batch].concat());
        }
        assert_each_once(&rig.server, &topic, &sent).await;
    });
}

#[test]
fn connections_that_are_cut_all_the_time_lead_to_no_repeat() {
    run(async {
        let Some(mut rig) = rig().await else { return };
        let topic = rig.topic().await;
        let sink = sink(&rig.server, &unique());
        let mut sent = Vec::new();
        for _ in 0..12 {
            rig.cut_soon();
            let batch = events(&topic, &[Some("ada"), Some("bob"), Some("ada")]);
            publish_all(&sink, &batch).await;
            sent.extend(batch);
        }
        assert_each_once(&rig.server, &topic, &sent).await;
    });
}

/// Its transaction goes on, and the next call learns of it.
#[test]
fn a_publish_that_is_dropped_is_not_repeated() {
    run(async {
        let Some(mut rig) = rig().await else { return };
        let topic = rig.topic().await;
        let sink = sink(&rig.server, &unique());
        let mut sent = Vec::new();
        for _ in 0..10 {
            let batch = events(&topic, &[Some("ada"); 4]);
            assert_eq!(poll_times(1, sink.publish(&batch)).await, None);
            // As the relay may: in another composition.
            publish_all(&sink, &batch[..2]).await;
            publish_all(&sink, &batch[2..]).await;
            sent.extend(batch);
        }
        assert_each_once(&rig.server, &topic, &sent).await;
    });
}

#[test]
fn a_record_that_is_longer_than_one_offset_may_hold_is_read_whole() {
    run(async {
        let Some(mut rig) = rig().await else { return };
        let topic = rig.topic().await;
        let prefix = unique();
        let writer = sink(&rig.server, &prefix);
        let mut batch = events(&topic, &[Some("ada"); 1_000]);
        for event in &mut batch {
            event.outbox_id *= 1_000_000_000_007;
        }
        let answers = writer.publish(&batch).await;
        assert!(
            answers.iter().all(Delivery::is_published),
            "{:?}",
            answers[0]
        );
        let known = take_over(&sink(&rig.server, &prefix), batch[0].partition).await;
        assert_eq!(known, Ok(refs(&batch)));
    });
}

/// A record refused in the middle: halving finds it, and the rest is seen once, in order.
#[test]
fn a_refused_record_costs_only_itself_and_what_follows_it() {
    run(async {
        let Some(mut rig) = rig().await else { return };
        let topic = rig.topic().await;
        let sink = sink(&rig.server, &unique());
        let mut batch = events(&topic, &[Some("ada"); 20]);
        batch[13].data = vec![b'1'; LIMIT + 1_000];
        let answers = sink.publish(&batch).await;
        assert!(
            answers[..13].iter().all(Delivery::is_published),
            "{answers:?}"
        );
        assert!(
            matches!(&answers[13], Delivery::Rejected(why) if why.is_fatal()),
            "{answers:?}"
        );
        assert!(
            answers[14..].iter().all(|answer| *answer == Delivery::Held),
            "{answers:?}"
        );
        let received = ids(&rig.server.received(&topic, 13).await);
        let sent: Vec<_> = batch[..13]
            .iter()
            .map(|event| event.id.to_string())
            .collect();
        assert_eq!(received, sent);
    });
}

#[test]
fn what_was_given_up_stays_closed_until_it_is_assigned() {
    run(async {
        let Some(mut rig) = rig().await else { return };
        let topic = rig.topic().await;
        let sink = sink(&rig.server, &unique());
        let batch = events(&topic, &[Some("ada")]);
        let partition = batch[0].partition;
        sink.revoked(partition).await;
        assert!(matches!(
            sink.publish(&batch).await[0],
            Delivery::Unavailable(_)
        ));
        assert_eq!(take_over(&sink, partition).await, Ok(BTreeSet::new()));
        assert_eq!(sink.publish(&batch).await, [Delivery::Published]);
    });
}

/// A database that was made anew, or whose tables were emptied, gives the places of published events to others.
#[test]
fn other_events_at_the_same_places_are_published() {
    run(async {
        let Some(mut rig) = rig().await else { return };
        let topic = rig.topic().await;
        let prefix = unique();
        let old = events(&topic, &[Some("ada"); 4]);
        publish_all(&sink(&rig.server, &prefix), &old).await;
        let mut new = events(&topic, &[Some("ada"); 4]);
        for (new, old) in new.iter_mut().zip(&old) {
            new.outbox_id = old.outbox_id;
        }
        // The same id in another database: it is not known whether that is the same event.
        new[0].id = old[0].id;
        new[0].database = Uuid::new_v4();
        // Restored from a backup: of its events only the last one was published already.
        new[3] = old[3].clone();
        let heir = sink(&rig.server, &prefix);
        take_over(&heir, new[0].partition).await.expect("a record");
        let answers = heir.publish(&new).await;
        assert!(answers.iter().all(Delivery::is_published), "{answers:?}");
        let received = ids(&rig.server.received(&topic, 7).await);
        let sent = old.iter().chain(&new[..3]);
        let sent: Vec<_> = sent.map(|event| event.id.to_string()).collect();
        assert_eq!(received, sent);
    });
}

/// Earlier versions wrote down places alone.
#[test]
fn an_older_record_hides_no_event() {
    run(async {
        let Some(mut rig) = rig().await else { return };
        let topic = rig.topic().await;
        let prefix = unique();
        let batch = events(&topic, &[Some("ada"); 3]);
        let partition = batch[0].partition;
        let mut config = rig.server.config();
        config.set("group.id", format!("{prefix}-{partition}"));
        let mut offsets = TopicPartitionList::new();
        let mut offset = offsets.add_partition(PROGRESS, 0);
        offset.set_offset(Offset::Offset(3)).expect("an offset");
        offset.set_metadata(format!("1 1 {:x} 1 1", batch[0].outbox_id));
        let commit = move || {
            let consumer: BaseConsumer = config.create().expect("a consumer");
            consumer.commit(&offsets, CommitMode::Sync)
        };
        let committed = tokio::task::spawn_blocking(commit).await;
        committed.expect("no panic").expect("the record");
        let sink = sink(&rig.server, &prefix);
        assert_eq!(take_over(&sink, partition).await, Ok(BTreeSet::new()));
        let answers = sink.publish(&batch).await;
        assert!(answers.iter().all(Delivery::is_published), "{answers:?}");
        assert_each_once(&rig.server, &topic, &batch).await;
        assert_eq!(take_over(&sink, partition).await, Ok(refs(&batch)));
    });
}
