//! `dead-letter-actions`: what operators did to dead letters, one row of `dead_letter_action` for each letter that an action
//! names.
//!
//! Which state a letter is in is what the newest action on it says, if that one saw it: view `dead_letters`.

use fleetlog_event::{
    EventId, EventMeta, Recorded, Reject, TimestampMs,
    ops::{
        DeadLetterRef, DeadLettersDiscarded, DeadLettersRedriven, OpsEvent, RedriveOutcome, RedrivenLetter,
    },
};
use fleetlog_projection::{CopyEncoder, HistoryRow, MapProjector, Table};

use crate::column;

/// The table of actions.
pub static DEAD_LETTER_ACTION: Table = Table {
    name: "dead_letter_action",
    columns: &[
        column("log_partition", "integer"),
        column("log_offset", "bigint"),
        column("number", "integer"),
        column("event_id", "uuid"),
        column("acted_ms", "bigint"),
        column("action", "text"),
        column("action_id", "text"),
        column("operator", "text"),
        column("why", "text"),
        column("consumer_group", "text"),
        column("origin", "text"),
        column("origin_log", "text"),
        column("place", "text"),
        column("set_aside_ms", "bigint"),
        column("reason", "text"),
    ],
};

/// What was done to one letter.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetterActionRow {
    /// The partition of topic `ops`.
    pub log_partition: i32,
    /// The event's offset.
    pub log_offset: i64,
    /// The letter's number among those of the event, from 0.
    pub number: i32,
    /// The event.
    pub event_id: EventId,
    /// When it was done.
    pub acted_at: TimestampMs,
    /// What the letter is by it: `discarded`.
    pub action: &'static str,
    /// The id that all events of one command carry.
    pub action_id: String,
    /// Who did it.
    pub operator: String,
    /// Why.
    pub why: String,
    /// The consumer group that had not taken the record.
    pub group: String,
    /// The letter.
    pub letter: DeadLetterRef,
}

impl HistoryRow for DeadLetterActionRow {
    fn table(&self) -> &'static Table {
        &DEAD_LETTER_ACTION
    }

    fn encode(&self, out: &mut CopyEncoder) {
        out.int4(self.log_partition);
        out.int8(self.log_offset);
        out.int4(self.number);
        out.uuid(self.event_id);
        out.int8(self.acted_at.0);
        out.text(self.action);
        out.text(&self.action_id);
        out.text(&self.operator);
        out.text(&self.why);
        out.text(&self.group);
        out.text(&self.letter.origin);
        out.maybe_text(self.letter.log.as_deref());
        out.text(&self.letter.place);
        out.int8(self.letter.set_aside_at.0);
        out.maybe_text(self.letter.reason.as_deref());
    }

    /// That of the index by letter.
    fn sort_key(&self) -> (&str, i64) {
        (&self.letter.origin, self.log_offset)
    }
}

/// The projector.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeadLetterActions;

impl MapProjector for DeadLetterActions {
    const ID: &'static str = "dead-letter-actions";
    /// Nobody need ever have acted.
    const MAY_BE_IDLE: bool = true;
    type Event = OpsEvent;
    type Write = DeadLetterActionRow;

    fn map(&self, event: &Recorded<OpsEvent>, out: &mut Vec<DeadLetterActionRow>) -> Result<(), Reject> {
        // Another kind of action is another arm: what the letters are by it, and the same six facts.
        match &event.event {
            OpsEvent::DeadLettersDiscarded(discarded) => {
                let DeadLettersDiscarded { meta, action_id, group, operator, why, letters, .. } = discarded;
                let acted = Acted { event, meta, action_id, group, operator, why };
                out.extend(
                    (0..).zip(letters).map(|(number, letter)| acted.row(number, "discarded", letter.clone())),
                );
            }
            OpsEvent::DeadLettersRedriven(redriven) => {
                let DeadLettersRedriven { meta, action_id, group, operator, why, letters, .. } = redriven;
                let acted = Acted { event, meta, action_id, group, operator, why };
                let row = |(number, letter): (i32, &RedrivenLetter)| {
                    let action = match letter.outcome {
                        RedriveOutcome::Taken => "redriven",
                        RedriveOutcome::Parked => "parked",
                        // A newer letter says why, or nothing has changed.
                        RedriveOutcome::Rejected | RedriveOutcome::Nothing | RedriveOutcome::Unknown => {
                            return None;
                        }
                    };
                    let RedrivenLetter { origin, log, place, set_aside_at, reason, .. } = letter.clone();
                    Some(acted.row(
                        number,
                        action,
                        DeadLetterRef { origin, log, place, set_aside_at, reason },
                    ))
                };
                out.extend((0..).zip(letters).filter_map(row));
            }
            // Says nothing of letters.
            _ => {}
        }
        Ok(())
    }
}

/// An action, without the letters that it names.
struct Acted<'a> {
    event: &'a Recorded<OpsEvent>,
    meta: &'a EventMeta,
    action_id: &'a str,
    group: &'a str,
    operator: &'a str,
    why: &'a str,
}

impl Acted<'_> {
    /// What it says of a letter: what the letter is by it.
    fn row(&self, number: i32, action: &'static str, letter: DeadLetterRef) -> DeadLetterActionRow {
        DeadLetterActionRow {
            log_partition: self.event.position.partition,
            log_offset: self.event.position.offset,
            number,
            event_id: self.meta.event_id,
            acted_at: self.meta.recorded_at,
            action,
            action_id: self.action_id.to_owned(),
            operator: self.operator.to_owned(),
            why: self.why.to_owned(),
            group: self.group.to_owned(),
            letter,
        }
    }
}

#[cfg(test)]
mod tests {
    use fleetlog_projection::{
        Map,
        given::{MemoryLog, START, assert_cuts_do_not_matter, given_map, site_meta},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::testing::cuts;

    fn discarded(group: &str, origins: &[String]) -> DeadLettersDiscarded {
        let letter = |origin: &String| DeadLetterRef {
            origin: origin.clone(),
            log: Some("c1f7".to_owned()),
            place: "task-dlq/0/12".to_owned(),
            set_aside_at: TimestampMs(START.0 - 1000),
            reason: None,
        };
        DeadLettersDiscarded {
            meta: site_meta(""),
            action_id: "a1".to_owned(),
            group: group.to_owned(),
            operator: "anna@control-1".to_owned(),
            why: "a test robot".to_owned(),
            selection: "key=T-17".to_owned(),
            part: 1,
            parts: 1,
            letters: origins.iter().map(letter).collect(),
        }
    }

    fn origins(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("x-task/3/{n}")).collect()
    }

    #[test]
    fn each_letter_of_an_action_is_a_row() {
        let _ = given_map(DeadLetterActions).event(discarded("g", &origins(2))).then(|made| {
            let rows: Vec<_> = made.rows.iter().map(|row| &row.write).collect();
            let told: Vec<_> = rows.iter().map(|row| (row.number, row.letter.origin.as_str())).collect();
            assert_eq!(told, [(0, "x-task/3/0"), (1, "x-task/3/1")]);
            let first = rows[0];
            assert_eq!((first.action, first.group.as_str(), first.acted_at), ("discarded", "g", START));
            assert_eq!((first.operator.as_str(), first.log_offset), ("anna@control-1", 0));
            let mut out = CopyEncoder::new();
            out.row(first);
            let copy = out.finish();
            assert_eq!(
                usize::from(u16::from_be_bytes([copy[19], copy[20]])),
                DEAD_LETTER_ACTION.columns.len()
            );
        });
    }

    proptest! {
        #[test]
        fn the_cut_of_the_log_does_not_matter(actions in prop::collection::vec(0..4_usize, 0..20), cuts in cuts()) {
            let mut log = MemoryLog::default();
            for letters in actions {
                log.append(OpsEvent::from(discarded("g", &origins(letters))));
            }
            assert_cuts_do_not_matter(&Map(DeadLetterActions), &log, &cuts);
        }
    }
}
