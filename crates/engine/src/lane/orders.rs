//! What a lane does about the commands on its inbox: they are carried out between two batches, each in one write that
//! does the work and changes the ledger (DESIGN §3).
//!
//! A command waits until progress is past the position it names. What needs schemas or the log (entities folded anew) is
//! looked up beside the lane's work (`prepare.rs`); then no more is taken until all that was is written, the rest of the
//! log is folded, and the write is made (`carry_out.rs`). A command whose entry is not open changes nothing. So it does not
//! matter how often one is read.
//!
//! A position is skipped out of turn, as soon as the lane comes to it: the commands before may wait for what is behind it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem::{Discriminant, discriminant},
    sync::{Arc, PoisonError},
    time::Duration,
};

use fleetlog_event::{EntityKey, Reject};
use fleetlog_projection::{
    Act, Batch, Command, LaneCore, NotACommand, Projection, Record, RefusedAt, SetAside, Sink,
};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::{
    Lane, Work,
    prepare::{Folded, Prepared, wanted},
    telling::tell,
};
use crate::{InboxFeed, fault::Interrupt, inbox::InboxAt, ports::Schemas};

/// Commands that are carried out together at most, and their bytes.
const COMMANDS_MAX: usize = 256;
const COMMANDS_BYTES_MAX: usize = 1 << 20;
/// How long the first of them waits for more: one search of the log is for all that are carried out together.
const GATHER: Duration = Duration::from_millis(20);

/// A record of the inbox.
pub(super) struct Gathered {
    /// Its place in the inbox.
    pub(super) at: i64,
    pub(super) command: Result<Command, NotACommand>,
}

/// A lane's commands.
pub(super) struct Orders<P: Projection, D> {
    waiting: VecDeque<Gathered>,
    /// Records that are to be skipped once the lane comes to them, and why.
    skips: Vec<(Record, String)>,
    /// Until when what has come waits for more.
    gather_until: Option<Instant>,
    /// How many of those that wait are carried out one by one, since one of them makes the projector panic.
    singly: usize,
    /// What the ledger names beyond what was read of it for the commands at work.
    noted: BTreeSet<i64>,
    stage: Stage<P, D>,
}

enum Stage<P: Projection, D> {
    Idle,
    /// What they need is looked up.
    Preparing(Vec<Gathered>, AbortOnDropHandle<Result<Prepared<P, D>, Interrupt>>),
    /// To be carried out as soon as all that was taken is written.
    Due(Vec<Gathered>, Box<Prepared<P, D>>),
}

/// What there is to do.
pub(super) enum Ordered<P: Projection, D> {
    /// Something lies in the inbox.
    Came,
    /// What was looked up is there.
    Prepared(Box<Result<Prepared<P, D>, Interrupt>>),
}

impl<P: Projection, D> Orders<P, D> {
    pub(super) fn none() -> Self {
        Self {
            waiting: VecDeque::new(),
            skips: Vec::new(),
            gather_until: None,
            singly: 0,
            noted: BTreeSet::new(),
            stage: Stage::Idle,
        }
    }

    /// Whether the lane is to come to rest: for commands that are due, or because it has come to a position to be skipped.
    pub(super) fn want_rest(&self, core: &LaneCore) -> bool {
        matches!(self.stage, Stage::Due(..)) || self.skip_at(core.cursor()).is_some()
    }

    fn skip_at(&self, cursor: i64) -> Option<usize> {
        self.skips.iter().position(|(record, _)| record.offset == cursor)
    }

    /// A position is not to be skipped after all.
    pub(super) fn forget_skip(&mut self, offset: i64) {
        self.skips.retain(|(record, _)| record.offset != offset);
    }

    /// The part of a batch before the first position that is to be skipped.
    pub(super) fn before_skips(&self, mut batch: Batch) -> Batch {
        let within = |offset: &i64| (batch.begin..batch.next).contains(offset);
        let offsets = self.skips.iter().map(|(record, _)| record.offset);
        if let Some(first) = offsets.filter(within).min() {
            batch.records.retain(|record| record.offset < first);
            batch.next = first;
        }
        batch
    }

    /// Events were set aside while commands are at work.
    pub(super) fn note(&mut self, set_aside: &[SetAside]) {
        if !matches!(self.stage, Stage::Idle) {
            self.noted.extend(set_aside.iter().map(|aside| aside.record.offset));
        }
    }

    /// What the ledger names beyond what was read of it.
    pub(super) fn noted(&self) -> &BTreeSet<i64> {
        &self.noted
    }

    /// Commands have to wait once more, in their place; if there are several, each for itself where `singly`.
    pub(super) fn put_back(&mut self, batch: Vec<Gathered>, singly: bool) {
        if singly {
            self.singly = batch.len();
        }
        batch.into_iter().rev().for_each(|gathered| self.waiting.push_front(gathered));
    }

    /// The commands at the front that can be carried out together.
    fn due(&mut self, core: &LaneCore, end: Option<i64>) -> Vec<Gathered> {
        let (main, log) = (core.progress().main, core.scope().log);
        let is_due = |command: &Command| match (&command.act, command.offset()) {
            _ if command.log != log => true,
            (_, None) => true,
            // Nothing lies there that could be skipped.
            (Act::Skip { .. }, Some(offset)) => offset < main || end.is_some_and(|end| offset >= end),
            (_, Some(offset)) => offset < main,
        };
        let mut acts: BTreeMap<i64, Discriminant<Act>> = BTreeMap::new();
        let mut fits = |gathered: &&Gathered| {
            let Ok(command) = &gathered.command else { return true };
            // Another act on the same position is judged by what the first one leaves.
            let kind = discriminant(&command.act);
            let same = command.offset().is_none_or(|offset| *acts.entry(offset).or_insert(kind) == kind);
            same && is_due(command)
        };
        let count_max = if self.singly > 0 { 1 } else { COMMANDS_MAX };
        let count = self.waiting.iter().take(count_max).take_while(&mut fits).count();
        self.singly = self.singly.saturating_sub(count);
        self.waiting.drain(..count).collect()
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

    /// Waits for the next thing to do about commands. Cancel-safe.
    pub(super) async fn ordered(&self, orders: &mut Orders<P, C::Decode>) -> Ordered<P, C::Decode> {
        let Orders { stage, waiting, gather_until, .. } = orders;
        let is_idle = matches!(stage, Stage::Idle) && waiting.is_empty();
        tokio::select! {
            biased;
            () = self.skip_ordered() => Ordered::Came,
            prepared = preparing(stage) => Ordered::Prepared(Box::new(prepared)),
            () = self.gathered(gather_until), if is_idle => Ordered::Came,
        }
    }

    /// Something came, and a while has passed in which more may have come.
    async fn gathered(&self, gather_until: &mut Option<Instant>) {
        let Some(feed) = self.feed() else { return std::future::pending().await };
        feed.ready().await;
        // Kept over the turns of the lane's loop, each of which waits here anew.
        let until = *gather_until.get_or_insert_with(|| Instant::now() + GATHER);
        tokio::time::sleep_until(until).await;
    }

    /// Resolves once there is a command to skip a position: what a lane that cannot get over it waits for.
    pub(super) async fn skip_ordered(&self) {
        let Some(feed) = self.feed() else { return std::future::pending().await };
        feed.until(Command::is_skip).await;
    }

    /// Something came, or what was looked up is there.
    pub(super) fn take_order(
        &self,
        work: &mut Work<P, C::Decode>,
        ordered: Ordered<P, C::Decode>,
    ) -> Result<(), Interrupt> {
        let Work { orders, core, .. } = work;
        match ordered {
            Ordered::Came => {
                orders.gather_until = None;
                let taken = self.feed().map(|feed| feed.take(COMMANDS_MAX, COMMANDS_BYTES_MAX));
                for record in taken.into_iter().flatten() {
                    let command = Command::read(&record);
                    if let Ok(Command { act: Act::Skip { record, why }, log, .. }) = &command
                        && *log == core.scope().log
                    {
                        orders.skips.push((record.clone(), why.clone()));
                    }
                    orders.waiting.push_back(Gathered { at: record.offset, command });
                }
            }
            Ordered::Prepared(prepared) => {
                let prepared = (*prepared)?;
                if let Stage::Preparing(batch, _) = std::mem::replace(&mut orders.stage, Stage::Idle) {
                    if matches!(prepared.folded, Folded::Panicked) && batch.len() > 1 {
                        orders.put_back(batch, true);
                    } else {
                        orders.stage = Stage::Due(batch, Box::new(prepared));
                    }
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
        loop {
            if matches!(work.orders.stage, Stage::Idle) && !work.orders.waiting.is_empty() {
                let batch = work.orders.due(&work.core, self.status.end());
                if !batch.is_empty() {
                    work.orders.noted.clone_from(&work.core.rulings().named);
                    work.orders.stage = self.begun(work, batch);
                }
            }
            if !work.is_all_written() {
                return Ok(());
            }
            let main = work.core.progress().main;
            work.orders.skips.retain(|(record, _)| record.offset >= main);
            if let Some(index) = work.orders.skip_at(work.core.cursor()) {
                let (record, why) = work.orders.skips.swap_remove(index);
                return self.skip(work, record, why).await;
            }
            match std::mem::replace(&mut work.orders.stage, Stage::Idle) {
                Stage::Due(batch, prepared) => self.carry_out(work, batch, *prepared).await?,
                other => {
                    work.orders.stage = other;
                    return Ok(());
                }
            }
        }
    }

    fn begun(self: &Arc<Self>, work: &Work<P, C::Decode>, batch: Vec<Gathered>) -> Stage<P, C::Decode> {
        let (lane, scope) = (Arc::clone(self), *work.core.scope());
        let wanted = wanted(batch.iter().filter_map(|gathered| gathered.command.as_ref().ok()), scope.log);
        if wanted.is_nothing() {
            return Stage::Due(batch, Box::new(Prepared::nothing()));
        }
        let preparing = tokio::spawn(async move { lane.prepare(scope, wanted).await });
        Stage::Preparing(batch, AbortOnDropHandle::new(preparing))
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

    pub(super) fn refuses(&self, at: &[RefusedAt]) -> Interrupt {
        let what = format!("lane {}: the store refuses what it was not given: {at:?}", self.lane);
        Interrupt::Permanent(format!("{what}; this is a bug of the sink"))
    }

    pub(super) fn tell_unreadable(&self, at: i64, why: &NotACommand) {
        tell!(warn, self.lane, inbox_offset = at, "no command, passed over: {why}; of a newer fleetlog?");
    }
}

/// Waits for what is looked up; for ever if nothing is.
async fn preparing<P: Projection, D: Send + 'static>(
    stage: &mut Stage<P, D>,
) -> Result<Prepared<P, D>, Interrupt> {
    let Stage::Preparing(_, preparing) = stage else { return std::future::pending().await };
    let panicked = |error| Interrupt::Permanent(format!("preparing commands: {error}: this is a bug"));
    preparing.await.map_err(panicked).and_then(|prepared| prepared)
}
