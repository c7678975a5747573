//! What a lane does about the commands on its inbox: they are carried out between two batches, each in one write that
//! does the work and changes the ledger (DESIGN §3).
//!
//! A command waits until progress is past the position it names. What needs the log (entities folded anew) is searched for
//! beside the lane's work; then no more is taken until all that was is written, the rest of the log is folded, and the
//! write is made. A command whose entry is not open changes nothing. So it does not matter how often one is read.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    sync::{Arc, PoisonError},
    time::Duration,
};

use fleetlog_event::{EntityKey, LogId, Reject};
use fleetlog_projection::{
    Act, Command, EntryState, Fault, LaneScope, LedgerEntry, NotACommand, Projection, Record, RefusedAt,
    Sink,
    mutant::{Mutant, on},
};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::{Lane, Work, telling::tell};
use crate::{
    Failure, InboxFeed,
    fault::Interrupt,
    inbox::InboxAt,
    ports::Schemas,
    refold::{Means, Refold},
};

/// Commands that are carried out together at most, and their bytes.
const COMMANDS_MAX: usize = 256;
const COMMANDS_BYTES_MAX: usize = 1 << 20;

/// How long the first of them waits for more: one search of the log is for all that are carried out together.
const GATHER: Duration = Duration::from_millis(20);

/// How far a search may be behind progress when the lane stops for the rest of it, and how often it is let go on before.
const REST_OFFSETS_MAX: i64 = 10_000;
const SEARCHES_MAX: u32 = 5;

/// A record of the inbox.
pub(super) struct Gathered {
    /// Its place in the inbox.
    pub(super) at: i64,
    pub(super) command: Result<Command, NotACommand>,
}

/// A lane's commands.
pub(super) struct Orders<P: Projection> {
    waiting: VecDeque<Gathered>,
    /// Until when what has come waits for more.
    gather_until: Option<Instant>,
    stage: Stage<P>,
}

enum Stage<P: Projection> {
    Idle,
    /// The log is searched.
    Searching(Vec<Gathered>, AbortOnDropHandle<Result<Refold<P>, Interrupt>>),
    /// To be carried out as soon as all that was taken is written.
    Due(Vec<Gathered>, Option<Box<Refold<P>>>),
}

/// What there is to do.
pub(super) enum Ordered<P: Projection> {
    /// Something lies in the inbox.
    Came,
    /// A search is over.
    Searched(Box<Result<Refold<P>, Interrupt>>),
}

impl<P: Projection> Orders<P> {
    pub(super) fn none() -> Self {
        Self { waiting: VecDeque::new(), gather_until: None, stage: Stage::Idle }
    }

    /// Whether the lane is to come to rest.
    pub(super) fn are_due(&self) -> bool {
        matches!(self.stage, Stage::Due(..))
    }
}

impl<P, S, C> Lane<P, S, C>
where
    P: Projection,
    S: Sink<Write = P::Write>,
    C: Schemas,
{
    /// Follows the inbox from where its commands were carried out up to.
    pub(super) fn follow_inbox(&self, from: i64) {
        let mut feed = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        // What lies there stays there over a new beginning: a command to skip may be what it began anew for.
        if feed.as_ref().is_none_or(|feed| feed.next() != from) {
            let at = InboxAt { topic: self.inbox_topic.clone(), partition: self.lane.partition };
            *feed = Some(Arc::new(self.shared.inbox.follow(at, from)));
        }
    }

    fn feed(&self) -> Option<Arc<InboxFeed>> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the next thing to do about commands.
    pub(super) async fn ordered(&self, orders: &mut Orders<P>) -> Ordered<P> {
        match &mut orders.stage {
            Stage::Searching(_, search) => {
                let found = search.await;
                let panicked = |error| Interrupt::Permanent(format!("searching: {error}: this is a bug"));
                Ordered::Searched(Box::new(found.map_err(panicked).and_then(|found| found)))
            }
            Stage::Idle if orders.waiting.is_empty() => match self.feed() {
                Some(feed) => {
                    feed.ready().await;
                    if !feed.has(skips) {
                        // Kept over the turns of the lane's loop, each of which waits here anew.
                        let until = *orders.gather_until.get_or_insert_with(|| Instant::now() + GATHER);
                        tokio::time::sleep_until(until).await;
                    }
                    orders.gather_until = None;
                    Ordered::Came
                }
                None => std::future::pending().await,
            },
            Stage::Idle | Stage::Due(..) => std::future::pending().await,
        }
    }

    /// Resolves once there is a command to skip a position: what a lane that cannot get over it waits for.
    pub(super) async fn skip_ordered(&self) {
        let Some(feed) = self.feed() else { return std::future::pending().await };
        feed.until(skips).await;
    }

    /// Something came, or a search is over.
    pub(super) fn take_order(
        self: &Arc<Self>,
        work: &mut Work<P, C::Decode>,
        ordered: Ordered<P>,
    ) -> Result<(), Interrupt> {
        match ordered {
            Ordered::Came => {
                let records =
                    self.feed().map_or_else(Vec::new, |feed| feed.take(COMMANDS_MAX, COMMANDS_BYTES_MAX));
                let gathered = records
                    .iter()
                    .map(|record| Gathered { at: record.offset, command: Command::read(record) });
                work.orders.waiting.extend(gathered);
            }
            Ordered::Searched(found) => {
                let refold = (*found)?;
                if let Stage::Searching(batch, _) = std::mem::replace(&mut work.orders.stage, Stage::Idle) {
                    work.orders.stage = Stage::Due(batch, Some(Box::new(refold)));
                }
            }
        }
        Ok(())
    }

    /// Begins what is due, and carries out what can be now.
    pub(super) async fn see_to_orders(
        self: &Arc<Self>,
        work: &mut Work<P, C::Decode>,
    ) -> Result<(), Interrupt> {
        if matches!(work.orders.stage, Stage::Idle) && !work.orders.waiting.is_empty() {
            let (main, log) = (work.core.progress().main, work.core.scope().log);
            let batch = due(
                &mut work.orders.waiting,
                |command| command.log != log || command.offset().is_none_or(|offset| offset < main),
                main,
            );
            if !batch.is_empty() {
                work.orders.stage = self.begun(work, batch);
            }
        }
        if work.orders.are_due()
            && work.is_all_written()
            && let Stage::Due(batch, refold) = std::mem::replace(&mut work.orders.stage, Stage::Idle)
        {
            self.carry_out(work, batch, refold.map(|refold| *refold)).await?;
        }
        Ok(())
    }

    fn begun(self: &Arc<Self>, work: &Work<P, C::Decode>, batch: Vec<Gathered>) -> Stage<P> {
        let folds = self.shared.projection.home(&EntityKey::from("")).is_some();
        let needs_log = |gathered: &Gathered| {
            matches!(&gathered.command, Ok(Command { act: Act::Redrive { .. } | Act::FoldAnew { .. }, .. }))
        };
        if !folds || !batch.iter().any(needs_log) {
            return Stage::Due(batch, None);
        }
        let wanted = wanted(&batch, work.core.scope().log);
        let (lane, scope) = (Arc::clone(self), *work.core.scope());
        let search = tokio::spawn(async move { lane.search(scope, wanted).await });
        Stage::Searching(batch, AbortOnDropHandle::new(search))
    }

    /// Folds what is wanted up to about where the lane is by now, beside its work.
    async fn search(
        self: Arc<Self>,
        scope: LaneScope,
        (mut keys, mut placed): (HashSet<EntityKey>, Vec<Record>),
    ) -> Result<Refold<P>, Interrupt> {
        let offsets: Vec<i64> = placed.iter().map(|record| record.offset).collect();
        let entries = self.entries(scope.log, &offsets).await?;
        placed.retain(|record| is_open(&entries, record.offset));
        keys.extend(placed.iter().filter_map(|record| record.key_text().map(EntityKey::from)));
        let mut refold = Refold::new(keys, placed, self.dedup_span_offsets);
        for _ in 0..SEARCHES_MAX {
            let main = self.status.progress().unwrap_or_default();
            if main - refold.upto().max(0) <= REST_OFFSETS_MAX && refold.upto() >= 0 {
                break;
            }
            self.fold_on(&mut refold, scope, main).await?;
        }
        Ok(refold)
    }

    /// Folds on up to `to`, however long that takes.
    pub(super) async fn fold_on(
        &self,
        refold: &mut Refold<P>,
        scope: LaneScope,
        to: i64,
    ) -> Result<(), Interrupt> {
        let mut pauses = self.pauses();
        let sink = &self.shared.sink;
        let from = refold.upto().max(0);
        let read = || sink.not_taken(&self.lane, scope.log, from..to);
        let not_taken: BTreeSet<i64> = self.persist("reading the ledger", read).await?;
        let means = Means {
            projection: &self.shared.projection,
            schemas: &self.shared.schemas,
            logs: self.shared.logs.port(),
            topic: &self.lane.topic,
            scope,
        };
        loop {
            match refold.on(&means, to, &not_taken).await {
                Ok(()) => return Ok(()),
                Err(Failure { fault: Fault::Transient, what }) => {
                    tell!(warn, self.lane, "searching the log: {what}; trying again");
                    self.pause(pauses.next()).await?;
                }
                Err(failure) => return Err(Interrupt::Permanent(format!("lane {}: {failure}", self.lane))),
            }
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

    pub(super) fn tell_carried_out(&self, tally: &BTreeMap<&'static str, usize>) {
        if tally.is_empty() {
            return;
        }
        tally.iter().for_each(|(outcome, count)| self.metrics.commands(outcome, *count));
        let told: Vec<String> = tally.iter().map(|(what, count)| format!("{count} {what}")).collect();
        tell!(info, self.lane, "commands carried out: {}", told.join(", "));
    }

    pub(super) fn tell_not_placed(&self, key: &EntityKey, reject: &Reject) {
        tell!(warn, self.lane, entity = key.as_str(), "not folded anew: {reject}");
    }

    pub(super) fn refuses_entities(&self, at: &[RefusedAt]) -> Interrupt {
        let what = format!("lane {}: the store refuses rows where there are none: {at:?}", self.lane);
        Interrupt::Permanent(format!("{what}; this is a bug of the sink"))
    }

    pub(super) fn tell_unreadable(&self, at: i64, why: &NotACommand) {
        tell!(warn, self.lane, inbox_offset = at, "no command, passed over: {why}; of a newer fleetlog?");
    }
}

/// Whether a record is a command to skip a position.
fn skips(record: &Record) -> bool {
    matches!(Command::read(record), Ok(Command { act: Act::Skip { .. }, .. }))
}

/// Takes the commands off the front that can be carried out together: those that are due, or one that skips.
fn due(waiting: &mut VecDeque<Gathered>, is_due: impl Fn(&Command) -> bool, main: i64) -> Vec<Gathered> {
    let is_skip =
        |gathered: &Gathered| matches!(&gathered.command, Ok(Command { act: Act::Skip { .. }, .. }));
    let ready = |gathered: &Gathered| gathered.command.as_ref().map_or(true, &is_due);
    if let Some(first) = waiting.front().filter(|first| is_skip(first)) {
        let at = first.command.as_ref().ok().and_then(Command::offset);
        let is_next = at.is_some_and(|offset| offset <= main) || ready(first);
        return if is_next { waiting.drain(..1).collect() } else { Vec::new() };
    }
    let count = waiting.iter().take_while(|gathered| !is_skip(gathered) && ready(gathered)).count();
    waiting.drain(..count).collect()
}

/// The entities to be folded anew, and the records to be placed, of this log.
fn wanted(batch: &[Gathered], log: LogId) -> (HashSet<EntityKey>, Vec<Record>) {
    let (mut keys, mut placed) = (HashSet::new(), Vec::new());
    let commands = batch.iter().filter_map(|gathered| gathered.command.as_ref().ok());
    for command in commands.filter(|command| command.log == log) {
        match &command.act {
            Act::FoldAnew { key } => drop(keys.insert(key.clone())),
            Act::Redrive { record, .. } => placed.push(record.clone()),
            Act::EmittedAnew { .. } | Act::Skip { .. } => {}
        }
    }
    (keys, placed)
}

/// Whether an event can still be redriven.
pub(super) fn is_open(entries: &BTreeMap<i64, LedgerEntry>, offset: i64) -> bool {
    on(Mutant::LedgerSkipped) || entries.get(&offset).is_some_and(|entry| entry.state.is_open())
}

/// What closes an entry.
pub(super) fn closed(entry: &LedgerEntry, state: EntryState) -> LedgerEntry {
    entry.clone().closed(state, super::now())
}
