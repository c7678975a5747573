//! The records of one partition that are under way: which may begin, and how far the group may commit.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use bytes::Bytes;

/// The window over a partition, of a group that handles more records at a time than there are partitions.
///
/// Of one key only the oldest record is begun. What may be committed is the low-water mark: everything before it is done. A
/// record begins only while fewer than `in_flight_max` at or behind what *was* committed have begun, done or not: those are
/// the ones that a crash makes come again.
#[derive(Debug)]
pub struct Window {
    in_flight_max: usize,
    /// Every record that was admitted and is not done, with its key.
    open: BTreeMap<i64, Option<Bytes>>,
    /// By key, the offsets that are not done, in order. Records without a key stand for themselves.
    by_key: HashMap<Bytes, VecDeque<i64>>,
    /// Those that may begin: the oldest of their keys.
    ready: BTreeSet<i64>,
    /// Those that began, done or not, and would come again after a crash.
    begun: BTreeSet<i64>,
    /// Where the next record lies, or will lie.
    next: i64,
    /// What the group has committed.
    committed: i64,
}

impl Window {
    /// A window that begins at what was committed.
    #[must_use]
    pub fn new(committed: i64, in_flight_max: usize) -> Self {
        Self {
            in_flight_max: in_flight_max.max(1),
            open: BTreeMap::new(),
            by_key: HashMap::new(),
            ready: BTreeSet::new(),
            begun: BTreeSet::new(),
            next: committed,
            committed,
        }
    }

    /// Takes the next record in. One that was admitted before is not taken again: false.
    pub fn admit(&mut self, offset: i64, key: Option<&Bytes>) -> bool {
        if offset < self.next {
            return false;
        }
        self.next = offset + 1;
        self.open.insert(offset, key.cloned());
        let is_oldest = match key {
            None => true,
            Some(key) => {
                let of_key = self.by_key.entry(key.clone()).or_default();
                of_key.push_back(offset);
                of_key.len() == 1
            }
        };
        if is_oldest {
            self.ready.insert(offset);
        }
        true
    }

    /// The log goes on at `next`: there are no records before it (markers of transactions, what was compacted away).
    pub fn moves_to(&mut self, next: i64) {
        self.next = self.next.max(next);
    }

    /// The oldest record that may begin now; it has begun by that.
    pub fn begin(&mut self) -> Option<i64> {
        if self.begun.len() >= self.in_flight_max {
            return None;
        }
        let offset = self.ready.pop_first()?;
        self.begun.insert(offset);
        Some(offset)
    }

    /// A record that had begun has not been handled after all, and may begin again.
    pub fn put_back(&mut self, offset: i64) {
        if self.open.contains_key(&offset) && self.begun.remove(&offset) {
            self.ready.insert(offset);
        }
    }

    /// A record is done for good: handled, or on its way to another topic.
    pub fn done(&mut self, offset: i64) {
        let Some(key) = self.open.remove(&offset) else { return };
        // It may be done without a call, as one that nobody can read.
        self.ready.remove(&offset);
        let Some(key) = key else { return };
        let Some(of_key) = self.by_key.get_mut(&key) else { return };
        of_key.retain(|other| *other != offset);
        match of_key.front() {
            Some(oldest) if !self.begun.contains(oldest) => drop(self.ready.insert(*oldest)),
            Some(_) => {}
            None => drop(self.by_key.remove(&key)),
        }
    }

    /// The group has committed up to `offset`.
    pub fn committed(&mut self, offset: i64) {
        self.committed = self.committed.max(offset);
        self.begun = self.begun.split_off(&self.committed);
    }

    /// How far it may commit: everything before it is done.
    #[must_use]
    pub fn low_water(&self) -> i64 {
        self.open.keys().next().copied().unwrap_or(self.next)
    }

    /// What there is to commit; none where nothing moved.
    #[must_use]
    pub fn to_commit(&self) -> Option<i64> {
        Some(self.low_water()).filter(|low_water| *low_water > self.committed)
    }

    /// Records that have begun and are not done.
    #[must_use]
    pub fn in_flight_len(&self) -> usize {
        self.begun.iter().filter(|offset| self.open.contains_key(offset)).count()
    }

    /// Records that have begun, done or not, and would come again after a crash.
    #[must_use]
    pub fn begun_len(&self) -> usize {
        self.begun.len()
    }

    /// Records that were admitted and are not done.
    #[must_use]
    pub fn open_len(&self) -> usize {
        self.open.len()
    }

    /// Where the next record lies, or will lie.
    #[must_use]
    pub fn next(&self) -> i64 {
        self.next
    }
}

#[cfg(test)]
mod tests;
