//! Which letters of a selection go back, in which order, and why the others stay.

use std::collections::BTreeMap;

use fleetlog_event::{LogId, Reason, TimestampMs};
use fleetlog_projection::{EntryState, LedgerEntry};
use serde::Serialize;

use super::{LaneRef, Lanes, LogFacts, Reader, RedriveError, RedriveRequest, Road, Trouble};
use crate::{Found, Letter, Origin, State, ToolError, Tools, UNKNOWN};

/// Entries that are asked of a store at once.
const ENTRIES_AT_ONCE: usize = 500;

/// How a letter goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// To the lane, which puts the event in its place.
    InPlace,
    /// As a new record under the right key: where it lies it can count for nobody.
    Anew,
    /// To its handler, which is called for the event once more.
    ToHandler,
}

/// Why a letter stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stays {
    /// It was redriven, and taken.
    Redriven,
    /// Its event was emitted anew under the right key.
    EmittedAnew,
    /// It was given up.
    Discarded,
    /// It was rejected as often as it may be, and parked ones were not asked for.
    Parked,
    /// It is not parked, and parked ones were asked for.
    NotParked,
    /// Its group is no projection and no handler of this fleet: nobody of ours could take it.
    ForeignGroup,
    /// Its headers do not say where its record lies (topic, partition, offset, topic id, time), so no lane can know its place.
    NoPlace,
    /// Its group does not read the topic.
    NotRead,
    /// The topic that its record lay on was made anew since, or is gone.
    OtherLog,
    /// The lane's ledger has no entry of it: the projection was rebuilt, or never committed the step that set it aside.
    NoEntry,
    /// There were more than `max`.
    BeyondMax,
}

impl Stays {
    /// For people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Redriven => "redriven before: the group has them",
            Self::EmittedAnew => "emitted anew before, under the right key",
            Self::Discarded => "discarded",
            Self::Parked => "parked: --parked sends them back once more",
            Self::NotParked => "not parked: without --parked they go",
            Self::ForeignGroup => {
                "of a group that is no projection or handler of this fleet: nobody could take them"
            }
            Self::NoPlace => "headers do not say where the record lies, so no lane knows its place",
            Self::NotRead => "of a topic that the group does not read",
            Self::OtherLog => "the topic of the record was deleted or made anew",
            Self::NoEntry => "the lane's ledger has no entry: rebuilt since, or never committed",
            Self::BeyondMax => "more than --max",
        }
    }
}

/// A letter that can go back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The letter.
    pub letter: Letter,
    /// The lane that did not take its record.
    pub lane: LaneRef,
    /// The log on which the record lies.
    pub log: LogId,
    /// How many partitions the log has.
    pub partitions: i32,
    /// The record's offset.
    pub offset: i64,
    /// When the record was recorded.
    pub recorded_at: TimestampMs,
    /// How it goes back.
    pub way: Way,
}

impl Candidate {
    /// Where its entry is.
    pub(crate) fn at(&self) -> (LaneRef, i64) {
        (self.lane.clone(), self.offset)
    }
}

/// Letters that go back, of one group, reason and type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlanRow {
    /// The consumer group.
    pub group: String,
    /// Why they were set aside.
    pub reason: String,
    /// Their event's full name, where it is known.
    #[serde(rename = "type")]
    pub event_type: String,
    /// How they go.
    pub way: Way,
    /// How many.
    pub letters: u64,
}

/// What a redrive would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The letters that go back: of each lane in log order, lanes side by side.
    pub go: Vec<Candidate>,
    /// How many stay, by why.
    pub stays: BTreeMap<Stays, u64>,
    /// Letters whose ledger entry says that they were redriven, and topic `ops` does not yet: an earlier job ended before it
    /// could write it down.
    pub unwritten: Vec<Candidate>,
    /// Letters that match.
    pub matched: u64,
    /// These are all open letters, and nobody named them one by one.
    pub takes_all: bool,
    /// Groups over the topics of letters that go anew: whose ledgers may have the same event.
    pub anew_groups: Vec<String>,
    /// Dead-letter topics that the cluster does not have.
    pub missing_topics: Vec<String>,
    /// Events of topic `ops` that this version cannot read.
    pub unreadable_actions: u64,
}

/// Looks which letters go back. Nothing is changed.
///
/// # Errors
/// As [`Tools::find`]; [`ToolError::NothingMatches`], [`ToolError::MatchesAll`] where that is not said to be meant; a store
/// or the cluster does not answer.
pub async fn plan<L: Lanes, R: Road>(
    tools: &Tools,
    request: &RedriveRequest,
    lanes: &L,
    road: &R,
) -> Result<Plan, RedriveError> {
    request.check()?;
    let found = tools.select(&request.selector).await?;
    let selection = request.selector.to_string();
    if found.matched == 0 {
        return Err(ToolError::NothingMatches { selection, seen: found.seen }.into());
    }
    let plan = of_found(found, request, lanes, road).await?;
    if plan.takes_all && !request.all_is_meant {
        return Err(ToolError::MatchesAll { letters: plan.go.len(), selection }.into());
    }
    Ok(plan)
}

/// The plan of letters that were found.
pub(crate) async fn of_found<L: Lanes, R: Road>(
    found: Found,
    request: &RedriveRequest,
    lanes: &L,
    road: &R,
) -> Result<Plan, RedriveError> {
    let read = lanes.readers().iter().map(|reader| &reader.topic);
    let told = lanes.handlers().iter().flat_map(|handler| &handler.topics);
    let mut topics: Vec<String> = read.chain(told).cloned().collect();
    topics.sort();
    topics.dedup();
    let logs = road.logs(&topics).await?;
    let mut plan = Plan {
        matched: found.matched as u64,
        missing_topics: found.missing_topics,
        unreadable_actions: found.unreadable_actions,
        ..Plan::default()
    };
    let mut candidates = Vec::new();
    for (letter, state) in found.letters {
        match candidate(letter, &state, request.parked, lanes, &logs) {
            Ok(candidate) => candidates.push(candidate),
            Err(stays) => plan.stay(stays),
        }
    }
    plan.ask_ledgers(candidates, request.parked, lanes).await?;
    // The oldest first, as they were found; what is beyond stays.
    let max = request.selector.max.unwrap_or(usize::MAX);
    let beyond = plan.go.len().saturating_sub(max);
    plan.go.truncate(max);
    (0..beyond).for_each(|_| plan.stay(Stays::BeyondMax));
    let named = !request.selector.ids.is_empty() || plan.go.is_empty() || beyond > 0;
    let all = if request.parked { request.selector.is_everything() } else { found.is_all_open };
    plan.takes_all = all && !named;
    plan.go = in_order(std::mem::take(&mut plan.go));
    let goes_anew = |reader: &&Reader| {
        plan.go.iter().any(|candidate| candidate.way == Way::Anew && candidate.lane.topic == reader.topic)
    };
    plan.anew_groups = lanes.readers().iter().filter(goes_anew).map(|reader| reader.group.clone()).collect();
    Ok(plan)
}

impl Plan {
    fn stay(&mut self, why: Stays) {
        *self.stays.entry(why).or_default() += 1;
    }

    /// Keeps, in their order, the candidates whose entries can still be changed.
    async fn ask_ledgers<L: Lanes>(
        &mut self,
        candidates: Vec<Candidate>,
        parked: bool,
        lanes: &L,
    ) -> Result<(), Trouble> {
        let asked: Vec<&Candidate> = candidates.iter().filter(|it| it.way != Way::ToHandler).collect();
        let entries = entries_of(lanes, &asked).await?;
        for candidate in candidates {
            if candidate.way == Way::ToHandler {
                self.go.push(candidate);
                continue;
            }
            match may_go(entries.get(&candidate.at()), parked) {
                None => self.go.push(candidate),
                Some(stays) => {
                    self.stay(stays);
                    if matches!(stays, Stays::Redriven | Stays::EmittedAnew) {
                        self.unwritten.push(candidate);
                    }
                }
            }
        }
        Ok(())
    }

    /// How many go, by group, reason and type, the most first.
    #[must_use]
    pub fn rows(&self) -> Vec<PlanRow> {
        let mut counts: BTreeMap<(&str, &str, &str, Way), u64> = BTreeMap::new();
        for Candidate { letter, way, .. } in &self.go {
            let event_type = letter.event_type.as_deref().unwrap_or(UNKNOWN);
            *counts.entry((&letter.group, &letter.reason, event_type, *way)).or_default() += 1;
        }
        let row = |((group, reason, event_type, way), letters): ((&str, &str, &str, Way), u64)| PlanRow {
            group: group.to_owned(),
            reason: reason.to_owned(),
            event_type: event_type.to_owned(),
            way,
            letters,
        };
        let mut rows: Vec<PlanRow> = counts.into_iter().map(row).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.letters));
        rows
    }

    /// The groups whose lanes get commands, each once.
    #[must_use]
    pub fn groups(&self) -> Vec<String> {
        let own = self.go.iter().map(|candidate| candidate.lane.group.clone());
        let mut groups: Vec<String> = own.chain(self.anew_groups.iter().cloned()).collect();
        groups.sort();
        groups.dedup();
        groups
    }
}

/// Entries of ledgers, by lane and offset.
pub(crate) type Entries = BTreeMap<(LaneRef, i64), LedgerEntry>;

/// The entries of these letters, asked lane by lane.
pub(crate) async fn entries_of<L: Lanes>(lanes: &L, candidates: &[&Candidate]) -> Result<Entries, Trouble> {
    let mut by_lane: BTreeMap<(&LaneRef, LogId), Vec<i64>> = BTreeMap::new();
    for candidate in candidates {
        by_lane.entry((&candidate.lane, candidate.log)).or_default().push(candidate.offset);
    }
    let mut all = Entries::new();
    for ((lane, log), offsets) in by_lane {
        for some in offsets.chunks(ENTRIES_AT_ONCE) {
            let found = lanes.entries(lane, log, some).await?;
            all.extend(found.into_iter().map(|(offset, entry)| ((lane.clone(), offset), entry)));
        }
    }
    Ok(all)
}

/// Why an entry keeps its letter from going back; none if it can go.
pub(crate) fn may_go(entry: Option<&LedgerEntry>, parked: bool) -> Option<Stays> {
    match entry.map(|entry| entry.state) {
        None => Some(Stays::NoEntry),
        Some(EntryState::Redriven) => Some(Stays::Redriven),
        Some(EntryState::EmittedAnew) => Some(Stays::EmittedAnew),
        Some(EntryState::Parked) if !parked => Some(Stays::Parked),
        Some(EntryState::Open | EntryState::Parked) => None,
    }
}

/// What can be said of a letter without asking a store.
fn candidate<L: Lanes>(
    letter: Letter,
    state: &State,
    parked: bool,
    lanes: &L,
    logs: &BTreeMap<String, LogFacts>,
) -> Result<Candidate, Stays> {
    match state {
        State::Discarded(_) => return Err(Stays::Discarded),
        State::Redriven(_) => return Err(Stays::Redriven),
        State::Parked if !parked => return Err(Stays::Parked),
        State::Open if parked => return Err(Stays::NotParked),
        State::Open | State::Parked => {}
    }
    let readers = lanes.readers();
    let handler = lanes.handlers().iter().find(|handler| handler.group == letter.group);
    if handler.is_none() && !readers.iter().any(|reader| reader.group == letter.group) {
        return Err(Stays::ForeignGroup);
    }
    let Origin::Log { topic, partition, offset, log } = &letter.origin else { return Err(Stays::NoPlace) };
    let log: LogId = log.as_deref().and_then(|log| log.parse().ok()).ok_or(Stays::NoPlace)?;
    let recorded_at = letter.recorded_at.ok_or(Stays::NoPlace)?;
    let is_told = handler.is_some_and(|handler| handler.topics.contains(topic));
    if !is_told && !readers.iter().any(|reader| reader.group == letter.group && reader.topic == *topic) {
        return Err(Stays::NotRead);
    }
    let facts = logs.get(topic).ok_or(Stays::OtherLog)?;
    if facts.log != log || *partition >= facts.partitions {
        return Err(Stays::OtherLog);
    }
    let lane = LaneRef { group: letter.group.clone(), topic: topic.clone(), partition: *partition };
    let is_misplaced =
        [Reason::WrongKey, Reason::WrongPartition].iter().any(|reason| letter.reason == reason.as_str());
    let way = match handler {
        Some(_) => Way::ToHandler,
        None if is_misplaced => Way::Anew,
        None => Way::InPlace,
    };
    let (offset, partitions) = (*offset, facts.partitions);
    Ok(Candidate { letter, lane, log, partitions, offset, recorded_at, way })
}

/// Of each lane in log order, and lanes side by side: each is as far in its own as the others are in theirs.
pub(crate) fn in_order(mut go: Vec<Candidate>) -> Vec<Candidate> {
    /// Finer than any number of letters of a lane.
    const SCALE: u128 = 1 << 64;
    go.sort_by(|a, b| (&a.lane, a.offset).cmp(&(&b.lane, b.offset)));
    let mut count: BTreeMap<LaneRef, (u128, u128)> = BTreeMap::new();
    for candidate in &go {
        count.entry(candidate.lane.clone()).or_default().1 += 1;
    }
    let mut placed: Vec<(u128, Candidate)> = Vec::with_capacity(go.len());
    for candidate in go {
        let (rank, of) = count.entry(candidate.lane.clone()).or_default();
        placed.push((*rank * SCALE / (*of).max(1), candidate));
        *rank += 1;
    }
    // Stable: what is equal stays in log order.
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, candidate)| candidate).collect()
}
