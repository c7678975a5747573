//! The answer, for people and machines.

use fleetlog_verify::{Change, Explanation, Verdict};
use serde_json::{Value, json};

use super::Explain;
use crate::output::{self, Format};

pub(super) fn show(args: &Explain, explained: &Explanation, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => output::json(&as_json(args, explained))?,
        Format::Table if args.all => table_of_all(args, explained),
        Format::Table => table_of_last(args, explained),
    }
    for note in notes(args, explained) {
        eprintln!("{note}");
    }
    Ok(())
}

fn as_json(args: &Explain, explained: &Explanation) -> Value {
    let (verdict, detail) = match &explained.verdict {
        Verdict::Agrees => ("agrees", None),
        Verdict::Expired => ("expired", None),
        Verdict::Untold => ("untold", None),
        Verdict::Unknown => ("unknown", None),
        Verdict::Differs(detail) => ("differs", Some(detail)),
    };
    json!({
        "subject": args.subject,
        "field": args.field,
        "projection": explained.projection,
        "value": explained.value,
        "stored": explained.stored.as_ref().map(|stored| &stored.value),
        "verdict": verdict,
        "difference": detail,
        "changes": explained.changes.iter().map(|change| change_json(explained, change)).collect::<Vec<_>>(),
        "changes_total": explained.changes_total,
        "read": {
            "topic": explained.topic, "partition": explained.partition, "from": explained.from, "to": explained.to,
            "log_begins": explained.log_begins, "events": explained.events, "duplicates": explained.duplicates,
            "set_aside": explained.set_aside, "behind": explained.behind,
        },
    })
}

fn change_json(explained: &Explanation, change: &Change) -> Value {
    json!({
        "value": change.value,
        "before": change.before,
        "before_is_told": change.before_is_told,
        "event_type": change.event_type,
        "event_id": change.event_id,
        "occurred_at": output::time(change.occurred_at.0),
        "recorded_at": output::time(change.recorded_at.0),
        "source": change.source,
        "site_uid": change.site_uid,
        "unit_uid": change.unit_uid,
        "correlation_id": change.correlation_id,
        "causation_id": change.causation_id,
        "topic": explained.topic,
        "partition": change.partition,
        "offset": change.offset,
    })
}

fn table_of_last(args: &Explain, explained: &Explanation) {
    let head = [args.field.as_str(), &shown(explained.value.as_deref())];
    let Some(change) = explained.changes.last() else {
        let why = if explained.log_begins > 0 {
            format!("no event since offset {}, where the log begins", explained.log_begins)
        } else {
            format!("no event of {} has set it", explained.events)
        };
        output::table(head, [["set by".to_owned(), why]]);
        return;
    };
    let rows = [
        ("set by", Some(change.event_type.to_owned())),
        ("occurred at", Some(format!("{} (the source's clock)", output::time(change.occurred_at.0)))),
        ("recorded at", Some(format!("{} (when fleetlog took it in)", output::time(change.recorded_at.0)))),
        ("source", Some(change.source.clone())),
        ("site", Some(change.site_uid.clone())),
        ("unit", change.unit_uid.clone()),
        ("position", Some(format!("{}/{} offset {}", explained.topic, change.partition, change.offset))),
        ("event id", Some(change.event_id.to_string())),
        ("correlation", change.correlation_id.map(|id| id.to_string())),
        ("caused by", change.causation_id.map(|id| id.to_string())),
        ("before", Some(before(explained, change))),
        ("projection", Some(explained.projection.to_owned())),
    ];
    output::table(head, rows.into_iter().filter_map(|(name, value)| Some([name.to_owned(), value?])));
}

fn table_of_all(args: &Explain, explained: &Explanation) {
    output::table(
        ["recorded_at", "occurred_at", "event", "before", &args.field, "source", "position"],
        explained.changes.iter().map(|change| {
            [
                output::time(change.recorded_at.0),
                output::time(change.occurred_at.0),
                change.event_type.to_owned(),
                before(explained, change),
                shown(change.value.as_deref()),
                change.source.clone(),
                format!("{}/{}:{}", explained.topic, change.partition, change.offset),
            ]
        }),
    );
}

fn shown(value: Option<&str>) -> String {
    value.map_or_else(|| "(absent)".to_owned(), str::to_owned)
}

fn before(explained: &Explanation, change: &Change) -> String {
    if change.before_is_told {
        return shown(change.before.as_deref());
    }
    format!("(not known: what was before offset {} was not read)", explained.from)
}

/// What has to be said beside the answer.
fn notes(args: &Explain, explained: &Explanation) -> Vec<String> {
    let mut notes = Vec::new();
    let kept = explained.changes.len() as u64;
    if args.all && kept < explained.changes_total {
        notes.push(format!(
            "the last {kept} of {} changes shown; --limit shows more",
            explained.changes_total
        ));
    }
    if explained.behind > 0 {
        let (projection, topic, partition) = (explained.projection, &explained.topic, explained.partition);
        notes.push(format!(
            "{projection} is {} offsets behind on {topic}/{partition}: see status",
            explained.behind
        ));
    }
    match &explained.verdict {
        Verdict::Agrees | Verdict::Unknown => {}
        Verdict::Expired => notes.push(
            "the store has forgotten it, as it should: it expired; its past is in history and the ledger"
                .to_owned(),
        ),
        Verdict::Untold => notes.push(format!(
            "what the store holds was told before offset {}, where the log begins (retention): {}",
            explained.log_begins,
            shown(explained.stored.as_ref().and_then(|stored| stored.value.as_deref()))
        )),
        Verdict::Differs(detail) => {
            notes.push(format!("store and log differ: {detail}"));
            notes.push(format!("hint: fleetlog verify --projection {}", explained.projection));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use fleetlog_event::{EventId, TimestampMs};
    use fleetlog_verify::Stored;

    use super::*;

    fn explained() -> Explanation {
        let change = Change {
            partition: 3,
            offset: 17,
            event_type: "fleetlog.robot.Disconnected",
            event_id: EventId::derived("explain", 1),
            occurred_at: TimestampMs(0),
            recorded_at: TimestampMs(1000),
            source: "bridge/1".to_owned(),
            site_uid: "504".to_owned(),
            unit_uid: Some("7".to_owned()),
            correlation_id: None,
            causation_id: None,
            before: Some("online".to_owned()),
            before_is_told: true,
            value: Some("offline".to_owned()),
        };
        Explanation {
            projection: "unit-status",
            topic: "robot".to_owned(),
            partition: 3,
            from: 0,
            to: 20,
            log_begins: 0,
            behind: 0,
            events: 2,
            duplicates: 0,
            set_aside: 0,
            value: Some("offline".to_owned()),
            stored: None,
            changes: vec![change],
            changes_total: 5,
            verdict: Verdict::Agrees,
        }
    }

    fn args(all: bool) -> Explain {
        Explain {
            subject: "s504.u7".to_owned(),
            field: "connection".to_owned(),
            projection: None,
            all,
            limit: 1,
        }
    }

    #[test]
    fn what_is_left_out_and_what_differs_is_said() {
        assert_eq!(notes(&args(false), &explained()), Vec::<String>::new());
        assert_eq!(notes(&args(true), &explained()), ["the last 1 of 5 changes shown; --limit shows more"]);
        let differs = Explanation { verdict: Verdict::Differs("so".to_owned()), behind: 4, ..explained() };
        let told = notes(&args(false), &differs).join("\n");
        for part in ["4 offsets behind on robot/3", "differ: so", "verify --projection unit-status"] {
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn a_value_from_before_the_log_is_not_called_absent() {
        let mut cut = explained();
        cut.changes[0].before_is_told = false;
        (cut.from, cut.log_begins) = (900, 900);
        assert!(before(&cut, &cut.changes[0]).contains("before offset 900"));
        let log = fleetlog_event::LogId(uuid::Uuid::nil());
        let stored = Some(Stored { log, partition: 3, next: 1, value: Some("x".to_owned()) });
        let untold = Explanation { verdict: Verdict::Untold, stored, ..cut };
        assert!(notes(&args(false), &untold)[0].ends_with("(retention): x"));
    }

    #[test]
    fn json_names_event_position_and_the_value_before() {
        let json = as_json(&args(false), &explained());
        let change = &json["changes"][0];
        assert_eq!(change["before"], "online");
        assert_eq!(change["recorded_at"], "1970-01-01T00:00:01.000Z");
        assert_eq!((&change["topic"], &change["offset"]), (&json!("robot"), &json!(17)));
        assert_eq!((&json["verdict"], &json["value"]), (&json!("agrees"), &json!("offline")));
    }
}
