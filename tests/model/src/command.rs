//! Commands: what was set aside is redriven. As `carry_out` of the engine, whose calls are one action here: what it reads is
//! only good for a write that the chain takes.

use std::{collections::BTreeSet, sync::Arc};

use fleetlog_event::{EntityKey, Reason, Reject, TimestampMs};
use fleetlog_projection::{
    EntryChange, EntryState, LedgerEntry, Projected, Record, Rulings, SetAside, Writes,
    memory::LaneView,
    mutant::{Mutant, on},
};

use crate::{
    action::Who,
    code::{Cache, Write},
    owner::{Phase, Work},
    scene::StoreKind,
    system::{State, System},
};

const NOW: TimestampMs = TimestampMs(0);
/// None is parked.
const REPLAYS_MAX: u32 = 99;

impl System {
    /// The offset that the next command is about, if it can be carried out now: progress is past it, and nothing is ahead.
    pub(crate) fn due_command(&self, work: &Work) -> Option<i64> {
        let at = usize::try_from(work.core.progress().inbox).ok()?;
        let offset = self.scene.redrives.get(at).copied()?;
        let at_rest = !work.ahead.any && work.round.is_none();
        (at_rest && offset < work.core.progress().main).then_some(offset)
    }

    pub(crate) fn carry_out(&self, state: &mut State, who: Who) {
        let Phase::Idle(mut work) = std::mem::replace(&mut state.owners[who].phase, Phase::Out) else {
            unreachable!("it is idle")
        };
        let offset = self.due_command(&work).expect("a command is due");
        let view = state.world.lanes.get(&self.lane).cloned().unwrap_or_default();
        let record = self.records().iter().find(|record| record.offset == offset).expect("on the log");
        let entry = view.ledger.get(&offset).cloned();
        let entry = if on(Mutant::LedgerSkipped) { entry.or_else(|| Some(unknown(record))) } else { entry };
        let is_open = |entry: &LedgerEntry| on(Mutant::LedgerSkipped) || entry.state.is_open();
        let writes = match entry.filter(is_open) {
            None => Writes::default(),
            Some(entry) => match self.scene.store {
                StoreKind::Whole => self.row(who, &work, record, entry),
                StoreKind::Parts(_) => self.folded_anew(state, who, &work, &view, record, entry),
            },
        };
        let letters = writes.set_aside.iter().map(|aside| aside.record.offset);
        state.letters.extend(letters);
        let Work { core, cache, .. } = Arc::make_mut(&mut work);
        let unit = core.unit_of_commands(core.progress().inbox + 1, writes, NOW);
        self.codes[who].forget_entity(cache, &key_of(record));
        state.owners[who].phase = Phase::Idle(work);
        self.send(state, who, unit, Vec::new(), true);
    }

    fn row(&self, who: Who, work: &Work, record: &Record, entry: LedgerEntry) -> Writes<Write> {
        let (scope, none) = (work.core.scope(), Cache::default());
        let Projected { rows, set_aside, .. } =
            self.codes[who].project(scope, &self.log.0, &[record], &Rulings::default(), &none);
        let entries = vec![changed(record.offset, entry, set_aside.first())];
        Writes { rows, entries, ..Writes::default() }
    }

    fn folded_anew(
        &self,
        state: &State,
        who: Who,
        work: &Work,
        view: &LaneView<Write>,
        record: &Record,
        entry: LedgerEntry,
    ) -> Writes<Write> {
        let (key, main) = (key_of(record), work.core.progress().main);
        let counting = self.expected.get(key.as_str()).cloned().unwrap_or_default();
        let of_entity = |other: &&Record| counting.contains(&other.offset) && other.offset < main;
        let records: Vec<&Record> = self.records().iter().filter(of_entity).collect();
        let not_taken = |(offset, entry): (&i64, &LedgerEntry)| {
            (*offset != record.offset && !entry.state.is_taken()).then_some(*offset)
        };
        let named: BTreeSet<i64> = view.ledger.iter().filter_map(not_taken).collect();
        let (code, mut cache, mut touched) = (&self.codes[who], Cache::default(), Vec::new());
        let rulings = Rulings { named, ..Rulings::default() };
        let Projected { pending, set_aside, .. } =
            code.project(work.core.scope(), &self.log.0, &records, &rulings, &cache);
        code.fold_ahead(&mut cache, &mut touched, pending);
        let change = code.changes(&mut cache, &mut touched, usize::MAX).pop();
        let stored = state.world.entities.get(key.as_str()).map(|change| change.version);
        let (own, others): (Vec<SetAside>, Vec<SetAside>) =
            set_aside.into_iter().partition(|aside| aside.record.offset == record.offset);
        let is_older =
            stored.is_some_and(|stored| change.as_ref().is_none_or(|c| c.version.next < stored.next));
        let no_place = || SetAside {
            record: record.clone(),
            reject: Reject::new(Reason::NoPlace, "it would become older"),
            event_type: None,
        };
        let rejected = own.into_iter().next().or_else(|| is_older.then(no_place));
        let entries = vec![changed(record.offset, entry, rejected.as_ref())];
        if rejected.is_some() {
            return Writes { entries, ..Writes::default() };
        }
        let mut entities: Vec<_> = change.into_iter().collect();
        for change in &mut entities {
            change.version.revision = stored.map_or(0, |stored| stored.revision) + 1;
        }
        Writes { entities, set_aside: others, entries, rows: Vec::new() }
    }
}

fn key_of(record: &Record) -> EntityKey {
    record.key_text().expect("every event of a scene has a key").into()
}

fn changed(offset: i64, entry: LedgerEntry, rejected: Option<&SetAside>) -> EntryChange {
    let entry = match rejected {
        None => entry.closed(EntryState::Redriven, NOW),
        Some(aside) => entry.rejected_again(aside, REPLAYS_MAX, NOW),
    };
    EntryChange { offset, entry }
}

/// For the mutant that does not look whether there is an entry.
fn unknown(record: &Record) -> LedgerEntry {
    let reject = Reject::new(Reason::Skipped, "");
    LedgerEntry::new(&SetAside { record: record.clone(), reject, event_type: None }, NOW)
}
