#![expect(clippy::unwrap_used, reason = "tests")]

use clap::Parser;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::args::{Args, Command as AnyCommand};

fn parsed(arguments: &[&str]) -> Test {
    let command = ["fleetlog", "webhook", "test"].iter().chain(arguments);
    match Args::try_parse_from(command).unwrap().command {
        AnyCommand::Webhook(Command::Test(test)) => test,
        other => panic!("{other:?}"),
    }
}

/// An endpoint that gives one answer, and the request it got.
async fn endpoint(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/events", listener.local_addr().unwrap());
    let request = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(request).unwrap()
    });
    (url, request)
}

async fn ended(url: &str, more: &[&str]) -> anyhow::Result<Code> {
    Ok(called(&parsed(&[&[url], more].concat())).await?.code())
}

fn refusal(ended: anyhow::Result<Code>) -> String {
    let error = ended.unwrap_err();
    assert_eq!(error.downcast_ref::<Failure>().unwrap().code, Code::Usage);
    error.to_string()
}

#[tokio::test]
async fn the_exit_code_says_what_came_back() {
    for (answer, code) in [
        ("HTTP/1.1 204 No Content\r\n\r\n", Code::Done),
        ("HTTP/1.1 422 No\r\ncontent-length: 0\r\n\r\n", Code::Found),
        ("HTTP/1.1 503 Busy\r\nretry-after: 5\r\ncontent-length: 0\r\n\r\n", Code::Found),
        ("HTTP/1.1 302 There\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", Code::Found),
        ("220 mail ready\r\n", Code::Found),
        ("", Code::Unreachable),
    ] {
        let (url, request) = endpoint(answer).await;
        assert_eq!(ended(&url, &["--allow-private"]).await.unwrap(), code, "{answer}");
        request.await.unwrap();
    }
    let nobody = format!("http://{}/", TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap());
    assert_eq!(ended(&nobody, &["--allow-private"]).await.unwrap(), Code::Unreachable);
    assert_eq!(ended(&nobody, &[]).await.unwrap(), Code::Usage, "a private address");
}

#[tokio::test]
async fn each_event_has_an_example_that_is_sent_as_asked_for() {
    let (url, request) = endpoint("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let more = ["--allow-private", "--event", "task.Created", "--mode", "binary"];
    assert_eq!(ended(&url, &more).await.unwrap(), Code::Done);
    let request = request.await.unwrap();
    assert!(request.starts_with("POST /events HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nce-type: fleetlog.task.Created\r\n"), "{request}");
    assert!(!request.contains("webhook-signature"), "{request}");
    for event in FleetEvent::types() {
        assert_eq!(example(event.name, now()).unwrap().event_type(), event);
    }
}

#[tokio::test]
async fn wrong_usage_says_what_to_do() {
    let wrong = refusal(ended("ftp://example.com", &["--timeout-ms", "0", "--event", "Conected"]).await);
    for words in [
        "url is `ftp:…`",
        "timeout_ms is `0`",
        "`Conected`: there is no such event, the nearest is `Connected`",
    ] {
        assert!(wrong.contains(words), "{wrong}");
    }
    let name = "FLEETLOG_NO_SUCH_SECRET";
    let secret = refusal(ended("https://example.com", &["--secret-env", name]).await);
    assert!(secret.starts_with("--secret-env FLEETLOG_NO_SUCH_SECRET: there is no such"), "{secret}");
    let file = refusal(ended("https://example.com", &["--ca-file", "/no/such.pem"]).await);
    assert!(file.starts_with("--ca-file /no/such.pem: "), "{file}");
}

#[tokio::test]
async fn a_secret_out_of_the_environment_signs_and_is_never_shown() {
    // There everywhere, and no secret: it is looked at, and not repeated.
    let name = "PATH";
    let value = secret(name).unwrap();
    let wrong = refusal(ended("https://example.com", &["--secret-env", name]).await);
    assert!(wrong.contains("secrets[0]") && !wrong.contains(&value), "{wrong}");
    let subscription = Subscription {
        secrets: vec!["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()],
        ..Subscription::new("test", "https://example.com/?key=1")
    };
    let message = Webhook::new(&subscription)
        .unwrap()
        .message(&call(example("Connected", now()).unwrap()), now())
        .unwrap();
    let answer = Answer { status: 200, ..Answer::default() };
    let called = Called {
        url: &subscription.url,
        message,
        outcome: Ok(answer),
        took: Duration::from_millis(12),
        verdict: Ok(()),
    };
    let json = called.to_json();
    assert_eq!((&json["signed"], &json["sent"], &json["took_ms"]), (&json!(true), &json!(true), &json!(12)));
    assert_eq!(json["request"]["headers"]["webhook-signature"].as_str().unwrap().len(), 47);
    assert!(!json.to_string().contains("MfKQ"), "{json}");
}

#[test]
fn what_would_be_done_is_one_word() {
    let called = |verdict, outcome| {
        let event = example("Connected", now()).unwrap();
        let unsigned =
            Subscription { allow_unsigned: true, ..Subscription::new("test", "https://example.com") };
        let message = Webhook::new(&unsigned).unwrap().message(&call(event), now()).unwrap();
        Called { url: "https://example.com", message, outcome, took: Duration::ZERO, verdict }.to_json()
    };
    let later = HandlerError::RetryAfter { after: Duration::from_secs(7), detail: "busy".to_owned() };
    let answer = Answer { status: 503, body_start: b"wait\n".to_vec(), ..Answer::default() };
    let json = called(Err(later), Ok(answer));
    assert_eq!((&json["verdict"], &json["retry_after_s"]), (&json!("retry"), &json!(7)));
    assert_eq!(json["answer"]["body_start"], "wait");
    assert_eq!(json["detail"], "busy (asked for 7 s)");
    let json = called(Err(HandlerError::Retry("gone".to_owned())), Err(NoAnswer::Timeout { timeout_ms: 1 }));
    assert_eq!(
        (&json["verdict"], &json["answer"], &json["signed"]),
        (&json!("retry"), &Value::Null, &json!(false))
    );
}
