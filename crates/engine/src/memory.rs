//! How a projection's memory is shared out: librdkafka's queue, lanes, and what a lane does with its own.
//!
//! Everything that grows with the backlog, with the size of events or with the number of entities has a share here and
//! stops at it; one record that is larger than its share goes through alone. Shares are counted by stated rules, not by
//! asking the allocator: a record by its bytes, a state by its JSON ([`Grown`](fleetlog_projection::Grown)), a row by
//! its type and the text that it holds.

use crate::EngineConfig;

/// What one entry of the duplicates window takes at most: its places in ring and table (40 and 5 bytes), the latter half
/// empty, and what the ring has grown ahead.
const WINDOW_ENTRY_BYTES: usize = 56;

/// What librdkafka takes for what it counts as one byte of its queue: events are about 250 bytes of key and value, and
/// each has a message of 400 to 500 bytes around it; besides, a response that was asked for comes whole.
const QUEUE_FACTOR: usize = 4;

/// The least that a lane works with: less would not make it smaller, only slower.
const LANE_BYTES_MIN: usize = 256 << 10;

/// What a row's text takes beside the record that it was made from: on the heap of the row, in the encoded COPY, and
/// once more where it is JSON.
const ROW_TEXT_FACTOR: usize = 5;

/// Parts of a lane's memory, of 64.
const PARTS: usize = 64;
const BUFFER_PARTS: usize = 4;

/// What a lane writes, which decides about what its memory goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WritesOf {
    /// Rows. They exist twice: those under way and those made ahead of them.
    Rows,
    /// States, all in one commit, which is made from the cache at the moment when the one before is back: it exists once.
    States,
    /// States, of as many entities at a time as a piece takes: the others are only in the cache, and for those that were
    /// written before as they were written, too.
    StatesInPieces,
}

impl WritesOf {
    /// How the parts go: those of the raw bytes of a batch at work come with so many times as much for what it is decoded
    /// and projected to before that becomes part of a write.
    const fn parts(self) -> Parts {
        match self {
            Self::Rows => Parts { batch: 2, made: 4, ahead: 22, under_way: 22, cache: 0 },
            Self::States => Parts { batch: 2, made: 4, ahead: 30, under_way: 0, cache: 20 },
            Self::StatesInPieces => Parts { batch: 3, made: 2, ahead: 19, under_way: 9, cache: 23 },
        }
    }
}

/// Parts of a lane's memory.
struct Parts {
    /// Raw bytes of the batch at work.
    batch: usize,
    /// How many times as much is made of it.
    made: usize,
    /// What waits for its write.
    ahead: usize,
    /// The write under way.
    under_way: usize,
    /// States that are kept.
    cache: usize,
}

impl Parts {
    const fn sum(&self) -> usize {
        BUFFER_PARTS + self.batch * (1 + self.made) + self.ahead + self.under_way + self.cache
    }
}

const _: () = assert!(WritesOf::Rows.parts().sum() <= PARTS);
const _: () = assert!(WritesOf::States.parts().sum() <= PARTS);
const _: () = assert!(WritesOf::StatesInPieces.parts().sum() <= PARTS);

impl EngineConfig {
    /// What librdkafka's queue gets of the memory, as it counts itself: keys and values only.
    pub(crate) fn queue_kbytes(&self) -> usize {
        (self.queue_bytes() / QUEUE_FACTOR / 1024).max(1024)
    }

    /// The largest response to ask a broker for, in bytes; records larger than that still come, one batch at a time.
    /// A response is counted when it has come, compressed as it is; so it is kept smaller than the queue.
    pub(crate) fn fetch_bytes(&self) -> usize {
        (self.queue_bytes() / QUEUE_FACTOR / 2).clamp(256 << 10, 16 << 20)
    }

    fn queue_bytes(&self) -> usize {
        self.memory_bytes_max / 8
    }

    /// What one of `lanes` lanes may hold, in bytes.
    pub(crate) fn lane_bytes_max(&self, lanes: usize) -> usize {
        ((self.memory_bytes_max - self.queue_bytes()) / lanes.max(1)).max(LANE_BYTES_MIN)
    }
}

/// What may wait in a lane's buffer, in bytes of records.
pub(crate) fn buffer_bytes_max(lane_bytes: usize) -> usize {
    lane_bytes / PARTS * BUFFER_PARTS
}

/// What a lane may hold of each kind, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LaneShares {
    /// Raw bytes of one batch.
    pub(crate) batch_bytes: usize,
    /// What a write may take. What is projected ahead of it may be as much again, see above.
    pub(crate) write_bytes: usize,
    /// What one commit of states may take.
    pub(crate) piece_bytes: usize,
    /// States kept between writes.
    pub(crate) cache_bytes: usize,
}

impl LaneShares {
    /// Shares of a lane that may hold `lane_bytes`, and whose duplicates window reaches so far back.
    pub(crate) fn of(lane_bytes: usize, dedup_span_offsets: i64, writes: WritesOf) -> Self {
        let window =
            usize::try_from(dedup_span_offsets).unwrap_or_default().saturating_mul(WINDOW_ENTRY_BYTES);
        let part = lane_bytes.saturating_sub(window).max(LANE_BYTES_MIN) / PARTS;
        let Parts { batch, ahead, under_way, cache, .. } = writes.parts();
        Self {
            batch_bytes: batch * part,
            write_bytes: ahead * part,
            piece_bytes: if writes == WritesOf::StatesInPieces { under_way * part } else { usize::MAX },
            cache_bytes: cache * part,
        }
    }

    /// Raw bytes that the next batch may have while `ahead_bytes` are projected and wait for their write; 0: none.
    pub(crate) fn batch_room(&self, ahead_bytes: usize) -> usize {
        self.batch_bytes.min(self.write_bytes.saturating_sub(ahead_bytes))
    }
}

/// What rows take until they are stored: themselves, the records that they were made from (they are kept for the case
/// that the store refuses some), and their text.
pub(crate) fn row_bytes<W>(rows: usize, record_bytes: usize) -> usize {
    rows * size_of::<fleetlog_projection::RowChange<W>>() + (1 + ROW_TEXT_FACTOR) * record_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(memory_bytes_max: usize) -> EngineConfig {
        EngineConfig { memory_bytes_max, ..EngineConfig::default() }
    }

    #[test]
    fn the_shares_add_up_to_no_more_than_the_whole() {
        for memory_mb in [8, 24, 80, 400, 4000] {
            for lanes in [1, 6, 12, 20] {
                let config = config(memory_mb << 20);
                let lane = config.lane_bytes_max(lanes);
                let queue = config.queue_kbytes() * 1024 * QUEUE_FACTOR;
                let least = lane == LANE_BYTES_MIN || queue == QUEUE_FACTOR << 20;
                assert!(queue + lane * lanes <= memory_mb << 20 || least, "{memory_mb} MiB, {lanes} lanes");
                for writes in [WritesOf::Rows, WritesOf::States, WritesOf::StatesInPieces] {
                    let shares = LaneShares::of(lane, 0, writes);
                    let Parts { batch, made, under_way, .. } = writes.parts();
                    let all = buffer_bytes_max(lane)
                        + (1 + made) * shares.batch_bytes
                        + shares.write_bytes
                        + under_way * shares.batch_bytes / batch
                        + shares.cache_bytes;
                    assert!(all <= lane, "{memory_mb} MiB, {lanes} lanes: {all} of {lane}");
                }
            }
        }
    }

    #[test]
    fn the_window_of_duplicates_comes_off_first_and_a_lane_always_has_something_to_work_with() {
        let (without, with) =
            (LaneShares::of(8 << 20, 0, WritesOf::States), LaneShares::of(8 << 20, 10_000, WritesOf::States));
        assert!(with.write_bytes < without.write_bytes);
        let starved = LaneShares::of(1 << 20, 1_000_000, WritesOf::States);
        assert!(starved.batch_bytes > 4096 && starved.cache_bytes > 4096, "{starved:?}");
    }

    #[test]
    fn there_is_no_room_once_the_write_is_full() {
        let shares = LaneShares { batch_bytes: 100, write_bytes: 1000, piece_bytes: 0, cache_bytes: 0 };
        assert_eq!(shares.batch_room(0), 100);
        assert_eq!(shares.batch_room(950), 50);
        assert_eq!(shares.batch_room(1000), 0);
        assert_eq!(shares.batch_room(5000), 0, "a record larger than its share");
    }
}
