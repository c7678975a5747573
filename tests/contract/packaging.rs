//! Dockerfile, compose file and systemd unit, checked without an engine: what linters and `compose config` would say, and that
//! they fit the binary and its settings.

use std::{collections::BTreeMap, fs};

use yaml_rust2::{Yaml, YamlLoader, yaml::Hash};

use crate::project;

fn read(path: &str) -> String {
    fs::read_to_string(project(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Instructions of a Dockerfile with their arguments, continued lines joined.
fn instructions(text: &str) -> Vec<(String, String)> {
    let joined =
        text.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
    joined
        .replace("\\\n", " ")
        .lines()
        .filter_map(|line| line.trim().split_once(' '))
        .map(|(name, rest)| (name.to_uppercase(), rest.split_whitespace().collect::<Vec<_>>().join(" ")))
        .collect()
}

/// What is wrong with a Dockerfile, as the usual linters have it.
fn problems(text: &str) -> Vec<&'static str> {
    let all = instructions(text);
    let of = |name: &'static str| {
        all.iter().filter(move |(known, _)| known == name).map(|(_, rest)| rest.as_str())
    };
    let last_stage = all.iter().rposition(|(name, _)| name == "FROM").unwrap_or_default();
    let in_image = |name: &str| {
        all[last_stage..].iter().rev().find(|(known, _)| known == name).map(|(_, rest)| rest.as_str())
    };
    let is_pinned = |from: &str| {
        let image = from.split(' ').next().unwrap_or_default();
        image
            .rsplit_once(':')
            .is_some_and(|(_, tag)| tag != "latest" && tag.contains(|c: char| c.is_ascii_digit()))
    };
    let secret =
        |text: &str| ["password", "secret", "token"].iter().any(|word| text.to_lowercase().contains(word));
    let mut wrong = Vec::new();
    let mut check = |holds: bool, what| {
        if !holds {
            wrong.push(what);
        }
    };
    check(of("FROM").all(is_pinned), "a base image without a version");
    check(of("FROM").count() > 1, "what builds is in the image");
    check(of("ADD").next().is_none(), "ADD, where COPY says what is meant");
    check(
        in_image("USER").is_some_and(|user| !user.starts_with("root") && !user.starts_with('0')),
        "it runs as root",
    );
    check(
        in_image("HEALTHCHECK").is_some_and(|check| check.contains("CMD [\"")),
        "no health check without a shell",
    );
    check(
        in_image("ENTRYPOINT").is_some_and(|entry| entry.starts_with('[')),
        "signals reach a shell and not the binary",
    );
    check(!of("ENV").chain(of("ARG")).any(secret), "a secret in a layer");
    check(
        !of("RUN").any(|run| run.contains("curl ") || run.contains("wget ")),
        "something is downloaded unchecked",
    );
    let apt = |run: &&str| run.contains("apt-get install");
    check(
        of("RUN").filter(apt).all(|run| {
            run.contains("apt-get update &&")
                && run.contains("--no-install-recommends")
                && run.contains("rm -rf /var/lib/apt/lists")
        }),
        "package lists or recommended packages stay in a layer",
    );
    check(
        of("RUN")
            .filter(|run| run.contains("cargo build"))
            .all(|run| run.contains("--mount=type=cache") && run.contains("--locked")),
        "dependencies are compiled anew after each change",
    );
    wrong
}

#[test]
fn the_image_is_slim_pinned_and_not_roots() {
    assert_eq!(problems(&read("Dockerfile")), Vec::<&str>::new());
}

#[test]
fn each_rule_notices_a_dockerfile_that_breaks_it() {
    let good = read("Dockerfile");
    for (from, to, problem) in [
        ("FROM debian:12.12-slim", "FROM debian:latest", "a base image without a version"),
        ("FROM debian:12.12-slim", "FROM debian", "a base image without a version"),
        ("COPY . .", "ADD . .", "ADD, where COPY says what is meant"),
        ("USER 10001:10001", "USER root", "it runs as root"),
        ("CMD [\"fleetlog\", \"health\"]", "CMD fleetlog health", "no health check without a shell"),
        ("ENTRYPOINT [\"fleetlog\"]", "ENTRYPOINT fleetlog", "signals reach a shell and not the binary"),
        ("ARG REVISION=unknown", "ARG KAFKA_PASSWORD", "a secret in a layer"),
        (
            "cargo build --release --locked",
            "cargo build --release",
            "dependencies are compiled anew after each change",
        ),
        (
            " --no-install-recommends ca-certificates",
            " ca-certificates",
            "package lists or recommended packages stay in a layer",
        ),
    ] {
        assert!(good.contains(from), "{from}");
        assert_eq!(problems(&good.replace(from, to)), [problem], "{to}");
    }
}

#[test]
fn the_image_is_built_by_the_toolchain_of_the_project_from_what_it_needs() {
    let toolchain: toml::Table = read("rust-toolchain.toml").parse().unwrap();
    let channel = toolchain["toolchain"]["channel"].as_str().unwrap();
    let dockerfile = read("Dockerfile");
    assert!(dockerfile.contains(&format!("FROM rust:{channel}-")), "another toolchain than {channel}");
    assert!(dockerfile.contains(&format!("RUSTUP_TOOLCHAIN={channel}")));
    // Members of the workspace, and what is compiled in.
    let ignored = read(".dockerignore");
    let ignored: Vec<&str> = ignored.lines().map(str::trim).collect();
    for needed in [
        "crates",
        "tests",
        "schemas",
        "topics",
        "migrations",
        "Cargo.lock",
        "Cargo.toml",
        "rust-toolchain.toml",
    ] {
        assert!(!ignored.contains(&needed), "`{needed}` is ignored");
    }
    for heavy in ["target", ".git", ".stack", "data"] {
        assert!(ignored.contains(&heavy), "`{heavy}` is sent to the builder");
    }
}

/// A mapping of YAML by text, with `<<` carried out.
fn mapping(yaml: &Yaml) -> BTreeMap<String, Yaml> {
    let Yaml::Hash(hash) = yaml else { panic!("no mapping: {yaml:?}") };
    let mut found = BTreeMap::new();
    if let Some(merged) = hash.get(&Yaml::String("<<".to_owned())) {
        found.extend(mapping(merged));
    }
    let own = |hash: &Hash| -> Vec<(String, Yaml)> {
        hash.iter().filter_map(|(key, value)| Some((key.as_str()?.to_owned(), value.clone()))).collect()
    };
    found.extend(own(hash));
    found.remove("<<");
    found
}

fn services() -> BTreeMap<String, BTreeMap<String, Yaml>> {
    let file = YamlLoader::load_from_str(&read("compose/compose.yaml")).unwrap().remove(0);
    mapping(&file["services"]).into_iter().map(|(name, service)| (name, mapping(&service))).collect()
}

#[test]
fn every_service_is_pinned_bounded_and_asked_whether_it_is_well() {
    let services = services();
    for (name, service) in &services {
        let image = service["image"].as_str().unwrap();
        let tag = image.rsplit_once(':').map(|(_, tag)| tag);
        assert!(
            tag.is_some_and(|tag| tag.contains(|c: char| c.is_ascii_digit())),
            "{name}: {image} is not pinned"
        );
        let memory = &service["deploy"]["resources"]["limits"]["memory"];
        assert!(memory.as_str().is_some(), "{name} has no limit of memory");
        let health = &service["healthcheck"];
        let is_one_shot = health["disable"].as_bool() == Some(true);
        assert!(is_one_shot || health["test"].as_vec().is_some(), "{name} has no health check");
        for (other, condition) in service.get("depends_on").map(mapping).unwrap_or_default() {
            let there = services
                .get(&other)
                .unwrap_or_else(|| panic!("{name} depends on `{other}`, which is not there"));
            let condition = condition["condition"].as_str().unwrap();
            let ends = there["healthcheck"]["disable"].as_bool() == Some(true);
            let expected = if ends { "service_completed_successfully" } else { "service_healthy" };
            assert_eq!(condition, expected, "{name} depends on {other}");
        }
        for port in service.get("ports").and_then(Yaml::as_vec).into_iter().flatten() {
            let port = port.as_str().unwrap();
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port} is open to the network");
        }
    }
}

#[test]
fn the_application_is_asked_for_and_may_do_nothing_but_its_work() {
    let services = services();
    let ours: Vec<&String> = services.keys().filter(|name| name.starts_with("fleetlog")).collect();
    assert_eq!(ours, ["fleetlog", "fleetlog-migrate", "fleetlog-presence", "fleetlog-topics"]);
    // Each process is asked at its own address: the image's check asks `fleetlog run`.
    let asked = |name: &str| {
        let test = services[name]["healthcheck"]["test"].as_vec().unwrap();
        test.iter().map(|word| word.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(asked("fleetlog-presence"), ["CMD", "fleetlog", "health", "--presence"]);
    assert_eq!(asked("fleetlog"), ["CMD", "fleetlog", "health", "--ready"]);
    for (name, service) in &services {
        // `make stack` names servers; who names nothing gets servers alone, too.
        let profiles = service.get("profiles").and_then(Yaml::as_vec);
        assert_eq!(profiles.is_some(), ours.contains(&name), "{name}");
        if profiles.is_none() {
            continue;
        }
        assert_eq!(service["read_only"].as_bool(), Some(true), "{name}");
        assert_eq!(service["cap_drop"][0].as_str(), Some("ALL"), "{name}");
        assert_eq!(service["security_opt"][0].as_str(), Some("no-new-privileges:true"), "{name}");
        // Each variable is a setting that there is.
        let defaults: toml::Table = read("crates/cli/src/config/default.toml").parse().unwrap();
        for (variable, _) in mapping(&service["environment"]) {
            let key = variable.strip_prefix("FLEETLOG_").unwrap().to_lowercase();
            let (section, key) = key.split_once("__").unwrap();
            assert!(defaults[section].get(key).is_some(), "{name}: {variable} sets nothing");
        }
    }
}

/// Lines of a unit by name; of those that come several times all.
fn unit() -> BTreeMap<String, Vec<String>> {
    let mut lines: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let text = read("packaging/systemd/fleetlog.service");
    for (name, value) in
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='))
    {
        lines.entry(name.to_owned()).or_default().push(value.to_owned());
    }
    lines
}

#[test]
fn the_unit_drains_in_time_and_may_do_nothing_but_its_work() {
    let unit = unit();
    for (name, value) in [
        ("Type", "notify"),
        ("DynamicUser", "yes"),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("MemoryDenyWriteExecute", "yes"),
        ("CapabilityBoundingSet", ""),
        ("Restart", "on-failure"),
        // The exit code of wrong settings.
        ("RestartPreventExitStatus", "2"),
    ] {
        assert_eq!(unit.get(name).map(Vec::as_slice), Some([value.to_owned()].as_slice()), "{name}");
    }
    let defaults: toml::Table = read("crates/cli/src/config/default.toml").parse().unwrap();
    let drain_ms = defaults["run"]["drain_deadline_ms"].as_integer().unwrap();
    let stop_s: i64 = unit["TimeoutStopSec"][0].trim_end_matches('s').parse().unwrap();
    assert!(stop_s * 1000 > 2 * drain_ms, "{stop_s} s are not enough for {drain_ms} ms");
}
