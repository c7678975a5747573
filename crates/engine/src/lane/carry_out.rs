//! Carrying out commands: with nothing under way and nothing projected ahead, one write for each entity, or one for all
//! rows. Each does the work and changes the ledger in one step; the last one moves the inbox on.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use fail::fail_point;
use fleetlog_event::{EntityKey, Reason, Reject};
use fleetlog_projection::{
    Act, Command, Commit, EntryChange, EntryState, LastRecord, LedgerEntry, Progress, Projected, Projection,
    Record, RowChange, Rulings, SetAside, Sink, StoredState, UnitOfWork, Writes,
};

use super::{
    Lane, Shared, Work, now,
    orders::Gathered,
    prepare::{Folded, Prepared, closed, is_open},
};
use crate::{
    fault::Interrupt,
    ports::Schemas,
    refold::{Anew, Refold},
};

/// What is to be carried out, sorted by what it needs.
#[derive(Default)]
struct Batch {
    /// Records whose entries are open, with how often they may be rejected.
    redriven: BTreeMap<i64, (Record, u32)>,
    /// Entries to be closed, and nothing else.
    closed: BTreeSet<i64>,
    /// Entities to be folded anew.
    anew: BTreeSet<EntityKey>,
    /// The ledger's entries of all these.
    entries: BTreeMap<i64, LedgerEntry>,
    /// What became of the commands, for the log.
    tally: BTreeMap<&'static str, usize>,
}

impl Batch {
    fn count(&mut self, what: &'static str) {
        self.count_all(what, 1);
    }

    fn count_all(&mut self, what: &'static str, count: usize) {
        if count > 0 {
            *self.tally.entry(what).or_default() += count;
        }
    }

    fn count_changes(&mut self, changed: &[EntryChange]) {
        for change in changed {
            self.count(match change.entry.state {
                EntryState::Redriven => "taken",
                EntryState::Parked => "parked",
                EntryState::Open => "rejected_again",
                EntryState::EmittedAnew => "closed",
            });
        }
    }

    /// The entries of what is redriven, as they are after it was judged.
    fn judged(
        &self,
        offsets: impl Iterator<Item = i64>,
        rejected: &BTreeMap<i64, SetAside>,
    ) -> Vec<EntryChange> {
        let change = |offset: i64| {
            let (record, replays_max) = self.redriven.get(&offset)?;
            let entry = self.entries.get(&offset).cloned().unwrap_or_else(|| unknown(record));
            let entry = match rejected.get(&offset) {
                None => closed(&entry, EntryState::Redriven),
                Some(aside) => entry.rejected_again(aside, *replays_max, now()),
            };
            Some(EntryChange { offset, entry })
        };
        offsets.filter_map(change).collect()
    }

    /// An event that is redriven, rejected: as it came, with the headers of the letter that it was.
    fn aside(&self, offset: i64, reject: Reject, event_type: Option<String>) -> Option<SetAside> {
        let (record, _) = self.redriven.get(&offset)?;
        Some(SetAside { record: record.clone(), reject, event_type })
    }

    /// The entries that are closed and nothing else.
    fn closings(&self) -> Vec<EntryChange> {
        let change = |offset: &i64| {
            let entry = closed(self.entries.get(offset)?, EntryState::EmittedAnew);
            Some(EntryChange { offset: *offset, entry })
        };
        self.closed.iter().filter_map(change).collect()
    }
}

impl<P, S, C> Lane<P, S, C>
where
    P: Projection,
    S: Sink<Write = P::Write>,
    C: Schemas,
{
    /// Carries out commands that are due. Those that cannot be now go back to where they came from.
    pub(super) async fn carry_out(
        self: &Arc<Self>,
        work: &mut Work<P, C::Decode>,
        gathered: Vec<Gathered>,
        Prepared { folded, decode }: Prepared<P, C::Decode>,
    ) -> Result<(), Interrupt> {
        let Some(inbox) = gathered.last().map(|last| last.at + 1) else { return Ok(()) };
        fail_point!("commands.begun");
        let folded = match folded {
            Folded::Some(refold) => {
                let (scope, main) = (*work.core.scope(), work.core.progress().main);
                self.fold_rest(refold, scope, main, work.orders.noted()).await?
            }
            other => Some(other),
        };
        let Some(folded) = folded else {
            work.orders.put_back(gathered, false);
            return Ok(());
        };
        if matches!(folded, Folded::Panicked) && gathered.len() > 1 {
            work.orders.put_back(gathered, true);
            return Ok(());
        }
        let mut batch = self.sorted(work, gathered).await?;
        let mut writes = match folded {
            Folded::Some(refold) => self.folded_anew(work, &mut batch, *refold).await?,
            Folded::Panicked => self.panicked(work, &mut batch).await?,
            Folded::Nothing => Vec::new(),
        };
        let (key, mut last) = writes.pop().unwrap_or((None, Writes::default()));
        for (key, writes) in writes {
            let inbox = work.core.progress().inbox;
            self.write_commands(work, inbox, writes).await?;
            self.forget(work, key);
        }
        // What has no place among entities: rows of a map, and records without a key.
        last.entries.extend(batch.closings());
        batch.count_all("closed", batch.closed.len());
        match decode.filter(|_| !batch.redriven.is_empty()) {
            Some(decode) => self.write_rows(work, &mut batch, inbox, last, &decode).await?,
            None => self.write_commands(work, inbox, last).await?,
        }
        self.forget(work, key);
        self.tell_carried_out(&batch.tally);
        Ok(())
    }

    /// The commands by kind, without those that there is nothing to do about.
    async fn sorted(
        &self,
        work: &mut Work<P, C::Decode>,
        gathered: Vec<Gathered>,
    ) -> Result<Batch, Interrupt> {
        let mut batch = Batch::default();
        for Gathered { at, command } in gathered {
            match command {
                Err(why) => {
                    self.tell_unreadable(at, &why);
                    batch.count("unreadable");
                }
                Ok(Command { log, .. }) if log != work.core.scope().log => batch.count("of_another_log"),
                Ok(Command { act, .. }) => match act {
                    Act::Redrive { record, replays_max } => {
                        batch.redriven.insert(record.offset, (record, replays_max));
                    }
                    Act::EmittedAnew { offset } => drop(batch.closed.insert(offset)),
                    Act::FoldAnew { key } => drop(batch.anew.insert(key)),
                    // Done out of turn, or there is nothing to skip.
                    Act::Skip { record, .. } if record.offset < work.core.progress().main => {}
                    Act::Skip { record, .. } => {
                        // Or what comes to lie there one day would be skipped.
                        work.orders.forget_skip(record.offset);
                        batch.count("not_next");
                    }
                },
            }
        }
        let named: Vec<i64> = batch.redriven.keys().chain(&batch.closed).copied().collect();
        batch.entries = self.entries(work.core.scope().log, &named).await?;
        let Batch { redriven, closed, entries, .. } = &mut batch;
        redriven.retain(|offset, _| is_open(entries, *offset));
        closed.retain(|offset| is_open(entries, *offset));
        let left = redriven.len() + closed.len();
        batch.count_all("without_open_entry", named.len() - left);
        Ok(batch)
    }

    fn forget(&self, work: &mut Work<P, C::Decode>, key: Option<EntityKey>) {
        if let Some(key) = key {
            let forgotten = self.shared.projection.forget_entity(&mut work.cache, &key);
            work.cached_bytes = work.cached_bytes.saturating_sub(forgotten);
        }
    }

    /// One write without rows.
    async fn write_commands(
        self: &Arc<Self>,
        work: &mut Work<P, C::Decode>,
        inbox: i64,
        writes: Writes<P::Write>,
    ) -> Result<(), Interrupt> {
        let mut unit = work.core.unit_of_commands(inbox, writes, now());
        fail_point!("commands.published");
        match self.commit(&mut unit).await? {
            Commit::Refused(at) => Err(self.refuses(&at)),
            Commit::Applied | Commit::AlreadyApplied => {
                self.carried_out(work, &unit);
                Ok(())
            }
        }
    }

    fn carried_out(&self, work: &mut Work<P, C::Decode>, unit: &UnitOfWork<P::Write>) {
        work.core.written(unit.leaves, unit.progress);
        self.entered(&unit.set_aside);
        fail_point!("commands.committed");
        self.moved(work);
    }

    /// One write with the rows of what is redriven. What the store refuses is rejected again, and the rest written.
    async fn write_rows(
        self: &Arc<Self>,
        work: &mut Work<P, C::Decode>,
        batch: &mut Batch,
        inbox: i64,
        mut writes: Writes<P::Write>,
        decode: &C::Decode,
    ) -> Result<(), Interrupt> {
        let entries_before = writes.entries.clone();
        let (mut rulings, mut published) = (Rulings::default(), BTreeSet::new());
        loop {
            let (rows, rejected) = self.rows(work, batch, decode, &rulings);
            let changed = batch.judged(batch.redriven.keys().copied(), &rejected);
            let news = again(&changed, &rejected, &published);
            self.publish_again(work, &news).await?;
            published.extend(rejected.keys().copied());
            let entries = entries_before.iter().chain(&changed).cloned().collect();
            let mut unit = work.core.unit_of_commands(inbox, Writes { rows, entries, ..writes }, now());
            fail_point!("commands.published");
            match self.commit(&mut unit).await? {
                Commit::Refused(at) if at.iter().all(|at| rulings.refused.contains_key(&at.offset)) => {
                    return Err(self.refuses(&at));
                }
                Commit::Refused(at) => {
                    rulings.refused.extend(at.into_iter().map(|at| (at.offset, at.detail)));
                    let UnitOfWork { entities, set_aside, .. } = unit;
                    writes = Writes { entities, set_aside, ..Writes::default() };
                }
                Commit::Applied | Commit::AlreadyApplied => {
                    self.carried_out(work, &unit);
                    batch.count_changes(&changed);
                    return Ok(());
                }
            }
        }
    }

    /// The rows of what is redriven, and what is rejected. One event at a time: a panic rejects the one it is about.
    fn rows(
        &self,
        work: &Work<P, C::Decode>,
        batch: &Batch,
        decode: &C::Decode,
        rulings: &Rulings,
    ) -> (Vec<RowChange<P::Write>>, BTreeMap<i64, SetAside>) {
        let (mut rows, mut rejected, none) = (Vec::new(), BTreeMap::new(), P::Cache::default());
        for (offset, (record, _)) in &batch.redriven {
            let projected = self.caught(format_args!("offset {offset}, redriven"), || {
                self.shared.projection.project(work.core.scope(), decode, &[record], rulings, &none)
            });
            match projected {
                Ok(Projected { rows: new, set_aside, .. }) => {
                    rows.extend(new);
                    rejected.extend(set_aside.into_iter().map(|aside| (*offset, aside)));
                }
                Err(interrupt) => {
                    let reject = Reject::new(Reason::Panicked, format!("{interrupt:?}"));
                    rejected.extend(batch.aside(*offset, reject, None).map(|aside| (*offset, aside)));
                }
            }
        }
        (rows, rejected)
    }

    /// What is to be written of the entities that were folded anew, each with the entries that go with it. The records that
    /// are dealt with are taken out of the batch.
    async fn folded_anew(
        self: &Arc<Self>,
        work: &mut Work<P, C::Decode>,
        batch: &mut Batch,
        refold: Refold<P>,
    ) -> Result<Vec<(Option<EntityKey>, Writes<P::Write>)>, Interrupt> {
        let mut by_key: BTreeMap<EntityKey, Vec<i64>> =
            batch.anew.iter().map(|key| (key.clone(), Vec::new())).collect();
        for (offset, (record, _)) in &batch.redriven {
            if let Some(key) = record.key_text() {
                by_key.entry(key.into()).or_default().push(*offset);
            }
        }
        if by_key.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<EntityKey> = by_key.keys().cloned().collect();
        let mut stored = self.stored(work, &keys).await?;
        let mut refolded = self.caught("what was folded anew", || refold.finish(&self.shared.projection))?;
        let mut writes = Vec::new();
        for (key, offsets) in by_key {
            let anew = refolded.take(&key, stored.remove(&key), offsets);
            let (anew, why_not) = anew.placed(&work.core.scope().log);
            let one = self.entity(work, batch, &key, anew, why_not).await?;
            writes.push((Some(key), one));
        }
        Ok(writes)
    }

    /// What is to be written of one of them; its dead letters are acknowledged.
    async fn entity(
        &self,
        work: &Work<P, C::Decode>,
        batch: &mut Batch,
        key: &EntityKey,
        mut anew: Anew<P::Write>,
        why_not: Option<Reject>,
    ) -> Result<Writes<P::Write>, Interrupt> {
        let rejected: BTreeMap<i64, SetAside> = anew
            .offsets
            .iter()
            .filter_map(|offset| {
                let own = anew.rejected.get(offset);
                let reject = own.map(|aside| aside.reject.clone()).or_else(|| why_not.clone())?;
                let aside = batch.aside(*offset, reject, own.and_then(|aside| aside.event_type.clone()))?;
                Some((*offset, aside))
            })
            .collect();
        let entries = batch.judged(anew.offsets.iter().copied(), &rejected);
        let is_wanted =
            batch.anew.contains(key) || entries.iter().any(|change| change.entry.state.is_taken());
        let change = anew.change.take().filter(|_| is_wanted && why_not.is_none());
        // What was taken before and is not any more is set aside with the state that does without it.
        let set_aside = if change.is_some() { anew.others() } else { Vec::new() };
        self.publish(work, &set_aside).await?;
        self.publish_again(work, &again(&entries, &rejected, &BTreeSet::new())).await?;
        batch.count_changes(&entries);
        if batch.anew.contains(key) {
            batch.count(if change.is_some() { "folded_anew" } else { "not_folded_anew" });
        }
        if let Some(reject) = &why_not {
            self.tell_not_placed(key, reject);
        }
        anew.offsets.iter().for_each(|offset| drop(batch.redriven.remove(offset)));
        Ok(Writes { entities: change.into_iter().collect(), rows: Vec::new(), set_aside, entries })
    }

    /// What is to be written of the one command whose entity makes the projector panic: the event is rejected again.
    async fn panicked(
        &self,
        work: &Work<P, C::Decode>,
        batch: &mut Batch,
    ) -> Result<Vec<(Option<EntityKey>, Writes<P::Write>)>, Interrupt> {
        let reject = || {
            let detail = "the projector panicked while its entity was folded anew: a bug of the projector";
            Reject::new(Reason::Panicked, detail)
        };
        let offsets: Vec<i64> = batch.redriven.keys().copied().collect();
        let aside = |offset: &i64| Some((*offset, batch.aside(*offset, reject(), None)?));
        let rejected: BTreeMap<i64, SetAside> = offsets.iter().filter_map(aside).collect();
        let entries = batch.judged(offsets.into_iter(), &rejected);
        self.publish_again(work, &again(&entries, &rejected, &BTreeSet::new())).await?;
        batch.count_changes(&entries);
        batch.count_all("not_folded_anew", batch.anew.len());
        batch.anew.iter().for_each(|key| self.tell_not_placed(key, &reject()));
        batch.redriven.clear();
        Ok(vec![(None, Writes { entries, ..Writes::default() })])
    }

    /// Entities as they are stored.
    async fn stored(
        self: &Arc<Self>,
        work: &Work<P, C::Decode>,
        keys: &[EntityKey],
    ) -> Result<HashMap<EntityKey, StoredState>, Interrupt> {
        let Shared { projection, sink, .. } = &*self.shared;
        let homes: Vec<String> = keys.iter().filter_map(|key| projection.home(key)).collect();
        let stored = self.persist("reading states", || sink.read(&self.lane, &homes)).await?;
        self.check_link(work, stored.link)?;
        let states = keys.iter().zip(stored.states);
        Ok(states.filter_map(|(key, state)| Some((key.clone(), state?))).collect())
    }

    /// Passes the very next position, without looking at it.
    pub(super) async fn skip(
        self: &Arc<Self>,
        work: &mut Work<P, C::Decode>,
        record: Record,
        why: String,
    ) -> Result<(), Interrupt> {
        let last = LastRecord { offset: record.offset, hash: record.hash() };
        let progress = Progress { main: record.offset + 1, last: Some(last), ..*work.core.progress() };
        let set_aside =
            vec![SetAside { record, reject: Reject::new(Reason::Skipped, why), event_type: None }];
        self.publish(work, &set_aside).await?;
        let mut unit = work.core.unit_to(progress, Writes { set_aside, ..Writes::default() }, now());
        self.commit(&mut unit).await?;
        self.entered(&unit.set_aside);
        self.tell_carried_out(&BTreeMap::from([("skipped", 1)]));
        Err(Interrupt::Again("a position was skipped".to_owned()))
    }
}

/// Only for a mutant, which does not look whether there is an entry.
fn unknown(record: &Record) -> LedgerEntry {
    let reject = Reject::new(Reason::Skipped, "");
    LedgerEntry::new(&SetAside { record: record.clone(), reject, event_type: None }, now())
}

/// The letters to be sent: of what was rejected and not published before.
fn again(
    changed: &[EntryChange],
    rejected: &BTreeMap<i64, SetAside>,
    published: &BTreeSet<i64>,
) -> Vec<(SetAside, LedgerEntry)> {
    let letter = |change: &EntryChange| {
        let aside = rejected.get(&change.offset).filter(|_| !published.contains(&change.offset))?;
        Some((aside.clone(), change.entry.clone()))
    };
    changed.iter().filter_map(letter).collect()
}
