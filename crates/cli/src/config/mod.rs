//! Settings: one checked-in file of defaults, a user's file, the environment.
//!
//! Every key stands in `default.toml`, so what is not there is unknown and refused; what a section `[webhooks.NAME]` may have
//! and `[task_watch]` stands there as an example. All problems are reported at once, each with the place it came from.

mod addresses;
mod files;
mod kinds;
mod problems;
mod relations;
mod task_watch;
#[cfg(test)]
mod tests;
mod webhooks;

use std::path::{Path, PathBuf};

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Data, Env, Format, Toml},
    value::{Dict, Map, Value},
};
use serde::{Deserialize, Serialize};

pub(crate) use addresses::redact_url;
pub(crate) use problems::ConfigError;
pub(crate) use task_watch::TaskWatch;
pub(crate) use webhooks::{StartAt, Webhook};

/// The defaults, as checked in.
pub(crate) const DEFAULT_TOML: &str = include_str!("default.toml");

/// Variables that begin with `FLEETLOG_` and are no settings.
const NO_SETTINGS: [&str; 3] = ["TEST_", "STACK", "CONFIG"];

/// All settings.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) kafka: Kafka,
    pub(crate) registry: Registry,
    pub(crate) redis: Redis,
    pub(crate) postgres: Postgres,
    pub(crate) run: Run,
    pub(crate) presence: Presence,
    pub(crate) producer: Producer,
    pub(crate) log: Log,
    /// By their names.
    #[serde(default)]
    pub(crate) webhooks: std::collections::BTreeMap<String, Webhook>,
    /// Where its section is there.
    #[serde(default)]
    pub(crate) task_watch: Option<TaskWatch>,
}

/// See `default.toml`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kafka {
    pub(crate) brokers: String,
    pub(crate) topic_prefix: String,
    pub(crate) replication: i32,
    pub(crate) client_id: String,
    #[serde(default)]
    pub(crate) properties: std::collections::BTreeMap<String, String>,
}

/// See `default.toml`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Registry {
    pub(crate) url: String,
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) ca_file: String,
    pub(crate) timeout_ms: u64,
}

/// See `default.toml`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Redis {
    /// With user and password, wherever they came from.
    pub(crate) url: String,
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) ca_file: String,
    pub(crate) key_prefix: String,
    pub(crate) timeout_ms: u64,
}

/// See `default.toml`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Postgres {
    /// With password and root certificate, wherever they came from.
    pub(crate) url: String,
    pub(crate) password: String,
    pub(crate) ca_file: String,
    pub(crate) connections_max: u32,
    pub(crate) timeout_ms: u64,
    pub(crate) telemetry_retention_days: u32,
}

/// See `default.toml`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Run {
    pub(crate) projections: Vec<String>,
    pub(crate) handlers: Vec<String>,
    pub(crate) instance: String,
    pub(crate) state_dir: String,
    pub(crate) http_address: String,
    pub(crate) figures_hold_ms: u64,
    pub(crate) memory_bytes_max: u64,
    pub(crate) batch_events_max: usize,
    pub(crate) set_aside_in_a_row_max: usize,
    pub(crate) set_aside_ratio_max: f64,
    pub(crate) set_aside_ratio_events: usize,
    pub(crate) drain_deadline_ms: u64,
    pub(crate) session_timeout_ms: u64,
    pub(crate) presence: bool,
}

/// See `default.toml`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Presence {
    pub(crate) timeout_ms: u64,
    pub(crate) interval_ms: u64,
    pub(crate) lease_ms: u64,
    pub(crate) events_per_s_max: u32,
    pub(crate) quiet_site_hold_ms: u64,
    pub(crate) http_address: String,
}

/// See `default.toml`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Producer {
    pub(crate) in_flight_events_max: usize,
    pub(crate) in_flight_bytes_max: usize,
}

/// See `default.toml`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Log {
    pub(crate) filter: String,
    pub(crate) format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// A setting's value in force and where it came from.
#[derive(Debug, Serialize)]
pub(crate) struct Setting {
    pub(crate) key: String,
    pub(crate) value: serde_json::Value,
    pub(crate) source: String,
}

/// A variable of the environment: what it holds is text, whatever it looks like. figment's own provider reads values in a
/// language of its own (which takes quotes off passwords, and ends in a panic for some).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Variable {
    /// `section.key`
    key: String,
    text: String,
}

impl Variable {
    fn new(key: String, text: String) -> Self {
        Self { key: webhooks::with_hyphens(key), text }
    }
}

/// The name of where a [`Variable`] came from.
const ENVIRONMENT: &str = "environment variable";

impl Provider for Variable {
    fn metadata(&self) -> Metadata {
        Metadata::named(ENVIRONMENT)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let nested = figment::util::nest(&self.key, Value::from(self.text.clone()));
        Ok(Profile::Default.collect(nested.into_dict().unwrap_or_default()))
    }
}

/// Settings as loaded: checked, with the source of each.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    pub(crate) settings: Vec<Setting>,
}

impl Config {
    /// Loads and checks the settings. `file` is the user's file, if there is one.
    ///
    /// # Errors
    /// Every problem found, with the place each came from.
    pub(crate) fn load(file: Option<&Path>) -> Result<Loaded, ConfigError> {
        if let Some(file) = file
            && !file.is_file()
        {
            return Err(ConfigError::one("--config", format!("there is no file `{}`", file.display())));
        }
        Self::read(file.map(|file| Toml::file_exact(PathBuf::from(file))))
    }

    /// As [`load`](Self::load), with the user's file opened, or its text given.
    pub(crate) fn read(file: Option<Data<Toml>>) -> Result<Loaded, ConfigError> {
        let mut figment = Figment::from(Toml::string(DEFAULT_TOML));
        if let Some(file) = file {
            figment = figment.merge(file);
        }
        let environment = Env::prefixed("FLEETLOG_")
            .filter(|key| !NO_SETTINGS.iter().any(|other| key.as_str().to_uppercase().starts_with(other)))
            .split("__");
        let mut variables: Vec<Variable> =
            environment.iter().map(|(key, text)| Variable::new(key.into_string(), text)).collect();
        variables.sort_unstable();
        problems::check_nesting(&variables)?;
        problems::check(&variables.into_iter().fold(figment, Figment::merge))
    }

    /// The settings with every secret replaced, as `config show` prints them.
    pub(crate) fn redacted(settings: &[Setting]) -> Vec<Setting> {
        settings
            .iter()
            .map(|setting| Setting {
                key: setting.key.clone(),
                value: redact(&setting.key, &setting.value),
                source: setting.source.clone(),
            })
            .collect()
    }
}

/// Replaces secrets: whole values of keys that name one, passwords within URLs, and of a webhook's URL all that follows the host.
fn redact(key: &str, value: &serde_json::Value) -> serde_json::Value {
    const SECRET: [&str; 6] =
        ["password", "passphrase", "secret", "token", "sasl.oauthbearer.config", ".pem"];
    let serde_json::Value::String(text) = value else { return value.clone() };
    if text.is_empty() {
        return value.clone();
    }
    let of_webhook = webhooks::key_within(key);
    if SECRET.iter().any(|word| of_webhook.unwrap_or(key).contains(word)) {
        return "***".into();
    }
    if of_webhook == Some("url") {
        return fleetlog_webhook::shown_url(text).into();
    }
    redact_url(text).into()
}

/// Leaves of a nested value as `section.key`.
fn leaves(prefix: &str, dict: &Dict, out: &mut Vec<(String, Value)>) {
    for (name, value) in dict {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Dict(_, inner) => leaves(&key, inner, out),
            leaf => out.push((key, leaf.clone())),
        }
    }
}
