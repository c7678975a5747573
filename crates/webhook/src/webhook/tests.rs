//! Against real sockets on this machine.
#![expect(clippy::unwrap_used, reason = "tests")]

mod receiver;
mod trust;

use std::{process::Command, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use fleetlog_event::{LogId, Position, Recorded};
use openssl::{hash::MessageDigest, pkey::PKey, sign::Signer};
use tokio::{net::TcpListener, time::Instant};
use uuid::Uuid;

use self::receiver::{Act, Receiver, Request};
use super::*;
use crate::cloud_event::tests::door_changed;

const SECRETS: [&str; 2] =
    ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"];
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A signed subscription that may be called here.
fn subscription(url: &str) -> Subscription {
    Subscription {
        secrets: SECRETS.map(str::to_owned).to_vec(),
        allow_private: true,
        timeout_ms: 30_000,
        ..Subscription::new("dock", url)
    }
}

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn webhook(url: &str) -> Webhook {
    Webhook::new(&subscription(url)).unwrap()
}

fn call(event: FleetEvent) -> Call<FleetEvent> {
    Call {
        event: Recorded {
            position: Position { log: LogId(Uuid::nil()), partition: 0, offset: 7 },
            recorded_at: event.meta().recorded_at,
            key: event.entity(),
            event,
        },
        attempt: 1,
        first_failed_at: None,
        is_redrive: false,
        newest_offset: 7,
        traceparent: None,
    }
}

/// What comes of one call that is answered so.
async fn answered(act: Act) -> Result<(), HandlerError> {
    let receiver = Receiver::start(act).await;
    webhook(&receiver.url).handle(&call(door_changed())).await
}

fn retried(outcome: Result<(), HandlerError>) -> String {
    match outcome {
        Err(HandlerError::Retry(detail)) => detail,
        other => panic!("{other:?}"),
    }
}

fn rejected(outcome: Result<(), HandlerError>) -> String {
    match outcome {
        Err(HandlerError::Reject(Reject { reason: Reason::RefusedByEndpoint, detail })) => detail,
        other => panic!("{other:?}"),
    }
}

fn stopped(outcome: Result<(), HandlerError>) -> String {
    match outcome {
        Err(HandlerError::Stop(detail)) => detail,
        other => panic!("{other:?}"),
    }
}

/// The signatures of a request, computed anew by OpenSSL.
fn recomputed(request: &Request) -> String {
    let signed =
        [request.header("webhook-id"), ".", request.header("webhook-timestamp"), "."].concat().into_bytes();
    let signed = [signed, request.body.clone()].concat();
    let of = |secret: &str| {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let key = PKey::hmac(&key).unwrap();
        let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
        format!("v1,{}", STANDARD.encode(signer.sign_oneshot_to_vec(&signed).unwrap()))
    };
    SECRETS.map(of).join(" ")
}

#[tokio::test]
async fn an_event_arrives_structured_and_signed() {
    let mut receiver = Receiver::start(Act::Answer(OK.to_owned())).await;
    let before_s = now().0 / 1000;
    let webhook = webhook(&format!("{}/fleet/events?key=1", receiver.url));
    assert_eq!(webhook.id(), "webhook-dock");
    assert_eq!(webhook.handle(&call(door_changed())).await, Ok(()));
    let request = receiver.request().await;
    assert_eq!(request.line, "POST /fleet/events?key=1 HTTP/1.1");
    let json: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(json["id"], request.header("webhook-id"));
    assert_eq!(json["data"], door_changed().to_json().unwrap());
    assert_eq!(request.header("content-type"), "application/cloudevents+json");
    assert_eq!(request.header("content-length"), request.body.len().to_string());
    assert_eq!(request.header("user-agent"), concat!("fleetlog/", env!("CARGO_PKG_VERSION")));
    assert_eq!(request.header("fleetlog-attempt"), "1");
    assert_eq!(request.header("host"), receiver.url.trim_start_matches("http://"));
    assert_eq!(request.header("webhook-signature"), recomputed(&request));
    let timestamp_s: i64 = request.header("webhook-timestamp").parse().unwrap();
    assert!((before_s..=now().0 / 1000).contains(&timestamp_s));
    let optional =
        |name: &str| ["fleetlog-redrive", "traceparent"].contains(&name) || name.starts_with("ce-");
    assert!(!request.headers.iter().any(|(name, _)| optional(name)));
}

#[tokio::test]
async fn what_is_sent_is_what_the_message_says_byte_for_byte_in_both_modes() {
    for mode in [Mode::Structured, Mode::Binary] {
        let mut receiver = Receiver::start(Act::Answer(OK.to_owned())).await;
        let webhook = Webhook::new(&Subscription { mode, ..subscription(&receiver.url) }).unwrap();
        let traceparent = Some(TRACEPARENT.to_owned());
        let again = Call { attempt: 3, is_redrive: true, traceparent, ..call(door_changed()) };
        let message = webhook.message(&again, TimestampMs(1_795_251_856_000)).unwrap();
        assert_eq!(webhook.send(&message).await.unwrap().body_start, b"ok");
        let request = receiver.request().await;
        assert_eq!(request.body, message.body);
        let own = ["accept", "host", "content-length"];
        let headers: Vec<(&str, String)> = request
            .headers
            .iter()
            .filter(|(name, _)| !own.contains(&name.as_str()))
            .map(|(name, value)| (name.as_str(), value.clone()))
            .collect();
        assert_eq!(headers, message.headers);
        assert_eq!(request.header("webhook-signature"), recomputed(&request));
        assert_eq!(request.header("fleetlog-redrive"), "true");
        assert_eq!(request.header("traceparent"), TRACEPARENT);
        if mode == Mode::Binary {
            assert_eq!(request.header("ce-id"), request.header("webhook-id"));
            assert_eq!(request.header("ce-siteuid"), "werk%201");
        }
    }
}

#[tokio::test]
async fn each_answer_means_what_the_table_says() {
    let answer = |head: &str| Act::Answer(format!("HTTP/1.1 {head}\r\ncontent-length: 4\r\n\r\nwhy\n"));
    for head in ["200 OK", "201 Created", "202 Accepted", "299 Fine"] {
        assert_eq!(answered(answer(head)).await, Ok(()), "{head}");
    }
    assert_eq!(answered(Act::Answer("HTTP/1.1 204 No Content\r\n\r\n".to_owned())).await, Ok(()));
    for head in ["400 Bad Request", "401 Unauthorized", "404 Not Found", "410 Gone", "422 No"] {
        let detail = rejected(answered(answer(head)).await);
        assert!(detail.ends_with(&format!(" answered HTTP {}: why", &head[..3])), "{detail}");
    }
    for head in ["408 Request Timeout", "429 Too Many Requests", "500 Oh", "502 Bad Gateway", "503 Busy"] {
        let detail = retried(answered(answer(head)).await);
        assert!(detail.ends_with(&format!(" answered HTTP {}: why", &head[..3])), "{detail}");
    }
    for (retry_after, seconds) in [
        ("retry-after: 7", 7),
        ("Retry-After: Fri, 21 Nov 2036 09:01:30 GMT\r\nDate: Fri, 21 Nov 2036 09:00:00 GMT", 90),
    ] {
        let outcome = answered(answer(&format!("429 Too Many Requests\r\n{retry_after}"))).await;
        let Err(HandlerError::RetryAfter { after, detail }) = outcome else { panic!("{outcome:?}") };
        assert_eq!(after, Duration::from_secs(seconds));
        assert!(detail.ends_with(" answered HTTP 429: why"), "{detail}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let mut there = Receiver::start(Act::Answer(OK.to_owned())).await;
    for status in [301, 302, 303, 307, 308] {
        let head =
            format!("HTTP/1.1 {status} Moved\r\nlocation: {}/new\r\ncontent-length: 0\r\n\r\n", there.url);
        let detail = retried(answered(Act::Answer(head)).await);
        let expected =
            format!("answered HTTP {status}, a redirect to `{}/new`, which is not followed", there.url);
        assert!(detail.contains(&expected), "{detail}");
    }
    assert_eq!(there.connections(), 0);
    // It would have noticed.
    assert_eq!(webhook(&there.url).handle(&call(door_changed())).await, Ok(()));
    there.request().await;
}

#[tokio::test]
async fn an_endpoint_that_never_answers_is_not_waited_for() {
    let mut receiver = Receiver::start(Act::Silent).await;
    let impatient = Subscription { timeout_ms: 300, ..subscription(&receiver.url) };
    let begun = Instant::now();
    let outcome = Webhook::new(&impatient).unwrap().handle(&call(door_changed())).await;
    assert_eq!(retried(outcome), format!("{} did not answer within 300 ms", receiver.url));
    let took = begun.elapsed();
    assert!((Duration::from_millis(300)..Duration::from_secs(10)).contains(&took), "{took:?}");
    receiver.request().await;
}

#[tokio::test]
async fn garbage_is_no_answer() {
    for garbage in
        ["SSH-2.0-OpenSSH_9.2\r\n", "\0\0\0\0\0\0\0\0", "HTTP/9.9 200 OK\r\n\r\n", "HTTP/1.1 2OO OK\r\n\r\n"]
    {
        let detail = retried(answered(Act::Answer(garbage.to_owned())).await);
        assert!(detail.contains(" answered something that is no HTTP: "), "{garbage:?}: {detail}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_tried_again() {
    for act in [Act::Reset, Act::Close] {
        let detail = retried(answered(act).await);
        assert!(detail.contains(" broke off the call: "), "{detail}");
    }
    // A port that was free a moment ago.
    let url = format!("http://{}", TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap());
    let detail = retried(webhook(&url).handle(&call(door_changed())).await);
    assert!(detail.starts_with(&format!("{url} cannot be reached: ")), "{detail}");
    assert!(detail.contains("Connection refused"), "{detail}");
}

#[tokio::test]
async fn of_a_huge_body_the_beginning_is_read() {
    let body = "refused! ".repeat(10 << 20 >> 3);
    let answer = format!("HTTP/1.1 400 Bad Request\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let detail = rejected(answered(Act::Answer(answer)).await);
    let (_, excerpt) = detail.split_once("answered HTTP 400: ").unwrap();
    assert_eq!(excerpt, format!("{}…", &body[..200]));
}

#[tokio::test]
async fn a_body_of_more_than_64_kib_costs_the_connection_and_no_more() {
    for (body_bytes, connections) in [(60 << 10, 1), (128 << 10, 2)] {
        let body = "x".repeat(body_bytes);
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {body_bytes}\r\n\r\n{body}");
        let receiver = Receiver::start(Act::Answer(answer)).await;
        let webhook = webhook(&receiver.url);
        for _ in 0..2 {
            assert_eq!(webhook.handle(&call(door_changed())).await, Ok(()));
        }
        assert_eq!(receiver.connections(), connections, "{body_bytes}");
    }
}

#[tokio::test]
async fn a_body_that_flows_for_ever_is_cut_off() {
    let mut receiver = Receiver::start(Act::Endless).await;
    assert_eq!(webhook(&receiver.url).handle(&call(door_changed())).await, Ok(()));
    // The one who sends it meets a closed connection.
    receiver.cut_off().await;
}

#[tokio::test]
async fn a_body_that_never_comes_is_not_waited_for() {
    let begun = Instant::now();
    let head = "HTTP/1.1 422 No\r\ncontent-length: 100\r\n\r\nhalf of it".to_owned();
    let detail = rejected(answered(Act::Answer(head)).await);
    assert!(detail.ends_with("answered HTTP 422: half of it"), "{detail}");
    // Of 30 s that the call might have taken.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn connections_are_used_again_and_replaced_when_they_are_gone() {
    let mut receiver = Receiver::start(Act::Answer(OK.to_owned())).await;
    let webhook = webhook(&receiver.url);
    for _ in 0..3 {
        assert_eq!(webhook.handle(&call(door_changed())).await, Ok(()));
        receiver.request().await;
    }
    assert_eq!(receiver.connections(), 1);
    let closing = OK.replace("content-length", "connection: close\r\ncontent-length");
    let receiver = Receiver::start(Act::Answer(closing)).await;
    let webhook = self::webhook(&receiver.url);
    for _ in 0..3 {
        assert_eq!(webhook.handle(&call(door_changed())).await, Ok(()));
    }
    assert_eq!(receiver.connections(), 3);
}

#[tokio::test]
async fn an_address_inside_the_network_is_not_called() {
    let receiver = Receiver::start(Act::Answer(OK.to_owned())).await;
    let port = receiver.url.rsplit(':').next().unwrap();
    for (host, words) in [
        ("127.0.0.1", "`127.0.0.1` is 127.0.0.1, a loopback address"),
        ("0x7f.1", "`127.0.0.1` is 127.0.0.1, a loopback address"),
        ("0", "`0.0.0.0` is 0.0.0.0, an unspecified address"),
        ("[::ffff:127.0.0.1]", "an IPv4 address in IPv6 (v4-mapped)"),
        ("localhost", "a loopback address"),
        ("LOCALHOST", "`localhost` is "),
    ] {
        let url = format!("http://{host}:{port}/events");
        let careful = Subscription { allow_private: false, ..subscription(&url) };
        let detail = stopped(Webhook::new(&careful).unwrap().handle(&call(door_changed())).await);
        assert!(detail.contains(words), "{host}: {detail}");
        assert!(
            detail.ends_with("if that is meant, allow private addresses in the subscription"),
            "{detail}"
        );
    }
    assert_eq!(receiver.connections(), 0);
    // It would have been reached.
    let allowed = webhook(&format!("http://localhost:{port}/events"));
    assert_eq!(allowed.handle(&call(door_changed())).await, Ok(()));
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn a_name_that_nobody_knows_is_tried_again() {
    for allow_private in [false, true] {
        // A top-level domain that is never given out (RFC 6761).
        let nowhere = Subscription { allow_private, ..subscription("https://fleet.invalid/") };
        let detail = retried(Webhook::new(&nowhere).unwrap().handle(&call(door_changed())).await);
        assert!(detail.starts_with("https://fleet.invalid cannot be reached: "), "{detail}");
    }
}

#[tokio::test]
async fn what_was_asked_for_is_wanted_and_nothing_else() {
    let with = |event_types: &[&str], sites: &[&str]| {
        let owned = |texts: &[&str]| texts.iter().copied().map(str::to_owned).collect();
        let narrow = Subscription {
            event_types: owned(event_types),
            sites: owned(sites),
            ..subscription("https://example.com/fleet")
        };
        Webhook::new(&narrow).unwrap().wants(&door_changed())
    };
    for (event_types, sites, wanted) in [
        (&[][..], &[][..], true),
        (&["DoorChanged"], &[], true),
        (&[], &["werk 1"], true),
        (&["Connected", "robot.DoorChanged"], &["504", "werk 1"], true),
        (&["Connected"], &[], false),
        (&[], &["werk 2"], false),
        (&["DoorChanged"], &["werk%201", "504"], false),
        (&["FaultRaised", "task.Created"], &["werk 1"], false),
    ] {
        assert_eq!(with(event_types, sites), wanted, "{event_types:?} {sites:?}");
    }
}

/// The environment is set before a process begins: the test of a call runs once more, in a process of its own.
#[test]
fn proxies_of_the_environment_are_not_used() {
    let test = format!("{}::an_event_arrives_structured_and_signed", module_path!());
    let test = test.split_once("::").unwrap().1;
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args([test, "--exact"]).env_remove("no_proxy").env_remove("NO_PROXY");
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        // Nobody listens there.
        again.env(name, "http://127.0.0.1:1");
    }
    let output = again.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn an_unsound_subscription_makes_no_handler() {
    let unsound = Subscription { timeout_ms: 0, ..subscription("https://example.com") };
    assert_eq!(Webhook::new(&unsound).unwrap_err().problems[0].field, "timeout_ms");
}
