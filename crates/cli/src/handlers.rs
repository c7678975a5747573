//! Handlers as the settings describe them: webhooks.

use std::collections::BTreeSet;

use anyhow::Context;
use fleetlog_engine::handler_group;
use fleetlog_event::catalogue::{Catalogue, Topic, TopicSpec, Waiting};
use fleetlog_handler::{CircuitSettings, RetryPolicy};
use fleetlog_webhook::Subscription;

use crate::{
    config::{Config, StartAt, Webhook},
    exit::{Code, Failure},
    wiring,
};

/// Topics that nobody is told of who did not ask for their events by name: telemetry is far more than all others together, and
/// `ops` is about what operators do.
const NAMED_ONLY: [&str; 2] = ["telemetry", "ops"];

/// A handler of the settings.
#[derive(Clone, Debug)]
pub(crate) struct Described {
    /// `webhook-<name>`
    pub(crate) id: String,
    /// Its consumer group.
    pub(crate) group: String,
    /// The stems of the source topics that it reads.
    pub(crate) topics: Vec<String>,
    /// Its retry tiers.
    pub(crate) retry: RetryPolicy,
    /// When its endpoint is left alone.
    pub(crate) circuit: CircuitSettings,
    /// Records of a partition that may be under way at a time.
    pub(crate) in_flight_max: usize,
    /// Where a topic is begun that its group has committed nothing of.
    pub(crate) start_at: StartAt,
    /// Whom it calls, and of what.
    pub(crate) subscription: Subscription,
}

/// Every handler of the settings, by its name.
pub(crate) fn all(config: &Config) -> anyhow::Result<Vec<Described>> {
    let catalogue = Catalogue::builtin();
    let described = |(name, webhook): (&String, &Webhook)| {
        let id = webhook_id(name);
        let ca_pem = wiring::authority(&format!("webhooks.{name}.ca_file"), &webhook.ca_file)?;
        let subscription = webhook.subscription(name, ca_pem);
        Ok(Described {
            group: handler_group(&config.kafka.topic_prefix, &id),
            topics: sources(&subscription, &catalogue).iter().map(|topic| topic.stem.clone()).collect(),
            retry: webhook.retry().with_context(|| format!("webhooks.{name}.retry_delays_ms"))?,
            circuit: webhook.circuit(),
            in_flight_max: webhook.in_flight_max,
            start_at: webhook.start_at,
            subscription,
            id,
        })
    };
    config.webhooks.iter().map(described).collect()
}

/// The handlers of these ids, or all.
pub(crate) fn chosen(config: &Config, names: &[String]) -> anyhow::Result<Vec<Described>> {
    let known: BTreeSet<String> = config.webhooks.keys().map(|name| webhook_id(name)).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(*name)) {
        let hint = if known.is_empty() {
            "handlers: none, as the settings have no section [webhooks.NAME]".to_owned()
        } else {
            format!("handlers: {}", known.into_iter().collect::<Vec<_>>().join(", "))
        };
        return Err(Failure::new(Code::Usage, format!("there is no handler `{unknown}`"), hint).into());
    }
    let mut all = all(config)?;
    all.retain(|handler| names.is_empty() || names.contains(&handler.id));
    Ok(all)
}

/// The topics on which the events of every handler of the settings wait.
pub(crate) fn waiting_topics(config: &Config, catalogue: &Catalogue) -> Vec<TopicSpec> {
    let mut specs = Vec::new();
    for (name, webhook) in &config.webhooks {
        let group = handler_group(&config.kafka.topic_prefix, &webhook_id(name));
        let replication = wiring::replication(config);
        let waiting = Waiting { group: &group, tiers_ms: &webhook.retry_delays_ms, replication };
        let sources = sources(&webhook.subscription(name, None), catalogue);
        specs.extend(waiting.topics(&sources).into_iter().flatten());
    }
    specs
}

fn webhook_id(name: &str) -> String {
    format!("webhook-{name}")
}

/// The topics with events that a subscription asks for; telemetry and operators' work only where they are named.
fn sources<'a>(subscription: &Subscription, catalogue: &'a Catalogue) -> Vec<&'a Topic> {
    let is_named =
        |topic: &Topic| !subscription.event_types.is_empty() || !NAMED_ONLY.contains(&&*topic.stem);
    let is_asked_for = |topic: &Topic| topic.events.iter().any(|event| subscription.asks_for(event));
    catalogue.sources().filter(|topic| is_named(topic) && is_asked_for(topic)).collect()
}

#[cfg(test)]
mod tests;
