//! `docs/events.md` against schemas, checks and examples.

use std::fs;

use fleetlog_codec::{
    Encoder,
    by_hand::{Blanks, read},
    reference::{describe, example, page},
};
use fleetlog_event::{EventId, FleetEvent, TimestampMs};

use crate::project;

#[test]
fn the_page_is_what_schemas_and_checks_say() {
    let written = fs::read_to_string(project("docs/events.md")).unwrap();
    let made = page();
    let differs = written.lines().zip(made.lines()).find(|(written, made)| written != made);
    assert!(written == made, "docs/events.md is not what `make docs` writes; first difference: {differs:#?}");
}

/// The examples of the page, as `fleetlog emit` reads them.
#[test]
fn every_example_is_valid_and_can_be_encoded() {
    let blanks = Blanks {
        event_id: EventId::derived("example", 0),
        now: TimestampMs(1_700_000_000_000),
        source: "fleetlog-emit/0".to_owned(),
    };
    let (page, encoder) = (page(), Encoder::single_object());
    for event in FleetEvent::types() {
        let example = example(event).unwrap();
        let command = format!("fleetlog emit {} --json '{example}'", event.short_name());
        assert!(page.contains(&command), "the page lacks `{command}`");
        assert!(!example.to_string().contains('\''), "a quote would end the command: {example}");
        let read = read(event, example, &blanks).unwrap_or_else(|error| panic!("{command}: {error}"));
        encoder.encode_any(&read, &mut Vec::new()).unwrap();
    }
}

/// A check on a field that no longer exists would be on no page, and a field without words is no help.
#[test]
fn every_check_and_every_field_is_described() {
    for event in FleetEvent::types() {
        let fields = describe(event).unwrap().fields;
        for check in FleetEvent::declared(event.name).unwrap().checks {
            let on_the_page =
                fields.iter().any(|field| field.path == check.field && field.rule == Some(check.rule));
            assert!(on_the_page || check.field.starts_with("meta."), "{}: {}", event.name, check.field);
        }
        assert!(
            fields.iter().all(|field| !field.doc.is_empty() && !field.type_name.is_empty()),
            "{fields:#?}"
        );
    }
}
