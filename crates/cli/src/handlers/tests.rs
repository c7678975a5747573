//! What becomes of the webhooks of the settings.

#![expect(clippy::result_large_err, reason = "figment's Jail asks for its own error type")]

use std::collections::BTreeMap;

use figment::{
    Jail,
    providers::{Format, Toml},
};

use super::*;

fn config(text: &str) -> Config {
    let mut loaded = None;
    // Other tests set variables.
    Jail::expect_with(|jail| {
        jail.clear_env();
        loaded = Some(Config::read(Some(Toml::string(text))).unwrap_or_else(|error| panic!("{error}")));
        Ok(())
    });
    loaded.unwrap_or_else(|| panic!("nothing was loaded")).config
}

fn webhook(name: &str, more: &str) -> String {
    format!("[webhooks.{name}]\nurl = \"https://example.com\"\nallow_unsigned = true\n{more}\n")
}

fn topics(more: &str) -> Vec<String> {
    let mut all = all(&config(&webhook("a", more))).unwrap_or_else(|error| panic!("{error}"));
    all.remove(0).topics
}

#[test]
fn handlers_are_as_the_settings_say() {
    let prefix = "[kafka]\ntopic_prefix = \"prod-\"\n";
    let more = "in_flight_max = 7\nstart_at = \"begin\"\nretry_delays_ms = [500]\ncircuit_trials = 2";
    let config = config(&format!("{prefix}{}{}", webhook("erp", more), webhook("dispatch", "")));
    let all = all(&config).unwrap_or_else(|error| panic!("{error}"));
    let ids: Vec<&str> = all.iter().map(|handler| handler.id.as_str()).collect();
    assert_eq!(ids, ["webhook-dispatch", "webhook-erp"]);
    assert_eq!(all[1].group, "prod-fleetlog-webhook-erp");
    assert_eq!((all[1].in_flight_max, all[1].start_at), (7, StartAt::Begin));
    assert_eq!(all[1].retry.delays().len(), 1);
    assert_eq!(all[1].circuit.trials, 2);
    assert!(matches!(&all[1].kind, Kind::Webhook(subscription) if subscription.name == "erp"));
    assert_eq!(all[0].retry, RetryPolicy::default());
}

#[test]
fn the_watch_is_a_handler_like_any_other() {
    let text = format!(
        "[kafka]\ntopic_prefix = \"prod-\"\n[task_watch]\ntimeout_ms = 60000\nretry_delays_ms = [500]\n{}",
        webhook("erp", "event_types = [\"Connected\"]")
    );
    let config = config(&text);
    let all = all(&config).unwrap_or_else(|error| panic!("{error}"));
    let ids: Vec<&str> = all.iter().map(|handler| handler.id.as_str()).collect();
    assert_eq!(ids, ["webhook-erp", "task-watch"]);
    let watch = &all[1];
    assert!(matches!(&watch.kind, Kind::TaskWatch(rules) if rules.timeout_ms == 60_000));
    assert_eq!(
        (watch.group.as_str(), &watch.topics[..]),
        ("prod-fleetlog-task-watch", &["task".to_owned()][..])
    );
    assert_eq!(watch.start_at, StartAt::Begin);
    let ids = chosen(&config, &["task-watch".to_owned()]).map(|all| all.len());
    assert_eq!(ids.unwrap_or_default(), 1);
    let waiting = waiting_topics(&config, &Catalogue::builtin());
    let days = |spec: &TopicSpec| spec.configs["retention.ms"].parse::<i64>().map(|ms| ms / 86_400_000).ok();
    let waiting: Vec<(&str, Option<i64>)> =
        waiting.iter().map(|spec| (spec.name.as_str(), days(spec))).collect();
    let expected = [
        ("prod-fleetlog-webhook-erp-retry-1s", Some(30)),
        ("prod-fleetlog-webhook-erp-retry-2s", Some(30)),
        ("prod-fleetlog-webhook-erp-retry-4s", Some(30)),
        ("prod-fleetlog-webhook-erp-held", Some(30)),
        ("prod-fleetlog-task-watch-retry-500ms", Some(7)),
        ("prod-fleetlog-task-watch-held", Some(7)),
    ];
    assert_eq!(waiting, expected);
}

#[test]
fn topics_are_those_with_the_events_that_are_asked_for() {
    assert_eq!(topics(""), ["robot", "task"]);
    assert_eq!(topics("event_types = [\"Connected\", \"robot.DoorChanged\"]"), ["robot"]);
    assert_eq!(topics("event_types = [\"fleetlog.task.Failed\", \"Telemetry\"]"), ["telemetry", "task"]);
    assert_eq!(topics("event_types = [\"ProjectionHalted\"]"), ["ops"]);
}

#[test]
fn handlers_are_chosen_by_their_ids() {
    let settings = config(&format!("{}{}", webhook("erp", ""), webhook("dispatch", "")));
    let ids = |names: &[&str]| {
        let names: Vec<String> = names.iter().copied().map(str::to_owned).collect();
        chosen(&settings, &names).map(|all| all.into_iter().map(|handler| handler.id).collect::<Vec<_>>())
    };
    assert_eq!(ids(&[]).unwrap_or_default(), ["webhook-dispatch", "webhook-erp"]);
    assert_eq!(ids(&["webhook-erp"]).unwrap_or_default(), ["webhook-erp"]);
    let hint = |error: anyhow::Error| error.downcast::<Failure>().map(|failure| failure.hint);
    let error = ids(&["erp"]).expect_err("it is no id");
    assert_eq!(error.to_string(), "there is no handler `erp`");
    let expected = "handlers: webhook-dispatch, webhook-erp";
    assert_eq!(hint(error).expect("a failure").as_deref(), Some(expected));
    let error = chosen(&config(""), &["webhook-erp".to_owned()]).expect_err("there are none");
    assert!(hint(error).expect("a failure").is_some_and(|hint| hint.contains("[webhooks.NAME]")));
}

#[test]
fn the_topics_of_a_cluster_are_those_on_which_events_wait_too() {
    let kafka = "[kafka]\ntopic_prefix = \"prod-\"\nreplication = 1\n";
    let text =
        format!("{kafka}{}", webhook("erp", "event_types = [\"Connected\"]\nretry_delays_ms = [500, 2000]"));
    let names = |config: &Config| -> BTreeMap<String, TopicSpec> {
        let specs = wiring::topic_specs(config, &Catalogue::builtin());
        specs.into_iter().map(|spec| (spec.name.clone(), spec)).collect()
    };
    let (with, without) = (names(&config(&text)), names(&config(kafka)));
    let more: Vec<&String> = with.keys().filter(|name| !without.contains_key(*name)).collect();
    let group = "prod-fleetlog-webhook-erp";
    let expected = [format!("{group}-held"), format!("{group}-retry-2s"), format!("{group}-retry-500ms")];
    assert_eq!(more, expected.iter().collect::<Vec<_>>());
    let held = &with[&expected[0]];
    assert_eq!((held.partitions, held.replication), (6, 1));
    assert_eq!(held.configs["message.timestamp.type"], "LogAppendTime");
}
