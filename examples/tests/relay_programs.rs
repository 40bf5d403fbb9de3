//! Each example of the relay, run as a reader would run it, ends with the numbers that it promises.

#![allow(clippy::expect_used, reason = "a test that cannot go on says why")]

use std::{
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Far longer than any of them takes. A program that hangs must not hang the tests.
const BOUND: Duration = Duration::from_secs(120);

/// What a program prints when it ends well.
fn printed(program: &str) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = run(Command::new(program));
    let (out, err) = (
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr),
    );
    assert!(status.success(), "{status}\n{out}\n{err}");
    out.into_owned()
}

fn run(mut command: Command) -> Output {
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("the program starts");
    let started = Instant::now();
    // They print far less than a pipe holds, so nobody has to read meanwhile.
    while child.try_wait().expect("its state").is_none() {
        if started.elapsed() > BOUND {
            let _ = child.kill();
        }
        thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().expect("its output")
}

/// The number between two pieces of the last line, which is these three and nothing else.
fn number_in_last_line(output: &str, before: &str, after: &str) -> u32 {
    let last = output.lines().last();
    let number = last.and_then(|last| last.strip_prefix(before)?.strip_suffix(after));
    let number = number.and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("the last line is not {before}…{after}:\n{output}"))
}

/// The lines that begin with this, each without it.
fn values<'a>(output: &'a str, name: &str) -> Vec<&'a str> {
    let lines = output.lines();
    let values = lines.filter_map(|line| line.strip_prefix(name));
    values.map(str::trim).collect()
}

#[test]
fn order_to_webhook_acts_once_per_order() {
    let output = printed(env!("CARGO_BIN_EXE_order_to_webhook"));
    let deliveries = number_in_last_line(
        &output,
        "order_to_webhook: 10 orders, ",
        " deliveries, 10 effects",
    );
    // Two that the receiver did not take, one that it took and answered 503, one whose answer got lost.
    assert!(deliveries >= 14, "{output}");
}

#[test]
fn order_to_payment_charges_once_per_order() {
    let output = printed(env!("CARGO_BIN_EXE_order_to_payment"));
    let calls = number_in_last_line(
        &output,
        "order_to_payment: 10 orders, ",
        " calls, 10 charges",
    );
    // Two without an answer and one answered with 500, all three after the charge.
    assert!(calls >= 13, "{output}");
}

#[test]
fn custom_sink_writes_each_event_that_fits() {
    let output = printed(env!("CARGO_BIN_EXE_custom_sink"));
    assert_eq!(
        output.lines().last(),
        Some("custom_sink: 8 orders, 7 lines in the journal, 1 dead letter"),
        "{output}"
    );
}

#[test]
fn prometheus_shows_what_happened() {
    let output = printed(env!("CARGO_BIN_EXE_prometheus"));
    assert_eq!(
        output.lines().last(),
        Some("prometheus: 22 calls, 9 events published, 1 dead letter"),
        "{output}"
    );
    for (result, times) in [
        ("executed", "10"),
        ("replayed", "10"),
        ("released", "1"),
        ("idempotency_key_mismatch", "1"),
    ] {
        let calls =
            format!("effectively_calls_total{{scope=\"place_order\",result=\"{result}\"}} ");
        assert_eq!(values(&output, &calls), [times], "{output}");
    }
    let lag = "effectively_relay_lag_seconds_count{route=\"orders\"} ";
    assert_eq!(values(&output, lag), ["9"], "{output}");
}

#[cfg(feature = "kafka")]
mod kafka {
    use std::{
        env,
        io::{self, Write},
    };

    use super::{Command, printed, run};

    const VARIABLE: &str = "EFFECTIVELY_TEST_KAFKA";

    #[test]
    fn order_to_kafka_keeps_the_order_of_each_key() {
        if env::var_os(VARIABLE).is_none_or(|brokers| brokers.is_empty()) {
            let promised = env::var_os("EFFECTIVELY_TEST_SERVERS").is_some();
            assert!(
                !promised,
                "{VARIABLE} is not set although EFFECTIVELY_TEST_SERVERS is"
            );
            // Straight to the handle: `eprintln!` would be captured, and a test that passes shows nothing of that.
            let _ = writeln!(
                io::stderr().lock(),
                "SKIPPED order_to_kafka_keeps_the_order_of_each_key: {VARIABLE} is not set; ./tests/run starts a server"
            );
            return;
        }
        let output = printed(env!("CARGO_BIN_EXE_order_to_kafka"));
        assert_eq!(
            output.lines().last(),
            Some("order_to_kafka: 10 orders, 10 events received in order"),
            "{output}"
        );
    }

    #[test]
    fn order_to_kafka_without_a_broker_says_what_to_do() {
        let mut command = Command::new(env!("CARGO_BIN_EXE_order_to_kafka"));
        command.env_remove("KAFKA_BROKERS").env_remove(VARIABLE);
        let output = run(command);
        assert_eq!(output.status.code(), Some(2));
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(
            message.contains("KAFKA_BROKERS=localhost:9092 cargo run "),
            "{message}"
        );
    }
}
