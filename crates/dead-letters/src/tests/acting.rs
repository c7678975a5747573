//! Discarding as events, states out of events, and exports.

use bytes::Bytes;
use fleetlog_event::{Event, TimestampMs, ops::DeadLettersDiscarded};
use proptest::prelude::*;

use super::{header, letter, record};
use crate::{ActionHead, Actions, DiscardRequest, Letter, RawLetter, ReadLetter, Selector, State, discarded};

fn request() -> DiscardRequest {
    let selector = Selector { reasons: vec!["wrong_key".into()], ..Selector::default() };
    DiscardRequest {
        selector,
        parked: false,
        why: "test data".into(),
        operator: "anna@control-1".into(),
        all_is_meant: false,
    }
}

fn head(action: &str, now_ms: i64) -> ActionHead {
    ActionHead { action_id: action.into(), now: TimestampMs(now_ms), source: "fleetlog-dlq/0".into() }
}

fn take(actions: &mut Actions, events: Vec<DeadLettersDiscarded>) {
    events.into_iter().for_each(|event| actions.take(event.into()));
}

#[test]
fn an_action_names_each_letter_by_group_and_says_who_when_and_why() {
    let letters = [
        letter(1, 1_000, "b", 7, "wrong_key"),
        letter(2, 2_000, "a", 7, "wrong_key"),
        letter(3, 3_000, "b", 8, "wrong_key"),
    ];
    let events = discarded(&request(), &letters, &head("action-1", 9_000));
    let named = |event: &DeadLettersDiscarded| {
        event.letters.iter().map(|letter| letter.place.clone()).collect::<Vec<_>>().join(" ")
    };
    let all: Vec<_> = events.iter().map(|it| (it.group.as_str(), named(it), it.part, it.parts)).collect();
    let expected = [("a", "robot-dlq/1/2", 1), ("b", "robot-dlq/1/1 robot-dlq/1/3", 2)];
    assert_eq!(all, expected.map(|(group, places, part)| (group, places.to_owned(), part, 2)));
    for event in &events {
        event.validate().unwrap();
        assert_eq!(event.entity().as_str(), event.group);
        assert_eq!((event.why.as_str(), event.operator.as_str()), ("test data", "anna@control-1"));
        assert_eq!(
            (event.selection.as_str(), event.meta.recorded_at),
            ("reason=wrong_key", TimestampMs(9_000))
        );
    }
    assert_ne!(events[0].meta.event_id, events[1].meta.event_id);
    assert_eq!(
        events,
        discarded(&request(), &letters, &head("action-1", 9_000)),
        "sent again it is the same"
    );
    assert!(discarded(&request(), &[], &head("action-1", 9_000)).is_empty());
}

/// Topic `ops` takes 1 MiB; an event goes with a head of its own.
#[test]
fn an_action_on_many_letters_goes_in_pieces_that_the_topic_takes() {
    let letters: Vec<Letter> = (0..20_000).map(|n| letter(n, n, "g", n, "wrong_key")).collect();
    let events = discarded(&request(), &letters, &head("action-1", 9_000));
    assert!(events.len() > 1);
    assert_eq!(events.iter().map(|event| event.letters.len()).sum::<usize>(), letters.len());
    for event in &events {
        let bytes = serde_json::to_vec(event).unwrap().len();
        assert!(bytes < 2 << 20, "{bytes} bytes as JSON, which is no shorter than twice the wire");
    }
}

#[test]
fn a_discarded_letter_is_discarded_and_the_same_failing_again_is_open() {
    let first = letter(1, 1_000, "g", 7, "wrong_key");
    let mut actions = Actions::default();
    assert_eq!(actions.state(&first), State::Open);
    take(&mut actions, discarded(&request(), std::slice::from_ref(&first), &head("action-1", 9_000)));
    let State::Discarded(action) = actions.state(&first) else { panic!("it is open") };
    assert_eq!((action.by.as_str(), action.why.as_str()), ("anna@control-1", "test data"));
    assert_eq!(action.at, "1970-01-01T00:00:09.000Z");
    let doubled = letter(2, 1_000, "g", 7, "wrong_key");
    assert_eq!(actions.state(&doubled).name(), "discarded", "the same failure, published twice");
    for other in [
        letter(3, 1_001, "g", 7, "wrong_key"),
        letter(4, 1_000, "h", 7, "wrong_key"),
        letter(5, 1_000, "g", 8, "wrong_key"),
    ] {
        assert_eq!(actions.state(&other), State::Open, "{}", other.place);
    }
}

#[test]
fn a_topic_that_was_made_anew_has_other_letters() {
    let of_log = |log: &str| {
        let text = |name: &str, value: &str| header(&format!("fleetlog-dlq-{name}"), value.as_bytes());
        let headers =
            vec![text("topic", "x-robot"), text("partition", "3"), text("offset", "7"), text("log", log)];
        Letter::read(&record(1, 1_000, headers), "robot-dlq")
    };
    let mut actions = Actions::default();
    take(&mut actions, discarded(&request(), &[of_log("aa")], &head("action-1", 9_000)));
    assert_eq!(actions.state(&of_log("aa")).name(), "discarded");
    assert_eq!(actions.state(&of_log("bb")), State::Open);
}

proptest! {
    /// Whatever bytes a record has, a line of an export restores it.
    #[test]
    fn an_export_restores_a_record_byte_for_byte(
        key in prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
        value in prop::option::of(prop::collection::vec(any::<u8>(), 0..200)),
        headers in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..10), prop::option::of(prop::collection::vec(any::<u8>(), 0..10))),
            0..6,
        ),
        (offset, at_ms) in (0..i64::MAX, any::<i64>()),
    ) {
        let headers = headers.into_iter().map(|(name, value)| (name.as_slice().into(), value.map(Bytes::from))).collect();
        let mut record = record(offset, at_ms, headers);
        (record.key, record.value) = (key.map(Bytes::from), value.map(Bytes::from));
        let line = serde_json::to_string(&RawLetter::of(&record)).unwrap();
        let read: RawLetter = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(read.restore(), Ok(record));
    }
}

#[test]
fn a_line_that_somebody_edited_names_the_field() {
    let mut raw = RawLetter::of(&record(1, 1_000, Vec::new()));
    raw.value_base64 = Some("ä".to_owned());
    assert!(raw.restore().unwrap_err().to_string().contains("`value_base64` is no base64"));
}
