//! The same answers out of an index: letters and actions that somebody else has read off the topics.

use super::{Found, StateFilter, Tag, ToolError, Tools, counted};
use crate::{Actions, Distinct, Inside, Letter, Selector, State, Stats};

/// What an index holds of the topics: every letter that lies on them, and all that was done.
#[derive(Debug, Default)]
pub struct Index {
    /// The letters, in any order, doubled ones included.
    pub letters: Vec<Letter>,
    /// What was done to them.
    pub actions: Actions,
    /// Events of topic `ops` that the index could not take.
    pub unreadable_actions: u64,
}

impl Tools {
    /// What [`find`](Self::find) finds, out of an index of all of fleetlog's own dead-letter topics. None where only payloads
    /// could tell whether a letter is meant (its site, its type): these an index does not hold.
    ///
    /// # Errors
    /// The selectors contradict each other or name what there is not.
    pub fn find_in(
        &self,
        index: &Index,
        selector: &Selector,
        states: StateFilter,
    ) -> Result<Option<Found>, ToolError> {
        let topics = self.topics_of(selector)?;
        let is_read = |letter: &&Letter| {
            selector.since.is_none_or(|since| letter.set_aside_at >= since)
                && topics.iter().any(|topic| topic.shown == letter.place.topic)
        };
        let (mut distinct, mut groups) = (Distinct::default(), self.known_groups.clone());
        for letter in index.letters.iter().filter(is_read) {
            if selector.needs_inside(letter) {
                return Ok(None);
            }
            let state = index.actions.state(letter);
            let is_open = state == State::Open;
            let is_meant = selector.matches(letter, &self.kafka.topic_prefix, &Inside::default());
            groups.insert(letter.group.clone());
            let kept = (is_meant && states.takes(&state)).then(|| (letter.clone(), state));
            distinct.add(letter, Tag { is_open, is_meant, kept });
        }
        if let Some(unknown) = selector.groups.iter().find(|group| !groups.contains(*group)) {
            let known = groups.into_iter().collect();
            return Err(ToolError::UnknownGroup { group: unknown.clone(), known });
        }
        let found = Found { unreadable_actions: index.unreadable_actions, ..counted(distinct) };
        Ok(Some(found.cut(selector.max)))
    }
}

impl Found {
    /// Counts of the letters in that state, of letters in any; [`Stats::states`] counts all states.
    #[must_use]
    pub fn stats(&self, states: StateFilter) -> Stats {
        let mut stats = Stats::default();
        for (letter, state) in &self.letters {
            if states.takes(state) {
                stats.add(letter, state);
            } else {
                *stats.states.entry(state.name().to_owned()).or_default() += 1;
            }
        }
        stats
    }
}
