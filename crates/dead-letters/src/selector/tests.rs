//! Tests of selectors.

use bytes::Bytes;
use fleetlog_kafka::OwnedRecord;

use super::*;
use crate::ReadLetter;

/// A letter of robot `s504.u7`, offset 77 of partition 3, set aside at 2,000 ms.
fn letter() -> Letter {
    let text = |name: &str, value: &str| {
        (format!("fleetlog-dlq-{name}").into(), Some(Bytes::copy_from_slice(value.as_bytes())))
    };
    let record = OwnedRecord {
        topic: "x-robot-dlq".into(),
        partition: 1,
        offset: 12,
        timestamp: TimestampMs(2_000),
        key: Some(Bytes::from_static(b"s504.u7")),
        value: None,
        headers: vec![
            text("group", "g"),
            text("reason", "wrong_key"),
            text("class", "reject"),
            text("topic", "x-robot"),
            text("partition", "3"),
            text("offset", "77"),
            text("event-type", "fleetlog.robot.Connected"),
        ],
    };
    Letter::read(&record, "robot-dlq")
}

fn list(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

fn matches(selector: &Selector) -> bool {
    assert_eq!(selector.check(), Ok(()), "{selector}");
    selector.matches(&letter(), "x-", &Inside::default())
}

#[test]
fn each_selector_takes_what_it_names_and_nothing_else() {
    let all = Selector::default;
    let robot = || Selector { topics: list(&["robot"]), partition: Some(3), ..all() };
    let pairs = [
        (
            Selector { topics: list(&["task", "robot"]), ..all() },
            Selector { topics: list(&["task"]), ..all() },
        ),
        (robot(), Selector { partition: Some(2), ..robot() }),
        (Selector { offset_from: Some(77), ..robot() }, Selector { offset_from: Some(78), ..robot() }),
        (Selector { offset_to: Some(77), ..robot() }, Selector { offset_to: Some(76), ..robot() }),
        (
            Selector { reasons: list(&["wrong_key"]), ..all() },
            Selector { reasons: list(&["wrong"]), ..all() },
        ),
        (Selector { classes: list(&["reject"]), ..all() }, Selector { classes: list(&["refused"]), ..all() }),
        (
            Selector { event_types: list(&["Connected"]), ..all() },
            Selector { event_types: list(&["nected"]), ..all() },
        ),
        (
            Selector { event_types: list(&["fleetlog.robot.Connected"]), ..all() },
            Selector { event_types: list(&["fleetlog.robot.Disconnected"]), ..all() },
        ),
        (Selector { groups: list(&["f", "g"]), ..all() }, Selector { groups: list(&["gg"]), ..all() }),
        (Selector { keys: list(&["s504.u7"]), ..all() }, Selector { keys: list(&["s504.u"]), ..all() }),
        (Selector { sites: list(&["504"]), ..all() }, Selector { sites: list(&["50"]), ..all() }),
        (
            Selector { since: Some(TimestampMs(2_000)), ..all() },
            Selector { since: Some(TimestampMs(2_001)), ..all() },
        ),
        (
            Selector { until: Some(TimestampMs(2_001)), ..all() },
            Selector { until: Some(TimestampMs(2_000)), ..all() },
        ),
        (
            Selector { ids: vec!["robot-dlq/1/12".parse().unwrap()], ..all() },
            Selector { ids: vec!["robot-dlq/1/13".parse().unwrap()], ..all() },
        ),
    ];
    for (taken, left) in pairs {
        assert!(matches(&taken), "{taken}");
        assert!(!matches(&left), "{left}");
        assert!(!taken.is_everything());
    }
    assert!(matches(&all()) && all().is_everything());
    assert!(Selector { max: Some(3), ..all() }.is_everything(), "a bound alone chooses nothing");
}

#[test]
fn all_of_several_selectors_has_to_hold() {
    let selector =
        Selector { reasons: list(&["wrong_key"]), groups: list(&["other"]), ..Selector::default() };
    assert!(!matches(&selector));
}

#[test]
fn what_stands_only_in_the_event_is_asked_of_it() {
    let mut letter = letter();
    letter.key = Some(Bytes::from_static(b"T-17"));
    letter.event_type = None;
    let by_site = Selector { sites: list(&["504"]), ..Selector::default() };
    let by_type = Selector { event_types: list(&["Created"]), ..Selector::default() };
    let inside =
        Inside { site_uid: Some("504".to_owned()), event_type: Some("fleetlog.task.Created".to_owned()) };
    for selector in [by_site, by_type] {
        assert!(selector.needs_inside(&letter), "{selector}");
        assert!(selector.matches(&letter, "x-", &inside), "{selector}");
        assert!(
            !selector.matches(&letter, "x-", &Inside::default()),
            "{selector}: what is unknown is not meant"
        );
        let elsewhere = Selector { reasons: list(&["other"]), ..selector };
        assert!(!elsewhere.needs_inside(&letter), "decided without looking inside");
    }
    assert!(!Selector::default().needs_inside(&letter));
}

#[test]
fn contradictions_are_named() {
    let all = Selector::default;
    let place: Place = "robot-dlq/1/12".parse().unwrap();
    for (selector, says) in [
        (
            Selector { since: Some(TimestampMs(2_000)), until: Some(TimestampMs(2_000)), ..all() },
            "from 1970-01-01T00:00:02.000Z and before 1970-01-01T00:00:02.000Z",
        ),
        (Selector { offset_from: Some(3), ..all() }, "offsets say nothing without a partition"),
        (Selector { partition: Some(3), ..all() }, "partitions say nothing without one topic"),
        (
            Selector { partition: Some(3), topics: list(&["a", "b"]), ..all() },
            "partitions say nothing without one topic",
        ),
        (
            Selector {
                topics: list(&["a"]),
                partition: Some(3),
                offset_from: Some(9),
                offset_to: Some(8),
                ..all()
            },
            "no offset from 9 to 8",
        ),
        (Selector { topics: list(&["a"]), partition: Some(-1), ..all() }, "partition -1 cannot be"),
        (
            Selector { keys: list(&["s504.u7"]), sites: list(&["505", "506"]), ..all() },
            "key s504.u7 is a unit of site 504, which is none of the sites asked for (505, 506)",
        ),
        (Selector { ids: vec![place], reasons: list(&["r"]), ..all() }, "no other selector beside them"),
        (Selector { max: Some(0), ..all() }, "at most 0"),
        (Selector { reasons: list(&["a", ""]), ..all() }, "an empty reason matches nothing"),
    ] {
        let said = selector.check().unwrap_err().to_string();
        assert!(said.contains(says), "`{says}` is not in `{said}`");
    }
    let of_one_site = Selector { keys: list(&["s504.u7", "s505.u7"]), sites: list(&["505"]), ..all() };
    assert_eq!(of_one_site.check(), Ok(()));
    let task = Selector { keys: list(&["T-17"]), sites: list(&["505"]), ..all() };
    assert_eq!(task.check(), Ok(()), "a task's key names no site");
}

#[test]
fn a_selector_is_written_as_people_read_it() {
    let selector = Selector {
        reasons: list(&["wrong_key", "no_key"]),
        sites: list(&["504"]),
        since: Some(TimestampMs(0)),
        max: Some(10),
        ..Selector::default()
    };
    let text = "reason=wrong_key,no_key site=504 since=1970-01-01T00:00:00.000Z max=10";
    assert_eq!(selector.to_string(), text);
    assert_eq!(Selector::default().to_string(), "everything");
    assert_eq!(Selector { max: Some(1), ..Selector::default() }.to_string(), "everything max=1");
}
