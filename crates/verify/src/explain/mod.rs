//! Which event gave a field of an entity its value.
//!
//! Folds the entity's events from the log with the projection's own `apply`, as far as the store did (its version), without
//! duplicates and without the positions that the projection set aside, and looks at the field after each. So the answer is
//! what the projection did, and it is compared with what the store holds: where they differ it says so.
//!
//! Reads one partition, and of it the records under one key; from [`Begin`] on if somebody knows it, and once more from where
//! the log begins if that does not lead to what the store holds.

mod readable;
mod trace;

use fleetlog_event::{EntityKey, EventSet, TimestampMs, partition_of};
use fleetlog_projection::{FoldProjector, LaneId};

use crate::{
    Log, Topic, VerifyError,
    judged::{self, Judged, Part},
};

pub use readable::{Readable, Stored};
pub use trace::Change;

use trace::Trace;

/// Where the entity's events begin, as far as history knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Nobody knows: where the log begins.
    Log,
    /// At this offset lies its first event.
    First(i64),
    /// At this offset lies an event that gave the field another value than it has now. Of use for folds that keep last
    /// values only.
    Within(i64),
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The unit or task.
    pub key: &'a EntityKey,
    /// One of [`Readable::names`].
    pub field: &'a str,
    /// Where to begin to read.
    pub begin: Begin,
    /// How many changes are kept: the last ones.
    pub changes_max: usize,
    /// The time now, by which the entity may have expired.
    pub now: TimestampMs,
}

/// Whether the store holds what the log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Agrees,
    /// The entity has expired by its own rule, and the store has forgotten it.
    Expired,
    /// Retention cut the log after the field got its value.
    Untold,
    /// It does not: in which way.
    Differs(String),
    /// Neither knows the entity.
    Unknown,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The projection's ID.
    pub projection: &'static str,
    /// The topic's physical name.
    pub topic: String,
    /// The entity's partition.
    pub partition: i32,
    /// The first offset that was read.
    pub from: i64,
    /// One past the last.
    pub to: i64,
    /// Where the log begins.
    pub log_begins: i64,
    /// How many offsets of this partition the projection has not taken yet.
    pub behind: i64,
    /// The entity's events that were taken.
    pub events: u64,
    /// Those that were duplicates.
    pub duplicates: u64,
    /// Those that the projection set aside.
    pub set_aside: u64,
    /// The field as the log has it; none if it is absent.
    pub value: Option<String>,
    /// What the store holds; none if it does not know the entity.
    pub stored: Option<Stored>,
    /// The last changes of the field, in log order.
    pub changes: Vec<Change>,
    /// All changes.
    pub changes_total: u64,
    /// Whether both agree.
    pub verdict: Verdict,
}

/// Says which events gave the field its values. `reached` is told how far the partition was read, and up to where it will be.
///
/// # Errors
/// When log or store cannot be read, or belong to different topics.
pub async fn explain<P, L, S>(
    projector: &P,
    log: &L,
    store: &S,
    question: Question<'_>,
    mut reached: impl FnMut(i64, i64),
) -> Result<Explanation, VerifyError>
where
    P: FoldProjector,
    L: Log,
    S: Readable<P>,
{
    let topic = log.topic(P::Event::TOPICS[0]).await?;
    let reading = Reading::begin(projector, store, &topic, question).await?;
    let early = match question.begin {
        Begin::Log => None,
        Begin::First(offset) | Begin::Within(offset) => Some(offset).filter(|offset| *offset > reading.low),
    };
    if let Some(from) = early.filter(|from| *from < reading.to) {
        let whole = matches!(question.begin, Begin::First(_));
        let found = reading.read::<P, L, S>(projector, log, from, whole, &mut reached).await?;
        if found.verdict == Verdict::Agrees && found.changes.last().is_some_and(|last| last.before_is_told) {
            return Ok(found);
        }
    }
    let whole = reading.low == 0;
    reading.read::<P, L, S>(projector, log, reading.low, whole, &mut reached).await
}

/// What is known before the log is read.
struct Reading<'a> {
    question: Question<'a>,
    topic: &'a Topic,
    lane: LaneId,
    low: i64,
    to: i64,
    behind: i64,
    stored: Option<Stored>,
    named: std::collections::BTreeSet<i64>,
}

impl<'a> Reading<'a> {
    async fn begin<P: FoldProjector, S: Readable<P>>(
        projector: &P,
        store: &S,
        topic: &'a Topic,
        question: Question<'a>,
    ) -> Result<Self, VerifyError> {
        let partition = partition_of(question.key.as_str().as_bytes(), topic.count());
        let range = topic.numbered().find(|(number, _)| *number == partition).map(|(_, range)| range);
        let range = range
            .ok_or_else(|| VerifyError::Malformed(format!("topic `{}` has no partitions", topic.name)))?;
        let lane = LaneId {
            projection: P::ID.to_owned(),
            version: P::VERSION,
            topic: topic.name.clone(),
            partition,
        };
        let progress = match store.progress(&lane).await? {
            Some(progress) if progress.log != topic.log => {
                let (stored, found) = (progress.log, topic.log);
                return Err(VerifyError::OtherLog { lane: lane.to_string(), stored, found });
            }
            progress => progress.map_or(range.low, |progress| progress.main),
        };
        let stored = store.stored(projector, question.key, question.field).await?;
        // After the entity: a set-aside is entered before, or with, what the entity's version covers.
        let named = store.ledger(&lane, topic.log).await?;
        let taken = stored.as_ref().map_or(progress, |stored| stored.next);
        Ok(Self {
            question,
            topic,
            lane,
            low: range.low,
            to: taken.min(range.end),
            behind: (range.end - progress).max(0),
            stored,
            named,
        })
    }

    async fn read<P: FoldProjector, L: Log, S: Readable<P>>(
        &self,
        projector: &P,
        log: &L,
        from: i64,
        from_its_beginning: bool,
        reached: &mut impl FnMut(i64, i64),
    ) -> Result<Explanation, VerifyError> {
        let Question { key, field, changes_max, .. } = self.question;
        let mut failed = None;
        let value_of = |key: &EntityKey, state: &P::State| {
            S::value(projector, key, state, field).unwrap_or_else(|error| {
                failed.get_or_insert(error);
                None
            })
        };
        let mut trace = Trace::new(projector, key, from_its_beginning, changes_max, value_of);
        let (mut duplicates, mut set_aside, mut refused) = (0, 0, None);
        let part = Part { topic: self.topic, partition: self.lane.partition, from, to: self.to };
        let each = |offset, judged| {
            let taken = match judged {
                Judged::Duplicate => {
                    duplicates += 1;
                    return;
                }
                _ if self.named.contains(&offset) => {
                    set_aside += 1;
                    return;
                }
                Judged::Rejected(reject) => Err(reject),
                Judged::Event(event) => trace.take(&event),
            };
            if let Err(reject) = taken {
                refused.get_or_insert((offset, reject));
            }
        };
        judged::each_under(log, part, Some(key.as_str()), each, |offset| reached(offset, self.to)).await?;
        let Trace { state, value, next, events, changes, changes_total, .. } = trace;
        if let Some(error) = failed {
            return Err(error);
        }
        let expired = S::expires_at(projector, key, &state).is_some_and(|at| at.0 <= self.question.now.0);
        let refused = refused.map(|(offset, reject)| {
            format!("the event at offset {offset} cannot be taken ({reject}), and is not set aside")
        });
        let verdict = refused.map_or_else(|| self.judge(value.as_deref(), next, expired), Verdict::Differs);
        Ok(Explanation {
            projection: P::ID,
            topic: self.topic.name.clone(),
            partition: self.lane.partition,
            from,
            to: self.to,
            log_begins: self.low,
            behind: self.behind,
            events,
            duplicates,
            set_aside,
            value,
            stored: self.stored.clone(),
            changes: changes.into(),
            changes_total,
            verdict,
        })
    }

    /// Whether the store holds what the fold says: the field's value, and one past the last event taken.
    fn judge(&self, value: Option<&str>, next: Option<i64>, expired: bool) -> Verdict {
        let cut = self.low > 0;
        let Some(stored) = &self.stored else {
            return match next {
                None => Verdict::Unknown,
                Some(_) if expired => Verdict::Expired,
                Some(next) => Verdict::Differs(format!(
                    "the store does not know it; the log has {} its last event at offset {}",
                    value.map_or_else(|| "no value and".to_owned(), |value| format!("`{value}` and")),
                    next - 1
                )),
            };
        };
        if (stored.log, stored.partition) != (self.topic.log, self.lane.partition) {
            let (log, partition) = (self.topic.log, self.lane.partition);
            return Verdict::Differs(format!(
                "it was folded from {}/{}, not {log}/{partition}",
                stored.log, stored.partition
            ));
        }
        if stored.value.as_deref() != value {
            if cut && value.is_none() {
                return Verdict::Untold;
            }
            let text =
                |value: Option<&str>| value.map_or_else(|| "absent".to_owned(), |text| format!("`{text}`"));
            return Verdict::Differs(format!(
                "the store holds {}, the log says {}",
                text(stored.value.as_deref()),
                text(value)
            ));
        }
        match next {
            Some(next) if next != stored.next => Verdict::Differs(format!(
                "its version is at {}, but the last event that counts is at offset {}",
                stored.next,
                next - 1
            )),
            None if !cut => Verdict::Differs("the store knows it, the log has no event of it".to_owned()),
            None => Verdict::Untold,
            Some(_) => Verdict::Agrees,
        }
    }
}
