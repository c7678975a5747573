//! Letters of handlers: they go on the topic of what is held for their handler, which calls for them before anything newer that
//! waits, and is told that an operator sent them.
//!
//! A handler has no ledger: sent is what can be known here. What it cannot take once more is a new letter. If this job ends
//! between sending and writing that down, the same command sends once more, and the handler is called twice: as ever, at least once.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use fleetlog_event::{Position, ops::RedriveOutcome};
use fleetlog_handler::{Journey, is_of_journeys};
use fleetlog_kafka::{HeaderName, OwnedRecord};
use fleetlog_producer::RawRecord;
use fleetlog_projection::Fault;

use super::{
    Candidate, Ended, Lanes, Road, Trouble,
    audit::Answer,
    job::{Job, acknowledged, patiently},
};

impl<L: Lanes, R: Road> Job<'_, L, R> {
    /// Sends letters to their handlers, batch by batch.
    pub(super) async fn send_to_handlers(
        &mut self,
        candidates: &[&Candidate],
    ) -> Result<Option<Ended>, Trouble> {
        let mut by_group: BTreeMap<&str, Vec<&Candidate>> = BTreeMap::new();
        for candidate in candidates {
            by_group.entry(&candidate.lane.group).or_default().push(candidate);
        }
        for (group, candidates) in by_group {
            for some in candidates.chunks(self.request.batch_now(None)) {
                if !self.paced(some.len()).await {
                    return Ok(Some(Ended::Stopped));
                }
                self.hand_back(group, some).await?;
            }
        }
        Ok(None)
    }

    async fn hand_back(&mut self, group: &str, candidates: &[&Candidate]) -> Result<(), Trouble> {
        let handler = self.lanes.handlers().iter().find(|handler| handler.group == group);
        let held = handler.map(|handler| handler.held.clone()).ok_or_else(|| Trouble {
            fault: Fault::Permanent,
            what: format!("group `{group}` is no handler of this fleet"),
        })?;
        let patience = self.request.patience;
        let places: Vec<_> = candidates.iter().map(|candidate| candidate.letter.place.clone()).collect();
        let letters = patiently(patience, async || self.road.fetch(&places).await).await?;
        let (mut records, mut answers) = (Vec::new(), Vec::new());
        for candidate in candidates {
            match letters.get(&candidate.letter.place) {
                Some(letter) => {
                    records.push(held_record(candidate, letter, &held));
                    answers.push(Answer { candidate, outcome: RedriveOutcome::Taken, reason: None });
                }
                None => {
                    self.done.gone += 1;
                    self.done.left -= 1;
                }
            }
        }
        if !records.is_empty() {
            let send = async || self.road.send(group, records.clone()).await;
            acknowledged(patience, "sending letters to their handler", send).await?;
        }
        self.write_down(group, &answers).await
    }
}

/// The letter's record, with where its event lies. The letter's own headers stay: by them a second failure knows of the first.
fn held_record(candidate: &Candidate, letter: &OwnedRecord, held: &str) -> RawRecord {
    let journey = Journey {
        topic: candidate.lane.topic.clone(),
        position: Position {
            log: candidate.log,
            partition: candidate.lane.partition,
            offset: candidate.offset,
        },
        recorded_at: candidate.recorded_at,
        failed_calls: 0,
        first_failed_at: None,
        rest: Duration::ZERO,
        why: None,
        is_redrive: true,
    };
    let own = letter.headers.iter().filter(|(name, _)| !is_of_journeys(name.as_ref())).cloned();
    let ours = journey.headers().into_iter().map(|(name, value)| (HeaderName::from(name), Some(value)));
    let headers: Vec<(HeaderName, Option<Bytes>)> = own.chain(ours).collect();
    RawRecord {
        topic: held.to_owned(),
        // What is held has as many partitions as the widest source.
        partition: Some(candidate.lane.partition),
        key: letter.key.clone(),
        value: letter.value.clone(),
        timestamp: None,
        headers,
    }
}
