//! `topics/` against the catalogue and the events.

use std::{collections::BTreeSet, fs};

use fleetlog_event::{EventSet, FleetEvent, catalogue::Catalogue};

use crate::project;

#[test]
fn every_topic_file_is_in_the_catalogue() {
    let files: BTreeSet<String> = fs::read_dir(project("topics"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    let stems: BTreeSet<String> =
        Catalogue::builtin().topics.iter().map(|topic| format!("{}.toml", topic.stem)).collect();
    assert_eq!(files, stems, "list the file in crates/event/src/catalogue.rs");
}

#[test]
fn every_event_lies_on_the_topic_that_lists_it() {
    let catalogue = Catalogue::builtin();
    let listed: BTreeSet<(&str, &str)> = catalogue
        .sources()
        .flat_map(|topic| topic.events.iter().map(|event| (topic.stem.as_str(), event.as_str())))
        .collect();
    assert_eq!(listed, FleetEvent::types().map(|event| (event.topic, event.name)).collect());
    let sources: Vec<&str> = catalogue.sources().map(|topic| topic.stem.as_str()).collect();
    assert_eq!(sources, FleetEvent::TOPICS);
}
