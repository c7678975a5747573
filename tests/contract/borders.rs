//! Which crate may use which: arrows go down only, and each outside library has its few places.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

use crate::project;

/// For each crate of ours, the ones below it that it may use. What is not listed is forbidden.
const MAY_USE: [(&str, &[&str]); 24] = [
    ("event", &[]),
    ("trust", &[]),
    ("codec", &["event", "trust"]),
    ("kafka", &["event", "codec", "trust"]),
    ("producer", &["event", "codec", "kafka"]),
    ("projection", &["event"]),
    // One dead letter, for the tools and for the projection that indexes them.
    ("letter", &["event"]),
    ("projections", &["event", "projection", "letter"]),
    ("sink-redis", &["event", "projection", "trust"]),
    ("sink-timescale", &["event", "projection", "trust"]),
    ("engine", &["event", "codec", "handler", "kafka", "projection"]),
    // Independent of the sinks' commit path, or it would prove nothing.
    ("verify", &["event", "codec", "kafka", "projection", "trust"]),
    // Judges what the readers in kafka and the sinks tell; asks nobody itself.
    ("doctor", &["event", "codec", "kafka", "sink-redis", "sink-timescale"]),
    // Tools over the topics: no store, no engine; stores and projectors are behind a port.
    ("dead-letters", &["event", "codec", "handler", "kafka", "producer", "projection", "letter"]),
    // What authors of handlers write, and the rules of retrying as values.
    ("handler", &["event"]),
    // One handler: calls over HTTP.
    ("webhook", &["event", "handler", "trust"]),
    // Another: what is due when; hot state and log are behind ports.
    ("task-watch", &["event", "handler"]),
    ("vda5050", &["event"]),
    ("simulate", &["event"]),
    ("presence", &["event"]),
    // Retention and partitions of topics; everything else is figures.
    ("capacity", &["event"]),
    ("testkit", &["event", "codec", "kafka"]),
    // Measures the binary from outside, what services and authors of handlers use, and the pure parts alone.
    (
        "bench",
        &[
            "event",
            "codec",
            "engine",
            "handler",
            "kafka",
            "producer",
            "projection",
            "projections",
            "simulate",
            "sink-timescale",
            "capacity",
        ],
    ),
    (
        "cli",
        &[
            "event",
            "codec",
            "kafka",
            "producer",
            "projection",
            "projections",
            "sink-redis",
            "sink-timescale",
            "engine",
            "verify",
            "doctor",
            "vda5050",
            "simulate",
            "presence",
            "capacity",
            "trust",
            "dead-letters",
            "handler",
            "webhook",
            "task-watch",
        ],
    ),
];

/// For each outside library that marks a border, the crates that may use it.
const ONLY_IN: [(&str, &[&str]); 8] = [
    ("rdkafka", &["kafka", "producer", "engine", "testkit", "cli", "tests", "bench"]),
    ("rdkafka-sys", &["kafka", "producer", "bench"]),
    ("redis", &["sink-redis", "verify", "testkit", "cli", "tests", "bench"]),
    ("sqlx", &["sink-timescale", "verify", "testkit", "cli", "tests", "bench"]),
    ("apache-avro", &["codec", "tests"]),
    ("reqwest", &["codec", "webhook"]),
    ("clap", &["cli", "testkit", "tests", "bench"]),
    ("anyhow", &["cli", "testkit", "tests", "bench"]),
];

/// No I/O, no clock, no runtime: nothing that could bring it in, but for what only the harness for tests needs (an optional
/// dependency, behind feature `testing`).
const PURE: [&str; 12] = [
    "event",
    "trust",
    "projection",
    "handler",
    "task-watch",
    "letter",
    "projections",
    "doctor",
    "vda5050",
    "simulate",
    "presence",
    "capacity",
];
const NOT_PURE: [&str; 9] =
    ["tokio", "tokio-util", "reqwest", "axum", "rdkafka", "redis", "sqlx", "tracing-subscriber", "tempfile"];

fn packages() -> BTreeMap<String, Package> {
    let manifest = project("Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec().unwrap();
    let short = |package: &Package| package.name.trim_start_matches("fleetlog-").to_owned();
    metadata.packages.into_iter().map(|package| (short(&package), package)).collect()
}

/// Names of what a crate needs to be built and used (what its tests need is free, but for the sinks in `verify`).
fn needs(package: &Package) -> impl Iterator<Item = &str> {
    let needed = |kind| matches!(kind, DependencyKind::Normal | DependencyKind::Build);
    package.dependencies.iter().filter(move |dep| needed(dep.kind)).map(|dep| dep.name.as_str())
}

#[test]
fn arrows_go_down_only() {
    let packages = packages();
    let listed: BTreeSet<&str> = MAY_USE.iter().map(|(name, _)| *name).chain(["model", "tests"]).collect();
    let found: BTreeSet<&str> = packages.keys().map(String::as_str).collect();
    assert_eq!(found, listed, "give a new crate its place in MAY_USE, tests/contract/borders.rs");
    let mut wrong = Vec::new();
    for (name, allowed) in MAY_USE {
        for used in needs(&packages[name]).filter_map(|used| used.strip_prefix("fleetlog-")) {
            if !allowed.contains(&used) {
                wrong.push(format!("crates/{name} must not use crates/{used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn outside_libraries_stay_in_their_places() {
    let mut wrong = Vec::new();
    for (name, package) in packages() {
        let of_harness = |used: &str| package.dependencies.iter().any(|dep| dep.name == used && dep.optional);
        for used in needs(&package) {
            let places = ONLY_IN.iter().find(|(library, _)| *library == used).map(|(_, places)| *places);
            if places.is_some_and(|places| !places.contains(&name.as_str())) {
                wrong.push(format!("crates/{name} must not use {used}"));
            }
            if PURE.contains(&name.as_str()) && NOT_PURE.contains(&used) && !of_harness(used) {
                wrong.push(format!("crates/{name} is pure and must not use {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn verify_shares_nothing_with_the_sinks_not_even_in_tests() {
    let packages = packages();
    let sinks = packages["verify"].dependencies.iter().filter(|dep| dep.name.starts_with("fleetlog-sink"));
    assert_eq!(sinks.count(), 0);
}
