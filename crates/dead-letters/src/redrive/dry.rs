//! A dry run: a plan, and some of its letters tried against today's projector.

use std::collections::{BTreeMap, BTreeSet};

use fleetlog_event::Reject;
use fleetlog_projection::{Headers, Record};
use serde::Serialize;

use super::{Candidate, LaneRef, Lanes, Plan, RedriveRequest, Road, Trouble, Way};
use crate::Place;

/// The first or the last letter that would go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Direction {
    /// When it was set aside, milliseconds since 1970.
    pub set_aside_at_ms: i64,
    /// Where it lies.
    pub place: Place,
    /// Where its record lies.
    pub origin: String,
}

/// What today's projectors made of a sample.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// Letters tried.
    pub letters: u64,
    /// Letters that would be taken.
    pub taken: u64,
    /// Letters that would be rejected again, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Events that were taken before and would be rejected once these stand in their places, by group and reason.
    pub also_rejected: BTreeMap<String, u64>,
    /// The first few rejections in words.
    pub examples: Vec<String>,
    /// Letters of the sample that could not be tried: gone by retention, or to be emitted anew.
    pub untried: u64,
}

/// Most rejections that are told in words.
const EXAMPLES_MAX: usize = 5;

/// What a redrive would do, and what would likely come of it.
#[derive(Debug)]
pub struct DryRun {
    /// The letter that was set aside first; none where none goes.
    pub first: Option<Direction>,
    /// The letter that was set aside last.
    pub last: Option<Direction>,
    /// A sample, spread over the selection, tried.
    pub tried: Tried,
}

impl DryRun {
    /// Tries a sample of a plan. Nothing is changed; each lane is asked once.
    ///
    /// # Errors
    /// When the cluster or a store does not answer.
    pub async fn of<L: Lanes, R: Road>(
        plan: &Plan,
        request: &RedriveRequest,
        lanes: &L,
        road: &R,
    ) -> Result<Self, Trouble> {
        let by_age = |candidate: &&Candidate| (candidate.letter.set_aside_at, candidate.letter.place.clone());
        Ok(Self {
            first: plan.go.iter().min_by_key(by_age).map(direction),
            last: plan.go.iter().max_by_key(by_age).map(direction),
            tried: tried(&spread(&plan.go, request.sample), lanes, road).await?,
        })
    }
}

fn direction(candidate: &Candidate) -> Direction {
    Direction {
        set_aside_at_ms: candidate.letter.set_aside_at.0,
        place: candidate.letter.place.clone(),
        origin: candidate.letter.origin.to_string(),
    }
}

/// At most so many, as far apart as they can be; the first is always one of them.
pub(crate) fn spread<T>(all: &[T], count: usize) -> Vec<&T> {
    let count = count.min(all.len());
    (0..count).map(|n| &all[n * all.len() / count]).collect()
}

async fn tried<L: Lanes, R: Road>(sample: &[&Candidate], lanes: &L, road: &R) -> Result<Tried, Trouble> {
    let (in_place, anew): (Vec<&Candidate>, Vec<&Candidate>) =
        sample.iter().partition(|candidate| candidate.way == Way::InPlace);
    let places: Vec<Place> = in_place.iter().map(|candidate| candidate.letter.place.clone()).collect();
    let records = road.fetch(&places).await?;
    let mut tried = Tried { letters: sample.len() as u64, untried: anew.len() as u64, ..Tried::default() };
    let mut by_lane: BTreeMap<&LaneRef, Vec<Record>> = BTreeMap::new();
    for candidate in in_place {
        match records.get(&candidate.letter.place) {
            Some(letter) => by_lane.entry(&candidate.lane).or_default().push(record(candidate, letter)),
            None => tried.untried += 1,
        }
    }
    for (lane, mut records) in by_lane {
        records.sort_by_key(|record| record.offset);
        let asked: BTreeSet<i64> = records.iter().map(|record| record.offset).collect();
        let rehearsal = lanes.rehearse(lane, records).await?;
        for offset in asked {
            match rehearsal.outcomes.get(&offset) {
                Some(Ok(())) => tried.taken += 1,
                Some(Err(reject)) => {
                    *tried.rejected.entry(reject.reason.to_string()).or_default() += 1;
                    tried.example(lane, offset, reject);
                }
                None => tried.untried += 1,
            }
        }
        for (offset, reject) in &rehearsal.also_rejected {
            *tried.also_rejected.entry(format!("{} {}", lane.group, reject.reason)).or_default() += 1;
            tried.example(lane, *offset, reject);
        }
    }
    Ok(tried)
}

impl Tried {
    fn example(&mut self, lane: &LaneRef, offset: i64, reject: &Reject) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(format!("{lane}/{offset}: {reject}"));
        }
    }
}

/// The record of a letter as it lay on the log; with the letter's headers, by which a second failure knows of the first.
pub(crate) fn record(candidate: &Candidate, letter: &fleetlog_kafka::OwnedRecord) -> Record {
    Record {
        offset: candidate.offset,
        timestamp: candidate.recorded_at,
        key: letter.key.clone(),
        value: letter.value.clone(),
        headers: Headers::pack(letter.headers.iter().map(|(name, value)| (name, value.as_deref()))),
    }
}
