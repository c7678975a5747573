//! Calls on their way: a commit's parts between a sink and its store.

use std::sync::Arc;

use fleetlog_projection::{
    UnitOfWork, Verdict,
    memory::World,
    parts::{Parts, Reply, Sending},
};

use crate::{code::Write, scene::StoreKind};

/// Parts of a commit that were sent in one piece.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flight {
    pub(crate) unit: Arc<UnitOfWork<Write>>,
    pub(crate) parts: Arc<Parts>,
    /// The next part to arrive.
    next: usize,
    /// Whether any was taken.
    any_taken: bool,
    /// What was said about the last one that arrived.
    last: Option<Reply>,
    /// Rows that the store refuses: nothing was stored.
    pub(crate) refused: Vec<i64>,
}

/// What came of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Landed {
    /// It was taken.
    Taken,
    /// The store is as it was.
    Nothing,
    /// The store is as it was, and says that it holds the part, which it does not.
    Belied,
}

/// A commit as production cuts it for that kind of store.
pub(crate) fn cut(unit: &UnitOfWork<Write>, store: StoreKind) -> Parts {
    match store {
        StoreKind::Parts(items_max) => Parts::cut(unit, items_max, usize::MAX, |_| 0),
        StoreKind::Whole => Parts::whole(unit),
    }
}

impl Flight {
    /// The parts that come next of a commit, all sent in one piece.
    pub(crate) fn of(unit: Arc<UnitOfWork<Write>>, parts: Arc<Parts>, sending: &Sending) -> Self {
        let next = sending.first();
        Self { unit, parts, next, any_taken: false, last: None, refused: Vec::new() }
    }

    /// Whether everything has arrived, so that the replies are on their way.
    pub(crate) fn has_landed(&self) -> bool {
        self.next == self.parts.len()
    }

    /// What the sink learns from the replies: whether any part was taken, and what was said about the last.
    pub(crate) fn replies(&self) -> (bool, Reply) {
        (self.any_taken, self.last.unwrap_or(Reply::Stands(self.parts.follows())))
    }

    /// Whether the store held this very write already.
    pub(crate) fn met_itself(&self) -> bool {
        self.last == Some(Reply::Stands(Some(self.unit.leaves)))
    }

    /// The next part arrives at the store, which refuses rows of the offsets in `refused`.
    pub(crate) fn land(&mut self, world: &mut Arc<World<Write>>, refused: &[i64]) -> Landed {
        let index = self.next;
        self.next += 1;
        let verdict = world.judge(&self.unit.lane, &self.parts, index);
        if verdict != Verdict::Apply {
            let stored = world.link(&self.unit.lane);
            self.last = Some(Reply::Stands(stored));
            let is_there = stored == Some(self.parts.links(index).1);
            return if verdict == Verdict::AlreadyApplied && !is_there {
                Landed::Belied
            } else {
                Landed::Nothing
            };
        }
        let rows = self.unit.rows.iter().map(|row| row.offset);
        self.refused = rows.filter(|offset| refused.contains(offset)).collect();
        if !self.refused.is_empty() {
            return Landed::Nothing;
        }
        Arc::make_mut(world).take(&self.unit, &self.parts, index);
        (self.any_taken, self.last) = (true, Some(Reply::Taken));
        Landed::Taken
    }
}
