//! `fleetlog webhook test`: one call to an endpoint, looked at from both sides.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context;
use fleetlog_codec::{
    by_hand::{self, Blanks},
    reference,
};
use fleetlog_event::{EventId, EventSet, FleetEvent, LogId, Position, Recorded, TimestampMs};
use fleetlog_webhook::{
    Answer, Call, HandlerError, Message, Mode, NoAnswer, Subscription, TIMEOUT_MS_DEFAULT, Webhook, excerpt,
    judge,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    commands::{emit, migrate::now},
    exit::{Code, Failure},
    output::{self, Format},
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Send the example of an event to an endpoint, once, and say what came back and what fleetlog would do then
    Test(Test),
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fleetlog webhook test https://example.com/fleet --secret-env FLEET_WEBHOOK_SECRET\n  \
                        fleetlog webhook test http://127.0.0.1:8000/ --allow-private --event task.Created --mode binary\n\n\
                        Exit code 1 if the event would be refused or tried again because of the answer, 3 if no answer came.\n\
                        For receivers: docs/webhooks.md"
)]
pub(crate) struct Test {
    /// The endpoint, http or https
    url: String,
    /// The environment variable that holds the secret (`whsec_…`); more than once while a secret is being changed
    #[arg(long, value_name = "NAME")]
    secret_env: Vec<String>,
    /// How the event is written
    #[arg(long, value_enum, default_value_t)]
    mode: ModeArg,
    /// The event's type
    #[arg(long, value_name = "TYPE", default_value = "robot.Connected")]
    event: String,
    /// The endpoint may lie inside this network: at loopback, private and other addresses that are not public
    #[arg(long)]
    allow_private: bool,
    /// Who may have signed the endpoint's certificate (PEM), beside those whom the system trusts
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// How long the call may take, in milliseconds
    #[arg(long, default_value_t = TIMEOUT_MS_DEFAULT)]
    timeout_ms: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum ModeArg {
    /// The event and its attributes in one JSON object
    #[default]
    Structured,
    /// Attributes in headers, the event alone as the body
    Binary,
}

/// A call with everything that is told about it.
#[derive(Debug)]
struct Called<'a> {
    url: &'a str,
    message: Message,
    outcome: Result<Answer, NoAnswer>,
    took: Duration,
    verdict: Result<(), HandlerError>,
}

pub(crate) async fn run(command: &Command, format: Format) -> anyhow::Result<Code> {
    let Command::Test(test) = command;
    let called = called(test).await?;
    match format {
        Format::Json => output::json(&called.to_json())?,
        Format::Table => called.print(),
    }
    Ok(called.code())
}

async fn called(test: &Test) -> anyhow::Result<Called<'_>> {
    let subscription = subscription(test)?;
    let webhook = Webhook::new(&subscription).map_err(|error| {
        let problems: Vec<String> = error.problems.iter().map(ToString::to_string).collect();
        Failure::new(Code::Usage, problems.join("; "), "fleetlog webhook test --help")
    })?;
    for warning in subscription.warnings() {
        eprintln!("warning: {warning}");
    }
    let now = now();
    let message = webhook.message(&call(example(&test.event, now)?), now)?;
    let begun = Instant::now();
    let outcome = webhook.send(&message).await;
    let took = begun.elapsed();
    let verdict = judge(&webhook.endpoint(), &outcome, now);
    Ok(Called { url: &test.url, message, outcome, took, verdict })
}

fn subscription(test: &Test) -> anyhow::Result<Subscription> {
    let secrets: Vec<String> =
        test.secret_env.iter().map(|name| secret(name)).collect::<anyhow::Result<_>>()?;
    let read = |file: &PathBuf| {
        std::fs::read(file).map_err(|error| {
            let message = format!("--ca-file {}: {error}", file.display());
            Failure::new(Code::Usage, message, "give a file of certificates in PEM")
        })
    };
    Ok(Subscription {
        event_types: vec![test.event.clone()],
        allow_unsigned: secrets.is_empty(),
        secrets,
        mode: match test.mode {
            ModeArg::Structured => Mode::Structured,
            ModeArg::Binary => Mode::Binary,
        },
        allow_private: test.allow_private,
        timeout_ms: test.timeout_ms,
        ca_pem: test.ca_file.as_ref().map(read).transpose()?,
        ..Subscription::new("test", &test.url)
    })
}

#[expect(clippy::disallowed_methods, reason = "a secret is named on the command line and is no setting")]
fn secret(name: &str) -> anyhow::Result<String> {
    let found = std::env::var(name).ok().filter(|secret| !secret.is_empty());
    Ok(found.ok_or_else(|| {
        let message = format!("--secret-env {name}: there is no such environment variable, or it is empty");
        Failure::new(Code::Usage, message, format!("export {name}=whsec_…, or leave it out to send unsigned"))
    })?)
}

/// The example that `fleetlog schemas describe` shows, made now.
fn example(event: &str, now: TimestampMs) -> anyhow::Result<FleetEvent> {
    let event_type = emit::event_type(event)?;
    let json =
        reference::example(event_type).with_context(|| format!("{} has no example", event_type.name))?;
    let source = concat!("fleetlog-webhook-test/", env!("CARGO_PKG_VERSION")).to_owned();
    let blanks = Blanks { event_id: EventId::now_v7(), now, source };
    by_hand::read(event_type, json, &blanks).with_context(|| format!("the example of {}", event_type.name))
}

/// The first call about an event. It lies on no log: nothing of its position is sent.
fn call(event: FleetEvent) -> Call<FleetEvent> {
    let position = Position { log: LogId(Uuid::nil()), partition: 0, offset: 0 };
    let (recorded_at, key) = (event.meta().recorded_at, event.entity());
    Call {
        event: Recorded { position, recorded_at, key, event },
        attempt: 1,
        first_failed_at: None,
        is_redrive: false,
        newest_offset: position.offset,
        traceparent: None,
    }
}

/// What fleetlog would do, as a word for machines and a sentence for people.
fn told(verdict: &Result<(), HandlerError>) -> (&'static str, &'static str) {
    match verdict {
        Ok(()) => ("done", "taken: fleetlog would be done with the event"),
        // A webhook never says that it is not time yet.
        Err(HandlerError::Retry(_) | HandlerError::RetryAfter { .. } | HandlerError::NotYet { .. }) => {
            ("retry", "not taken: fleetlog would try again, and in the end make a dead letter of the event")
        }
        Err(HandlerError::Reject(_)) => {
            ("reject", "refused: fleetlog would make a dead letter of the event at once")
        }
        Err(HandlerError::Stop(_)) => {
            ("stop", "not sent: fleetlog would stop this webhook until it is mended")
        }
    }
}

impl Called<'_> {
    /// An answer that is no success was found to be wrong; what is no HTTP answered as well, and so did whoever has a
    /// certificate that is refused.
    fn code(&self) -> Code {
        match &self.outcome {
            _ if self.verdict.is_ok() => Code::Done,
            Ok(_) | Err(NoAnswer::NotHttp(_) | NoAnswer::Certificate { .. }) => Code::Found,
            Err(NoAnswer::PrivateAddress(_)) => Code::Usage,
            Err(NoAnswer::Timeout { .. } | NoAnswer::Unreachable(_) | NoAnswer::BrokenOff(_)) => {
                Code::Unreachable
            }
        }
    }

    /// Nothing was sent to an address that is not called.
    fn is_sent(&self) -> bool {
        !matches!(self.outcome, Err(NoAnswer::PrivateAddress(_)))
    }

    fn is_signed(&self) -> bool {
        self.message.headers.iter().any(|(name, _)| *name == "webhook-signature")
    }

    fn print(&self) {
        if self.is_sent() {
            output::line(&format!("POST {}", self.url));
            self.message.headers.iter().for_each(|(name, value)| output::line(&format!("{name}: {value}")));
            output::line(&format!("\n{}\n", String::from_utf8_lossy(&self.message.body)));
        }
        let took_ms = self.took.as_millis();
        if let Ok(answer) = &self.outcome {
            output::line(&format!("HTTP {} after {took_ms} ms", answer.status));
            let body = excerpt(&answer.body_start);
            output::line(if body.is_empty() { "(without a body)" } else { &body });
        } else if self.is_sent() {
            output::line(&format!("no answer, after {took_ms} ms"));
        }
        output::line(&format!("\n{}", told(&self.verdict).1));
        if let Err(error) = &self.verdict {
            output::line(&error.to_string());
        }
    }

    fn to_json(&self) -> Value {
        let headers: serde_json::Map<String, Value> = self
            .message
            .headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_str().into()))
            .collect();
        let answer = self.outcome.as_ref().ok().map(|answer| {
            json!({
                "status": answer.status,
                "retry_after": answer.retry_after,
                "location": answer.location,
                "body_start": excerpt(&answer.body_start),
            })
        });
        let (verdict, _) = told(&self.verdict);
        let retry_after_s = match &self.verdict {
            Err(HandlerError::RetryAfter { after, .. }) => Some(after.as_secs()),
            _ => None,
        };
        json!({
            "request": {
                "method": "POST",
                "url": self.url,
                "headers": headers,
                "body": String::from_utf8_lossy(&self.message.body),
            },
            "sent": self.is_sent(),
            "signed": self.is_signed(),
            "answer": answer,
            "took_ms": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
            "verdict": verdict,
            "retry_after_s": retry_after_s,
            "detail": self.verdict.as_ref().err().map(ToString::to_string),
        })
    }
}

#[cfg(test)]
mod tests;
