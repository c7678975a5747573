//! How to reach the cluster, and the client defaults that every part of fleetlog shares.

use std::{collections::BTreeMap, fmt};

use rdkafka::{ClientConfig, config::RDKafkaLogLevel};
use serde::{Deserialize, Serialize};

/// Where the cluster is and how to speak to it. The same for producers, consumers and administration.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaSettings {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// Put before every topic and group name, such as `prod-`.
    pub topic_prefix: String,
    /// How this process calls itself to the brokers.
    pub client_id: String,
    /// Overrides the replication factor of all topic files (1 on a stack of one broker).
    pub replication: Option<i32>,
    /// `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`.
    pub security_protocol: String,
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`, with a `sasl_*` protocol.
    pub sasl_mechanism: Option<String>,
    /// The SASL user.
    pub sasl_username: Option<String>,
    /// The SASL password; never printed.
    pub sasl_password: Option<String>,
    /// Further librdkafka properties, applied last: they win.
    pub properties: BTreeMap<String, String>,
}

impl Default for KafkaSettings {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".into(),
            topic_prefix: String::new(),
            client_id: "fleetlog".into(),
            replication: None,
            security_protocol: "plaintext".into(),
            sasl_mechanism: None,
            sasl_username: None,
            sasl_password: None,
            properties: BTreeMap::new(),
        }
    }
}

/// librdkafka properties whose values are secrets.
const SECRET_WORDS: [&str; 4] = ["password", "secret", "pem", "token"];

impl fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let properties: BTreeMap<_, _> = self
            .properties
            .iter()
            .map(|(name, value)| (name, if is_secret(name) { "<redacted>" } else { value }))
            .collect();
        f.debug_struct("KafkaSettings")
            .field("brokers", &self.brokers)
            .field("topic_prefix", &self.topic_prefix)
            .field("client_id", &self.client_id)
            .field("replication", &self.replication)
            .field("security_protocol", &self.security_protocol)
            .field("sasl_mechanism", &self.sasl_mechanism)
            .field("sasl_username", &self.sasl_username)
            .field("sasl_password", &self.sasl_password.as_ref().map(|_| "<redacted>"))
            .field("properties", &properties)
            .finish()
    }
}

fn is_secret(property: &str) -> bool {
    SECRET_WORDS.iter().any(|word| property.contains(word))
}

impl KafkaSettings {
    /// The cluster at `brokers`, all else by default.
    #[must_use]
    pub fn at(brokers: impl Into<String>) -> Self {
        Self { brokers: brokers.into(), ..Self::default() }
    }

    /// The physical name of the topic with this stem: prefix and stem.
    #[must_use]
    pub fn topic(&self, stem: &str) -> String {
        format!("{}{stem}", self.topic_prefix)
    }

    /// What is wrong with these settings, each as a sentence to act on; empty if nothing is.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.brokers.trim().is_empty() {
            problems.push("kafka.brokers is empty: name at least one `host:port`".to_owned());
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if !self.topic_prefix.chars().all(legal) {
            problems.push(format!(
                "kafka.topic_prefix `{}` has characters that no topic name may have: use letters, digits, `.`, `_`, `-`",
                self.topic_prefix
            ));
        }
        let protocols = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];
        if !protocols.contains(&self.security_protocol.as_str()) {
            problems.push(format!(
                "kafka.security_protocol is `{}`, expected one of {}",
                self.security_protocol,
                protocols.join(", ")
            ));
        }
        if self.security_protocol.starts_with("sasl") && self.sasl_mechanism.is_none() {
            problems.push("kafka.sasl_mechanism is missing, which a sasl_* protocol needs".to_owned());
        }
        if self.replication.is_some_and(|factor| factor < 1) {
            problems.push("kafka.replication is less than 1".to_owned());
        }
        if let Err(error) = self.client().create_native_config() {
            problems.push(format!("kafka.properties: {error}"));
        }
        problems
    }

    /// What every client shares: addresses, security, quick reconnection.
    #[must_use]
    pub fn client(&self) -> ClientConfig {
        self.finished(self.base())
    }

    /// A consumer of `group`: `read_committed`, offsets only ever set explicitly, ends of partitions told.
    ///
    /// `fetch.queue.backoff.ms` is 5: by librdkafka's default of 1000 a consumer slower than the fetcher stalls for
    /// whole seconds. `auto.offset.reset` is `error`: losing log history must be noticed, never skipped.
    #[must_use]
    pub fn consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.base();
        config
            .set("group.id", group)
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("allow.auto.create.topics", "false")
            .set("fetch.queue.backoff.ms", "5");
        self.finished(config)
    }

    /// A producer: idempotent, acknowledged by all in-sync replicas, Java's partitioner, lz4, 5 ms linger.
    #[must_use]
    pub fn producer(&self) -> ClientConfig {
        let mut config = self.base();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            .set("compression.type", "lz4")
            .set("linger.ms", "5");
        self.finished(config)
    }

    fn base(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Info);
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client_id)
            .set("security.protocol", &self.security_protocol)
            .set("reconnect.backoff.max.ms", "1000")
            .set("socket.keepalive.enable", "true");
        let sasl = [
            ("sasl.mechanism", &self.sasl_mechanism),
            ("sasl.username", &self.sasl_username),
            ("sasl.password", &self.sasl_password),
        ];
        for (name, value) in sasl {
            if let Some(value) = value {
                config.set(name, value);
            }
        }
        config
    }

    fn finished(&self, mut config: ClientConfig) -> ClientConfig {
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let settings = KafkaSettings {
            sasl_password: Some("hunter2".into()),
            properties: [("ssl.key.password".to_owned(), "hunter3".to_owned())].into(),
            ..KafkaSettings::default()
        };
        let printed = format!("{settings:?}");
        assert!(!printed.contains("hunter"), "{printed}");
        assert!(printed.contains("<redacted>"), "{printed}");
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let settings = KafkaSettings {
            brokers: " ".into(),
            topic_prefix: "a b".into(),
            security_protocol: "tls".into(),
            replication: Some(0),
            ..KafkaSettings::default()
        };
        let problems = settings.problems();
        assert!(problems.len() >= 4, "{problems:?}");
        assert_eq!(KafkaSettings::default().problems(), Vec::<String>::new());
    }

    #[test]
    fn an_unknown_property_is_a_problem_and_a_known_one_wins() {
        let mut settings = KafkaSettings::default();
        settings.properties.insert("linger.ms".into(), "0".into());
        assert_eq!(settings.producer().get("linger.ms"), Some("0"));
        settings.properties.insert("lingering".into(), "0".into());
        assert!(settings.problems().iter().any(|p| p.contains("lingering")), "{:?}", settings.problems());
    }

    #[test]
    fn what_guarantees_hang_on_is_set() {
        let settings = KafkaSettings::default();
        let producer = settings.producer();
        assert_eq!(producer.get("enable.idempotence"), Some("true"));
        assert_eq!(producer.get("acks"), Some("all"));
        assert_eq!(producer.get("partitioner"), Some("murmur2_random"));
        let consumer = settings.consumer("g");
        assert_eq!(consumer.get("auto.offset.reset"), Some("error"));
        assert_eq!(consumer.get("isolation.level"), Some("read_committed"));
        assert_eq!(consumer.get("enable.auto.commit"), Some("false"));
    }
}
