//! Letters whose record lies under the wrong key or in the wrong partition: emitted anew where they belong.
//!
//! Where it lies the event can count for nobody, whichever group asks. So one transaction puts it under its right key **and**
//! closes the entries of every group that has it: either the event is on the log once more and no entry of it is open, or
//! neither. Before that, commands of earlier jobs have been answered ([`Job::run`](super::job)), all groups over the topic are
//! this job's, and each has passed the position: a group that has yet to come there would find the entry open again.

use std::collections::BTreeMap;

use bytes::Bytes;
use fleetlog_event::{EntityKey, partition_of};
use fleetlog_kafka::{HeaderName, OwnedRecord};
use fleetlog_producer::RawRecord;
use fleetlog_projection::{Act, EntryState, LedgerEntry};

use super::{
    Candidate, Ended, LaneRef, Lanes, Message, Road, Trouble,
    audit::Answer,
    job::{Job, answer, patiently},
    plan::entries_of,
};
use fleetlog_letter::is_of_letters;

/// One record, and the letters that groups have of it.
struct Misplaced<'c> {
    letters: Vec<&'c Candidate>,
}

/// What is done about a record.
enum Verdict {
    /// It is emitted, and these lanes close their entries.
    Emit(Vec<LaneRef>),
    /// It was emitted before; these lanes have yet to close theirs.
    Close(Vec<LaneRef>),
    /// Nothing, and why.
    Leave(String),
}

impl<L: Lanes, R: Road> Job<'_, L, R> {
    /// Emits anew what has no place where it lies.
    pub(super) async fn emit_anew(&mut self, candidates: &[&Candidate]) -> Result<Option<Ended>, Trouble> {
        let mut by_topic: BTreeMap<&str, BTreeMap<(i32, i64), Misplaced<'_>>> = BTreeMap::new();
        for candidate in candidates {
            let of_topic = by_topic.entry(&candidate.lane.topic).or_default();
            let place = (candidate.lane.partition, candidate.offset);
            of_topic.entry(place).or_insert(Misplaced { letters: Vec::new() }).letters.push(candidate);
        }
        for of_topic in by_topic.into_values() {
            let all: Vec<Misplaced<'_>> = of_topic.into_values().collect();
            for some in all.chunks(self.request.batch_now(None)) {
                if !self.paced(some.len()).await {
                    return Ok(Some(Ended::Stopped));
                }
                if let Some(ended) = self.emit_some(some).await? {
                    return Ok(Some(ended));
                }
            }
        }
        Ok(None)
    }

    /// Records of one topic.
    async fn emit_some(&mut self, some: &[Misplaced<'_>]) -> Result<Option<Ended>, Trouble> {
        let patience = self.request.patience;
        let letters: Vec<&Candidate> = some.iter().flat_map(|it| it.letters.iter().copied()).collect();
        let before = patiently(patience, async || entries_of(self.lanes, &letters).await).await?;
        let places: Vec<_> = some.iter().map(|it| it.letters[0].letter.place.clone()).collect();
        let records = patiently(patience, async || self.road.fetch(&places).await).await?;
        let (mut emitted, mut messages, mut sent) = (Vec::new(), Vec::new(), Vec::new());
        let mut by_group: BTreeMap<String, Vec<Answer<'_>>> = BTreeMap::new();
        for misplaced in some {
            let (open, closed) = self.still_open(&misplaced.letters, &before);
            for answer in closed {
                by_group.entry(answer.candidate.lane.group.clone()).or_default().push(answer);
            }
            let Some(first) = open.first() else { continue };
            let Some(letter) = records.get(&misplaced.letters[0].letter.place) else {
                self.done.gone += open.len() as u64;
                self.done.left -= open.len() as u64;
                continue;
            };
            let lanes = match self.judged(first, letter, &mut emitted).await? {
                Verdict::Emit(lanes) | Verdict::Close(lanes) => lanes,
                Verdict::Leave(why) => {
                    *self.done.not_emitted.entry(why).or_default() += open.len() as u64;
                    self.done.left -= open.len() as u64;
                    continue;
                }
            };
            for lane in lanes {
                messages.push(self.message(&lane, first, Act::EmittedAnew { offset: first.offset })?);
            }
            sent.extend(open);
        }
        if let Some(ended) = self.send_for_all(some, emitted, &messages).await? {
            return Ok(Some(ended));
        }
        let after = patiently(patience, async || entries_of(self.lanes, &sent).await).await?;
        for candidate in sent {
            let of_group = by_group.entry(candidate.lane.group.clone()).or_default();
            of_group.push(answer(candidate, &before, &after));
        }
        for (group, answers) in by_group {
            self.write_down(&group, &answers).await?;
        }
        Ok(None)
    }

    /// In the name of the first of the groups over the topic: the same one, whoever emits.
    async fn send_for_all(
        &mut self,
        some: &[Misplaced<'_>],
        emitted: Vec<RawRecord>,
        messages: &[Message],
    ) -> Result<Option<Ended>, Trouble> {
        let Some(any) = some.first().and_then(|misplaced| misplaced.letters.first()) else { return Ok(None) };
        let first = self.lanes_over(&any.lane).into_iter().map(|lane| lane.group).min();
        self.send(&first.unwrap_or_else(|| any.lane.group.clone()), emitted, messages).await
    }

    /// What to do about a record; one that is to be emitted is put to the others.
    async fn judged(
        &self,
        candidate: &Candidate,
        letter: &OwnedRecord,
        emitted: &mut Vec<RawRecord>,
    ) -> Result<Verdict, Trouble> {
        let (patience, offset) = (self.request.patience, candidate.offset);
        let mut entries: Vec<(LaneRef, Option<LedgerEntry>)> = Vec::new();
        for lane in self.lanes_over(&candidate.lane) {
            let progress = patiently(patience, async || self.lanes.progress(&lane).await).await?;
            if progress.is_none_or(|progress| progress.main <= offset) {
                let why =
                    format!("group {} has not come to their positions yet: run it again later", lane.group);
                return Ok(Verdict::Leave(why));
            }
            let asked = async || self.lanes.entries(&lane, candidate.log, &[offset]).await;
            let entry = patiently(patience, asked).await?.remove(&offset);
            entries.push((lane, entry));
        }
        let is = |state: EntryState| {
            entries.iter().any(|(_, entry)| entry.as_ref().is_some_and(|it| it.state == state))
        };
        if is(EntryState::Redriven) {
            return Ok(Verdict::Leave("another group has taken them where they lie".to_owned()));
        }
        let was_emitted = is(EntryState::EmittedAnew);
        let open = |(lane, entry): (LaneRef, Option<LedgerEntry>)| {
            entry.is_some_and(|entry| entry.state.is_open()).then_some(lane)
        };
        let open: Vec<LaneRef> = entries.into_iter().filter_map(open).collect();
        if was_emitted {
            return Ok(Verdict::Close(open));
        }
        let topic = &candidate.lane.topic;
        match patiently(patience, async || self.road.entity_of(topic, letter).await).await? {
            Err(why) => Ok(Verdict::Leave(why)),
            Ok(key) => match emission(candidate, letter, &key) {
                Some(record) => {
                    emitted.push(record);
                    Ok(Verdict::Emit(open))
                }
                None => Ok(Verdict::Leave("key and partition are right: nothing to be put right".to_owned())),
            },
        }
    }
}

/// The event under its right key, with the time at which it was recorded; none where it lies there already.
fn emission(candidate: &Candidate, letter: &OwnedRecord, key: &EntityKey) -> Option<RawRecord> {
    let bytes = Bytes::copy_from_slice(key.as_str().as_bytes());
    let partition = partition_of(&bytes, candidate.partitions);
    if letter.key.as_ref() == Some(&bytes) && partition == candidate.lane.partition {
        return None;
    }
    let header = |(name, value): &(HeaderName, Option<Bytes>)| {
        // CloudEvents names the entity once more.
        let value = if *name == "ce_subject" { Some(bytes.clone()) } else { value.clone() };
        (!is_of_letters(name.as_ref())).then(|| (name.clone(), value))
    };
    Some(RawRecord {
        topic: candidate.lane.topic.clone(),
        partition: Some(partition),
        key: Some(bytes.clone()),
        value: letter.value.clone(),
        timestamp: Some(candidate.recorded_at),
        headers: letter.headers.iter().filter_map(header).collect(),
    })
}
