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
    Record, Rulings, SetAside, Sink, Version, Writes,
};

use super::{
    Lane, Shared, Work, now,
    orders::{Gathered, closed, is_open},
};
use crate::{
    DeadLetter,
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
}

impl<P, S, C> Lane<P, S, C>
where
    P: Projection,
    S: Sink<Write = P::Write>,
    C: Schemas,
{
    /// Carries out commands that are due.
    pub(super) async fn carry_out(
        self: &Arc<Self>,
        work: &mut Work<P, C::Decode>,
        gathered: Vec<Gathered>,
        refold: Option<Refold<P>>,
    ) -> Result<(), Interrupt> {
        let Some(inbox) = gathered.last().map(|last| last.at + 1) else { return Ok(()) };
        let (mut batch, skip) = self.sorted(work, gathered);
        if let Some((record, why)) = skip {
            return self.skip(work, inbox, record, why).await;
        }
        let log = work.core.scope().log;
        let named: Vec<i64> = batch.redriven.keys().chain(&batch.closed).copied().collect();
        let entries = self.entries(log, &named).await?;
        let before = named.len();
        batch.redriven.retain(|offset, _| is_open(&entries, *offset));
        batch.closed.retain(|offset| is_open(&entries, *offset));
        batch.count_all("without_open_entry", before - batch.redriven.len() - batch.closed.len());
        fail_point!("commands.begun");
        let mut writes = match refold {
            Some(refold) => self.folded_anew(work, &mut batch, &entries, refold).await?,
            None => Vec::new(),
        };
        if writes.is_empty() {
            writes.push((None, Writes::default()));
        }
        let last = writes.len() - 1;
        for (index, (key, mut writes)) in writes.into_iter().enumerate() {
            // What is left has no place among entities: rows of a map, and records without a key.
            if index == last {
                let closings = batch.closed.iter().filter_map(|offset| {
                    Some(EntryChange {
                        offset: *offset,
                        entry: closed(entries.get(offset)?, EntryState::EmittedAnew),
                    })
                });
                writes.entries.extend(closings);
            }
            let inbox = if index == last { inbox } else { work.core.progress().inbox };
            self.write_commands(work, &mut batch, &entries, inbox, writes, index == last).await?;
            if let Some(key) = key {
                let forgotten = self.shared.projection.forget_entity(&mut work.cache, &key);
                work.cached_bytes = work.cached_bytes.saturating_sub(forgotten);
            }
        }
        batch.count_all("closed", batch.closed.len());
        self.tell_carried_out(&batch.tally);
        Ok(())
    }

    /// The commands by kind. One that skips is alone.
    fn sorted(
        &self,
        work: &Work<P, C::Decode>,
        gathered: Vec<Gathered>,
    ) -> (Batch, Option<(Record, String)>) {
        let (mut batch, mut skip) = (Batch::default(), None);
        for Gathered { at, command } in gathered {
            let Command { log, act, .. } = match command {
                Ok(command) => command,
                Err(why) => {
                    self.tell_unreadable(at, &why);
                    batch.count("unreadable");
                    continue;
                }
            };
            if log != work.core.scope().log {
                batch.count("of_another_log");
                continue;
            }
            match act {
                Act::Redrive { record, replays_max } => {
                    batch.redriven.insert(record.offset, (record, replays_max));
                }
                Act::EmittedAnew { offset } => drop(batch.closed.insert(offset)),
                Act::FoldAnew { key } => drop(batch.anew.insert(key)),
                Act::Skip { record, why } => skip = Some((record, why)),
            }
        }
        (batch, skip)
    }

    /// One write: published, committed, learned. With the last one go the rows, and what could not be placed.
    async fn write_commands(
        self: &Arc<Self>,
        work: &mut Work<P, C::Decode>,
        batch: &mut Batch,
        entries: &BTreeMap<i64, LedgerEntry>,
        inbox: i64,
        mut writes: Writes<P::Write>,
        is_last: bool,
    ) -> Result<(), Interrupt> {
        let rest: Vec<Record> = if is_last {
            batch.redriven.values().map(|(record, _)| record.clone()).collect()
        } else {
            Vec::new()
        };
        if rest.is_empty() {
            let mut unit = work.core.unit_of_commands(inbox, writes, now());
            fail_point!("commands.published");
            return match self.commit(&mut unit).await? {
                Commit::Refused(at) => Err(self.refuses_entities(&at)),
                Commit::Applied | Commit::AlreadyApplied => {
                    work.core.written(unit.leaves, unit.progress);
                    self.entered(&unit.set_aside);
                    fail_point!("commands.committed");
                    Ok(())
                }
            };
        }
        let refs: Vec<&Record> = rest.iter().collect();
        let decode = self.persist("looking up schemas", || self.shared.schemas.prepare(&refs)).await?;
        let (mut rulings, mut published) = (Rulings::default(), BTreeSet::new());
        let entries_before = writes.entries.len();
        loop {
            let none = P::Cache::default();
            let Projected { rows, set_aside, .. } = self.caught("what is redriven", || {
                self.shared.projection.project(work.core.scope(), &decode, &refs, &rulings, &none)
            })?;
            let rejected: BTreeMap<i64, SetAside> =
                set_aside.into_iter().map(|aside| (aside.record.offset, aside)).collect();
            writes.entries.truncate(entries_before);
            writes.entries.extend(judged(batch, entries, refs.iter().map(|record| record.offset), &rejected));
            let news: Vec<(SetAside, LedgerEntry)> = again(&writes.entries, &rejected, &published);
            self.publish_again(work, &news).await?;
            published.extend(rejected.keys().copied());
            let whole = Writes { rows, ..std::mem::take(&mut writes) };
            let mut unit = work.core.unit_of_commands(inbox, whole, now());
            fail_point!("commands.published");
            match self.commit(&mut unit).await? {
                Commit::Refused(at) => {
                    rulings.refused.extend(at.into_iter().map(|at| (at.offset, at.detail)));
                    writes = Writes {
                        set_aside: unit.set_aside,
                        entries: unit.entries,
                        entities: unit.entities,
                        rows: Vec::new(),
                    };
                }
                Commit::Applied | Commit::AlreadyApplied => {
                    work.core.written(unit.leaves, unit.progress);
                    self.entered(&unit.set_aside);
                    fail_point!("commands.committed");
                    tally(batch, &unit.entries[entries_before..]);
                    return Ok(());
                }
            }
        }
    }

    /// What is to be written of the entities that were folded anew, each with the entries that go with it. The records that
    /// are dealt with are taken out of the batch.
    async fn folded_anew(
        self: &Arc<Self>,
        work: &mut Work<P, C::Decode>,
        batch: &mut Batch,
        entries: &BTreeMap<i64, LedgerEntry>,
        mut refold: Refold<P>,
    ) -> Result<Vec<(Option<EntityKey>, Writes<P::Write>)>, Interrupt> {
        let projection = &self.shared.projection;
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
        self.fold_on(&mut refold, *work.core.scope(), work.core.progress().main).await?;
        let keys: Vec<EntityKey> = by_key.keys().cloned().collect();
        let versions = self.versions(work, &keys).await?;
        let mut refolded = self.caught("what was folded anew", || refold.finish(projection))?;
        let mut writes = Vec::new();
        for (key, offsets) in by_key {
            let own = |aside: &SetAside| aside.record.key_text() == Some(key.as_str());
            let rejected: BTreeMap<i64, SetAside> = refolded
                .rejected
                .iter()
                .filter(|(_, aside)| own(aside))
                .map(|(at, aside)| (*at, aside.clone()))
                .collect();
            let change = refolded.changes.remove(&key);
            let anew = Anew { change, stored: versions.get(&key).copied(), rejected, offsets };
            let (mut anew, why_not) = anew.placed(&work.core.scope().log);
            let mut changed: Vec<EntryChange> =
                judged(batch, entries, anew.offsets.iter().copied(), &anew.rejected);
            if let Some(reject) = &why_not {
                changed = unplaced(batch, entries, &anew, reject);
            }
            let letters: BTreeMap<i64, SetAside> = letters(batch, &changed, &anew.rejected);
            let is_taken = changed.iter().any(|change| change.entry.state.is_taken());
            let change =
                anew.change.take().filter(|_| why_not.is_none() && (is_taken || batch.anew.contains(&key)));
            // What was taken before and is not any more is set aside with the state that does without it.
            let others = if change.is_some() { anew.others() } else { Vec::new() };
            self.publish(work, &others).await?;
            self.publish_again(work, &again(&changed, &letters, &BTreeSet::new())).await?;
            tally(batch, &changed);
            if batch.anew.contains(&key) {
                batch.count(if why_not.is_some() { "not_folded_anew" } else { "folded_anew" });
            }
            if let Some(reject) = &why_not {
                self.tell_not_placed(&key, reject);
            }
            anew.offsets.iter().for_each(|offset| drop(batch.redriven.remove(offset)));
            let entities = change.into_iter().collect();
            writes.push((
                Some(key),
                Writes { entities, rows: Vec::new(), set_aside: others, entries: changed },
            ));
        }
        Ok(writes)
    }

    /// The versions of entities as they are stored.
    async fn versions(
        self: &Arc<Self>,
        work: &Work<P, C::Decode>,
        keys: &[EntityKey],
    ) -> Result<HashMap<EntityKey, Version>, Interrupt> {
        let Shared { projection, sink, .. } = &*self.shared;
        let homes: Vec<String> = keys.iter().filter_map(|key| projection.home(key)).collect();
        let stored = self.persist("reading states", || sink.read(&self.lane, &homes)).await?;
        self.check_link(work, stored.link)?;
        let states = keys.iter().zip(stored.states);
        Ok(states.filter_map(|(key, state)| Some((key.clone(), state?.version))).collect())
    }

    /// Passes the very next position.
    async fn skip(
        self: &Arc<Self>,
        work: &mut Work<P, C::Decode>,
        inbox: i64,
        record: Record,
        why: String,
    ) -> Result<(), Interrupt> {
        let progress = *work.core.progress();
        if record.offset != progress.main {
            let mut unit = work.core.unit_of_commands(inbox, Writes::default(), now());
            self.commit(&mut unit).await?;
            work.core.written(unit.leaves, unit.progress);
            self.tell_carried_out(&BTreeMap::from([("not_next", 1)]));
            return Ok(());
        }
        let last = LastRecord { offset: record.offset, hash: record.hash() };
        let progress = Progress { main: record.offset + 1, inbox, last: Some(last), ..progress };
        let aside = SetAside { record, reject: Reject::new(Reason::Skipped, why), event_type: None };
        let set_aside = vec![aside];
        self.publish(work, &set_aside).await?;
        let mut unit = work.core.unit_to(progress, Writes { set_aside, ..Writes::default() }, now());
        self.commit(&mut unit).await?;
        self.entered(&unit.set_aside);
        self.tell_carried_out(&BTreeMap::from([("skipped", 1)]));
        Err(Interrupt::Again("a position was skipped".to_owned()))
    }

    /// Sends the letters of events that were rejected once more.
    async fn publish_again(
        &self,
        work: &Work<P, C::Decode>,
        news: &[(SetAside, LedgerEntry)],
    ) -> Result<(), Interrupt> {
        let letters: Vec<DeadLetter> = news
            .iter()
            .map(|(aside, entry)| {
                let is_parked = entry.state == EntryState::Parked;
                self.letter(work, aside).replayed(entry.replays, is_parked.then_some(&self.lane.topic))
            })
            .collect();
        self.send(letters).await
    }
}

/// The entries of what is redriven, as they are after it was judged.
fn judged(
    batch: &Batch,
    entries: &BTreeMap<i64, LedgerEntry>,
    offsets: impl Iterator<Item = i64>,
    rejected: &BTreeMap<i64, SetAside>,
) -> Vec<EntryChange> {
    let change = |offset: i64| {
        let (record, replays_max) = batch.redriven.get(&offset)?;
        let entry = entries.get(&offset).cloned().unwrap_or_else(|| unknown(record));
        let entry = match rejected.get(&offset) {
            None => closed(&entry, EntryState::Redriven),
            Some(aside) => entry.rejected_again(aside, *replays_max, now()),
        };
        Some(EntryChange { offset, entry })
    };
    offsets.filter_map(change).collect()
}

/// Only for a mutant, which does not look whether there is an entry.
fn unknown(record: &Record) -> LedgerEntry {
    let reject = Reject::new(Reason::Skipped, "");
    LedgerEntry::new(&SetAside { record: record.clone(), reject, event_type: None }, now())
}

/// The entries of what has no place. What would be rejected by itself says so, as ever.
fn unplaced<W>(
    batch: &Batch,
    entries: &BTreeMap<i64, LedgerEntry>,
    anew: &Anew<W>,
    reject: &Reject,
) -> Vec<EntryChange> {
    let aside = |offset: &i64| {
        let (record, _) = batch.redriven.get(offset)?;
        let no_place = || SetAside { record: record.clone(), reject: reject.clone(), event_type: None };
        Some((*offset, anew.rejected.get(offset).cloned().unwrap_or_else(no_place)))
    };
    let asides = anew.offsets.iter().filter_map(aside).collect();
    judged(batch, entries, anew.offsets.iter().copied(), &asides)
}

/// What is said anew of the events that were rejected once more.
fn letters(
    batch: &Batch,
    changed: &[EntryChange],
    rejected: &BTreeMap<i64, SetAside>,
) -> BTreeMap<i64, SetAside> {
    let letter = |EntryChange { offset, entry }: &EntryChange| {
        // As it came: with the headers of the letter that it was.
        let (record, _) = batch.redriven.get(offset)?;
        let event_type = rejected.get(offset).and_then(|aside| aside.event_type.clone());
        Some((*offset, SetAside { record: record.clone(), reject: entry.reject.clone(), event_type }))
    };
    changed.iter().filter(|change| !change.entry.state.is_taken()).filter_map(letter).collect()
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

fn tally(batch: &mut Batch, changed: &[EntryChange]) {
    for change in changed {
        batch.count(match change.entry.state {
            EntryState::Redriven => "taken",
            EntryState::Parked => "parked",
            EntryState::Open => "rejected_again",
            EntryState::EmittedAnew => "closed",
        });
    }
}
