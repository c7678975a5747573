//! What a redrive would come to, without writing anything.

use std::collections::{BTreeMap, BTreeSet};

use fleetlog_event::{EntityKey, Reject};
use fleetlog_projection::{Fault, LaneId, Projected, Projection, Record, Rulings, Sink, SinkError};

use crate::{
    Failure,
    ports::{Logs, Schemas},
    refold::{Anew, Means, Refold},
};

/// What a redrive is rehearsed with: the code and the schemas of this process, and the lane as it is stored.
pub struct Rehearsing<'a, P, S, C> {
    /// The projection.
    pub projection: &'a P,
    /// Where it lands. Only read.
    pub sink: &'a S,
    /// Where writer schemas come from.
    pub schemas: &'a C,
    /// The log.
    pub logs: &'a dyn Logs,
    /// The lane whose inbox the commands would be for.
    pub lane: &'a LaneId,
    /// The topic's duplicates window.
    pub dedup_span_offsets: i64,
}

/// What a redrive would come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rehearsal {
    /// By offset: taken, or rejected again and why. A store may still refuse a row.
    pub outcomes: BTreeMap<i64, Result<(), Reject>>,
    /// Events that were taken before and would be set aside instead, since their entity comes out otherwise.
    pub also_rejected: Vec<(i64, Reject)>,
}

impl<P, S, C> Rehearsing<'_, P, S, C>
where
    P: Projection,
    S: Sink<Write = P::Write>,
    C: Schemas,
{
    /// Says what would come of redriving these records, all of this lane. Folding entities anew takes one look through the
    /// lane's log.
    ///
    /// # Errors
    /// When log, schemas or store cannot be asked, or the projector panics.
    pub async fn of(&self, records: Vec<Record>) -> Result<Rehearsal, Failure> {
        let at = (self.lane.topic.clone(), self.lane.partition);
        let logs = self.logs.look(std::slice::from_ref(&self.lane.topic)).await?;
        let gone = || Failure::permanent(format!("{}/{}: there is no such partition", at.0, at.1));
        let log = logs.get(&at).ok_or_else(gone)?;
        let means = Means {
            projection: self.projection,
            schemas: self.schemas,
            logs: self.logs,
            topic: &self.lane.topic,
            scope: log.scope,
        };
        let keyed = |record: &Record| {
            record.key_text().is_some_and(|key| self.projection.home(&EntityKey::from(key)).is_some())
        };
        let (folded, alone): (Vec<Record>, Vec<Record>) = records.into_iter().partition(keyed);
        let mut rehearsal = self.alone(&means, &alone).await?;
        if !folded.is_empty() {
            self.folded(&means, folded, &mut rehearsal).await?;
        }
        Ok(rehearsal)
    }

    /// Rows, and what has no key.
    async fn alone(&self, means: &Means<'_, P, C>, records: &[Record]) -> Result<Rehearsal, Failure> {
        let refs: Vec<&Record> = records.iter().collect();
        let decode = self.schemas.prepare(&refs).await?;
        let (rulings, cache) = (Rulings::default(), P::Cache::default());
        let project = || self.projection.project(&means.scope, &decode, &refs, &rulings, &cache);
        let Projected { set_aside, .. } = std::panic::catch_unwind(std::panic::AssertUnwindSafe(project))
            .map_err(|_| Failure::permanent(format!("`{}` panicked: a bug", self.projection.id())))?;
        let mut outcomes: BTreeMap<i64, Result<(), Reject>> =
            records.iter().map(|record| (record.offset, Ok(()))).collect();
        outcomes.extend(set_aside.into_iter().map(|aside| (aside.record.offset, Err(aside.reject))));
        Ok(Rehearsal { outcomes, also_rejected: Vec::new() })
    }

    async fn folded(
        &self,
        means: &Means<'_, P, C>,
        records: Vec<Record>,
        rehearsal: &mut Rehearsal,
    ) -> Result<(), Failure> {
        let mut by_key: BTreeMap<EntityKey, Vec<i64>> = BTreeMap::new();
        for record in &records {
            by_key.entry(record.key_text().unwrap_or_default().into()).or_default().push(record.offset);
        }
        let keys: Vec<EntityKey> = by_key.keys().cloned().collect();
        let homes: Vec<String> = keys.iter().filter_map(|key| self.projection.home(key)).collect();
        let stored = self.sink.read(self.lane, &homes).await.map_err(failed)?;
        let main = stored.progress.map_or(0, |progress| progress.main);
        let log = means.scope.log;
        let not_taken: BTreeSet<i64> = self.sink.not_taken(self.lane, log, 0..main).await.map_err(failed)?;
        let mut refold = Refold::new(keys.iter().cloned(), records, self.dedup_span_offsets);
        refold.on(means, main, &not_taken).await?;
        let mut refolded = refold.finish(self.projection);
        for (key, state) in keys.into_iter().zip(stored.states) {
            let offsets = by_key.remove(&key).unwrap_or_default();
            let own = refolded.rejected.iter().filter(|(_, a)| a.record.key_text() == Some(key.as_str()));
            let rejected = own.map(|(offset, aside)| (*offset, aside.clone())).collect();
            let change = refolded.changes.remove(&key);
            let anew = Anew { change, stored: state.map(|state| state.version), rejected, offsets };
            let (anew, why_not) = anew.placed(&log);
            for offset in &anew.offsets {
                let rejected = anew.rejected.get(offset).map(|aside| aside.reject.clone());
                let outcome = why_not.clone().or(rejected).map_or(Ok(()), Err);
                rehearsal.outcomes.insert(*offset, outcome);
            }
            if why_not.is_none() && anew.change.is_some() {
                let others = anew.others().into_iter().map(|aside| (aside.record.offset, aside.reject));
                rehearsal.also_rejected.extend(others);
            }
        }
        Ok(())
    }
}

fn failed(error: SinkError) -> Failure {
    let fault = if error.fault == Fault::Fenced { Fault::Transient } else { error.fault };
    Failure { fault, what: error.to_string() }
}
