//! Webhooks: sections of the settings that are named by whoever writes them.

use std::{collections::BTreeSet, fmt::Display, ops::RangeInclusive, time::Duration};

use figment::value::{Dict, Value};
use fleetlog_handler::{CircuitSettings, PolicyError, RetryPolicy};
use fleetlog_webhook::{Mode, Problem, Subscription, shown_url};
use serde::{Deserialize, Serialize};

use super::{Config, DEFAULT_TOML, files};

/// How the keys of every webhook begin.
pub(super) const BELOW: &str = "webhooks.";

/// Each record under way is held in memory, and may come again after a crash.
pub(super) const IN_FLIGHT: RangeInclusive<usize> = 1..=10_000;
/// With more failures than these an endpoint that is down is hardly left alone at all.
const FAILURES: RangeInclusive<u64> = 0..=1_000;
/// Shorter, and an endpoint is not left alone; longer, and nobody expects it to be called again.
const OPEN_MS: RangeInclusive<u64> = 100..=3_600_000;
/// All trials have to be answered before the circuit closes, so there have to be so many events.
const TRIALS: RangeInclusive<u64> = 1..=1_000;

/// See the example in `default.toml`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Webhook {
    pub(crate) url: String,
    pub(crate) event_types: Vec<String>,
    pub(crate) sites: Vec<String>,
    /// One, or several with spaces between.
    pub(crate) secret: String,
    pub(crate) allow_unsigned: bool,
    #[serde(with = "ModeText")]
    pub(crate) mode: Mode,
    pub(crate) allow_private: bool,
    pub(crate) timeout_ms: u64,
    pub(crate) ca_file: String,
    pub(crate) in_flight_max: usize,
    pub(crate) retry_delays_ms: Vec<u64>,
    pub(crate) start_at: StartAt,
    pub(crate) circuit_failures_max: u64,
    pub(crate) circuit_open_ms: u64,
    pub(crate) circuit_trials: u64,
}

/// How [`Mode`] is written.
#[derive(Deserialize, Serialize)]
#[serde(remote = "Mode", rename_all = "snake_case")]
enum ModeText {
    Structured,
    Binary,
}

/// Where a source topic is begun that a handler's group has committed nothing of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StartAt {
    /// With what comes from then on.
    #[default]
    End,
    /// With all that is there.
    Begin,
}

impl Webhook {
    /// As the crate of webhooks has it. `ca_pem` is what the file holds that is named.
    pub(crate) fn subscription(&self, name: &str, ca_pem: Option<Vec<u8>>) -> Subscription {
        Subscription {
            event_types: self.event_types.clone(),
            sites: self.sites.clone(),
            secrets: self.secret.split_whitespace().map(str::to_owned).collect(),
            allow_unsigned: self.allow_unsigned,
            mode: self.mode,
            allow_private: self.allow_private,
            timeout_ms: self.timeout_ms,
            ca_pem,
            ..Subscription::new(name, &self.url)
        }
    }

    /// Its tiers.
    pub(crate) fn retry(&self) -> Result<RetryPolicy, PolicyError> {
        tiers(&self.retry_delays_ms)
    }

    /// Its circuit.
    pub(crate) fn circuit(&self) -> CircuitSettings {
        // They have been checked, and are far below.
        let count = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        CircuitSettings {
            failures_max: count(self.circuit_failures_max),
            open: Duration::from_millis(self.circuit_open_ms),
            trials: count(self.circuit_trials),
        }
    }
}

/// The tiers of these delays.
pub(super) fn tiers(delays_ms: &[u64]) -> Result<RetryPolicy, PolicyError> {
    RetryPolicy::new(delays_ms.iter().copied().map(Duration::from_millis).collect())
}

/// The examples of `default.toml`, with what every section that need not be there may have and its defaults, as settings.
pub(super) fn examples() -> String {
    let lines = DEFAULT_TOML.lines().filter_map(|line| line.strip_prefix('#'));
    lines.filter(|line| !line.is_empty() && !line.starts_with(' ')).collect::<Vec<_>>().join("\n")
}

/// The sections of webhooks, whether they hold anything or not.
pub(super) fn sections(dict: &Dict) -> impl Iterator<Item = (&String, &Value)> {
    let webhooks = dict.get("webhooks").and_then(Value::as_dict);
    webhooks.into_iter().flatten().filter(|(_, value)| value.as_dict().is_some())
}

/// What to do about a name that no webhook can have.
pub(super) fn name_problem(name: &str) -> Option<String> {
    let named = Subscription { allow_unsigned: true, ..Subscription::new(name, "https://example.com") };
    let problems = named.check().err()?.problems;
    problems.into_iter().find(|problem| problem.field == "name").map(|problem| problem.remedy)
}

/// The last part of a key that is a webhook's.
pub(super) fn key_within(key: &str) -> Option<&str> {
    let (_, within) = key.strip_prefix(BELOW)?.split_once('.')?;
    Some(within)
}

/// Whether a key sets something where only sections of webhooks stand.
pub(super) fn is_no_section(key: &str) -> bool {
    key == "webhooks" || key.starts_with(BELOW) && key_within(key).is_none()
}

/// A key as a variable names it, as the settings have it: names of variables hold no hyphens, names of webhooks no underscores.
pub(super) fn with_hyphens(key: String) -> String {
    match key.strip_prefix(BELOW).and_then(|rest| rest.split_once('.')) {
        Some((name, within)) => format!("{BELOW}{}.{within}", name.replace('_', "-")),
        None => key,
    }
}

/// The other way.
pub(super) fn without_hyphens(key: &str) -> String {
    if key.starts_with(BELOW) { key.replace('-', "_") } else { key.to_owned() }
}

/// Whether webhooks can be carried out. Of a key whose own value was refused already nothing is said.
pub(super) fn check(config: &Config, refused: &BTreeSet<String>, wrong: &mut impl FnMut(&str, String)) {
    for (name, webhook) in &config.webhooks {
        let mut wrong = |within: &str, what: String| {
            let key = format!("{BELOW}{name}.{within}");
            if !refused.contains(&key) {
                wrong(&key, what);
            }
        };
        let ca_pem = authority(webhook, &mut wrong);
        if let Err(error) = webhook.subscription(name, ca_pem).check() {
            for problem in &error.problems {
                let (within, what) = told(webhook, problem);
                wrong(within, what);
            }
        }
        if let Err(error) = webhook.retry() {
            wrong("retry_delays_ms", format!("is {:?}: {error}", webhook.retry_delays_ms));
        }
        limits(webhook, &mut wrong);
    }
}

/// The certificates that are named, if they are any.
fn authority(webhook: &Webhook, wrong: &mut impl FnMut(&str, String)) -> Option<Vec<u8>> {
    if webhook.ca_file.is_empty() {
        return None;
    }
    if webhook.url.starts_with("http://") {
        wrong("ca_file", "is set, but the URL does not begin with https://: nothing would be checked".into());
    }
    files::certificates(&webhook.ca_file).map_err(|why| wrong("ca_file", why)).ok()
}

/// The key that a subscription's problem is one of, and what completes the sentence "`key` …". Neither secrets nor the path of
/// an address are repeated.
fn told<'a>(webhook: &Webhook, problem: &'a Problem) -> (&'a str, String) {
    let Problem { field, value, remedy } = problem;
    let (field, index) = field.split_once('[').unwrap_or((field, ""));
    let secrets = webhook.secret.split_whitespace().count();
    match field {
        "url" if webhook.url.is_empty() => {
            (field, "is not set: name whom to call, such as `https://example.com/events`".into())
        }
        "url" => (field, format!("is `{}`: {remedy}", shown_url(&webhook.url))),
        "event_types" | "sites" => (field, format!("holds `{value}`: {remedy}")),
        "secrets" if secrets == 0 => (
            "secret",
            "is not set: give one (`whsec_` and the base64 of 32 random bytes), or say allow_unsigned = true"
                .into(),
        ),
        "secrets" if secrets == 1 => ("secret", remedy.clone()),
        "secrets" => {
            let nth = index.trim_end_matches(']').parse().map_or(0, |index: usize| index + 1);
            ("secret", format!("holds {secrets} secrets, and number {nth} {remedy}"))
        }
        "ca_pem" => ("ca_file", format!("names `{}`: {remedy}", webhook.ca_file)),
        _ => (field, format!("is {value}: {remedy}")),
    }
}

fn limits(webhook: &Webhook, wrong: &mut impl FnMut(&str, String)) {
    between("in_flight_max", webhook.in_flight_max, &IN_FLIGHT, wrong);
    between("circuit_failures_max", webhook.circuit_failures_max, &FAILURES, wrong);
    between("circuit_open_ms", webhook.circuit_open_ms, &OPEN_MS, wrong);
    between("circuit_trials", webhook.circuit_trials, &TRIALS, wrong);
}

pub(super) fn between<N: PartialOrd + Display>(
    key: &str,
    value: N,
    range: &RangeInclusive<N>,
    wrong: &mut impl FnMut(&str, String),
) {
    if !range.contains(&value) {
        wrong(key, format!("is {value}, expected {} to {}", range.start(), range.end()));
    }
}

#[cfg(test)]
mod tests;
