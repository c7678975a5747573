//! Whether a lane needs the headers of what it reads.
//!
//! A projection looks at them only where an event is set aside: its dead letter carries them byte for byte. librdkafka takes
//! them apart one by one, each into memory of its own, which is a quarter of what a catch-up costs (ADR 15). So a lane that is far behind the
//! end of its log has them left out, and reads once more, with them, where something is to be set aside. If retention has
//! taken that meanwhile it has overtaken progress, and is noticed as ever: nothing goes out without its headers.

use std::sync::atomic::{AtomicI64, Ordering};

use fleetlog_projection::{Projection, Sink};

use super::Lane;
use crate::ports::Schemas;

/// So near to the end of the log headers are read always: there they cost nothing that counts, and what is set aside holds nobody up.
const NEAR_OFFSETS: i64 = 20_000;
/// For so long after something was set aside they are read too: to begin again throws away what was projected and not written, up
/// to some seconds of work.
const CALM_OFFSETS: i64 = 1_000_000;

/// What the need of headers hangs on, beside the end of the log.
#[derive(Debug)]
pub(crate) struct HeadersWanted {
    /// The last record that was to be set aside.
    set_aside_at: AtomicI64,
}

impl HeadersWanted {
    /// Nothing was set aside yet.
    pub(crate) fn new() -> Self {
        Self { set_aside_at: AtomicI64::new(i64::MIN) }
    }

    /// A record is to be set aside.
    pub(super) fn set_aside(&self, offset: i64) {
        self.set_aside_at.store(offset, Ordering::Relaxed);
    }

    /// From where on a lane at `cursor` needs them, on a log that ends at `end`, as far as is known.
    fn from(&self, cursor: i64, end: Option<i64>) -> i64 {
        let is_calm = cursor.saturating_sub(self.set_aside_at.load(Ordering::Relaxed)) > CALM_OFFSETS;
        match end {
            Some(end) if is_calm => end.saturating_sub(NEAR_OFFSETS),
            _ => i64::MIN,
        }
    }
}

impl<P, S, C> Lane<P, S, C>
where
    P: Projection,
    S: Sink<Write = P::Write>,
    C: Schemas,
{
    /// Says from where on headers are to be read, for a lane at `cursor`. Records that are not events are all there is to
    /// read of them.
    pub(super) fn want_headers(&self, cursor: i64) {
        if P::READS_EVENTS {
            self.feed.read_headers_from(self.headers.from(cursor, self.status.end()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_from_the_end_headers_are_left_out_until_something_is_set_aside() {
        let wanted = HeadersWanted::new();
        assert_eq!(wanted.from(0, None), i64::MIN, "nobody knows how far the end is");
        assert_eq!(wanted.from(0, Some(9_000_000)), 9_000_000 - NEAR_OFFSETS);
        wanted.set_aside(500);
        for cursor in [0, 500, 500 + CALM_OFFSETS] {
            assert_eq!(wanted.from(cursor, Some(9_000_000)), i64::MIN, "{cursor}");
        }
        assert_eq!(wanted.from(501 + CALM_OFFSETS, Some(9_000_000)), 9_000_000 - NEAR_OFFSETS);
    }
}
