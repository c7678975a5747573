//! Handlers as the settings describe them: webhooks, and the watch for tasks that stand still.

use std::collections::BTreeSet;

use anyhow::Context;
use fleetlog_engine::{HandlerTopic, handler_group, handler_topics};
use fleetlog_event::{
    EventSet,
    catalogue::{Catalogue, Topic, TopicSpec, Waiting, physical_name},
    task::TaskEvent,
};
use fleetlog_handler::{CircuitSettings, RetryPolicy};
use fleetlog_task_watch::Rules;
use fleetlog_webhook::Subscription;

use crate::{
    config::{Config, StartAt, TaskWatch, Webhook},
    exit::{Code, Failure},
    wiring,
};

/// Topics that nobody is told of who did not ask for their events by name: telemetry is far more than all others together, and
/// `ops` is about what operators do.
const NAMED_ONLY: [&str; 2] = ["telemetry", "ops"];

/// How long topics are kept on which open tasks wait, each by a record every half a minute: 7 days, after which Kafka forgets
/// where a group was that nobody is in, so that tasks are found by their beginnings again.
const WATCH_RETENTION_MS: i64 = 7 * 24 * 3600 * 1000;

/// A handler of the settings.
#[derive(Clone, Debug)]
pub(crate) struct Described {
    /// `webhook-<name>` or `task-watch`
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
    /// What it does.
    pub(crate) kind: Kind,
}

/// What a handler does.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Calls an endpoint: whom, and of what.
    Webhook(Subscription),
    /// Watches for tasks that stand still.
    TaskWatch(Rules),
}

impl Described {
    /// Every topic that it reads: its sources, its tiers, what is held.
    pub(crate) fn all_topics(&self, config: &Config) -> Vec<HandlerTopic> {
        let sources = self.topics.iter().map(|stem| physical_name(&config.kafka.topic_prefix, stem));
        handler_topics(&self.group, sources, &self.retry)
    }
}

/// A section of the settings that is a handler.
#[derive(Clone, Copy, Debug)]
enum Section<'a> {
    Webhook(&'a str, &'a Webhook),
    TaskWatch(&'a TaskWatch),
}

/// Every section of the settings that is a handler.
fn sections(config: &Config) -> impl Iterator<Item = Section<'_>> {
    let webhooks = config.webhooks.iter().map(|(name, webhook)| Section::Webhook(name, webhook));
    webhooks.chain(config.task_watch.as_ref().map(Section::TaskWatch))
}

impl Section<'_> {
    fn id(self) -> String {
        match self {
            Self::Webhook(name, _) => format!("webhook-{name}"),
            Self::TaskWatch(_) => fleetlog_task_watch::ID.to_owned(),
        }
    }

    fn retry_delays_ms(&self) -> &[u64] {
        match self {
            Self::Webhook(_, webhook) => &webhook.retry_delays_ms,
            Self::TaskWatch(watch) => &watch.retry_delays_ms,
        }
    }

    /// The topics that it reads.
    fn sources(self, catalogue: &Catalogue) -> Vec<&Topic> {
        match self {
            Self::Webhook(name, webhook) => subscribed(&webhook.subscription(name, None), catalogue),
            Self::TaskWatch(_) => TaskEvent::TOPICS.iter().filter_map(|stem| catalogue.topic(stem)).collect(),
        }
    }

    /// One of its topics, as long as it is to be kept.
    fn kept(self, mut topic: TopicSpec) -> TopicSpec {
        if matches!(self, Self::TaskWatch(_)) {
            topic.configs.insert("retention.ms", WATCH_RETENTION_MS.to_string());
        }
        topic
    }

    fn described(self, config: &Config, catalogue: &Catalogue) -> anyhow::Result<Described> {
        let id = self.id();
        let group = handler_group(&config.kafka.topic_prefix, &id);
        let topics = self.sources(catalogue).iter().map(|topic| topic.stem.clone()).collect();
        Ok(match self {
            Self::Webhook(name, webhook) => {
                let ca_pem = wiring::authority(&format!("webhooks.{name}.ca_file"), &webhook.ca_file)?;
                Described {
                    id,
                    group,
                    topics,
                    retry: webhook.retry().with_context(|| format!("webhooks.{name}.retry_delays_ms"))?,
                    circuit: webhook.circuit(),
                    in_flight_max: webhook.in_flight_max,
                    start_at: webhook.start_at,
                    kind: Kind::Webhook(webhook.subscription(name, ca_pem)),
                }
            }
            Self::TaskWatch(watch) => Described {
                id,
                group,
                topics,
                retry: watch.retry().context("task_watch.retry_delays_ms")?,
                // It calls nobody but the brokers and hot state.
                circuit: CircuitSettings::default(),
                in_flight_max: watch.in_flight_max,
                start_at: watch.start_at,
                kind: Kind::TaskWatch(watch.rules()),
            },
        })
    }
}

/// Every handler of the settings: webhooks by their names, then the watch.
pub(crate) fn all(config: &Config) -> anyhow::Result<Vec<Described>> {
    let catalogue = Catalogue::builtin();
    sections(config).map(|section| section.described(config, &catalogue)).collect()
}

/// The handlers of these ids, or all.
pub(crate) fn chosen(config: &Config, names: &[String]) -> anyhow::Result<Vec<Described>> {
    let known: BTreeSet<String> = sections(config).map(Section::id).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(*name)) {
        let hint = if known.is_empty() {
            "handlers: none, as the settings have no section [webhooks.NAME] or [task_watch]".to_owned()
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
    for section in sections(config) {
        let group = handler_group(&config.kafka.topic_prefix, &section.id());
        let replication = wiring::replication(config);
        let waiting = Waiting { group: &group, tiers_ms: section.retry_delays_ms(), replication };
        let topics = waiting.topics(&section.sources(catalogue)).into_iter().flatten();
        specs.extend(topics.map(|topic| section.kept(topic)));
    }
    specs
}

/// The topics with events that a subscription asks for; telemetry and operators' work only where they are named.
fn subscribed<'a>(subscription: &Subscription, catalogue: &'a Catalogue) -> Vec<&'a Topic> {
    let is_named =
        |topic: &Topic| !subscription.event_types.is_empty() || !NAMED_ONLY.contains(&&*topic.stem);
    let is_asked_for = |topic: &Topic| topic.events.iter().any(|event| subscription.asks_for(event));
    catalogue.sources().filter(|topic| is_named(topic) && is_asked_for(topic)).collect()
}

#[cfg(test)]
mod tests;
