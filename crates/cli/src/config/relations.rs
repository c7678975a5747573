//! Values that are possible each, and wrong together or out of range.

use super::{
    Config,
    addresses::{self, has_password, parameter},
    files,
    problems::FREE,
};

/// Tells each with its key, and what completes the sentence "`key` …".
pub(super) fn check(config: &Config, wrong: &mut impl FnMut(&str, String)) {
    kafka(config, wrong);
    addresses(config, wrong);
    security(config, wrong);
    limits(config, wrong);
    presence(config, wrong);
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
        if let Err(why) = files::certificates(file) {
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
            wrong(key, format!("is `{}`, expected one of {}", addresses::redact_url(url), allowed.join(" ")));
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
