//! Finds every problem of the settings at once.

use std::{collections::BTreeMap, fmt};

use figment::{
    Figment,
    value::{Dict, Num, Value},
};

use super::{
    Config, DEFAULT_TOML, ENVIRONMENT, Loaded, Setting, Variable,
    addresses::{has_password, parameter, put_together},
    files, leaves,
};

/// The settings are not usable: every problem, each with its place.
#[derive(Debug)]
pub(crate) struct ConfigError(Vec<Problem>);

#[derive(Debug)]
struct Problem {
    place: String,
    what: String,
}

impl ConfigError {
    pub(super) fn one(place: &str, what: String) -> Self {
        Self(vec![Problem { place: place.to_owned(), what }])
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0.len() == 1 { "problem" } else { "problems" };
        write!(f, "{} {plural} in the settings:", self.0.len())?;
        for Problem { place, what } in &self.0 {
            write!(f, "\n  {place}: {what}")?;
        }
        f.write_str("\nevery key with its default: fleetlog config show --defaults")
    }
}

impl std::error::Error for ConfigError {}

/// Keys below this one are free: they are handed to librdkafka.
const FREE: &str = "kafka.properties.";

/// Checks all there is to check, each value for itself and then the values with each other. Where a value is wrong the
/// default stands in for it, so that one problem does not hide the next.
pub(super) fn check(figment: &Figment) -> Result<Loaded, ConfigError> {
    let defaults = read(&Figment::from(toml_defaults()))?;
    let (mut problems, mut sources, mut clean) = (Vec::new(), BTreeMap::new(), Dict::new());
    for (key, value) in &defaults {
        put(&mut clean, key, value.clone());
    }
    let read_now = read(figment)?;
    for (key, value) in &read_now {
        let (mut key, mut value, mut place) = (key.clone(), value.clone(), place(figment, key, value));
        match in_file(&defaults, &read_now, figment, &key, &value) {
            InFile::No => {}
            InFile::NotSet => continue,
            InFile::Given(base, text, path) => {
                (key, value, place) = (base, Value::from(text), format!("file {path} ({place})"));
            }
            InFile::Wrong(what) => {
                problems.push(Problem { place, what });
                continue;
            }
        }
        let fitting = match unknown(&defaults, &key) {
            Some(problem) => Err(problem),
            None => fit(defaults.get(&key), &value, is_of_environment(figment, &value))
                .map_err(|expected| format!("`{key}` is {}, expected {expected}", shown(&value))),
        };
        match fitting {
            Ok(corrected) => put(&mut clean, &key, corrected.unwrap_or(value)),
            Err(what) => problems.push(Problem { place: place.clone(), what }),
        }
        sources.insert(key, place);
    }
    let mut config = Value::from(clean.clone()).deserialize::<Config>().map_err(|errors| {
        let problem = |e: figment::Error| Problem { place: e.path.join("."), what: e.kind.to_string() };
        ConfigError(errors.into_iter().map(problem).collect())
    })?;
    relations(&config, &sources, &mut problems);
    if !problems.is_empty() {
        return Err(ConfigError(problems));
    }
    put_together(&mut config);
    let mut found = Vec::new();
    leaves("", &clean, &mut found);
    let setting = |(key, value): (String, Value)| Setting {
        source: sources.get(&key).cloned().unwrap_or_default(),
        value: serde_json::to_value(&value).unwrap_or_default(),
        key,
    };
    Ok(Loaded { config, settings: found.into_iter().map(setting).collect() })
}

/// Whether a key says in which file another one's value lies.
enum InFile {
    No,
    /// It does, and is empty.
    NotSet,
    /// The key that is given a value, the value, and the file.
    Given(String, String, String),
    Wrong(String),
}

/// `redis.password_file` gives `redis.password` what the file holds: so with every text, and with what librdkafka is handed.
fn in_file(
    defaults: &BTreeMap<String, Value>,
    all: &BTreeMap<String, Value>,
    figment: &Figment,
    key: &str,
    value: &Value,
) -> InFile {
    let Some(base) = key.strip_suffix("_file").filter(|_| !defaults.contains_key(key)) else {
        return InFile::No;
    };
    let is_text = base.starts_with(FREE) || matches!(defaults.get(base), Some(Value::String(..)));
    let (true, Value::String(_, path)) = (is_text, value) else { return InFile::No };
    if path.is_empty() {
        return InFile::NotSet;
    }
    let is_set = |value: &Value| place(figment, base, value) != "default" && value.as_str() != Some("");
    if all.get(base).is_some_and(is_set) {
        return InFile::Wrong(format!("`{key}` and `{base}` are both set: one of them would be for nothing"));
    }
    match files::text_of(path) {
        Ok(text) => InFile::Given(base.to_owned(), text, path.clone()),
        Err(why) => InFile::Wrong(format!("`{key}` {why}")),
    }
}

/// How deep a variable's name may nest: deeper than any setting does.
const NESTING_MAX: usize = 16;
/// How much of such a variable's name a message shows, in characters.
const NAME_SHOWN_MAX: usize = 60;

/// Refuses names of variables that nest without end: what copies the settings recurses, and some thousand `__` in a name
/// would end the process without a word.
pub(super) fn check_nesting(variables: &[Variable]) -> Result<(), ConfigError> {
    let too_deep = variables.iter().filter(|variable| variable.key.matches('.').count() > NESTING_MAX);
    let problems: Vec<Problem> = too_deep
        .map(|variable| Problem {
            place: "the environment".to_owned(),
            what: format!(
                "`{}` nests deeper than {NESTING_MAX} levels, which no setting does",
                variable_name(&variable.key).chars().take(NAME_SHOWN_MAX).collect::<String>()
            ),
        })
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(ConfigError(problems)) }
}

/// The variable of a key.
fn variable_name(key: &str) -> String {
    format!("FLEETLOG_{}", key.replace('.', "__").to_uppercase())
}

/// All values by their keys.
fn read(figment: &Figment) -> Result<BTreeMap<String, Value>, ConfigError> {
    let dict: Dict = figment.extract().map_err(|errors| {
        let problem = |e: figment::Error| Problem { place: source_of(&e), what: e.kind.to_string() };
        ConfigError(errors.into_iter().map(problem).collect())
    })?;
    let mut found = Vec::new();
    leaves("", &dict, &mut found);
    let mut values: BTreeMap<String, Value> = BTreeMap::new();
    for (key, value) in found {
        // A property of librdkafka can come as one name with dots from a file, and as nested ones from the environment.
        let is_beaten = values.get(&key).is_some_and(|other| is_of_environment(figment, other));
        if !is_beaten {
            values.insert(key, value);
        }
    }
    Ok(values)
}

/// Puts a value to its place. What is handed to librdkafka has dots in its names.
fn put(dict: &mut Dict, key: &str, value: Value) {
    let (sections, name) = match key.strip_prefix(FREE) {
        Some(property) => ("kafka.properties", property),
        None => key.rsplit_once('.').unwrap_or(("", key)),
    };
    let mut place = dict;
    for section in sections.split('.').filter(|section| !section.is_empty()) {
        let entry = place.entry(section.to_owned()).or_insert_with(|| Value::from(Dict::new()));
        if !matches!(entry, Value::Dict(..)) {
            *entry = Value::from(Dict::new());
        }
        let Value::Dict(_, inner) = entry else { return };
        place = inner;
    }
    place.insert(name.to_owned(), value);
}

fn toml_defaults() -> impl figment::Provider {
    use figment::providers::{Format, Toml};
    Toml::string(DEFAULT_TOML)
}

fn source_of(error: &figment::Error) -> String {
    error.metadata.as_ref().map_or_else(
        || "settings".to_owned(),
        |m| match &m.source {
            Some(source) => source.to_string(),
            None => m.name.to_string(),
        },
    )
}

fn is_of_environment(figment: &Figment, value: &Value) -> bool {
    figment.get_metadata(value.tag()).is_some_and(|metadata| metadata.name == ENVIRONMENT)
}

/// Where a value came from: `default`, the file, or the variable's name.
fn place(figment: &Figment, key: &str, value: &Value) -> String {
    match figment.get_metadata(value.tag()) {
        Some(metadata) if metadata.name == ENVIRONMENT => variable_name(key),
        Some(metadata) => match &metadata.source {
            Some(source) => source.to_string(),
            None => "default".to_owned(),
        },
        None => "default".to_owned(),
    }
}

fn unknown(defaults: &BTreeMap<String, Value>, key: &str) -> Option<String> {
    if key.starts_with(FREE) || defaults.contains_key(key) {
        return None;
    }
    let nearest = defaults
        .keys()
        .map(|known| (distance(known, key), known))
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map_or_else(String::new, |(_, known)| format!("; did you mean `{known}`?"));
    Some(format!("unknown key `{key}`{nearest}"))
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

/// Whether a value is of the default's kind. What looks like a number is taken as text where text belongs, and a list may be
/// written `a,b`. The environment has only text: numbers and flags are read from it.
fn fit(default: Option<&Value>, value: &Value, is_text_only: bool) -> Result<Option<Value>, &'static str> {
    let text = |value: &Value| match value {
        Value::String(_, text) => Some(text.clone()),
        Value::Num(_, number) => Some(number_text(*number)),
        Value::Bool(_, flag) => Some(flag.to_string()),
        _ => None,
    };
    match (default, value) {
        (None | Some(Value::String(..)), Value::String(..))
        | (Some(Value::Array(..)), Value::Array(..))
        | (Some(Value::Bool(..)), Value::Bool(..)) => Ok(None),
        (None | Some(Value::String(..)), other) => text(other).map(|t| Some(Value::from(t))).ok_or("a text"),
        (Some(Value::Num(_, default)), Value::Num(_, number)) if is_whole(*number) || !is_whole(*default) => {
            Ok(None)
        }
        (Some(Value::Num(_, default)), Value::String(_, text)) if is_text_only => {
            let number = text.trim();
            if !is_whole(*default) {
                return number.parse::<f64>().map(|number| Some(Value::from(number))).map_err(|_| "a number");
            }
            let unsigned = number.parse::<u64>().map(Value::from);
            unsigned
                .or_else(|_| number.parse::<i64>().map(Value::from))
                .map(Some)
                .map_err(|_| "a whole number")
        }
        (Some(Value::Bool(..)), Value::String(_, text)) if is_text_only => {
            text.trim().parse::<bool>().map(|flag| Some(Value::from(flag))).map_err(|_| "true or false")
        }
        (Some(Value::Num(_, default)), _) => {
            Err(if is_whole(*default) { "a whole number" } else { "a number" })
        }
        (Some(Value::Array(..)), other) => match text(other) {
            Some(list) => Ok(Some(Value::from(
                list.split(',').map(str::trim).filter(|t| !t.is_empty()).map(Value::from).collect::<Vec<_>>(),
            ))),
            None => Err("a list"),
        },
        _ => Err("a value of another kind"),
    }
}

/// A setting whose default is a whole number takes whole numbers only.
fn is_whole(number: Num) -> bool {
    number.to_i128().is_some() || number.to_u128().is_some()
}

fn number_text(number: Num) -> String {
    match (number.to_i128(), number.to_u128(), number.to_f64()) {
        (Some(n), _, _) => n.to_string(),
        (_, Some(n), _) => n.to_string(),
        (_, _, n) => n.unwrap_or_default().to_string(),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("the text {text:?}"),
        Value::Num(_, number) => format!("the number {}", number_text(*number)),
        Value::Bool(_, flag) => format!("{flag}"),
        Value::Array(..) => "a list".to_owned(),
        Value::Dict(..) => "a section".to_owned(),
        _ => "something else".to_owned(),
    }
}

/// Values that are possible each, and wrong together or out of range.
fn relations(config: &Config, sources: &BTreeMap<String, String>, problems: &mut Vec<Problem>) {
    let mut wrong = |key: &str, what: String| {
        // A section comes from where the first of its keys does.
        let mut within = sources.range(key.to_owned()..).take_while(|(k, _)| k.starts_with(key));
        let place = within.next().map_or("settings", |(_, place)| place).to_owned();
        problems.push(Problem { place, what: format!("`{key}` {what}") });
    };
    kafka(config, &mut wrong);
    addresses(config, &mut wrong);
    security(config, &mut wrong);
    limits(config, &mut wrong);
    presence(config, &mut wrong);
    if config.log.filter.parse::<tracing_subscriber::filter::Targets>().is_err() {
        let filter = &config.log.filter;
        wrong("log.filter", format!("is `{filter}`, expected a level or target=level, separated by commas"));
    }
}

fn kafka(config: &Config, wrong: &mut impl FnMut(&str, String)) {
    let kafka = &config.kafka;
    if kafka.brokers.trim().is_empty() {
        wrong("kafka.brokers", "is empty: name at least one broker, such as 127.0.0.1:9092".into());
    }
    if !kafka.topic_prefix.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
        wrong(
            "kafka.topic_prefix",
            format!("is `{}`: topics may hold a-z A-Z 0-9 . _ -", kafka.topic_prefix),
        );
    }
    if !(0..=32).contains(&kafka.replication) {
        wrong("kafka.replication", format!("is {}, expected 0 to 32", kafka.replication));
    }
    if let Err(error) = crate::wiring::kafka_settings(config).client().create_native_config() {
        wrong("kafka.properties", format!("hold what librdkafka does not take: {error}"));
    }
}

/// Files of librdkafka's that have to be there: it says so only once it connects, and then once a client.
const FILES_OF_KAFKA: [&str; 4] =
    ["ssl.ca.location", "ssl.certificate.location", "ssl.key.location", "ssl.keystore.location"];

/// Certificates and credentials: there, and of use where they are named.
fn security(config: &Config, wrong: &mut impl FnMut(&str, String)) {
    let (redis, postgres, registry) = (&config.redis, &config.postgres, &config.registry);
    for (key, file, url, fits) in [
        ("redis.ca_file", &redis.ca_file, &redis.url, "rediss://"),
        ("registry.ca_file", &registry.ca_file, &registry.url, "https://"),
        ("postgres.ca_file", &postgres.ca_file, &postgres.url, "postgres"),
    ] {
        if file.is_empty() {
            continue;
        }
        if let Err(why) = files::check_certificates(file) {
            wrong(key, why);
        }
        if !url.starts_with(fits) {
            wrong(key, format!("is set, but the URL does not begin with {fits}: nothing would be checked"));
        }
    }
    if !postgres.ca_file.is_empty()
        && parameter(&postgres.url, "sslmode").is_some_and(|mode| !mode.starts_with("verify"))
    {
        wrong(
            "postgres.ca_file",
            "is set, but sslmode in postgres.url does not verify: write verify-full, or leave it out".into(),
        );
    }
    for (key, password, url) in [
        ("redis.password", &redis.password, &redis.url),
        ("postgres.password", &postgres.password, &postgres.url),
    ] {
        if !password.is_empty() && has_password(url) {
            wrong(key, "is set, and the URL has a password too: which one counts?".into());
        }
    }
    for name in FILES_OF_KAFKA {
        // `probe` asks librdkafka to look where systems keep their certificates.
        let Some(path) = config.kafka.properties.get(name).filter(|path| *path != "probe") else { continue };
        if let Err(why) = files::check_readable(path) {
            wrong(&format!("{FREE}{name}"), why);
        }
    }
}

fn addresses(config: &Config, wrong: &mut impl FnMut(&str, String)) {
    let schemes: [(&str, &str, &[&str]); 3] = [
        ("registry.url", &config.registry.url, &["", "http://", "https://"]),
        ("redis.url", &config.redis.url, &["redis://", "rediss://", "unix://"]),
        ("postgres.url", &config.postgres.url, &["postgres://", "postgresql://"]),
    ];
    for (key, url, allowed) in schemes {
        let fits = allowed
            .iter()
            .any(|scheme| if scheme.is_empty() { url.is_empty() } else { url.starts_with(scheme) });
        if !fits {
            wrong(key, format!("is `{}`, expected one of {}", super::redact_url(url), allowed.join(" ")));
        }
    }
    let http = [
        ("run.http_address", &config.run.http_address),
        ("presence.http_address", &config.presence.http_address),
    ];
    for (key, address) in http {
        if !address.is_empty() && address.parse::<std::net::SocketAddr>().is_err() {
            wrong(key, format!("is `{address}`, expected address:port, such as 127.0.0.1:9464"));
        }
    }
}

fn limits(config: &Config, wrong: &mut impl FnMut(&str, String)) {
    let run = &config.run;
    let mut at_least = |key: &str, value: u64, least: u64, why: &str| {
        if value < least {
            wrong(key, format!("is {value}, expected at least {least}{why}"));
        }
    };
    at_least("run.session_timeout_ms", run.session_timeout_ms, 6_000, ": brokers take no less");
    at_least("run.figures_hold_ms", run.figures_hold_ms, 1_000, "");
    at_least("run.memory_bytes_max", run.memory_bytes_max, 128 << 20, " (128 MiB)");
    at_least("run.batch_events_max", run.batch_events_max as u64, 1, "");
    at_least("run.set_aside_in_a_row_max", run.set_aside_in_a_row_max as u64, 1, "");
    at_least("run.set_aside_ratio_events", run.set_aside_ratio_events as u64, 1, "");
    at_least("postgres.connections_max", u64::from(config.postgres.connections_max), 2, "");
    at_least("producer.in_flight_events_max", config.producer.in_flight_events_max as u64, 1, "");
    at_least("producer.in_flight_bytes_max", config.producer.in_flight_bytes_max as u64, 1 << 20, " (1 MiB)");
    let ratio = run.set_aside_ratio_max;
    if !(ratio > 0.0 && ratio <= 1.0) {
        wrong("run.set_aside_ratio_max", format!("is {ratio}, expected more than 0 and at most 1"));
    }
    if run.drain_deadline_ms >= run.session_timeout_ms {
        let (deadline, limit) = (run.drain_deadline_ms, run.session_timeout_ms);
        wrong(
            "run.drain_deadline_ms",
            format!("is {deadline}, must be below run.session_timeout_ms ({limit})"),
        );
    }
}

fn presence(config: &Config, wrong: &mut impl FnMut(&str, String)) {
    let presence = &config.presence;
    let interval_ms = presence.interval_ms;
    let mut at_least = |key: &str, value: u64, least: u64, why: &str| {
        if value < least {
            wrong(key, format!("is {value}, expected at least {least}{why}"));
        }
    };
    at_least("presence.interval_ms", interval_ms, 100, "");
    let looks = interval_ms.saturating_mul(6);
    at_least("presence.timeout_ms", presence.timeout_ms, looks, ": six times presence.interval_ms");
    let renewals = interval_ms.saturating_mul(3).max(1000);
    at_least(
        "presence.lease_ms",
        presence.lease_ms,
        renewals,
        ": three times presence.interval_ms, or a second",
    );
    at_least("presence.events_per_s_max", u64::from(presence.events_per_s_max), 1, "");
    if presence.quiet_site_hold_ms > 0 {
        let (hold, why) =
            (presence.quiet_site_hold_ms, " (presence.timeout_ms), or 0: until somebody is heard");
        at_least("presence.quiet_site_hold_ms", hold, presence.timeout_ms, why);
    }
}
