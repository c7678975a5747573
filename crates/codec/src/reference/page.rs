//! `docs/events.md`: a frame written by hand, and the events in it.

use std::fmt::Write as _;

use fleetlog_event::{EventSet, EventType, FleetEvent};
use serde_json::Value;

use super::{EventReference, FieldReference, describe, example, head};

/// What is written by hand. `{{topics}}`, `{{head}}` and `{{events}}` stand for what is not.
const FRAME: &str = include_str!("frame.md");

/// The text of `docs/events.md`. `make docs` writes it; a contract test compares.
#[must_use]
pub fn page() -> String {
    FRAME
        .replace("{{topics}}", topics().trim_end())
        .replace(
            "{{head}}",
            FleetEvent::types().next().map(head).map(|head| fields(&head)).unwrap_or_default().trim_end(),
        )
        .replace("{{events}}", events().trim_end())
}

fn topics() -> String {
    let mut out = String::from("| topic | key | events |\n|---|---|---|\n");
    for topic in FleetEvent::TOPICS {
        let names: Vec<String> = of_topic(topic).map(|event| link(&event)).collect();
        let key = match *topic {
            "task" => "task id",
            "ops" => "consumer group",
            _ => "unit, `s{site}.u{unit}`",
        };
        push(&mut out, &format!("| `{topic}` | {key} | {} |", names.join(", ")));
    }
    out
}

fn events() -> String {
    let mut out = String::new();
    for topic in FleetEvent::TOPICS {
        push(&mut out, &format!("## Topic `{topic}`\n"));
        push(&mut out, "| event | version | |\n|---|---|---|");
        let all: Vec<EventReference> = of_topic(topic).filter_map(describe).collect();
        for event in &all {
            push(&mut out, &format!("| {} | {} | {} |", link(&event.event), event.version, event.doc));
        }
        out.push('\n');
        for event in &all {
            push(&mut out, &section(event));
        }
    }
    out
}

fn section(reference: &EventReference) -> String {
    let EventReference { event, version, doc, fields: of_event } = reference;
    let mut out = format!("### {}\n\n{doc} `{}`, version {version}.", event.short_name(), event.name);
    out.push_str(match (declares(event, "meta.site_uid"), declares(event, "meta.unit_uid")) {
        (_, true) => "\n",
        (true, false) => " `meta.unit_uid` may be absent.\n",
        (false, false) => " `meta.site_uid` may be empty, `meta.unit_uid` absent.\n",
    });
    if of_event.is_empty() {
        out.push_str("\nNothing beside the head.\n");
    } else {
        push(&mut out, "");
        out.push_str(&fields(of_event));
    }
    if let Some(example) = example(*event) {
        push(&mut out, &format!("\n```sh\nfleetlog emit {} --json '{example}'\n```", event.short_name()));
    }
    out
}

fn fields(fields: &[FieldReference]) -> String {
    let mut out = String::from("| field | type | default | has to be | |\n|---|---|---|---|---|\n");
    for field in fields {
        let default = match &field.default {
            None => "**required**".to_owned(),
            Some(Value::Null) => "absent".to_owned(),
            Some(Value::String(text)) => format!("`{text}`"),
            Some(other) => format!("`{other}`"),
        };
        let rule = field.rule.map(|rule| rule.to_string()).unwrap_or_default();
        let mut doc = field.doc.clone();
        for alias in &field.aliases {
            let _ = write!(doc, " Once called `{alias}`.");
        }
        if field.since > 1 {
            let _ = write!(doc, " Since version {}.", field.since);
        }
        push(&mut out, &format!("| `{}` | {} | {default} | {rule} | {doc} |", field.path, field.type_name));
    }
    out
}

fn of_topic(topic: &str) -> impl Iterator<Item = EventType> {
    FleetEvent::types().filter(move |event| event.topic == topic)
}

fn link(event: &EventType) -> String {
    let name = event.short_name();
    format!("[{name}](#{})", name.to_lowercase())
}

fn declares(event: &EventType, field: &str) -> bool {
    FleetEvent::declared(event.name).is_some_and(|it| it.checks.iter().any(|check| check.field == field))
}

fn push(out: &mut String, line: &str) {
    out.push_str(line);
    out.push('\n');
}
