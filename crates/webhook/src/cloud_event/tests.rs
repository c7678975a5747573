#![expect(clippy::unwrap_used, reason = "tests")]

use fleetlog_event::{
    EventId,
    robot::{DoorChanged, RobotEvent},
};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

/// 2026-11-21T09:04:15.866Z
const RECORDED_AT: TimestampMs = TimestampMs(1_795_251_855_866);

/// An event with everything that an attribute is made of.
pub(crate) fn door_changed() -> FleetEvent {
    let mut json: Value = serde_json::from_str(<DoorChanged as fleetlog_event::Event>::EXAMPLE).unwrap();
    json["meta"] = serde_json::to_value(EventMeta {
        event_id: EventId(Uuid::from_u128(0x0192_aaaa_bbbb_7ccc_8ddd_eeee_ffff_0001)),
        occurred_at: TimestampMs(1_795_251_855_000),
        recorded_at: RECORDED_AT,
        site_uid: "werk 1".to_owned(),
        unit_uid: Some("NordFTS/0001".to_owned()),
        sequence: Some(42),
        sequence_scope: Some("state#3".to_owned()),
        source: "fleetlog-mqtt/0.1.0".to_owned(),
        correlation_id: None,
        causation_id: None,
    })
    .unwrap();
    FleetEvent::Robot(RobotEvent::DoorChanged(serde_json::from_value(json).unwrap()))
}

fn changed(change: impl FnOnce(&mut EventMeta)) -> CloudEvent {
    let mut event = door_changed();
    change(event.meta_mut());
    CloudEvent::of(&event).unwrap()
}

fn attribute(event: &CloudEvent, name: &str) -> Option<String> {
    event.attributes.iter().find(|(found, _)| *found == name).map(|(_, value)| value.clone())
}

#[test]
fn the_structured_mode_is_one_json_object() {
    let event = door_changed();
    let data = serde_json::to_string(&event.to_json().unwrap()).unwrap();
    let encoded = CloudEvent::of(&event).unwrap().encode(Mode::Structured).unwrap();
    let expected = r#"{"specversion":"1.0","id":"0192aaaa-bbbb-7ccc-8ddd-eeeeffff0001","#.to_owned()
        + r#""source":"/fleetlog/sites/werk%201/units/NordFTS%2F0001#state%233","#
        + r#""type":"fleetlog.robot.DoorChanged","subject":"swerk%201.uNordFTS%2F0001","#
        + r#""time":"2026-11-21T09:04:15.000Z","recordedtime":"2026-11-21T09:04:15.866Z","#
        + r#""partitionkey":"swerk%201.uNordFTS%2F0001","#
        + r#""sequence":"0000000000000000042","siteuid":"werk 1","datacontenttype":"application/json","data":"#
        + &data
        + "}";
    assert_eq!(encoded.body, expected);
    assert_eq!(encoded.headers, [("content-type", "application/cloudevents+json".to_owned())]);
}

#[test]
fn the_binary_mode_has_attributes_in_headers_and_the_event_as_its_body() {
    let event = door_changed();
    let encoded = CloudEvent::of(&event).unwrap().encode(Mode::Binary).unwrap();
    assert_eq!(encoded.body, serde_json::to_vec(&event.to_json().unwrap()).unwrap());
    let expected = [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "0192aaaa-bbbb-7ccc-8ddd-eeeeffff0001"),
        ("ce-source", "/fleetlog/sites/werk%25201/units/NordFTS%252F0001#state%25233"),
        ("ce-type", "fleetlog.robot.DoorChanged"),
        ("ce-subject", "swerk%25201.uNordFTS%252F0001"),
        ("ce-time", "2026-11-21T09:04:15.000Z"),
        ("ce-recordedtime", "2026-11-21T09:04:15.866Z"),
        ("ce-partitionkey", "swerk%25201.uNordFTS%252F0001"),
        ("ce-sequence", "0000000000000000042"),
        ("ce-siteuid", "werk%201"),
    ];
    assert_eq!(encoded.headers, expected.map(|(name, value)| (name, value.to_owned())));
}

#[test]
fn the_source_names_as_much_as_the_event_has() {
    let source = |change: fn(&mut EventMeta)| attribute(&changed(change), "ce-source").unwrap();
    assert_eq!(source(|meta| meta.sequence = None), "/fleetlog/sites/werk%201/units/NordFTS%2F0001");
    assert_eq!(source(|meta| meta.sequence_scope = None), "/fleetlog/sites/werk%201/units/NordFTS%2F0001");
    assert_eq!(source(|meta| meta.sequence_scope = Some(String::new())), source(|meta| meta.sequence = None));
    assert_eq!(source(|meta| meta.unit_uid = None), "/fleetlog/sites/werk%201#state%233");
    let ops = EventMeta::of_ops(EventId(Uuid::nil()), "fleetlog-run/0.1.0", RECORDED_AT);
    assert_eq!(super::source(&ops), "/fleetlog");
}

#[test]
fn what_cloud_events_do_not_allow_is_left_out() {
    let without = |change: fn(&mut EventMeta), name| attribute(&changed(change), name);
    assert_eq!(without(|meta| meta.sequence = Some(-1), "ce-sequence"), None);
    assert_eq!(without(|meta| meta.sequence = None, "ce-sequence"), None);
    for site_uid in ["", "werk\n1", "werk\u{7f}", "werk\u{85}", "werk\u{fdd0}", "werk\u{1ffff}"] {
        let event = changed(|meta| site_uid.clone_into(&mut meta.site_uid));
        assert_eq!(attribute(&event, "ce-siteuid"), None, "{site_uid:?}");
        assert_eq!(event.data["meta"]["site_uid"], site_uid);
    }
    assert_eq!(
        attribute(&changed(|meta| meta.site_uid = "Grün \u{1f600}".to_owned()), "ce-siteuid").unwrap(),
        "Grün \u{1f600}"
    );
}

#[test]
fn times_are_written_where_rfc_3339_can_write_them() {
    for (ms, text) in [
        (0, Some("1970-01-01T00:00:00.000Z")),
        (-62_167_219_200_000, Some("0000-01-01T00:00:00.000Z")),
        (-62_167_219_200_001, None),
        (253_402_207_200_000, Some("9999-12-30T22:00:00.000Z")),
        (253_402_300_800_000, None),
        (i64::MIN, None),
    ] {
        assert_eq!(rfc3339(TimestampMs(ms)).as_deref(), text, "{ms}");
    }
}

#[test]
fn sequences_are_in_the_same_order_as_texts() {
    let text = |sequence| attribute(&changed(|meta| meta.sequence = Some(sequence)), "ce-sequence").unwrap();
    let texts = [0, 9, 10, 99, i64::MAX - 1, i64::MAX].map(text);
    assert!(texts.is_sorted(), "{texts:?}");
    assert_eq!(texts[5], i64::MAX.to_string());
}

#[test]
fn headers_are_encoded_as_the_binding_shows_it() {
    // The example of section 3.1.3.2.
    assert_eq!(percent_encoded("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
    assert_eq!(percent_encoded("a\"b%c\\~!\u{7f}\r\n"), "a%22b%25c\\~!%7F%0D%0A");
}

proptest! {
    /// Whatever the value, the header is printable ASCII and says the same.
    #[test]
    fn a_header_can_be_read_again(value in any::<String>()) {
        let encoded = percent_encoded(&value);
        prop_assert!(encoded.bytes().all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'"'));
        let mut bytes = Vec::new();
        let mut rest = encoded.as_bytes();
        while let Some((byte, after)) = rest.split_first() {
            if *byte == b'%' {
                bytes.push(u8::from_str_radix(std::str::from_utf8(&after[..2]).unwrap(), 16).unwrap());
                rest = &after[2..];
            } else {
                bytes.push(*byte);
                rest = after;
            }
        }
        prop_assert_eq!(bytes, value.into_bytes());
    }
}
