//! What a call's outcome means for the event.
//!
//! Standard Webhooks, section "Delivery success and failure": every 2xx is success, redirects are not followed, `retry-after`
//! is heeded. Beyond it fleetlog tells what may pass from what never will.

use std::time::{Duration, SystemTime};

use fleetlog_event::{Reason, Reject, TimestampMs};
use fleetlog_handler::HandlerError;

use crate::{Answer, NoAnswer, text::excerpt};

/// What is to be done about an event after a call. `endpoint` is who was called, as it may be shown; `now` is our clock.
///
/// | outcome | |
/// |---|---|
/// | 2xx | done |
/// | 408, 429, 5xx | may pass: tried again, no sooner than `Retry-After` says (seconds or an HTTP date: RFC 9110, section 10.2.3) |
/// | a redirect, or a status that HTTP does not have | tried again: somebody has to mend the address |
/// | other 4xx | this event will never be taken: a dead letter |
/// | no answer | tried again |
/// | an address that is not called | no event will be taken: the handler stops |
///
/// # Errors
/// As above.
pub fn judge(
    endpoint: &str,
    outcome: &Result<Answer, NoAnswer>,
    now: TimestampMs,
) -> Result<(), HandlerError> {
    let answer = match outcome {
        Ok(answer) => answer,
        Err(error @ NoAnswer::PrivateAddress(_)) => {
            return Err(HandlerError::Stop(format!("{endpoint} {error}")));
        }
        Err(error) => return Err(HandlerError::Retry(format!("{endpoint} {error}"))),
    };
    let detail = format!("{endpoint} answered {}", described(answer));
    match answer.status {
        200..=299 => Ok(()),
        408 | 429 => Err(later(answer, now, detail)),
        400..=499 => Err(Reject::new(Reason::RefusedByEndpoint, detail).into()),
        _ => Err(later(answer, now, detail)),
    }
}

fn later(answer: &Answer, now: TimestampMs, detail: String) -> HandlerError {
    match retry_after(answer, now) {
        Some(after) => HandlerError::RetryAfter { after, detail },
        None => HandlerError::Retry(detail),
    }
}

/// Status, where a redirect leads, and how the body begins.
fn described(answer: &Answer) -> String {
    let mut text = format!("HTTP {}", answer.status);
    if (300..=399).contains(&answer.status) {
        let to = answer.location.as_deref().map(|location| excerpt(location.as_bytes()));
        let to = to.map_or_else(|| "without saying where to".to_owned(), |to| format!("to `{to}`"));
        text.push_str(", a redirect ");
        text.push_str(&to);
        text.push_str(", which is not followed: subscribe with the address that answers itself");
    }
    let body = excerpt(&answer.body_start);
    if !body.is_empty() {
        text.push_str(": ");
        text.push_str(&body);
    }
    text
}

/// How long the endpoint asked to be left alone: seconds, or a date. A date counts from the answer's own `Date`, so that its
/// clock and ours may differ; without one from `now`. What is neither is ignored; a date that is over means at once.
fn retry_after(answer: &Answer, now: TimestampMs) -> Option<Duration> {
    let text = answer.retry_after.as_deref()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs);
    }
    let until = httpdate::parse_http_date(text).ok()?;
    let theirs = answer.date.as_deref().and_then(|date| httpdate::parse_http_date(date.trim()).ok());
    let from = theirs.unwrap_or_else(|| {
        SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(now.0).unwrap_or_default())
    });
    Some(until.duration_since(from).unwrap_or_default())
}

#[cfg(test)]
mod tests;
