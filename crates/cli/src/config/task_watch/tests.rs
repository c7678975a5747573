//! What settings of the watch are taken, and how others are refused.

#![expect(clippy::result_large_err, reason = "figment's Jail asks for its own error type")]

use std::path::Path;

use figment::Jail;

use super::*;
use crate::config::{
    Loaded,
    tests::{assert_told, problems},
};

fn loaded(set: &[(&str, &str)], file: &str) -> Loaded {
    let mut loaded = None;
    Jail::expect_with(|jail| {
        for (name, value) in set {
            jail.set_env(name, value);
        }
        jail.create_file("f.toml", file)?;
        loaded = Some(Config::load(Some(Path::new("f.toml"))).unwrap_or_else(|error| panic!("{error}")));
        Ok(())
    });
    loaded.unwrap_or_else(|| panic!("nothing was loaded"))
}

fn watch(set: &[(&str, &str)], file: &str) -> TaskWatch {
    loaded(set, file).config.task_watch.unwrap_or_else(|| panic!("no watch"))
}

#[test]
fn without_the_section_there_is_no_watch_and_what_is_not_set_is_as_the_example_says() {
    assert!(loaded(&[], "").config.task_watch.is_none());
    assert!(!loaded(&[], "").settings.iter().any(|setting| setting.key.starts_with(SECTION)));
    let loaded = loaded(&[], "[task_watch]\ntimeout_ms = 60000\n");
    let watch = loaded.config.task_watch.as_ref().unwrap_or_else(|| panic!("no watch"));
    assert_eq!(watch.rules(), Rules { timeout_ms: 60_000, ..Rules::default() });
    assert_eq!((watch.in_flight_max, watch.start_at), (256, StartAt::Begin));
    let delays: Vec<u64> = watch.retry_delays_ms.clone();
    assert_eq!(delays, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000]);
    assert!(watch.retry().is_ok());
    let source =
        |key| loaded.settings.iter().find(|setting| setting.key == key).map(|setting| setting.source.clone());
    assert_eq!(source("task_watch.policy").as_deref(), Some("default"));
    assert!(source("task_watch.timeout_ms").is_some_and(|source| source.ends_with("f.toml")));
}

#[test]
fn timeouts_by_type_are_a_table_or_one_text() {
    let file = "[task_watch]\npolicy = \"alert\"\nwhile_paused = true\n\
                timeouts_ms = { DELIVERY = 1800000, \"a.b\" = 5000, parking = 0 }\n";
    let of_file = [("DELIVERY".to_owned(), 1_800_000), ("a.b".to_owned(), 5_000), ("parking".to_owned(), 0)];
    let rules = watch(&[], file).rules();
    let expected =
        Rules { timeouts_ms: of_file.into(), policy: Policy::Alert, while_paused: true, timeout_ms: 0 };
    assert_eq!(rules, expected);
    let set = [("FLEETLOG_TASK_WATCH__TIMEOUTS_MS", "DELIVERY=60000, x=y=2000,")];
    let loaded = loaded(&set, file);
    let timeouts_ms = loaded.config.task_watch.unwrap_or_else(|| panic!("no watch")).timeouts_ms;
    assert_eq!(timeouts_ms, [("DELIVERY".to_owned(), 60_000), ("x=y".to_owned(), 2_000)].into());
    let setting = loaded.settings.iter().find(|setting| setting.key == "task_watch.timeouts_ms.DELIVERY");
    assert_eq!(setting.map(|it| it.source.as_str()), Some("FLEETLOG_TASK_WATCH__TIMEOUTS_MS"));
    // By the environment alone.
    let set =
        [("FLEETLOG_TASK_WATCH__TIMEOUT_MS", "5000"), ("FLEETLOG_TASK_WATCH__RETRY_DELAYS_MS", "100,300")];
    assert_eq!(watch(&set, "").retry_delays_ms, [100, 300]);
}

#[test]
fn every_wrong_value_is_named_at_once_with_its_place() {
    let set = [
        ("FLEETLOG_TASK_WATCH__TIMEOUTS_MS__DELIVERY", "60000"),
        ("FLEETLOG_TASK_WATCH__IN_FLIGHT_MAX", "0"),
        ("FLEETLOG_TASK_WATCH__WHILE_PAUSED", "perhaps"),
    ];
    let file = "[task_watch]\ntimeout_ms = 999\ntimeouts_ms = { parking = 40000000000, lift = \"soon\" }\npolicy = \"mail\"\n\
                start_at = \"middle\"\nretry_delays_ms = [2000, 1000]\ntimeout = 5\n";
    assert_told(
        &problems(&set, Some(file)),
        &[
            "FLEETLOG_TASK_WATCH__TIMEOUTS_MS__DELIVERY: `task_watch.timeouts_ms.delivery` cannot be set by a variable of its own",
            "FLEETLOG_TASK_WATCH__IN_FLIGHT_MAX: `task_watch.in_flight_max` is 0, expected 1 to 10000",
            "FLEETLOG_TASK_WATCH__WHILE_PAUSED: `task_watch.while_paused` is the text \"perhaps\", expected true or false",
            "fleetlog.toml: `task_watch.timeout_ms` is 999, expected 1000 to 31622400000, or 0: for ever",
            "`task_watch.timeouts_ms.parking` is 40000000000, expected 1000",
            "`task_watch.timeouts_ms.lift` is the text \"soon\", expected a whole number",
            "`task_watch.policy` is the text \"mail\", expected fail or alert",
            "`task_watch.start_at` is the text \"middle\", expected end or begin",
            "`task_watch.retry_delays_ms` is [2000, 1000]: a retry tier of 1000 ms after one of 2000 ms",
            "unknown key `task_watch.timeout`; did you mean `task_watch.timeout_ms`?",
        ],
    );
}

#[test]
fn a_watch_of_nothing_and_one_without_a_place_to_wait_are_refused() {
    let nothing = "`task_watch.timeout_ms` is 0, and no type has a time of its own";
    for file in ["[task_watch]\n", "[task_watch]\ntimeouts_ms = { parking = 0 }\n"] {
        assert_told(&problems(&[], Some(file)), &[&format!("fleetlog.toml: {nothing}")]);
    }
    let set = [("FLEETLOG_TASK_WATCH__TIMEOUTS_MS", "DELIVERY 60000")];
    let told =
        "FLEETLOG_TASK_WATCH__TIMEOUTS_MS: `task_watch.timeouts_ms` holds `DELIVERY 60000`, expected TYPE=ms";
    assert_told(&problems(&set, None), &[told]);
    let file = "[task_watch]\ntimeout_ms = 60000\nretry_delays_ms = []\n";
    assert_told(&problems(&[], Some(file)), &["`task_watch.retry_delays_ms` is empty: tasks wait there"]);
    let file = "task_watch = 5\n";
    assert_told(&problems(&[], Some(file)), &["unknown key `task_watch`: it is a section, [task_watch]"]);
}
