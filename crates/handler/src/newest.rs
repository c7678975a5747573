//! The newest event of each key that was seen, so that a handler can tell what is outdated.

use std::collections::HashMap;

use bytes::Bytes;

use crate::Origin;

/// Keys that are remembered at least; at most twice as many.
const KEYS_MIN: usize = 100_000;

/// The newest offset by source topic and key. Bounded: a key that was not seen for long is forgotten, and then an old event of it
/// does not know that it is one.
#[derive(Debug, Default)]
pub(crate) struct Newest {
    young: HashMap<(usize, Bytes), i64>,
    old: HashMap<(usize, Bytes), i64>,
}

impl Newest {
    pub(crate) fn saw(&mut self, origin: Origin, key: &Bytes) {
        if self.young.len() >= KEYS_MIN {
            self.old = std::mem::take(&mut self.young);
        }
        let newest = self.of(origin, Some(key));
        self.young.insert((origin.topic, key.clone()), newest);
    }

    /// The newest offset of the key: that of the event itself, or a later one.
    pub(crate) fn of(&self, origin: Origin, key: Option<&Bytes>) -> i64 {
        let Some(key) = key else { return origin.offset };
        let at = (origin.topic, key.clone());
        let known = self.young.get(&at).or_else(|| self.old.get(&at)).copied();
        known.map_or(origin.offset, |known| known.max(origin.offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(topic: usize, offset: i64) -> Origin {
        Origin { topic, offset }
    }

    #[test]
    fn the_newest_of_a_key_is_known_by_topic_until_many_others_were_seen() {
        let (mut newest, key) = (Newest::default(), Bytes::from_static(b"s1.u1"));
        newest.saw(at(0, 7), &key);
        newest.saw(at(0, 3), &key);
        assert_eq!((newest.of(at(0, 5), Some(&key)), newest.of(at(0, 9), Some(&key))), (7, 9));
        assert_eq!((newest.of(at(1, 5), Some(&key)), newest.of(at(0, 5), None)), (5, 5));
        let others = |newest: &mut Newest, from: usize| {
            for other in from..from + KEYS_MIN {
                newest.saw(at(0, 8), &Bytes::from(other.to_le_bytes().to_vec()));
            }
        };
        others(&mut newest, 0);
        assert_eq!(newest.of(at(0, 5), Some(&key)), 7);
        others(&mut newest, KEYS_MIN);
        others(&mut newest, 2 * KEYS_MIN);
        assert_eq!(newest.of(at(0, 5), Some(&key)), 5);
        assert!(newest.young.len() + newest.old.len() <= 2 * KEYS_MIN);
    }
}
