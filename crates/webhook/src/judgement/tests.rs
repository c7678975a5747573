use std::net::Ipv4Addr;

use fleetlog_trust::CertificateFault;

use super::*;
use crate::PrivateAddress;

/// 1994-11-06T08:49:37.500Z
const NOW: TimestampMs = TimestampMs(784_111_777_500);
const ENDPOINT: &str = "https://example.com";

/// What comes of an answer, in one line: `done`, `retry …`, `after … s …`, `reject …` or `stop …`.
fn told(outcome: &Result<Answer, NoAnswer>) -> String {
    match judge(ENDPOINT, outcome, NOW) {
        Ok(()) => "done".to_owned(),
        Err(HandlerError::Retry(detail)) => format!("retry {detail}"),
        Err(HandlerError::RetryAfter { after, detail }) => {
            format!("after {} s {detail}", after.as_secs_f64())
        }
        Err(HandlerError::Reject(reject)) => format!("reject {reject}"),
        Err(HandlerError::Stop(detail)) => format!("stop {detail}"),
        Err(HandlerError::NotYet { why, .. }) => panic!("an answer is no reason to wait: {why}"),
    }
}

fn status(status: u16) -> Result<Answer, NoAnswer> {
    Ok(Answer { status, body_start: b"why\n".to_vec(), ..Answer::default() })
}

#[test]
fn each_status_means_one_thing() {
    for code in 0..=999 {
        let told = told(&status(code));
        let expected = match code {
            200..=299 => "done".to_owned(),
            408 | 429 => format!("retry {ENDPOINT} answered HTTP {code}: why"),
            300..=399 => format!(
                "retry {ENDPOINT} answered HTTP {code}, a redirect without saying where to, which is not followed: \
                 subscribe with the address that answers itself: why"
            ),
            400..=499 => format!("reject refused_by_endpoint: {ENDPOINT} answered HTTP {code}: why"),
            _ => format!("retry {ENDPOINT} answered HTTP {code}: why"),
        };
        assert_eq!(told, expected);
    }
}

#[test]
fn without_an_answer_it_is_tried_again_but_for_an_address_that_is_not_called() {
    let refused = PrivateAddress {
        host: "intranet".to_owned(),
        address: Ipv4Addr::new(10, 0, 0, 7).into(),
        kind: "a private address",
    };
    for (error, expected) in [
        (NoAnswer::Timeout { timeout_ms: 250 }, "retry https://example.com did not answer within 250 ms"),
        (
            NoAnswer::Certificate { fault: CertificateFault::Expired, detail: "verify failed".to_owned() },
            "retry https://example.com is not trusted: its certificate has expired (verify failed); renew it on the server",
        ),
        (
            NoAnswer::Unreachable("connection refused".to_owned()),
            "retry https://example.com cannot be reached: connection refused",
        ),
        (
            NoAnswer::NotHttp("invalid HTTP version parsed".to_owned()),
            "retry https://example.com answered something that is no HTTP: invalid HTTP version parsed",
        ),
        (
            NoAnswer::BrokenOff("connection reset".to_owned()),
            "retry https://example.com broke off the call: connection reset",
        ),
        (
            NoAnswer::PrivateAddress(refused),
            "stop https://example.com is not called: `intranet` is 10.0.0.7, a private address; if that is meant, \
             allow private addresses in the subscription",
        ),
    ] {
        assert_eq!(told(&Err(error)), expected);
    }
}

#[test]
fn a_redirect_says_where_to_in_printable_text() {
    let answer = Answer {
        status: 308,
        location: Some("https://example.org/\u{202e}new\u{1b}".to_owned()),
        ..Answer::default()
    };
    let told = told(&Ok(answer));
    assert!(
        told.contains("a redirect to `https://example.org/\u{fffd}new\u{fffd}`, which is not followed"),
        "{told}"
    );
}

#[test]
fn who_asks_to_be_left_alone_is_left_alone() {
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (retry_after, answered_at, seconds) in [
        ("0", None, Some(0.0)),
        (" 120 ", None, Some(120.0)),
        ("4294967296", None, Some(4_294_967_296.0)),
        // Counted from the answer's own date, whatever our clock says.
        ("Sun, 06 Nov 1994 08:50:37 GMT", Some(date), Some(60.0)),
        ("Fri, 21 Nov 2036 09:00:10 GMT", Some("Fri, 21 Nov 2036 09:00:00 GMT"), Some(10.0)),
        // Without one, or with nonsense there, from our clock.
        ("Sun, 06 Nov 1994 08:50:37 GMT", None, Some(59.5)),
        ("Sun, 06 Nov 1994 08:50:37 GMT", Some("noon"), Some(59.5)),
        // The two old forms of RFC 9110, section 5.6.7.
        ("Sunday, 06-Nov-94 08:50:37 GMT", Some(date), Some(60.0)),
        ("Sun Nov  6 08:50:37 1994", Some(date), Some(60.0)),
        // Over.
        ("Sun, 06 Nov 1994 08:00:00 GMT", Some(date), Some(0.0)),
        ("Thu, 01 Jan 1970 00:00:00 GMT", None, Some(0.0)),
        // Nonsense.
        ("", None, None),
        ("soon", None, None),
        ("-1", None, None),
        ("+5", None, None),
        ("1.5", None, None),
        ("18446744073709551616", None, None),
        ("5, 10", None, None),
        ("Sun, 31 Feb 1994 08:50:37 GMT", Some(date), None),
    ] {
        for status in [301, 408, 429, 500, 503] {
            let answer = Answer {
                status,
                retry_after: Some(retry_after.to_owned()),
                date: answered_at.map(str::to_owned),
                ..Answer::default()
            };
            let after = match judge(ENDPOINT, &Ok(answer), NOW) {
                Err(HandlerError::RetryAfter { after, .. }) => Some(after.as_secs_f64()),
                Err(HandlerError::Retry(_)) => None,
                other => panic!("{retry_after}: {other:?}"),
            };
            assert_eq!(after, seconds, "{retry_after:?} at {answered_at:?}");
        }
    }
}

#[test]
fn retry_after_changes_nothing_where_nothing_is_tried_again() {
    let answer = |status| Answer { status, retry_after: Some("5".to_owned()), ..Answer::default() };
    assert_eq!(told(&Ok(answer(202))), "done");
    assert_eq!(told(&Ok(answer(404))), "reject refused_by_endpoint: https://example.com answered HTTP 404");
}

#[test]
fn a_body_is_told_short_and_printable() {
    let body = format!("\u{1b}[31m{}", "ä".repeat(400));
    let answer = Answer { status: 400, body_start: body.into_bytes(), ..Answer::default() };
    let told = told(&Ok(answer));
    let expected =
        format!("reject refused_by_endpoint: {ENDPOINT} answered HTTP 400: \u{fffd}[31m{}…", "ä".repeat(195));
    assert_eq!(told, expected);
}
