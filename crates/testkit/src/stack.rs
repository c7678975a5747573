//! Where the servers are, and names nobody else uses on them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use fleetlog_kafka::KafkaSettings;
use uuid::Uuid;

/// The addresses of the servers that tests share.
///
/// Each is taken from the environment, else from `.stack/env` in the checkout.
#[derive(Clone, Debug)]
pub struct Stack {
    /// `host:port` of the Kafka broker (`FLEETLOG_KAFKA__BROKERS`).
    pub brokers: String,
    /// Replication factor that the cluster can carry, if it isn't that of the topic files.
    pub replication: Option<i32>,
    /// `redis://…` (`FLEETLOG_REDIS__URL`). All tests share database 0: see [`unique`].
    pub redis_url: String,
    /// `postgres://…` (`FLEETLOG_POSTGRES__URL`). Tests take a [`crate::Database`] of their own.
    pub postgres_url: String,
    /// The Confluent API of a schema registry (`FLEETLOG_TEST_REGISTRY_URL`).
    pub registry_url: Option<String>,
    /// PostgreSQL in WASM with TimescaleDB, one connection at a time (`FLEETLOG_TEST_PGLITE_URL`).
    pub pglite_url: Option<String>,
    /// A native PostgreSQL with TimescaleDB, where somebody has one (`FLEETLOG_TEST_TIMESCALE_URL`).
    pub timescale_url: Option<String>,
}

impl Stack {
    /// The stack this test run uses.
    ///
    /// # Panics
    /// If an address is neither in the environment nor in `.stack/env`: the message says what to run.
    #[must_use]
    pub fn from_env() -> Self {
        Self {
            brokers: required("FLEETLOG_KAFKA__BROKERS"),
            replication: setting("FLEETLOG_KAFKA__REPLICATION").and_then(|value| value.parse().ok()),
            redis_url: required("FLEETLOG_REDIS__URL"),
            postgres_url: required("FLEETLOG_POSTGRES__URL"),
            registry_url: setting("FLEETLOG_TEST_REGISTRY_URL"),
            pglite_url: setting("FLEETLOG_TEST_PGLITE_URL"),
            timescale_url: setting("FLEETLOG_TEST_TIMESCALE_URL"),
        }
    }

    /// Client settings for this cluster, with topics and groups under `topic_prefix`.
    #[must_use]
    pub fn kafka(&self, topic_prefix: &str) -> KafkaSettings {
        KafkaSettings {
            topic_prefix: topic_prefix.to_owned(),
            replication: self.replication,
            ..KafkaSettings::at(self.brokers.clone())
        }
    }
}

/// A name that starts with `label` and that no other test, run or checkout uses, such as `t-label-0f3a9c12d4e5-`.
///
/// Fit for a topic prefix and a Redis key prefix: letters, digits and `-`, and a `-` at the end.
#[must_use]
pub fn unique(label: &str) -> String {
    // The last 12 digits of a version 7 UUID are random; the first are the time.
    let id = Uuid::now_v7().simple().to_string();
    format!("t-{label}-{}-", &id[20..])
}

/// The Python that has the clients of `scripts/stack/python/requirements.txt` (`FLEETLOG_TEST_PYTHON`).
///
/// # Panics
/// If the stack was started without.
#[must_use]
pub fn python() -> String {
    required("FLEETLOG_TEST_PYTHON")
}

/// The folder in which the stack's broker keeps its logs; none where it runs in a container or is somebody else's.
#[must_use]
pub fn kafka_data() -> Option<PathBuf> {
    setting("FLEETLOG_STACK_KAFKA_DATA").map(PathBuf::from)
}

/// The folder of the workspace that this crate was compiled in.
#[must_use]
pub fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Percent-encoded, as a password stands in a URL.
pub(crate) fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric();
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// A variable of the environment, else of `.stack/env`; `None` if neither has it or it is empty.
pub(crate) fn setting(name: &str) -> Option<String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "tests have no configuration file; the stack speaks by variables"
    )]
    let own = std::env::var(name).ok();
    own.or_else(|| stack_file().get(name).cloned()).filter(|value| !value.is_empty())
}

/// The same, where the test can't go on without it.
pub(crate) fn required(name: &str) -> String {
    setting(name).unwrap_or_else(|| {
        panic!(
            "{name} is neither in the environment nor in {}: run `make stack` first",
            workspace_root().join(".stack/env").display()
        )
    })
}

/// `.stack/env` of the checkout or of a folder above it, read once; empty if there is none.
fn stack_file() -> &'static BTreeMap<String, String> {
    static FILE: OnceLock<BTreeMap<String, String>> = OnceLock::new();
    FILE.get_or_init(|| {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .find_map(|folder| fs::read_to_string(folder.join(".stack/env")).ok())
            .map(|text| parse_env(&text))
            .unwrap_or_default()
    })
}

/// `NAME=VALUE` lines; a value may hold `=`.
fn parse_env(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_hold_an_equals_sign() {
        let env = parse_env("A=1\nB=postgres://u:p@h/d?sslmode=disable\n\nnot a line\n");
        assert_eq!(env["A"], "1");
        assert_eq!(env["B"], "postgres://u:p@h/d?sslmode=disable");
        assert_eq!(env.len(), 2);
    }

    #[test]
    fn unique_names_differ_and_are_legal_in_topics() {
        let (one, other) = (unique("x"), unique("x"));
        assert_ne!(one, other);
        assert!(one.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{one}");
    }

    #[test]
    fn the_workspace_root_holds_the_workspace() {
        let manifest = fs::read_to_string(workspace_root().join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[workspace]"));
    }
}
