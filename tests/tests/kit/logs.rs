//! What is logged is found, also what a driver logs from a thread of its own.

use effectively_tests::{LogCapture, TestDb, TestServer, Worker, on_every_database};
use tracing::{info_span, trace};

on_every_database!(a_statement_in_the_drivers_log_is_found);

#[test]
fn events_and_the_fields_of_spans_are_found() {
    let logs = LogCapture::on_this_thread();
    trace!(token = "from-an-event");
    info_span!("work", token = "from-a-span").in_scope(|| {});
    assert_eq!(logs.lines_with("from-an-event").len(), 1);
    assert!(!logs.lines_with("from-a-span").is_empty());
    logs.clear();
    assert_eq!(logs.text(), "");

    drop(logs);
    let later = LogCapture::on_this_thread();
    std::thread::spawn(|| trace!("from another thread"))
        .join()
        .expect("the thread");
    assert_eq!(later.text(), "");
}

async fn a_statement_in_the_drivers_log_is_found<DB: TestServer>(db: TestDb<DB>) {
    // A process of its own: the capture is for all of it.
    if Worker::input::<()>().is_none() {
        db.worker(&()).finish().await;
        return;
    }
    let logs = LogCapture::global();
    assert_eq!(db.texts("select 'a payload'").await, ["a payload"]);
    assert!(
        !logs.lines_with("select 'a payload'").is_empty(),
        "{}",
        logs.text()
    );
    tokio::spawn(async { trace!("from a task") })
        .await
        .expect("the task");
    assert_eq!(LogCapture::global().lines_with("from a task").len(), 1);
}
