//! How many events may be sent now.

/// So many a second: what was not used is not saved up for longer than a second.
#[derive(Debug)]
pub struct Pace {
    per_s: u32,
    /// In thousandths of an event.
    left: u64,
    filled_at_ms: u64,
}

impl Pace {
    /// `per_s` events a second, at least one.
    #[must_use]
    pub fn new(per_s: u32) -> Self {
        let per_s = per_s.max(1);
        Self { per_s, left: u64::from(per_s) * 1000, filled_at_ms: 0 }
    }

    /// How many may be sent at `now_ms` (monotonic).
    pub fn allowed(&mut self, now_ms: u64) -> usize {
        let gained = now_ms.saturating_sub(self.filled_at_ms).saturating_mul(u64::from(self.per_s));
        self.left = self.left.saturating_add(gained).min(u64::from(self.per_s) * 1000);
        self.filled_at_ms = now_ms.max(self.filled_at_ms);
        usize::try_from(self.left / 1000).unwrap_or(usize::MAX)
    }

    /// Notes that so many were sent.
    pub fn sent(&mut self, events: usize) {
        self.left = self.left.saturating_sub(u64::try_from(events).unwrap_or(u64::MAX).saturating_mul(1000));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_gives_its_share_and_no_more_is_saved_up() {
        let mut pace = Pace::new(100);
        assert_eq!(pace.allowed(0), 100);
        pace.sent(100);
        assert_eq!(pace.allowed(0), 0);
        assert_eq!(pace.allowed(5), 0);
        assert_eq!(pace.allowed(255), 25);
        pace.sent(20);
        assert_eq!(pace.allowed(255), 5);
        assert_eq!(pace.allowed(3_600_000), 100);
        assert_eq!(pace.allowed(0), 100, "a clock that stands still takes nothing away");
    }
}
