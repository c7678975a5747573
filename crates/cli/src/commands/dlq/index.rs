//! The index of dead letters in SQL (projections `dead-letters` and `dead-letter-actions`), as the tools take it.
//!
//! It answers for the topics only where it is at their ends, and only for letters that still lie there: so both ways say the
//! same.

use std::time::Duration;

use anyhow::Context;
use fleetlog_dead_letters::{Dialect, Index, Letter, Origin, Place, UNKNOWN};
use fleetlog_event::{
    EventId, EventMeta, TimestampMs,
    ops::{
        DeadLetterRef, DeadLettersDiscarded, DeadLettersRedriven, OpsEvent, RedriveOutcome, RedrivenLetter,
    },
};
use fleetlog_projection::{MapProjector, RecordProjector};
use fleetlog_projections::{DeadLetterActions, DeadLetters};
use serde::{Deserialize, Deserializer, de::Error as _};
use sqlx::PgConnection;

use crate::{
    commands::history,
    config::Config,
    lanes::{self, Lane},
};

/// Where `list` and `stats` read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Source {
    /// The index in SQL where it answers and is at the ends of the topics, else the topics
    #[default]
    Auto,
    /// The topics themselves
    Topic,
    /// The index in SQL
    Sql,
}

/// How long the index may take to begin with an answer, where the topics would give one too.
const PATIENCE: Duration = Duration::from_secs(3);

/// The index as it is now.
///
/// # Errors
/// It does not answer, or not for all that lies on the topics.
pub(super) async fn read(config: &Config) -> anyhow::Result<Index> {
    let connecting = history::connect(config);
    let mut postgres = tokio::time::timeout(PATIENCE, connecting)
        .await
        .with_context(|| format!("no answer within {} s", PATIENCE.as_secs()))??;
    let letters = caught_up(config, DeadLetters::ID).await?;
    let actions = caught_up(config, DeadLetterActions::ID).await?;
    let mut index = Index { letters: letters_of(&mut postgres, &letters).await?, ..Index::default() };
    take_actions(&mut postgres, &actions, &mut index).await?;
    Ok(index)
}

/// The projection's lanes, if each is at the end of its partition.
async fn caught_up(config: &Config, id: &str) -> anyhow::Result<Vec<Lane>> {
    let projection = lanes::chosen(&[id.to_owned()])?.remove(0);
    let lanes = lanes::read(config, &projection).await?;
    let is_of_this_log =
        |lane: &Lane| lane.stored.progress.is_none_or(|progress| progress.log == lane.log_id);
    if let Some(lane) = lanes.iter().find(|lane| !is_of_this_log(lane)) {
        anyhow::bail!("{} is of a topic that was deleted since", lane.id);
    }
    let behind: i64 = lanes.iter().map(Lane::lag).sum();
    anyhow::ensure!(behind == 0, "projection {id} is {behind} records behind: does fleetlog run?");
    Ok(lanes)
}

/// A row of `dead_letter`.
#[derive(Debug, Deserialize)]
struct LetterRow {
    topic: String,
    place: String,
    set_aside_ms: i64,
    dialect: Dialect,
    consumer_group: String,
    reason: String,
    class: Option<String>,
    detail: String,
    origin: String,
    origin_log: Option<String>,
    origin_topic: Option<String>,
    origin_partition: Option<i32>,
    origin_offset: Option<i64>,
    source_topic: Option<String>,
    #[serde(deserialize_with = "bytes")]
    record_key: Option<Vec<u8>>,
    event_type: Option<String>,
    recorded_ms: Option<i64>,
    first_failure_ms: Option<i64>,
    last_failure_ms: Option<i64>,
    attempts: Option<i64>,
    replay_count: i64,
    writer_schema: Option<String>,
    application_version: Option<String>,
    value_bytes: Option<i64>,
}

impl LetterRow {
    fn letter(self) -> anyhow::Result<Letter> {
        let place: Place = self.place.parse()?;
        let time = |ms: Option<i64>| ms.map(TimestampMs);
        let own = Place { topic: self.topic, ..place };
        let origin = match (self.origin_topic, self.origin_partition, self.origin_offset) {
            (Some(topic), Some(partition), Some(offset)) => {
                Origin::Log { topic, partition, offset, log: self.origin_log }
            }
            _ if self.origin == own.to_string() => Origin::Unknown(own),
            _ => Origin::File(self.origin),
        };
        Ok(Letter {
            place: self.place.parse()?,
            dialect: self.dialect,
            group: self.consumer_group,
            reason: self.reason,
            class: self.class,
            detail: self.detail,
            origin,
            source_topic: self.source_topic,
            key: self.record_key.map(Into::into),
            event_type: self.event_type,
            set_aside_at: TimestampMs(self.set_aside_ms),
            recorded_at: time(self.recorded_ms),
            first_failure: time(self.first_failure_ms),
            last_failure: time(self.last_failure_ms),
            attempts: self.attempts.map(u32::try_from).transpose()?,
            replay_count: u32::try_from(self.replay_count)?,
            schema: self.writer_schema,
            application_version: self.application_version,
            value_bytes: self.value_bytes.map(usize::try_from).transpose()?,
        })
    }
}

/// `bytea` as JSON has it: `\x` and two hex digits a byte.
fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let digits = text.strip_prefix("\\x").filter(|digits| digits.is_ascii());
    let byte = |at: usize| u8::from_str_radix(digits?.get(at..at + 2)?, 16).ok();
    let length = digits.map_or(0, str::len);
    let read: Option<Vec<u8>> = (0..length).step_by(2).map(byte).collect();
    read.filter(|_| digits.is_some())
        .map(Some)
        .ok_or_else(|| D::Error::custom(format!("`{text}` is no bytea")))
}

/// Rows as one JSON text each.
fn parsed<T: for<'de> Deserialize<'de>>(rows: &[String]) -> anyhow::Result<Vec<T>> {
    Ok(rows.iter().map(|row| serde_json::from_str(row)).collect::<Result<_, _>>()?)
}

/// The letters that lie on the topics, between the ends that were seen.
async fn letters_of(postgres: &mut PgConnection, lanes: &[Lane]) -> anyhow::Result<Vec<Letter>> {
    let sql = "SELECT row_to_json(l)::text FROM dead_letter l \
               JOIN unnest($1::text[], $2::uuid[], $3::int[], $4::bigint[], $5::bigint[]) \
                    AS lane(topic, log, partition, low, upto) \
                 ON l.topic = lane.topic AND l.log = lane.log AND l.log_partition = lane.partition \
                AND l.log_offset >= lane.low AND l.log_offset < lane.upto";
    let rows: Vec<String> = sqlx::query_scalar(sql)
        .bind(lanes.iter().map(|lane| lane.id.topic.clone()).collect::<Vec<_>>())
        .bind(lanes.iter().map(|lane| lane.log_id.0).collect::<Vec<_>>())
        .bind(lanes.iter().map(|lane| lane.id.partition).collect::<Vec<_>>())
        .bind(lanes.iter().map(|lane| lane.log.low).collect::<Vec<_>>())
        .bind(lanes.iter().map(|lane| lane.log.end).collect::<Vec<_>>())
        .fetch_all(postgres)
        .await
        .context("reading table dead_letter")?;
    parsed::<LetterRow>(&rows)?.into_iter().map(LetterRow::letter).collect()
}

/// A row of `dead_letter_action`.
#[derive(Debug, Deserialize)]
struct ActionRow {
    event_id: uuid::Uuid,
    acted_ms: i64,
    action: String,
    action_id: String,
    operator: String,
    why: String,
    consumer_group: String,
    origin: String,
    origin_log: Option<String>,
    place: String,
    set_aside_ms: i64,
    reason: Option<String>,
}

impl ActionRow {
    /// An event about the one letter; none of an action that this version does not know.
    fn event(self) -> Option<OpsEvent> {
        let meta = EventMeta::of_ops(EventId(self.event_id), "", TimestampMs(self.acted_ms));
        let set_aside_at = TimestampMs(self.set_aside_ms);
        let outcome = match self.action.as_str() {
            "redriven" => Some(RedriveOutcome::Taken),
            "parked" => Some(RedriveOutcome::Parked),
            _ => None,
        };
        if let Some(outcome) = outcome {
            let letter = RedrivenLetter {
                origin: self.origin,
                log: self.origin_log,
                place: self.place,
                set_aside_at,
                reason: self.reason,
                outcome,
            };
            return Some(OpsEvent::DeadLettersRedriven(DeadLettersRedriven {
                meta,
                action_id: self.action_id,
                group: self.consumer_group,
                operator: self.operator,
                why: self.why,
                selection: UNKNOWN.to_owned(),
                part: 1,
                taken: i32::from(outcome == RedriveOutcome::Taken),
                rejected: 0,
                parked: i32::from(outcome == RedriveOutcome::Parked),
                nothing: 0,
                letters: vec![letter],
            }));
        }
        let (origin, log, place, reason) = (self.origin, self.origin_log, self.place, self.reason);
        let letter = DeadLetterRef { origin, log, place, set_aside_at, reason };
        let discarded = DeadLettersDiscarded {
            meta,
            action_id: self.action_id,
            group: self.consumer_group,
            operator: self.operator,
            why: self.why,
            selection: UNKNOWN.to_owned(),
            part: 1,
            parts: 1,
            letters: vec![letter],
        };
        (self.action == "discarded").then_some(OpsEvent::DeadLettersDiscarded(discarded))
    }
}

/// What was done, in the order in which it was.
async fn take_actions(postgres: &mut PgConnection, lanes: &[Lane], index: &mut Index) -> anyhow::Result<()> {
    for lane in lanes {
        let sql = "SELECT row_to_json(a)::text FROM dead_letter_action a \
                   WHERE log_partition = $1 AND log_offset >= $2 AND log_offset < $3 ORDER BY log_offset, number";
        let rows: Vec<String> = sqlx::query_scalar(sql)
            .bind(lane.id.partition)
            .bind(lane.log.low)
            .bind(lane.log.end)
            .fetch_all(&mut *postgres)
            .await
            .context("reading table dead_letter_action")?;
        for row in parsed::<ActionRow>(&rows)? {
            match row.event() {
                Some(event) => index.actions.take(event),
                None => index.unreadable_actions += 1,
            }
        }
        let sql = "SELECT count(*) FROM fleetlog_set_aside \
                   WHERE projection = $1 AND version = $2 AND topic = $3 AND partition = $4 AND log = $5";
        let unreadable: i64 = sqlx::query_scalar(sql)
            .bind(&lane.id.projection)
            .bind(lane.id.version.cast_signed())
            .bind(&lane.id.topic)
            .bind(lane.id.partition)
            .bind(lane.log_id.0)
            .fetch_one(&mut *postgres)
            .await
            .context("reading table fleetlog_set_aside")?;
        index.unreadable_actions += unreadable.unsigned_abs();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_json_has_them() {
        let read = |json: &str| bytes(&mut serde_json::Deserializer::from_str(json)).ok();
        assert_eq!(read("null"), Some(None));
        assert_eq!(read(r#""\\x""#), Some(Some(Vec::new())));
        assert_eq!(read(r#""\\x00ff61""#), Some(Some(b"\x00\xffa".to_vec())));
        for wrong in [r#""00""#, r#""\\x0""#, r#""\\x0g""#, r#""\\xä1""#] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
