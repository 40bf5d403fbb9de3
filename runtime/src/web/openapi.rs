//! What the toolkit adds to an operation, for an OpenAPI 3.1 document.
//!
//! draft-ietf-httpapi-idempotency-key-header-07 asks a server to publish the specification of its keys (section 2.5.2) and
//! when they expire (section 2.3). [`operation`] says both, and the errors of section 2.7, in the words of the installed
//! [`Contract`]: call it after [`Contract::install`].
//!
//! With the feature `utoipa`, [`describe`] adds the same to an operation of utoipa.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value, json};
#[cfg(feature = "utoipa")]
use utoipa::openapi::{
    RefOr, Response, Responses,
    path::{Operation, Parameter},
};

use super::{
    Contract,
    problem::{MEDIA_TYPE, Problem},
};
use crate::error::{Error, ErrorKind, KeyProblem};

const KEY: &str = "8e03978e-40d5-43dd-bc93-6894a57f9324";
// Escapes, which RFC 8941 also allows, are left out: what is published is the part that every client gets right.
const STRICT: &str = r#"^"[ !#-\[\]-~]{1,255}"$"#;
const LENIENT: &str = r#"^("[ !#-\[\]-~]{1,255}"|[!#-+\--:<-\[\]-~]{1,255})$"#;

/// The `parameters` and `responses` of an idempotent operation, to be merged into its own.
///
/// `retention` is how long the handler's outcomes are kept: its own `retention`, or the ledger's.
///
/// ```
/// use effectively::web::openapi;
/// use serde_json::json;
/// use std::time::Duration;
///
/// let mut pay = openapi::operation(Duration::from_secs(24 * 60 * 60));
/// pay["operationId"] = json!("pay");
/// pay["responses"]["201"] = json!({ "description": "Paid", "headers": openapi::replay_headers() });
/// let document = json!({ "openapi": "3.1.0", "paths": { "/payments": { "post": pay } } });
/// # let pay = &document["paths"]["/payments"]["post"];
/// # assert_eq!(pay["parameters"][0]["name"], "Idempotency-Key");
/// # assert!(pay["responses"]["409"].is_object());
/// ```
pub fn operation(retention: Duration) -> Value {
    let contract = Contract::current();
    json!({
        "parameters": [key_parameter(retention, contract.is_lenient())],
        "responses": error_responses(|error| contract.status_of(error)),
    })
}

/// The `headers` of a response that may be a replay: those of success, and of recorded refusals.
pub fn replay_headers() -> Value {
    let marker = Contract::current().marker();
    json!({
        (marker.as_str()): {
            "description": "`true` when this is the recorded answer to an earlier request with the same Idempotency-Key, \
                and nothing was carried out again. Absent on the first answer.",
            "schema": { "type": "string", "enum": ["true"] },
        },
    })
}

/// Adds the key and the errors to an operation, and the marker of replays to its responses with a status 2xx.
///
/// A response that is there keeps its description; only content and headers that it lacks are added. One that is a `$ref`
/// stays as it is.
///
/// ```
/// use effectively::web::openapi;
/// use std::time::Duration;
/// use utoipa::openapi::{Response, path::Operation};
///
/// let mut pay = Operation::builder().response("201", Response::new("Paid")).build();
/// openapi::describe(&mut pay, Duration::from_secs(24 * 60 * 60));
/// # assert!(pay.responses.responses.contains_key("409"));
/// ```
#[cfg(feature = "utoipa")]
pub fn describe(operation: &mut Operation, retention: Duration) {
    let added = parameter(retention);
    let parameters = operation.parameters.get_or_insert_default();
    parameters.retain(|parameter| !parameter.name.eq_ignore_ascii_case(&added.name));
    parameters.push(added);

    let own = &mut operation.responses.responses;
    for (status, response) in own.iter_mut() {
        if let (true, RefOr::T(response)) = (status.starts_with('2'), response) {
            add(
                response,
                typed(json!({ "description": "", "headers": replay_headers() })),
            );
        }
    }
    for (status, response) in responses().responses {
        match (own.get_mut(&status), response) {
            (None, response) => drop(own.insert(status, response)),
            (Some(RefOr::T(own)), RefOr::T(response)) => add(own, response),
            (Some(_), _) => {}
        }
    }
}

/// The `Idempotency-Key` header, as in [`operation`].
#[cfg(feature = "utoipa")]
pub fn parameter(retention: Duration) -> Parameter {
    typed(key_parameter(retention, Contract::current().is_lenient()))
}

/// The errors, as in [`operation`].
#[cfg(feature = "utoipa")]
pub fn responses() -> Responses {
    let contract = Contract::current();
    typed(error_responses(|error| contract.status_of(error)))
}

#[cfg(feature = "utoipa")]
fn add(response: &mut Response, more: Response) {
    for (media_type, content) in more.content {
        response.content.entry(media_type).or_insert(content);
    }
    for (name, header) in more.headers {
        response.headers.entry(name).or_insert(header);
    }
}

/// No input changes the shape of our JSON, so a test that reads it once has seen that it can be read.
#[cfg(feature = "utoipa")]
fn typed<T: serde::de::DeserializeOwned + Default>(json: Value) -> T {
    serde_json::from_value(json).unwrap_or_default()
}

fn key_parameter(retention: Duration, lenient: bool) -> Value {
    let (format, pattern, shortest) = if lenient {
        ("best in double quotes (an RFC 8941 string)", LENIENT, 1)
    } else {
        ("in double quotes (an RFC 8941 string)", STRICT, 3)
    };
    let description = format!(
        "Names one operation of the client's: 1 to 255 printable ASCII characters, {format}, best a random UUID. \
         Send a new key with every new operation, and the same key with the same content on every retry of it: \
         a retry gets the first answer and nothing is carried out again. \
         A key expires {} after its operation was carried out; from then on it counts as new.",
        in_words(retention),
    );
    json!({
        "name": "Idempotency-Key",
        "in": "header",
        "required": true,
        "description": description,
        "schema": { "type": "string", "minLength": shortest, "maxLength": 257, "pattern": pattern },
        "example": format!("\"{KEY}\""),
    })
}

/// The errors that a client can do something about. The rest are the server's own, status 500.
fn errors() -> [Error; 8] {
    [
        ErrorKind::KeyMissing,
        ErrorKind::KeyInvalid(KeyProblem::NotAString),
        ErrorKind::InFlight,
        ErrorKind::Interrupted,
        ErrorKind::Mismatch,
        ErrorKind::Unavailable,
        ErrorKind::NotCommitted,
        ErrorKind::CommitUnknown,
    ]
    .map(Error::from)
}

fn error_responses(status_of: impl Fn(&Error) -> u16) -> Value {
    let mut by_status = BTreeMap::<u16, Vec<Error>>::new();
    for error in errors() {
        by_status.entry(status_of(&error)).or_default().push(error);
    }
    let responses = by_status
        .into_iter()
        .map(|(status, errors)| (status.to_string(), error_response(status, &errors)));
    Value::Object(responses.collect())
}

fn error_response(status: u16, errors: &[Error]) -> Value {
    let codes: Vec<_> = errors.iter().map(Error::code).collect();
    let meaning = |error: &Error| format!("* `{}`: {error}", error.code());
    let meanings: Vec<_> = errors.iter().map(meaning).collect();
    let example = |error: &Error| {
        let mut problem = serde_json::to_value(Problem::of(error)).unwrap_or_default();
        problem["status"] = status.into();
        (error.code().to_owned(), json!({ "value": problem }))
    };
    let examples: Map<_, _> = errors.iter().map(example).collect();
    let mut headers = json!({
        "Link": {
            "description": "The page that describes the problem, with `rel=\"describedby\"`.",
            "schema": { "type": "string" },
        },
    });
    if errors.iter().any(Error::is_retryable) {
        headers["Retry-After"] = json!({
            "description": "Seconds to wait before a retry with the same key. Absent when a retry does not help.",
            "schema": { "type": "integer", "minimum": 1 },
        });
    }
    json!({
        "description": meanings.join("\n"),
        "headers": headers,
        "content": {
            (MEDIA_TYPE): {
                "schema": {
                    "type": "object",
                    "required": ["type", "title", "status", "detail", "code"],
                    "properties": {
                        "type": { "type": "string", "format": "uri" },
                        "title": { "type": "string" },
                        "status": { "type": "integer", "enum": [status] },
                        "detail": { "type": "string" },
                        "code": { "type": "string", "enum": codes },
                    },
                },
                "examples": examples,
            },
        },
    })
}

/// In the largest unit that leaves nothing over.
fn in_words(time: Duration) -> String {
    let milliseconds = time.as_millis();
    let units = [
        (24 * 60 * 60 * 1000, "day"),
        (60 * 60 * 1000, "hour"),
        (60 * 1000, "minute"),
        (1000, "second"),
    ];
    let whole = units
        .into_iter()
        .find(|(length, _)| milliseconds >= *length && milliseconds.is_multiple_of(*length));
    let (length, unit) = whole.unwrap_or((1, "millisecond"));
    match milliseconds / length {
        1 => format!("1 {unit}"),
        count => format!("{count} {unit}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn the_key_is_specified_and_its_expiry_published() {
        let parameters = &operation(DAY)["parameters"];
        assert_eq!(parameters.as_array().unwrap().len(), 1);
        let key = &parameters[0];
        assert_eq!(key["name"], "Idempotency-Key");
        assert_eq!(key["in"], "header");
        assert_eq!(key["required"], true);
        assert_eq!(key["schema"]["type"], "string");
        assert_eq!(key["schema"]["maxLength"], 257);
        assert_eq!(key["example"], format!("\"{KEY}\""));
        let description = key["description"].as_str().unwrap();
        for said in ["RFC 8941", "same key", "UUID", "expires 1 day after"] {
            assert!(description.contains(said), "{said}: {description}");
        }
    }

    #[test]
    fn a_lenient_key_may_be_published_without_quotes() {
        let (strict, lenient) = (key_parameter(DAY, false), key_parameter(DAY, true));
        assert_eq!(strict["schema"]["minLength"], 3);
        assert_eq!(lenient["schema"]["minLength"], 1);
        assert_ne!(strict["schema"]["pattern"], lenient["schema"]["pattern"]);
        assert_ne!(strict["description"], lenient["description"]);
    }

    #[test]
    fn every_status_has_its_codes_a_link_and_its_time_to_come_back() {
        let operation = operation(DAY);
        let responses = operation["responses"].as_object().unwrap();
        let found: Vec<_> = responses
            .iter()
            .map(|(status, response)| {
                let content = &response["content"][MEDIA_TYPE];
                let properties = &content["schema"]["properties"];
                assert_eq!(
                    properties["status"]["enum"],
                    json!([status.parse::<u16>().unwrap()])
                );
                assert_eq!(
                    content["schema"]["required"],
                    json!(["type", "title", "status", "detail", "code"])
                );
                assert!(!response["description"].as_str().unwrap().is_empty());
                assert!(response["headers"]["Link"].is_object());
                let retry_after = response["headers"]["Retry-After"].is_object();
                (status.as_str(), &properties["code"]["enum"], retry_after)
            })
            .collect();
        let key = |names: [&str; 2]| json!(names.map(|name| format!("idempotency_key_{name}")));
        let expected = [
            ("400", &key(["missing", "invalid"]), false),
            ("409", &key(["in_flight", "interrupted"]), true),
            ("422", &json!(["idempotency_key_mismatch"]), false),
            (
                "503",
                &json!(["database_unavailable", "not_committed", "commit_unknown"]),
                true,
            ),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_examples_are_the_problems_that_are_sent() {
        for (status, response) in operation(DAY)["responses"].as_object().unwrap() {
            let content = &response["content"][MEDIA_TYPE];
            let names = content["schema"]["properties"].as_object().unwrap().keys();
            for (code, example) in content["examples"].as_object().unwrap() {
                let problem = example["value"].as_object().unwrap();
                assert!(problem.keys().eq(names.clone()));
                assert_eq!(problem["code"], *code);
                assert_eq!(problem["status"].to_string(), *status);
            }
        }
    }

    #[test]
    fn problems_of_one_status_share_a_response() {
        let contract = Contract::default()
            .status("idempotency_key_in_flight", 503)
            .status("idempotency_key_mismatch", 409);
        let responses = error_responses(|error| contract.status_of(error));
        let statuses: Vec<_> = responses.as_object().unwrap().keys().collect();
        assert_eq!(statuses, ["400", "409", "503"]);
        let conflict = &responses["409"];
        let content = &conflict["content"]["application/problem+json"];
        assert_eq!(
            content["schema"]["properties"]["code"]["enum"],
            json!(["idempotency_key_interrupted", "idempotency_key_mismatch"])
        );
        assert_eq!(
            content["examples"]["idempotency_key_mismatch"]["value"]["status"],
            409
        );
        assert!(conflict["headers"].get("Retry-After").is_none());
    }

    #[test]
    fn an_expiry_reads_well() {
        let read = |seconds| in_words(Duration::from_secs(seconds));
        assert_eq!(read(7 * 24 * 60 * 60), "7 days");
        assert_eq!(read(36 * 60 * 60), "36 hours");
        assert_eq!(read(60), "1 minute");
        assert_eq!(in_words(Duration::from_millis(1500)), "1500 milliseconds");
    }

    #[cfg(feature = "utoipa")]
    #[test]
    fn utoipa_has_the_same() {
        let expected = operation(DAY);
        let found = json!({ "parameters": [parameter(DAY)], "responses": responses() });
        assert_eq!(found, expected);
    }

    #[cfg(feature = "utoipa")]
    #[test]
    fn an_operation_keeps_what_it_had() {
        let mut operation = Operation::builder()
            .response("201", Response::new("Paid"))
            .response("422", Response::new("Sold out"))
            .build();
        describe(&mut operation, DAY);
        describe(&mut operation, DAY);
        let found = serde_json::to_value(&operation).unwrap();
        let added = super::operation(DAY);
        assert_eq!(found["parameters"], added["parameters"]);
        assert_eq!(found["responses"]["409"], added["responses"]["409"]);
        assert_eq!(found["responses"]["201"]["headers"], replay_headers());
        assert_eq!(found["responses"]["422"]["description"], "Sold out");
        assert_eq!(
            found["responses"]["422"]["content"],
            added["responses"]["422"]["content"]
        );
    }
}
