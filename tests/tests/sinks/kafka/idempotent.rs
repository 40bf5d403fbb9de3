//! `Kafka`, the idempotent producer.

use std::time::{Duration, Instant};

use effectively::sink::kafka::Kafka;
use effectively::sink::{Delivery, Sink};
use effectively::testing::sink::{events, run};

use crate::server::{KafkaRig, LIMIT, Server, for_this_case, unique};

effectively::sink_conformance!(rig);

async fn rig() -> Option<KafkaRig<Kafka>> {
    let make = |server: &Server| Kafka::new(server.config()).expect("a sink");
    Some(KafkaRig {
        server: for_this_case().await?,
        make,
    })
}

/// librdkafka sends the later records of a pipeline after the broker has refused one, and a broker takes any sequence number
/// from a producer that it does not know yet.
#[test]
fn nothing_passes_a_record_that_the_broker_refuses() {
    run(async {
        let Some(server) = Server::shared() else {
            return;
        };
        for refused in [0, 1, 7] {
            let topic = server.topic(LIMIT).await;
            // Many small requests, all on their way at once.
            let mut config = server.config();
            config.set("batch.size", "1000").set("linger.ms", "0");
            let sink = Kafka::new(config).expect("a sink");
            let mut batch = events(&topic, &[Some("ada"); 40]);
            batch[refused].data = vec![b'1'; LIMIT + 1_000];
            let answers = sink.publish(&batch).await;
            let published = |place: usize| answers[place].is_published();
            assert!((0..refused).all(published), "{answers:?}");
            assert!(!(refused..40).any(published), "{answers:?}");
            assert!(
                matches!(&answers[refused], Delivery::Rejected(why) if why.is_fatal()),
                "{answers:?}"
            );
            let received = server.received(&topic, refused).await;
            let sent = batch[..refused].iter().map(|event| event.id.to_string());
            assert!(
                received.iter().map(|got| got.id.clone()).eq(sent),
                "{received:?}"
            );
            // And it goes on from there.
            batch.remove(refused);
            let answers = sink.publish(&batch[refused..]).await;
            assert!(answers.iter().all(Delivery::is_published), "{answers:?}");
            let received = server.received(&topic, 39).await;
            let sent = batch.iter().map(|event| event.id.to_string());
            assert!(
                received.iter().map(|got| got.id.clone()).eq(sent),
                "{received:?}"
            );
        }
    });
}

/// They shared a request with the one that is to blame, but only that one is rejected.
#[test]
fn the_neighbours_of_a_refused_record_are_published() {
    run(async {
        let Some(server) = Server::shared() else {
            return;
        };
        let topic = server.topic(LIMIT).await;
        let sink = Kafka::new(server.config()).expect("a sink");
        let keys: Vec<String> = (0..30).map(|key| key.to_string()).collect();
        let keys: Vec<_> = keys.iter().map(|key| Some(key.as_str())).collect();
        let mut batch = events(&topic, &keys);
        batch[11].data = vec![b'1'; LIMIT + 1_000];
        for _ in 0..2 {
            let answers = sink.publish(&batch).await;
            let published = answers.iter().filter(|answer| answer.is_published());
            let count = published.count();
            assert!(matches!(&answers[11], Delivery::Rejected(_)), "{answers:?}");
            assert!(
                !answers
                    .iter()
                    .enumerate()
                    .any(|(place, answer)| place != 11 && matches!(answer, Delivery::Rejected(_)))
            );
            if count == 29 {
                return;
            }
        }
        panic!("the neighbours were not published");
    });
}

#[test]
fn a_missing_topic_is_answered_soon_and_stops_no_other() {
    run(async {
        let Some(server) = Server::private().await else {
            return;
        };
        let topic = server.topic(LIMIT).await;
        let sink = Kafka::new(server.config()).expect("a sink");
        let mut batch = events(
            &topic,
            &[Some("ada"), Some("ada"), Some("bob"), Some("eve")],
        );
        batch[0].topic = format!("missing-{}", unique());
        batch[3].topic = "not a name".to_owned();
        let start = Instant::now();
        let answers = sink.publish(&batch).await;
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{:?}",
            start.elapsed()
        );
        assert!(
            matches!(&answers[0], Delivery::Rejected(why) if !why.is_fatal()),
            "{answers:?}"
        );
        assert_eq!(answers[1], Delivery::Held);
        assert!(answers[2].is_published(), "{answers:?}");
        assert!(matches!(&answers[3], Delivery::Rejected(_)), "{answers:?}");
    });
}

#[test]
fn a_broker_that_is_down_is_unavailable_in_time() {
    run(async {
        let mut config = rdkafka::ClientConfig::new();
        config
            .set("bootstrap.servers", "127.0.0.1:1")
            .set("message.timeout.ms", "1500");
        let sink = Kafka::new(config).expect("a sink");
        let start = Instant::now();
        let answers = sink.publish(&events("orders", &[Some("ada"), None])).await;
        assert!(
            start.elapsed() < Duration::from_secs(4),
            "{:?}",
            start.elapsed()
        );
        for answer in answers {
            assert!(matches!(answer, Delivery::Unavailable(_)), "{answer:?}");
        }
    });
}

/// Too large for the client's own limit: refused before anything is sent, for good, and only what comes after it is held.
#[test]
fn what_the_client_refuses_costs_no_other() {
    run(async {
        let Some(server) = Server::shared() else {
            return;
        };
        let topic = server.topic(LIMIT).await;
        let sink = Kafka::new(server.config()).expect("a sink");
        let mut batch = events(
            &topic,
            &[Some("ada"), Some("ada"), Some("ada"), Some("bob")],
        );
        batch[1].data = vec![b'1'; 2_000_000];
        let answers = sink.publish(&batch).await;
        assert!(
            matches!(&answers[1], Delivery::Rejected(why) if why.is_fatal()),
            "{answers:?}"
        );
        assert_eq!(answers[2], Delivery::Held);
        assert!(
            answers[0].is_published() && answers[3].is_published(),
            "{answers:?}"
        );
    });
}

#[test]
fn settings_that_break_the_promise_are_refused_without_their_values() {
    for (name, value) in [
        ("acks", "1"),
        ("enable.idempotence", "false"),
        ("enable.gapless.guarantee", "false"),
        ("partitioner", "random"),
        ("transactional.id", "mine"),
        ("message.timeout.ms", "0"),
        ("max.in.flight", "6"),
        ("no.such.setting", "secret"),
    ] {
        let mut config = rdkafka::ClientConfig::new();
        config.set(name, value);
        let error = Kafka::new(config).expect_err("a refusal").to_string();
        assert!(error.contains(name), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}
