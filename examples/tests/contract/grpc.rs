//! The same contract over gRPC: what is a status and a header elsewhere is a code and metadata here.

use std::time::{Duration, Instant};

use effectively_tests::TestServer;
use sqlx::ConnectOptions;
use tokio::task::JoinSet;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::server::Server;
use crate::shop::Shop;

use api::orders_client::OrdersClient;
use api::{Fail, PlaceOrderRequest, Receipt};

#[expect(unused_qualifications, reason = "generated")]
mod api {
    tonic::include_proto!("orders.v1");
}

on_every_server!(tonic:
    without_a_user_a_call_is_unauthenticated_whatever_the_rest_is,
    a_call_with_no_key_or_a_malformed_one_is_refused_before_anything_happens,
    a_quoted_key_in_the_metadata_and_the_same_without_quotes_are_one_key,
    a_message_that_is_no_order_is_refused_and_leaves_the_key_free,
    a_repeated_call_gets_the_first_response_and_its_mark,
    another_message_with_the_same_key_is_refused,
    the_same_key_of_another_caller_is_another_order,
    a_failed_call_is_rolled_back_and_frees_the_key,
    a_refused_call_is_recorded_and_replayed_without_an_order,
    a_panic_is_a_status_and_frees_the_key,
    fifty_calls_at_once_with_one_key_are_one_order,
    orders_and_events_are_listed_oldest_first,
);
on_every_server!(at once tonic:
    a_repeated_call_in_flight_waits_two_seconds_and_is_aborted,
    a_repeated_call_in_flight_gets_the_first_response_when_it_comes_in_time,
    a_cancelled_call_gets_its_response_with_the_retry,
    a_call_while_another_writer_holds_the_database_is_unavailable,
    a_call_at_another_process_is_replayed,
    a_call_takes_over_when_the_first_process_is_killed,
    a_call_in_flight_is_answered_before_a_process_ends,
    nothing_of_a_call_is_logged,
);

type Placed = Result<Response<Receipt>, Status>;

/// Each time on a connection of its own.
async fn client(server: &Server) -> OrdersClient<Channel> {
    let address = format!("http://{}", server.address);
    let endpoint = Channel::from_shared(address).expect("an address");
    OrdersClient::new(endpoint.connect().await.expect("a connection"))
}

async fn place(server: &Server, request: Request<PlaceOrderRequest>) -> Placed {
    client(server).await.place_order(request).await
}

/// An order of Ann's with this key, quoted.
fn request(key: &str, order: PlaceOrderRequest) -> Request<PlaceOrderRequest> {
    with(Some("ann"), &[format!("\"{key}\"").as_bytes()], order)
}

/// Ends when its connection does.
fn with<T>(user: Option<&str>, keys: &[&[u8]], message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(user) = user {
        let value = format!("Bearer {user}").parse().expect("a value");
        request.metadata_mut().insert("authorization", value);
    }
    for key in keys {
        let value = AsciiMetadataValue::try_from(*key).expect("a value");
        request.metadata_mut().append("idempotency-key", value);
    }
    request
}

fn two_of(item: &str) -> PlaceOrderRequest {
    PlaceOrderRequest {
        item: item.to_owned(),
        quantity: 2,
        ..Default::default()
    }
}

fn slow(milliseconds: u64) -> PlaceOrderRequest {
    PlaceOrderRequest {
        delay_ms: milliseconds,
        ..two_of("tea")
    }
}

fn failing(fail: Fail) -> PlaceOrderRequest {
    PlaceOrderRequest {
        fail: fail.into(),
        ..two_of("tea")
    }
}

fn is_marked(metadata: &MetadataMap) -> bool {
    metadata
        .get("idempotent-replayed")
        .is_some_and(|value| value == "true")
}

#[track_caller]
fn assert_first(placed: Placed) -> Receipt {
    let response = placed.expect("a response");
    assert!(!is_marked(response.metadata()));
    response.into_inner()
}

#[track_caller]
fn assert_replayed(first: &Receipt, again: Placed) {
    let again = again.expect("a response");
    assert!(is_marked(again.metadata()));
    assert_eq!(again.get_ref(), first);
}

/// The toolkit's own refusal.
#[track_caller]
fn assert_refused(placed: Placed, code: Code, name: &str) -> Status {
    let status = placed.expect_err("a refusal");
    assert_eq!(status.code(), code, "{status:?}");
    let found = status.metadata().get("effectively-code");
    assert_eq!(
        found.map(|value| value.as_bytes()),
        Some(name.as_bytes()),
        "{status:?}"
    );
    assert!(!is_marked(status.metadata()));
    status
}

#[track_caller]
fn assert_retry_after(status: &Status) {
    let seconds = status
        .metadata()
        .get("retry-after")
        .expect("a time to come back");
    let seconds = seconds.to_str().expect("text").parse::<u64>();
    assert!(seconds.is_ok_and(|seconds| seconds >= 1), "{status:?}");
}

/// Other content is taken: nothing is left of the key.
async fn assert_free<DB: TestServer>(shop: &Shop<DB>) {
    assert_eq!(shop.stored().await, (0, 0, 0));
    assert_first(place(&shop.server, request("k", two_of("pot"))).await);
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn without_a_user_a_call_is_unauthenticated_whatever_the_rest_is<DB: TestServer>(
    shop: Shop<DB>,
) {
    assert_first(place(&shop.server, request("taken", two_of("tea"))).await);
    let keys: [&[&[u8]]; 5] = [&[], &[b"\"k\""], &[b"\"taken\""], &[b""], &[b"a", b"b"]];
    for user in [None, Some(""), Some(" ")] {
        for keys in keys {
            for order in [two_of("tea"), PlaceOrderRequest::default()] {
                let placed = place(&shop.server, with(user, keys, order)).await;
                let status = placed.expect_err("a refusal");
                assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
            }
        }
        let list = with(user, &[], api::ListOrdersRequest {});
        let status = client(&shop.server).await.list_orders(list).await;
        assert_eq!(status.expect_err("a refusal").code(), Code::Unauthenticated);
    }
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn a_call_with_no_key_or_a_malformed_one_is_refused_before_anything_happens<
    DB: TestServer,
>(
    shop: Shop<DB>,
) {
    let long = "k".repeat(256);
    let quoted = format!("\"{long}\"");
    let malformed: [&[&[u8]]; 13] = [
        &[b""],
        &[b"\"\""],
        &[long.as_bytes()],
        &[quoted.as_bytes()],
        &[b"\"a\"", b"\"a\""],
        &[b"a", b"b"],
        &[b"\"a\", \"b\""],
        &[b"a b"],
        &[b"\"unterminated"],
        &[b"\"bad\\escape\""],
        &[b"\"tab\there\""],
        &[b"\"caf\xc3\xa9\""],
        &[b"caf\xe9"],
    ];
    let missing: &[&[u8]] = &[];
    let missing = [(missing, "idempotency_key_missing")];
    let malformed = malformed.map(|keys| (keys, "idempotency_key_invalid"));
    for (keys, name) in missing.into_iter().chain(malformed) {
        let placed = place(&shop.server, with(Some("ann"), keys, two_of("tea"))).await;
        let status = assert_refused(placed, Code::InvalidArgument, name);
        assert!(!status.metadata().contains_key("retry-after"));
        assert_eq!(shop.stored().await, (0, 0, 0));
    }
}

async fn a_quoted_key_in_the_metadata_and_the_same_without_quotes_are_one_key<DB: TestServer>(
    shop: Shop<DB>,
) {
    for key in ["8e03978e-40d5-43dd-bc93-6894a57f9324", "42", "false"] {
        let first = assert_first(place(&shop.server, request(key, two_of("tea"))).await);
        for same in [
            format!("\"{key}\""),
            key.to_owned(),
            format!("\"{key}\";v=1"),
        ] {
            let again = with(Some("ann"), &[same.as_bytes()], two_of("tea"));
            assert_replayed(&first, place(&shop.server, again).await);
        }
    }
    assert_eq!(shop.stored().await, (3, 3, 3));
}

async fn a_message_that_is_no_order_is_refused_and_leaves_the_key_free<DB: TestServer>(
    shop: Shop<DB>,
) {
    let order = |item: &str, quantity, delay_ms, fail| PlaceOrderRequest {
        item: item.to_owned(),
        quantity,
        delay_ms,
        fail,
    };
    for refused in [
        order("tea", 0, 0, 0),
        order("tea", 1001, 0, 0),
        order("tea", 70_000, 0, 0),
        order("tea", 2, 10_001, 0),
        order("te\0a", 2, 0, 0),
        order("tea", 2, 0, 7),
    ] {
        let status = place(&shop.server, request("k", refused)).await;
        let status = status.expect_err("a refusal");
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(!is_marked(status.metadata()));
        assert_eq!(shop.stored().await, (0, 0, 0));
    }
    assert_free(&shop).await;
}

async fn a_repeated_call_gets_the_first_response_and_its_mark<DB: TestServer>(shop: Shop<DB>) {
    let first = assert_first(place(&shop.server, request("k", two_of("tea"))).await);
    assert_eq!((&*first.item, first.quantity), ("tea", 2));
    for _ in 0..3 {
        assert_replayed(
            &first,
            place(&shop.server, request("k", two_of("tea"))).await,
        );
    }
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn another_message_with_the_same_key_is_refused<DB: TestServer>(shop: Shop<DB>) {
    let first = assert_first(place(&shop.server, request("k", two_of("tea"))).await);
    for other in [two_of("pot"), slow(1), failing(Fail::Reject)] {
        let placed = place(&shop.server, request("k", other)).await;
        assert_refused(placed, Code::FailedPrecondition, "idempotency_key_mismatch");
    }
    assert_replayed(
        &first,
        place(&shop.server, request("k", two_of("tea"))).await,
    );
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn the_same_key_of_another_caller_is_another_order<DB: TestServer>(shop: Shop<DB>) {
    let ann = assert_first(place(&shop.server, request("k", two_of("tea"))).await);
    let bob = with(Some("bob"), &[b"\"k\""], two_of("tea"));
    let bob = assert_first(place(&shop.server, bob).await);
    assert_ne!(ann, bob);
    assert_replayed(&ann, place(&shop.server, request("k", two_of("tea"))).await);
    assert_eq!(shop.stored().await, (2, 2, 2));
}

async fn a_failed_call_is_rolled_back_and_frees_the_key<DB: TestServer>(shop: Shop<DB>) {
    for _ in 0..2 {
        let status = place(&shop.server, request("k", failing(Fail::Error))).await;
        let status = status.expect_err("an error");
        assert_eq!(
            (status.code(), is_marked(status.metadata())),
            (Code::Internal, false)
        );
    }
    assert_free(&shop).await;
}

async fn a_refused_call_is_recorded_and_replayed_without_an_order<DB: TestServer>(shop: Shop<DB>) {
    for replayed in [false, true, true] {
        let status = place(&shop.server, request("k", failing(Fail::Reject))).await;
        let status = status.expect_err("a refusal");
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(status.message(), "the payment was refused");
        let code = status.metadata().get("code").expect("a code");
        assert_eq!(code, "payment_required");
        assert_eq!(is_marked(status.metadata()), replayed);
        assert_eq!(shop.stored().await, (0, 0, 1));
    }
    let other = place(&shop.server, request("k", two_of("tea"))).await;
    assert_refused(other, Code::FailedPrecondition, "idempotency_key_mismatch");
}

async fn a_panic_is_a_status_and_frees_the_key<DB: TestServer>(shop: Shop<DB>) {
    for _ in 0..2 {
        let placed = place(&shop.server, request("k", failing(Fail::Panic))).await;
        assert_refused(placed, Code::Internal, "handler_panicked");
    }
    shop.until_idle().await;
    assert_free(&shop).await;
}

async fn fifty_calls_at_once_with_one_key_are_one_order<DB: TestServer>(shop: Shop<DB>) {
    // Half of them over one connection.
    let shared = client(&shop.server).await;
    let mut calls = JoinSet::new();
    for number in 0..50 {
        let mut client = match number % 2 {
            0 => shared.clone(),
            _ => client(&shop.server).await,
        };
        calls.spawn(async move { client.place_order(request("k", two_of("tea"))).await });
    }
    let responses: Vec<_> = calls.join_all().await;
    let responses = responses
        .into_iter()
        .map(|placed| placed.expect("a response"));
    let (again, first): (Vec<_>, Vec<_>) =
        responses.partition(|response| is_marked(response.metadata()));
    assert_eq!(first.len(), 1);
    assert!(
        again
            .iter()
            .all(|again| again.get_ref() == first[0].get_ref())
    );
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn orders_and_events_are_listed_oldest_first<DB: TestServer>(shop: Shop<DB>) {
    let mut client = client(&shop.server).await;
    let health = client.health(api::HealthRequest {}).await;
    health.expect("it is well");
    let mut placed = Vec::new();
    for (user, key, item) in [
        ("ann", "1", "tea"),
        ("bob", "1", "pot"),
        ("ann", "2", "cup"),
    ] {
        let request = with(Some(user), &[key.as_bytes()], two_of(item));
        placed.push((user, assert_first(client.place_order(request).await)));
    }
    for reader in ["ann", "bob", "carl"] {
        // A key is of no use here, and does no harm.
        let list = with(Some(reader), &[b"a", b"b"], api::ListOrdersRequest {});
        let listed = client.list_orders(list).await.expect("a list");
        let own = placed.iter().filter(|(user, _)| *user == reader);
        let own: Vec<_> = own.map(|(_, receipt)| receipt.clone()).collect();
        assert_eq!(listed.into_inner().orders, own);
    }
    let events = client.list_events(api::ListEventsRequest {}).await;
    let events = events.expect("a list").into_inner().events;
    assert_eq!(events.len(), placed.len());
    for (event, (_, receipt)) in events.iter().zip(&placed) {
        assert_eq!((&*event.topic, &*event.r#type), ("orders", "order.placed"));
        assert_eq!(
            (&event.key, event.id.len()),
            (&receipt.order_id.to_string(), 36)
        );
        let data: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
        assert_eq!(
            data,
            serde_json::json!({ "order_id": receipt.order_id, "item": receipt.item, "quantity": 2 })
        );
    }
}

async fn a_repeated_call_in_flight_waits_two_seconds_and_is_aborted<DB: TestServer>(
    shop: Shop<DB>,
) {
    let mut first = client(&shop.server).await;
    let first = tokio::spawn(async move { first.place_order(request("k", slow(4000))).await });
    shop.until_in_a_body().await;
    let began = Instant::now();
    let other = place(&shop.server, request("k", two_of("pot"))).await;
    assert_refused(other, Code::FailedPrecondition, "idempotency_key_mismatch");
    assert!(began.elapsed() < Duration::from_millis(1500));
    let began = Instant::now();
    let repeat = place(&shop.server, request("k", slow(4000))).await;
    assert!(
        began.elapsed() >= Duration::from_millis(1900),
        "{:?}",
        began.elapsed()
    );
    assert_retry_after(&assert_refused(
        repeat,
        Code::Aborted,
        "idempotency_key_in_flight",
    ));
    let first = assert_first(first.await.expect("a task"));
    assert_replayed(&first, place(&shop.server, request("k", slow(4000))).await);
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn a_repeated_call_in_flight_gets_the_first_response_when_it_comes_in_time<DB: TestServer>(
    shop: Shop<DB>,
) {
    let mut first = client(&shop.server).await;
    let first = tokio::spawn(async move { first.place_order(request("k", slow(300))).await });
    shop.until_in_a_body().await;
    let repeat = place(&shop.server, request("k", slow(300))).await;
    assert_replayed(&assert_first(first.await.expect("a task")), repeat);
    assert_eq!(shop.stored().await, (1, 1, 1));
}

/// The stream is reset with the first, the connection ends with the second.
async fn a_cancelled_call_gets_its_response_with_the_retry<DB: TestServer>(shop: Shop<DB>) {
    let stays = client(&shop.server).await;
    for key in ["stream", "connection"] {
        let mut calling = match key {
            "stream" => stays.clone(),
            _ => client(&shop.server).await,
        };
        let call = tokio::spawn(async move { calling.place_order(request(key, slow(300))).await });
        shop.until_in_a_body().await;
        call.abort();
        assert!(call.await.is_err());
        let retry = place(&shop.server, request(key, slow(300))).await;
        assert!(is_marked(retry.expect("a response").metadata()));
        shop.until_idle().await;
    }
    assert_eq!(shop.stored().await, (2, 2, 2));
}

async fn a_call_while_another_writer_holds_the_database_is_unavailable<DB: TestServer>(
    shop: Shop<DB>,
) {
    let options = shop.db.options(None);
    let mut writer = options.connect().await.expect("a connection");
    let begun = DB::execute(&mut writer, "begin immediate").await;
    begun.expect("the only turn to write");
    let placed = place(&shop.server, request("k", two_of("tea"))).await;
    assert_retry_after(&assert_refused(
        placed,
        Code::Unavailable,
        "database_unavailable",
    ));
    let ended = DB::execute(&mut writer, "rollback").await;
    ended.expect("the end of it");
    assert_free(&shop).await;
}

async fn a_call_at_another_process_is_replayed<DB: TestServer>(shop: Shop<DB>) {
    let other = shop.another().await;
    let mut calling = client(&shop.server).await;
    let first = tokio::spawn(async move { calling.place_order(request("k", slow(500))).await });
    shop.until_in_a_body().await;
    // One while it runs, one after it.
    let waited = place(&other, request("k", slow(500))).await;
    let first = assert_first(first.await.expect("a task"));
    assert_replayed(&first, waited);
    assert_replayed(&first, place(&other, request("k", slow(500))).await);
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn a_call_takes_over_when_the_first_process_is_killed<DB: TestServer>(mut shop: Shop<DB>) {
    let other = shop.another().await;
    let mut calling = client(&shop.server).await;
    let first = tokio::spawn(async move { calling.place_order(request("k", slow(900))).await });
    shop.until_in_a_body().await;
    let mut calling = client(&other).await;
    let repeat = tokio::spawn(async move { calling.place_order(request("k", slow(900))).await });
    shop.server.kill();
    assert!(first.await.expect("a task").is_err());
    let repeat = assert_first(repeat.await.expect("a task"));
    assert_replayed(&repeat, place(&other, request("k", slow(900))).await);
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn a_call_in_flight_is_answered_before_a_process_ends<DB: TestServer>(mut shop: Shop<DB>) {
    let mut calling = client(&shop.server).await;
    let first = tokio::spawn(async move { calling.place_order(request("k", slow(700))).await });
    shop.until_in_a_body().await;
    shop.server.terminate();
    let first = assert_first(first.await.expect("a task"));
    assert_eq!(shop.server.exit().await.code(), Some(0));
    let next = shop.another().await;
    assert_replayed(&first, place(&next, request("k", slow(700))).await);
    assert_eq!(shop.stored().await, (1, 1, 1));
}

async fn nothing_of_a_call_is_logged<DB: TestServer>(mut shop: Shop<DB>) {
    let (user, key, item) = ("token-of-ann-7f3a", "key-of-ann-91bc", "item-of-ann-c2d4");
    let ask = async |server: &Server, key: &str, order: PlaceOrderRequest| {
        let order = PlaceOrderRequest {
            item: item.to_owned(),
            ..order
        };
        let placed = place(server, with(Some(user), &[key.as_bytes()], order)).await;
        placed.map_or_else(|status| status.code(), |_| Code::Ok)
    };
    let bad = PlaceOrderRequest::default();
    let codes = [
        ask(&shop.server, key, slow(1300)).await,
        ask(&shop.server, key, slow(1300)).await,
        ask(&shop.server, key, slow(0)).await,
        ask(&shop.server, &format!("\"{key}"), slow(0)).await,
        ask(&shop.server, &format!("{key}-1"), failing(Fail::Error)).await,
        ask(&shop.server, &format!("{key}-2"), failing(Fail::Reject)).await,
        ask(&shop.server, &format!("{key}-2"), failing(Fail::Reject)).await,
        ask(&shop.server, &format!("{key}-3"), failing(Fail::Panic)).await,
        ask(&shop.server, &format!("{key}-4"), bad).await,
    ];
    let expected = [
        Code::Ok,
        Code::Ok,
        Code::FailedPrecondition,
        Code::InvalidArgument,
        Code::Internal,
        Code::FailedPrecondition,
        Code::FailedPrecondition,
        Code::Internal,
        Code::InvalidArgument,
    ];
    assert_eq!(codes, expected);
    shop.server.terminate();
    assert!(shop.server.exit().await.success());
    let log = shop.server.log();
    assert!(log.contains("the order was told to"), "{log}");
    for secret in [user, key, item] {
        assert!(!log.contains(secret), "{secret} in\n{log}");
    }
}
