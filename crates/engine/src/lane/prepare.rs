//! What commands need before they can be carried out: ledger, schemas, and entities folded anew from the log. Looked up
//! beside the lane's work, however long it takes.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use fleetlog_event::{EntityKey, LogId};
use fleetlog_projection::{
    Act, Command, EntryState, Fault, LaneScope, LedgerEntry, Projection, Record, Sink,
    mutant::{Mutant, on},
};
use tracing::warn;

use super::{Lane, telling::tell};
use crate::{
    Failure,
    fault::Interrupt,
    ports::Schemas,
    refold::{Means, Refold, RefoldError},
};

/// How far a search may be behind progress when the lane comes to rest for what is left, and how often it is let go on before.
const REST_OFFSETS_MAX: i64 = 10_000;
const SEARCHES_MAX: u32 = 5;
/// Tries at rest: then the lane goes on, and all is looked up once more.
const TRIES_AT_REST: u32 = 3;

/// What is there for commands to be carried out.
pub(super) struct Prepared<P: Projection, D> {
    pub(super) folded: Folded<P>,
    /// How to decode what is redriven.
    pub(super) decode: Option<D>,
}

impl<P: Projection, D> Prepared<P, D> {
    pub(super) fn nothing() -> Self {
        Self { folded: Folded::Nothing, decode: None }
    }
}

/// Entities folded anew.
pub(super) enum Folded<P: Projection> {
    /// None: there are none (a map), or nothing is to be done.
    Nothing,
    /// Up to about where the lane is.
    Some(Box<Refold<P>>),
    /// The projector panicked on an event of them.
    Panicked,
}

/// What commands are about.
#[derive(Default)]
pub(super) struct Wanted {
    keys: HashSet<EntityKey>,
    placed: Vec<Record>,
}

impl Wanted {
    pub(super) fn is_nothing(&self) -> bool {
        self.keys.is_empty() && self.placed.is_empty()
    }
}

/// The entities to be folded anew, and the records to be placed, of this log.
pub(super) fn wanted<'c>(commands: impl Iterator<Item = &'c Command>, log: LogId) -> Wanted {
    let mut wanted = Wanted::default();
    for command in commands.filter(|command| command.log == log) {
        match &command.act {
            Act::FoldAnew { key } => drop(wanted.keys.insert(key.clone())),
            Act::Redrive { record, .. } => wanted.placed.push(record.clone()),
            Act::EmittedAnew { .. } | Act::Skip { .. } => {}
        }
    }
    wanted
}

/// Whether an event can still be redriven.
pub(super) fn is_open(entries: &BTreeMap<i64, LedgerEntry>, offset: i64) -> bool {
    on(Mutant::LedgerSkipped) || entries.get(&offset).is_some_and(|entry| entry.state.is_open())
}

/// What closes an entry.
pub(super) fn closed(entry: &LedgerEntry, state: EntryState) -> LedgerEntry {
    entry.clone().closed(state, super::now())
}

impl<P, S, C> Lane<P, S, C>
where
    P: Projection,
    S: Sink<Write = P::Write>,
    C: Schemas,
{
    /// Looks up what is wanted; entities are folded up to about where the lane is by now.
    pub(super) async fn prepare(
        self: Arc<Self>,
        scope: LaneScope,
        Wanted { mut keys, mut placed }: Wanted,
    ) -> Result<Prepared<P, C::Decode>, Interrupt> {
        let offsets: Vec<i64> = placed.iter().map(|record| record.offset).collect();
        let entries = self.entries(scope.log, &offsets).await?;
        placed.retain(|record| is_open(&entries, record.offset));
        let refs: Vec<&Record> = placed.iter().collect();
        let decode = self.persist("looking up schemas", || self.shared.schemas.prepare(&refs)).await?;
        let (projection, mut folded) = (&self.shared.projection, Folded::Nothing);
        if projection.home(&EntityKey::from("")).is_some() {
            keys.extend(placed.iter().filter_map(|record| record.key_text().map(EntityKey::from)));
            let refold = Refold::new(keys, placed, self.dedup_span_offsets);
            folded = self.folded(scope, refold).await?;
        }
        Ok(Prepared { folded, decode: Some(decode) })
    }

    async fn folded(&self, scope: LaneScope, mut refold: Refold<P>) -> Result<Folded<P>, Interrupt> {
        let (sink, mut pauses, mut searches) = (&self.shared.sink, self.pauses(), 0);
        while !refold.is_empty() && searches < SEARCHES_MAX {
            let (main, from) = (self.status.progress().unwrap_or_default(), refold.upto().max(0));
            if refold.upto() >= 0 && main - from <= REST_OFFSETS_MAX {
                break;
            }
            let read = || sink.not_taken(&self.lane, scope.log, from..main);
            let not_taken = self.persist("reading the ledger", read).await?;
            match self.fold_on(&mut refold, scope, main, &not_taken).await? {
                Ok(()) => searches += 1,
                Err(RefoldError::Panicked) => return Ok(Folded::Panicked),
                Err(RefoldError::Failed(failure)) => {
                    tell!(warn, self.lane, "searching the log: {failure}; trying again");
                    self.pause(pauses.next()).await?;
                }
            }
        }
        Ok(Folded::Some(Box::new(refold)))
    }

    /// At rest: folds what is left. None if that does not work now.
    pub(super) async fn fold_rest(
        &self,
        mut refold: Box<Refold<P>>,
        scope: LaneScope,
        to: i64,
        named: &BTreeSet<i64>,
    ) -> Result<Option<Folded<P>>, Interrupt> {
        for _ in 0..TRIES_AT_REST {
            match self.fold_on(&mut refold, scope, to, named).await? {
                Ok(()) => return Ok(Some(Folded::Some(refold))),
                Err(RefoldError::Panicked) => return Ok(Some(Folded::Panicked)),
                Err(RefoldError::Failed(failure)) => {
                    tell!(warn, self.lane, "searching the rest of the log: {failure}");
                }
            }
        }
        Ok(None)
    }

    /// Folds on up to `to`; ends when the lane is stopped.
    async fn fold_on(
        &self,
        refold: &mut Refold<P>,
        scope: LaneScope,
        to: i64,
        not_taken: &BTreeSet<i64>,
    ) -> Result<Result<(), RefoldError>, Interrupt> {
        let means = Means {
            projection: &self.shared.projection,
            schemas: &self.shared.schemas,
            logs: self.shared.logs.port(),
            topic: &self.lane.topic,
            scope,
        };
        let folded = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(Interrupt::Stopped),
            folded = refold.on(&means, to, not_taken) => folded,
        };
        match folded {
            Err(RefoldError::Failed(Failure { fault: Fault::Permanent, what })) => {
                Err(Interrupt::Permanent(format!("lane {}: {what}", self.lane)))
            }
            other => Ok(other),
        }
    }

    /// The ledger's entries of these offsets.
    pub(super) async fn entries(
        &self,
        log: LogId,
        offsets: &[i64],
    ) -> Result<BTreeMap<i64, LedgerEntry>, Interrupt> {
        if offsets.is_empty() {
            return Ok(BTreeMap::new());
        }
        let sink = &self.shared.sink;
        self.persist("reading the ledger", || sink.entries(&self.lane, log, offsets)).await
    }
}
