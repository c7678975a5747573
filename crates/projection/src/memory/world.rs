//! What a store holds, and its atomic step: pure, so that a model checker can run it too.

use std::collections::BTreeMap;

use crate::{
    EntityChange, LaneId, LedgerEntry, Link, Progress, Stored, StoredState, UnitOfWork, Verdict, judge,
    parts::Parts,
};

/// What a store holds for one lane.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LaneView<W> {
    /// The lane's link.
    pub link: Option<Link>,
    /// The lane's progress.
    pub progress: Option<Progress>,
    /// Set-asides by offset.
    pub ledger: BTreeMap<i64, LedgerEntry>,
    /// Rows by offset.
    pub rows: BTreeMap<i64, Vec<W>>,
}

impl<W> Default for LaneView<W> {
    fn default() -> Self {
        Self { link: None, progress: None, ledger: BTreeMap::new(), rows: BTreeMap::new() }
    }
}

/// What a store holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World<W> {
    /// By lane.
    pub lanes: BTreeMap<LaneId, LaneView<W>>,
    /// By home.
    pub entities: BTreeMap<String, EntityChange<W>>,
}

impl<W> Default for World<W> {
    fn default() -> Self {
        Self { lanes: BTreeMap::new(), entities: BTreeMap::new() }
    }
}

impl<W> World<W> {
    /// The lane's link.
    #[must_use]
    pub fn link(&self, lane: &LaneId) -> Option<Link> {
        self.lanes.get(lane).and_then(|lane| lane.link)
    }

    /// What [`crate::Sink::read`] answers.
    #[must_use]
    pub fn read(&self, lane: &LaneId, homes: &[String]) -> Stored {
        let none = LaneView::default();
        let view = self.lanes.get(lane).unwrap_or(&none);
        let from = view.progress.map_or(i64::MIN, |progress| progress.main);
        let state = |home: &String| {
            let change = self.entities.get(home)?;
            Some(StoredState { version: change.version, state: change.state.clone() })
        };
        Stored {
            link: view.link,
            progress: view.progress,
            named: view.ledger.range(from..).map(|(&offset, _)| offset).collect(),
            states: homes.iter().map(state).collect(),
        }
    }

    /// What becomes of part number `index` of a commit.
    #[must_use]
    pub fn judge(&self, lane: &LaneId, parts: &Parts, index: usize) -> Verdict {
        let (follows, leaves) = parts.links(index);
        judge(self.link(lane), follows, leaves)
    }
}

impl<W: Clone> World<W> {
    /// Takes part number `index` of a commit if the chain is unbroken. One atomic step.
    pub fn take(&mut self, unit: &UnitOfWork<W>, parts: &Parts, index: usize) -> Verdict {
        let verdict = self.judge(&unit.lane, parts, index);
        if verdict != Verdict::Apply {
            return verdict;
        }
        let part = parts.part(index);
        let view = self.lanes.entry(unit.lane.clone()).or_default();
        view.link = Some(parts.links(index).1);
        for set_aside in &unit.set_aside[part.set_asides.clone()] {
            // An entry that is there stays: a closed one must not be opened again by a late write.
            let entry = || LedgerEntry::new(set_aside, unit.made_at);
            view.ledger.entry(set_aside.record.offset).or_insert_with(entry);
        }
        if parts.is_last(index) {
            for row in &unit.rows {
                view.rows.entry(row.offset).or_default().push(row.write.clone());
            }
            view.ledger.extend(unit.entries.iter().map(|change| (change.offset, change.entry.clone())));
            view.progress = Some(unit.progress);
        }
        for change in &unit.entities[part.entities.clone()] {
            let after = change.onto(self.entities.get(&change.home));
            self.entities.insert(change.home.clone(), after);
        }
        verdict
    }
}
