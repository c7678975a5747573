use bytes::{Bytes, BytesMut};
use fleetlog_codec::{Decoder, NoSource, Prepared};
use fleetlog_event::{EntityKey, LogId, Reason, Recorded, Reject, robot::RobotEvent};
use fleetlog_projection::{Fold, FoldProjector, Headers, HotWrite, LaneScope, Map, MapProjector, Rulings};

use super::*;
use crate::{memory::LaneShares, ports::Schemas, tests::fake};

/// Rows, and states that grow with each event.
struct Grows;

impl MapProjector for Grows {
    const ID: &'static str = "rows";
    type Event = RobotEvent;
    type Write = [u8; 64];

    fn map(&self, _: &Recorded<RobotEvent>, out: &mut Vec<[u8; 64]>) -> Result<(), Reject> {
        out.push([0; 64]);
        Ok(())
    }
}

impl FoldProjector for Grows {
    const ID: &'static str = "states";
    type Event = RobotEvent;
    type Write = HotWrite;
    type State = Vec<String>;

    fn home(&self, key: &EntityKey) -> String {
        key.as_str().to_owned()
    }
    fn apply(&self, state: &mut Vec<String>, event: &Recorded<RobotEvent>) -> Result<(), Reject> {
        state.push(format!("{:0100}", event.position.offset));
        Ok(())
    }
    fn writes(&self, _: &EntityKey, _: &Vec<String>, _: &mut Vec<HotWrite>) {}
}

fn records(count: u64) -> Vec<Record> {
    let record = |n: u64| {
        let (key, value) = fake::event(n);
        let offset = i64::try_from(n).expect("few");
        let (key, value) = (Some(Bytes::from(key)), Some(Bytes::from(value)));
        Record { offset, timestamp: TimestampMs(offset), key, value, headers: Headers::default() }
    };
    (0..count).map(record).collect()
}

const SCOPE: LaneScope =
    LaneScope { topic: 0, log: LogId(uuid::Uuid::from_u128(1)), partition: 0, partitions: 1 };

/// Adds batches as long as there is room, as a lane does while its store hangs; what is held then, and of the cache.
async fn fill<P: Projection>(
    projection: &P,
    shares: LaneShares,
    writes: WritesOf,
) -> (Ahead<P, Prepared>, usize, usize) {
    let decoder = Decoder::new(std::sync::Arc::new(NoSource));
    let (mut ahead, mut cache) = (Ahead::default(), P::Cache::default());
    let (mut cached_bytes, mut taken_records) = (0_usize, 0);
    let mut waiting = records(20_000).into_iter().peekable();
    loop {
        let mut room = shares.batch_room(ahead.tally.write_bytes);
        if room == 0 {
            return (ahead, cached_bytes, taken_records);
        }
        let mut batch = Vec::new();
        while let Some(record) = waiting.next_if(|record| batch.is_empty() || record.size_bytes() <= room) {
            room = room.saturating_sub(record.size_bytes());
            batch.push(record);
        }
        assert!(!batch.is_empty(), "20,000 events have no room at all to end in");
        taken_records += batch.len();
        let taken = Taken { duplicate: vec![false; batch.len()], records: batch, refilled: 0 };
        let decode = Schemas::prepare(&decoder, &taken.fresh()).await.expect("compiled in");
        let projected = projection.project(&SCOPE, &decode, &taken.fresh(), &Rulings::default(), &cache);
        assert!(projected.set_aside.is_empty());
        let grown = ahead.add(
            projection,
            &mut cache,
            Source { taken, decode },
            projected,
            Adding { writes, rows_max: 100 },
        );
        cached_bytes = cached_bytes.saturating_add_signed(grown);
    }
}

#[tokio::test]
async fn rows_ahead_of_a_hanging_store_stop_at_their_share_and_one_batch() {
    let shares =
        LaneShares { batch_bytes: 16 << 10, write_bytes: 256 << 10, piece_bytes: usize::MAX, cache_bytes: 0 };
    let (ahead, _, records) = fill(&Map(Grows), shares, WritesOf::Rows).await;
    let held = ahead.tally.write_bytes;
    assert!((shares.write_bytes..shares.write_bytes + 5 * shares.batch_bytes).contains(&held), "{held}");
    assert_eq!((ahead.rows.len(), ahead.items(&Map(Grows))), (records, records));
    assert!(records > 100, "{records}");
}

#[tokio::test]
async fn states_ahead_of_a_hanging_store_stop_at_their_share_also_where_few_entities_grow() {
    let shares = LaneShares {
        batch_bytes: 16 << 10,
        write_bytes: 256 << 10,
        piece_bytes: usize::MAX,
        cache_bytes: 64 << 10,
    };
    let (ahead, cached_bytes, records) = fill(&Fold::new(Grows), shares, WritesOf::States).await;
    // 50 entities, each with all of its events in its state.
    assert_eq!(ahead.items(&Fold::new(Grows)), 50);
    let text: usize = records * 100;
    assert!(cached_bytes > text && cached_bytes < 2 * text, "{cached_bytes} for {text} bytes of text");
    let held = ahead.tally.write_bytes;
    assert!((shares.write_bytes..2 * shares.write_bytes).contains(&held), "{held}");
}

#[tokio::test]
async fn a_record_larger_than_the_share_goes_alone() {
    let shares = LaneShares { batch_bytes: 8, write_bytes: 16, piece_bytes: usize::MAX, cache_bytes: 0 };
    let (ahead, _, records) = fill(&Map(Grows), shares, WritesOf::Rows).await;
    assert_eq!((records, ahead.rows.len()), (1, 1));
}

#[tokio::test]
async fn what_is_set_aside_holds_no_more_than_itself() {
    let mut chunk = BytesMut::zeroed(64 << 10).freeze();
    let value = chunk.split_to(10);
    let record = Record {
        offset: 0,
        timestamp: TimestampMs(0),
        key: None,
        value: Some(value),
        headers: Headers::default(),
    };
    let taken = Taken { records: vec![record.clone()], duplicate: vec![false], refilled: 0 };
    let reject = Reject::new(Reason::NoKey, "no key");
    let aside = SetAside { record, reject, event_type: None };
    let projected = Projected { pending: (), rows: Vec::new(), set_aside: vec![aside] };
    let mut ahead: Ahead<Map<Grows>, ()> = Ahead::default();
    ahead.add(
        &Map(Grows),
        &mut (),
        Source { taken, decode: () },
        projected,
        Adding { writes: WritesOf::Rows, rows_max: 100 },
    );
    let kept = &ahead.set_aside[0].record;
    assert_eq!(kept.value.as_deref(), Some(&[0_u8; 10][..]));
    assert!(chunk.is_unique(), "the rest of its piece of memory is free to go");
}
