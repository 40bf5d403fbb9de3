//! What an answer of the receiver means for the event, and what is sent again.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use effectively::sink::{Delivery, Sink};
use effectively::testing::sink::events;
use effectively_tests::eventually;

use crate::receiver::{Answer, Receiver};
use crate::{BOUND, OTHER, SECRET, secret, to};

#[tokio::test]
async fn a_repeat_has_the_same_id_and_a_fresh_timestamp_and_signature() {
    let receiver = Receiver::start(SECRET);
    receiver.answers(Answer::Status(503));
    let sink = to(receiver.address).build().expect("a sink");
    let batch = events("orders", &[Some("ada")]);
    let distinct = |name: &str| -> BTreeSet<String> {
        let all = receiver.state.requests();
        all.iter()
            .map(|request| request.headers[name].clone())
            .collect()
    };
    eventually(BOUND, async || {
        let answers = sink.publish(&batch).await;
        assert!(
            matches!(answers[0], Delivery::Unavailable(_)),
            "{answers:?}"
        );
        distinct("webhook-timestamp").len() > 1
    })
    .await;
    receiver.answers(Answer::Status(200));
    assert!(sink.publish(&batch).await[0].is_published());
    let id = batch[0].id.to_string();
    assert_eq!(distinct("webhook-id"), BTreeSet::from([id.clone()]));
    let quoted = format!("\"{id}\"");
    assert_eq!(distinct("idempotency-key"), BTreeSet::from([quoted]));
    assert_eq!(distinct("ce-id"), BTreeSet::from([id]));
    assert_eq!(
        distinct("webhook-signature").len(),
        distinct("webhook-timestamp").len()
    );
}

#[tokio::test]
async fn two_secrets_give_two_signatures_and_either_verifies() {
    for known in [SECRET, OTHER] {
        let receiver = Receiver::start(known);
        let both = to(receiver.address)
            .also_signed_with(secret(OTHER))
            .build()
            .expect("a sink");
        let batch = events("orders", &[None]);
        assert_eq!(both.publish(&batch).await, [Delivery::Published]);
        let signatures = receiver.state.accepted()[0].headers["webhook-signature"].clone();
        let signatures: Vec<_> = signatures.split(' ').collect();
        assert_eq!(signatures.len(), 2, "{signatures:?}");
        assert!(signatures.iter().all(|one| one.starts_with("v1,")));

        let one = to(receiver.address).build().expect("a sink");
        let answers = one.publish(&batch).await;
        assert_eq!(answers[0].is_published(), known == SECRET, "{answers:?}");
    }
}

#[tokio::test]
async fn each_status_means_what_the_table_says() {
    let receiver = Receiver::start(SECRET);
    let sink = to(receiver.address).build().expect("a sink");
    let batch = events("orders", &[Some("ada")]);
    for (statuses, meaning) in [
        (&[200, 201, 202, 204, 299][..], "published"),
        (&[429, 502, 503, 504, 507, 522, 599], "unavailable"),
        (&[410, 413], "refused for good"),
        (
            &[
                300, 304, 400, 401, 403, 404, 408, 409, 422, 425, 431, 451, 500, 501,
            ],
            "rejected",
        ),
    ] {
        for status in statuses {
            receiver.answers(Answer::Status(*status));
            let answers = sink.publish(&batch).await;
            let found = match &answers[0] {
                Delivery::Published => "published",
                Delivery::Unavailable(_) => "unavailable",
                Delivery::Rejected(refused) if refused.is_fatal() => "refused for good",
                Delivery::Rejected(_) => "rejected",
                Delivery::Held => "held",
            };
            assert_eq!(found, meaning, "{status}: {answers:?}");
        }
    }
}

#[tokio::test]
async fn a_receiver_that_says_when_to_come_again_is_believed() {
    let receiver = Receiver::start(SECRET);
    let sink = to(receiver.address).build().expect("a sink");
    let batch = events("orders", &[Some("ada")]);
    for (status, when, seconds) in [
        (429, "7", 7),
        (503, " 120 ", 120),
        (503, "Wed, 21 Oct 2026 07:28:00 GMT", 0),
        (503, "-1", 0),
        (503, "", 0),
        (502, "7", 0),
    ] {
        receiver.answers(Answer::Later(status, when));
        let answers = sink.publish(&batch).await;
        let Delivery::Unavailable(down) = &answers[0] else {
            panic!("{status}: {answers:?}");
        };
        let expected = Duration::from_secs(seconds);
        assert_eq!(down.at_least(), expected, "{status}, {when:?}");
    }
}

#[tokio::test]
async fn redirects_and_proxies_of_the_client_are_not_followed() {
    let receiver = Receiver::start(SECRET);
    let nowhere = reqwest::Proxy::all("http://127.0.0.1:1").expect("a proxy");
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::limited(5))
        .proxy(nowhere);
    let sink = to(receiver.address).client(client).build().expect("a sink");
    let batch = events("orders", &[Some("ada")]);
    assert_eq!(sink.publish(&batch).await, [Delivery::Published]);
    receiver.answers(Answer::Redirect);
    let answers = sink.publish(&batch).await;
    assert_eq!(answers, [Delivery::rejected("the receiver answers 307")]);
    let paths: Vec<_> = receiver
        .state
        .requests()
        .into_iter()
        .map(|request| request.path)
        .collect();
    assert_eq!(paths, ["/hooks", "/hooks"]);
}

#[tokio::test]
async fn a_slow_receiver_is_cut_off_and_only_so_many_wait_for_it() {
    let receiver = Receiver::start(SECRET);
    receiver.answers(Answer::Never);
    let timeout = Duration::from_secs(2);
    let sink = to(receiver.address)
        .concurrency(3)
        .timeout(timeout)
        .build()
        .expect("a sink");
    let published = tokio::spawn(async move { sink.publish(&events("orders", &[None; 4])).await });
    eventually(BOUND, async || {
        receiver.state.active.load(Ordering::SeqCst) >= 3
    })
    .await;
    assert_eq!(receiver.state.active.load(Ordering::SeqCst), 3);
    receiver.answers(Answer::Status(200));
    let in_time = tokio::time::timeout(BOUND, published).await;
    let answers = in_time.expect("cut off").expect("answers");
    let slow = Delivery::unavailable("no answer within 2s");
    assert_eq!(
        answers,
        [slow.clone(), slow.clone(), slow, Delivery::Published]
    );
}
