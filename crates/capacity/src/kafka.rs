//! Topics: partitions, bytes, and what they take of the cluster.

use fleetlog_event::catalogue::{Retention, Topic};
use serde::Serialize;

use crate::{
    Figures, Load, Rates,
    deployment::{TELEMETRY, groups},
};

/// Partitions are made in such steps, so that 1, 2, 3 or 6 processes have equal shares.
const PARTITIONS_STEP: f64 = 6.0;

/// One topic of a deployment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TopicLoad {
    /// Its name, without the deployment's prefix.
    pub topic: String,
    /// Events, a second.
    pub events_per_s: f64,
    /// Partitions, room for growth included.
    pub partitions: f64,
    /// The least that the topic's file says.
    pub partitions_min: f64,
    /// Lanes that the load takes when it has grown, headroom taken off.
    pub lanes_needed: f64,
    /// Bytes of a record on disk, compressed.
    pub record_bytes: f64,
    /// Records of a batch.
    pub records_per_batch: f64,
    /// How long records are kept; where that is for ever, the load's horizon.
    pub kept_s: f64,
    /// Whether they are kept for ever.
    pub is_kept_for_ever: bool,
    /// All of it on disk, copies included.
    pub disk_bytes: f64,
    /// How far back a duplicate is found, by the topic's window of offsets.
    pub dedup_window_s: Option<f64>,
}

/// What a deployment takes of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kafka {
    /// Its topics with events.
    pub topics: Vec<TopicLoad>,
    /// Cores of all brokers together.
    pub cores: f64,
    /// Requests of clients, a second.
    pub requests_per_s: f64,
    /// All topics on disk, copies included.
    pub disk_bytes: f64,
    /// What producers send, a second, compressed.
    pub ingress_bytes_per_s: f64,
    /// What all brokers take in or give out, a second, whichever is more: copies and readers included.
    pub network_bytes_per_s: f64,
}

/// A topic, and how it is cut.
pub(crate) struct Cut<'a> {
    pub(crate) topic: &'a Topic,
    /// Lanes that are busy all the time, headroom taken off.
    pub(crate) lanes_needed: f64,
}

impl Cut<'_> {
    fn partitions_min(&self) -> f64 {
        f64::from(self.topic.partitions)
    }

    /// No fewer than the topic's file says, in steps beyond.
    pub(crate) fn partitions(&self) -> f64 {
        let (least, needed) = (self.partitions_min(), self.lanes_needed);
        if needed <= least { least } else { (needed / PARTITIONS_STEP).ceil() * PARTITIONS_STEP }
    }
}

impl Kafka {
    pub(crate) fn of(
        load: &Load,
        rates: &Rates,
        cuts: &[Cut<'_>],
        processes: f64,
        figures: &Figures,
    ) -> Self {
        let topics: Vec<TopicLoad> =
            cuts.iter().map(|cut| TopicLoad::of(cut, load, rates, figures)).collect();
        let copies = f64::from(load.replication);
        let requests_per_s = topics.iter().map(|topic| topic.requests_per_s(load, processes, figures)).sum();
        let cores = topics.iter().map(|topic| topic.events_per_s * event_cpu_s(topic, copies, figures));
        let ingress = |topic: &TopicLoad| topic.events_per_s * topic.record_bytes;
        let outgoing = |topic: &TopicLoad| ingress(topic) * (copies - 1.0 + groups(&topic.topic));
        let ingress_bytes_per_s: f64 = topics.iter().map(ingress).sum();
        Self {
            cores: cores.sum::<f64>() + requests_per_s * figures.kafka_us_per_request.cpu_s(),
            requests_per_s,
            disk_bytes: topics.iter().map(|topic| topic.disk_bytes).sum(),
            ingress_bytes_per_s,
            network_bytes_per_s: (ingress_bytes_per_s * copies).max(topics.iter().map(outgoing).sum()),
            topics,
        }
    }

    /// One of its topics.
    #[must_use]
    pub fn topic(&self, stem: &str) -> Option<&TopicLoad> {
        self.topics.iter().find(|topic| topic.topic == stem)
    }
}

fn event_cpu_s(topic: &TopicLoad, copies: f64, figures: &Figures) -> f64 {
    figures.kafka_produce_us_per_event.cpu_s()
        + figures.kafka_replica_us_per_event.cpu_s() * (copies - 1.0)
        + figures.kafka_consume_us_per_event.cpu_s() * groups(&topic.topic)
}

impl TopicLoad {
    fn of(cut: &Cut<'_>, load: &Load, rates: &Rates, figures: &Figures) -> Self {
        let (topic, partitions) = (cut.topic, cut.partitions());
        let events_per_s = rates.of_topic(&topic.stem);
        let (kept_s, is_kept_for_ever) = match topic.retention {
            Retention::Forever => (load.horizon_s, true),
            Retention::Millis(ms) => (ms as f64 / 1000.0, false),
        };
        // What comes to a producer while it collects a batch of a partition, beside the record that began it.
        let meanwhile =
            events_per_s / f64::from(load.producers) / partitions * figures.kafka_linger_ms.value / 1000.0;
        let records_per_batch = 1.0 + meanwhile;
        let record_bytes = if topic.stem == TELEMETRY {
            figures.kafka_record_bytes.value + figures.kafka_batch_bytes.value / records_per_batch
        } else {
            figures.kafka_small_record_bytes.value
        };
        let dedup_window_s = topic
            .dedup_window_offsets
            .filter(|_| events_per_s > 0.0)
            .map(|offsets| offsets as f64 / (events_per_s / partitions));
        Self {
            topic: topic.stem.clone(),
            events_per_s,
            partitions,
            partitions_min: cut.partitions_min(),
            lanes_needed: cut.lanes_needed,
            record_bytes,
            records_per_batch,
            kept_s,
            is_kept_for_ever,
            disk_bytes: events_per_s * record_bytes * kept_s * f64::from(load.replication),
            dedup_window_s,
        }
    }

    /// Every client asks each broker that leads partitions about once a linger while there is something new; a topic of
    /// few partitions lies on as many brokers as it has copies, at least.
    fn requests_per_s(&self, load: &Load, processes: f64, figures: &Figures) -> f64 {
        let clients = f64::from(load.producers) + groups(&self.topic) * processes;
        let brokers = f64::from(load.replication).min(self.partitions);
        clients * brokers * self.events_per_s.min(1000.0 / figures.kafka_linger_ms.value)
    }
}
