//! A commit in parts: for stores whose atomic step takes only a part of a unit of work (Redis: a script call).
//!
//! Set-asides first, before the entities they concern, and progress in the last part; each part has its own link in
//! the chain. So wherever a commit ends early, or a store loses its tail, what is there is a beginning of it: nothing
//! is past its set-asides, and progress is past nothing that is missing. See `docs/adr/0002-a-unit-of-work-in-parts.md`.

use std::ops::Range;

use crate::{
    Commit, EntityChange, Link, SetAside, UnitOfWork, Verdict, judge,
    mutant::{Mutant, on},
};

/// What one part carries, as ranges of the unit's. The last part carries progress, and the rows if there are any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Part {
    /// Of the set-asides.
    pub set_asides: Range<usize>,
    /// Of the entities.
    pub entities: Range<usize>,
    /// What these add up to.
    pub size_bytes: usize,
}

/// Something that a part carries.
#[derive(Debug)]
pub enum Item<'a, W> {
    /// An event not taken.
    SetAside(&'a SetAside),
    /// An entity changed.
    Entity(&'a EntityChange<W>),
}

/// A unit of work as parts. The cut depends on the unit and the limits alone, so that the same unit given again makes
/// the same parts with the same links.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Parts {
    follows: Option<Link>,
    leaves: Link,
    parts: Vec<Part>,
}

/// Where a stored link stands among those of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// So many of the parts were taken.
    Done(usize),
    /// The link is none of this commit's.
    Foreign,
}

impl Parts {
    /// Cuts greedily: a part is full when it holds `items_max` (at least 1) entities and set-asides, or when one more
    /// would make it larger than `bytes_max`. At least one part is made, if only to move progress. A unit that changes
    /// entries of the ledger is one part whatever its size, so that an entry closes with what it is about.
    pub fn cut<W>(
        unit: &UnitOfWork<W>,
        items_max: usize,
        bytes_max: usize,
        size_bytes: impl Fn(&Item<'_, W>) -> usize,
    ) -> Self {
        if !unit.entries.is_empty() {
            return Self::whole(unit);
        }
        let set_asides = unit.set_aside.iter().map(Item::SetAside);
        let entities = unit.entities.iter().map(Item::Entity);
        let mut items: Vec<Item<'_, W>> = set_asides.chain(entities).collect();
        if on(Mutant::SetAsidesLast) {
            items.rotate_left(unit.set_aside.len());
        }
        let mut parts = Vec::new();
        let mut part = Part::default();
        for item in items {
            let size_bytes = size_bytes(&item);
            let items = part.set_asides.len() + part.entities.len();
            if items == items_max || (items > 0 && part.size_bytes + size_bytes > bytes_max) {
                let (set_asides, entities) = (part.set_asides.end, part.entities.end);
                let next =
                    Part { set_asides: set_asides..set_asides, entities: entities..entities, size_bytes: 0 };
                parts.push(std::mem::replace(&mut part, next));
            }
            part.size_bytes += size_bytes;
            match item {
                Item::SetAside(_) => part.set_asides.end += 1,
                Item::Entity(_) => part.entities.end += 1,
            }
        }
        parts.push(part);
        Self::new(unit, parts)
    }

    /// The whole unit in one part, as a transaction takes it.
    #[must_use]
    pub fn whole<W>(unit: &UnitOfWork<W>) -> Self {
        let part =
            Part { set_asides: 0..unit.set_aside.len(), entities: 0..unit.entities.len(), size_bytes: 0 };
        Self::new(unit, vec![part])
    }

    /// Parts cut in another way: at least one, in the order of set-asides and entities.
    ///
    /// # Panics
    /// When there is no part.
    #[must_use]
    pub fn new<W>(unit: &UnitOfWork<W>, parts: Vec<Part>) -> Self {
        assert!(!parts.is_empty(), "a commit has a part to move progress");
        Self { follows: unit.follows, leaves: unit.leaves, parts }
    }

    /// The link that the unit follows.
    #[must_use]
    pub fn follows(&self) -> Option<Link> {
        self.follows
    }

    /// How many parts there are: at least 1.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is at least one part")]
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Part number `index`, from 0.
    ///
    /// # Panics
    /// When there is no such part.
    #[must_use]
    pub fn part(&self, index: usize) -> &Part {
        &self.parts[index]
    }

    /// Whether part number `index` is the one that carries progress.
    #[must_use]
    pub fn is_last(&self, index: usize) -> bool {
        index + 1 == self.parts.len()
    }

    /// The link that stands after `done` of the parts.
    #[must_use]
    pub fn link_after(&self, done: usize) -> Option<Link> {
        match done {
            0 => self.follows,
            done if done == self.parts.len() => Some(self.leaves),
            // Bounded by the number of entities and set-asides of a batch, far below u32.
            done => Some(self.leaves.part(u32::try_from(done).unwrap_or(u32::MAX))),
        }
    }

    /// The links that part number `index` follows and leaves.
    #[must_use]
    pub fn links(&self, index: usize) -> (Option<Link>, Link) {
        (self.link_after(index), self.link_after(index + 1).unwrap_or(self.leaves))
    }

    /// Finds a stored link among those of this commit. The latest wins: the link it follows can be no later part's,
    /// since links are never used twice.
    #[must_use]
    pub fn standing(&self, stored: Option<Link>) -> Standing {
        if judge(stored, self.follows, self.leaves) == Verdict::AlreadyApplied {
            return Standing::Done(self.parts.len());
        }
        (0..=self.parts.len())
            .rev()
            .find(|&done| self.link_after(done) == stored)
            .map_or(Standing::Foreign, Standing::Done)
    }
}

/// What the store answered to the last of the parts that were sent in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// It was taken.
    Taken,
    /// It was not: this link stands.
    Stands(Option<Link>),
}

/// What a sink does next with its commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Send the parts from [`Sending::first`] on.
    GoOn,
    /// The commit is over.
    Over(Commit),
    /// The chain is broken: this link stands.
    Fenced(Option<Link>),
    /// The store lost the same parts this many times: Transient.
    KeepsLosing(u32),
}

/// A commit under way. Parts are sent several in one piece; whether they were taken is read off the last reply: each
/// part is taken only after all before it, and one that is not answers with the link that stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sending {
    done: usize,
    any_taken: bool,
    rewinds: u32,
}

/// How often a commit starts again from an earlier part because the store lost the tail of it.
const REWINDS_MAX: u32 = 3;

impl Sending {
    /// The next part to be sent.
    #[must_use]
    pub fn first(&self) -> usize {
        self.done
    }

    /// The parts up to `end` were sent and answered: whether any was taken, and what was said about the last.
    pub fn answered(&mut self, parts: &Parts, end: usize, any_taken: bool, last: Reply) -> Sent {
        self.any_taken |= any_taken;
        let reached = match last {
            Reply::Taken => end,
            Reply::Stands(stored) => match parts.standing(stored) {
                Standing::Done(done) => done,
                Standing::Foreign => return Sent::Fenced(stored),
            },
        };
        if reached <= self.done {
            self.rewinds += 1;
        }
        if self.rewinds > REWINDS_MAX {
            return Sent::KeepsLosing(self.rewinds);
        }
        self.done = reached;
        match (reached == parts.len(), self.any_taken) {
            (false, _) => Sent::GoOn,
            (true, true) => Sent::Over(Commit::Applied),
            (true, false) => Sent::Over(Commit::AlreadyApplied),
        }
    }
}

#[cfg(test)]
#[path = "parts/tests.rs"]
mod tests;
