//! How long tasks may stand still, and what is said then.

use std::collections::BTreeMap;

/// What becomes of a task that stands still for too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// It fails: `Failed`, reason `timeout`.
    #[default]
    Fail,
    /// It is told of, once a standstill, and goes on being watched: `Stalled`.
    Alert,
}

/// How long tasks may stand still, and what is said then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Of these types, in ms; 0: for ever.
    pub timeouts_ms: BTreeMap<String, u64>,
    /// Of all others, in ms; 0: for ever.
    pub timeout_ms: u64,
    /// What is said.
    pub policy: Policy,
    /// Whether paused tasks are watched, too.
    pub while_paused: bool,
}

impl Rules {
    /// How long a task of that type may stand still, in ms; none: for ever, so that it is not watched.
    #[must_use]
    pub fn timeout_ms(&self, task_type: &str) -> Option<i64> {
        let timeout_ms = self.timeouts_ms.get(task_type).copied().unwrap_or(self.timeout_ms);
        (timeout_ms > 0).then(|| i64::try_from(timeout_ms).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_has_its_own_timeout_or_that_of_all_others_and_0_is_none() {
        let timeouts_ms = [("DELIVERY".to_owned(), 5), ("parking".to_owned(), 0)].into();
        let mut rules = Rules { timeouts_ms, timeout_ms: 9, ..Rules::default() };
        let of = |rules: &Rules| ["DELIVERY", "parking", "delivery"].map(|name| rules.timeout_ms(name));
        assert_eq!(of(&rules), [Some(5), None, Some(9)]);
        rules.timeout_ms = 0;
        assert_eq!(of(&rules), [Some(5), None, None]);
    }
}
