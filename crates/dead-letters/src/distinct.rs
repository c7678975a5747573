//! Dead letters counted by what failed: the newest of each (group, origin).

use std::collections::HashMap;

use fleetlog_event::TimestampMs;

use crate::{Letter, LetterId};

/// Of each [`LetterId`] what its newest letter was given. It holds ids, ages and that alone: a topic may hold many more
/// letters than are wanted, and those that are not still have to stand for their older ones.
#[derive(Debug)]
pub struct Distinct<T> {
    newest: HashMap<LetterId, ((TimestampMs, i64, i32), T)>,
    seen: u64,
}

impl<T> Default for Distinct<T> {
    fn default() -> Self {
        Self { newest: HashMap::new(), seen: 0 }
    }
}

impl<T> Distinct<T> {
    /// Takes a letter into account; letters may come in any order.
    pub fn add(&mut self, letter: &Letter, given: T) {
        self.seen += 1;
        let (id, age) = (letter.id(), letter.age());
        match self.newest.get_mut(&id) {
            Some((known, _)) if *known >= age => {}
            Some(known) => *known = (age, given),
            None => drop(self.newest.insert(id, (age, given))),
        }
    }

    /// Letters that were taken into account, repeated ones included.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// What the newest ones were given, in no order.
    pub fn into_newest(self) -> impl Iterator<Item = T> {
        self.newest.into_values().map(|(_, given)| given)
    }
}
