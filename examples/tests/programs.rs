//! Each example, run as a reader would run it, says what it promises to say.

#![allow(clippy::expect_used, reason = "a test that cannot go on says why")]

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use effectively_tests::{TestDb, TestServer, on_every_database};

/// Far longer than any of them takes. A program that hangs must not hang the tests.
const BOUND: Duration = Duration::from_secs(120);

/// What a program prints when it ends well.
fn output(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).env_remove("DATABASE_URL");
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
    let ended = child.wait_with_output().expect("its output");
    let (out, err) = (
        String::from_utf8_lossy(&ended.stdout),
        String::from_utf8_lossy(&ended.stderr),
    );
    assert!(ended.status.success(), "{}\n{out}\n{err}", ended.status);
    out.into_owned()
}

/// The lines that contain a word.
fn count(output: &str, word: &str) -> usize {
    output.lines().filter(|line| line.contains(word)).count()
}

/// What follows the first column that begins a line.
fn value<'a>(output: &'a str, name: &str) -> &'a str {
    let line = output.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name:?} in:\n{output}"))
        .trim()
}

#[test]
fn quickstart_ends_with_its_verdict() {
    let output = output(env!("CARGO_BIN_EXE_quickstart"), &[]);
    let last = output.lines().last();
    assert_eq!(last, Some("quickstart: 1 order per key, 0 lost, 0 double"));
    assert!(
        value(&output, "the same request again").starts_with("201 replayed, same bytes"),
        "{output}"
    );
    assert!(
        value(&output, "100 at once with one key")
            .starts_with("201, 99 x 201 replayed, same bytes"),
        "{output}"
    );
    assert!(
        value(&output, "100 at once with 100 keys").starts_with("100 x 201"),
        "{output}"
    );
    assert!(
        value(&output, "another body, a used key").starts_with("422 idempotency_key_mismatch"),
        "{output}"
    );
    assert!(
        value(&output, "the body panics").starts_with("no answer"),
        "{output}"
    );
    assert_eq!(count(&output, "retries  "), 2, "{output}");
}

/// Ends the server also when the test fails.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn quickstart_serves_the_request_that_it_prints() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quickstart"));
    let started = command
        .arg("--serve")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut server = Server(started.expect("the program starts"));
    let printed = BufReader::new(server.0.stdout.take().expect("its output"));
    let curl = printed
        .lines()
        .map_while(Result::ok)
        .find(|line| line.contains("curl -i"));
    let curl = curl.expect("a curl line");
    let url = curl.split_whitespace().nth(2).expect("a URL");

    let mut replayed = Vec::new();
    for _ in 0..2 {
        let response = reqwest::Client::new()
            .post(url)
            .header("Authorization", "Bearer alice")
            .header("Idempotency-Key", "\"my-first-order\"")
            .json(&serde_json::json!({ "item": "a lamp" }))
            .send()
            .await
            .expect("an answer");
        assert_eq!(response.status().as_u16(), 201);
        replayed.push(response.headers().contains_key("idempotent-replayed"));
    }
    assert_eq!(replayed, [false, true]);
}

#[test]
fn plain_function_tells_replays_from_runs() {
    let output = output(env!("CARGO_BIN_EXE_plain_function"), &[]);
    assert_eq!(value(&output, "the first call"), "executed, balance 4200");
    assert_eq!(value(&output, "the same again"), "replayed, balance 4200");
    assert!(
        value(&output, "another amount").starts_with("refused: "),
        "{output}"
    );
    assert_eq!(value(&output, "5 calls,"), "2 bookings");
}

#[test]
fn method_sells_no_seat_twice() {
    let output = output(env!("CARGO_BIN_EXE_method"), &[]);
    assert_eq!(
        (count(&output, "executed"), count(&output, "replayed")),
        (3, 1),
        "{output}"
    );
    assert_eq!(count(&output, "1 ticket deleted"), 2, "{output}");
    assert!(output.ends_with("2 tickets are out\n"), "{output}");
}

#[test]
fn macro_free_runs_once_per_key() {
    let output = output(env!("CARGO_BIN_EXE_macro_free"), &[]);
    assert_eq!(
        (count(&output, "executed"), count(&output, "replayed")),
        (3, 2),
        "{output}"
    );
    assert!(output.ends_with("1 event published\n"), "{output}");
}

#[test]
fn recorded_refusal_stays_refused() {
    let output = output(env!("CARGO_BIN_EXE_recorded_refusal"), &[]);
    assert_eq!(
        count(&output, "declined, 70 cents are missing"),
        3,
        "{output}"
    );
    assert_eq!(count(&output, "replayed: declined"), 2, "{output}");
    assert_eq!(
        value(&output, "... once he has one"),
        "executed: paid, 400 cents left"
    );
}

on_every_database!(three_databases_are_served_by_one_handler);
async fn three_databases_are_served_by_one_handler<DB: TestServer>(db: TestDb<DB>) {
    let program = env!("CARGO_BIN_EXE_three_databases");
    let databases = if DB::VARIABLE.is_some() { 2 } else { 1 };
    let output = match databases {
        1 => output(program, &[]),
        _ => output(program, &[db.url()]),
    };
    assert_eq!(count(&output, "executed"), 2 * databases, "{output}");
    assert_eq!(
        count(&output, "replayed, order count 1"),
        databases,
        "{output}"
    );
    assert_eq!(count(&output, "refused, "), databases, "{output}");
}

on_every_database!([postgres] postgres_transfers_once);
async fn postgres_transfers_once<DB: TestServer>(db: TestDb<DB>) {
    let output = output(env!("CARGO_BIN_EXE_postgres"), &[db.url()]);
    assert_eq!(
        (value(&output, "executed"), value(&output, "replayed")),
        ("20", "20")
    );
    assert!(
        value(&output, "accounts").starts_with("[100, 100, 100, 100, 100]"),
        "{output}"
    );
}

on_every_database!([mysql] mysql_reserves_once);
async fn mysql_reserves_once<DB: TestServer>(db: TestDb<DB>) {
    let output = output(env!("CARGO_BIN_EXE_mysql"), &[db.url()]);
    assert_eq!(
        (value(&output, "executed"), value(&output, "replayed")),
        ("20", "20")
    );
    assert_eq!(count(&output, "80 pieces left of 100"), 2, "{output}");
    assert_eq!(value(&output, "events"), "40 published");
}

#[test]
fn a_program_without_its_database_says_what_to_do() {
    for program in [env!("CARGO_BIN_EXE_postgres"), env!("CARGO_BIN_EXE_mysql")] {
        let output = Command::new(program)
            .env_remove("DATABASE_URL")
            .output()
            .expect("the program starts");
        assert_eq!(output.status.code(), Some(2));
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(
            message.contains("cargo run -p effectively-examples --bin "),
            "{message}"
        );
    }
}
