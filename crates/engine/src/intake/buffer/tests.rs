use bytes::Bytes;
use fleetlog_event::TimestampMs;
use fleetlog_projection::Headers;

use super::*;

fn record(offset: i64) -> Record {
    let value = Some(Bytes::from_static(b"0123456789"));
    Record { offset, timestamp: TimestampMs(0), key: None, value, headers: Headers::default() }
}

fn buffer_at(offset: i64) -> LaneBuffer {
    let buffer = LaneBuffer::new(Arc::default());
    buffer.request(offset);
    buffer.begin(offset);
    buffer
}

fn batch(buffer: &LaneBuffer, cursor: i64, events_max: usize) -> Option<(i64, Vec<i64>, i64)> {
    match buffer.try_take(cursor, events_max, usize::MAX)? {
        Taking::Batch(batch) => {
            Some((batch.begin, batch.records.iter().map(|r| r.offset).collect(), batch.next))
        }
        Taking::OutOfRange => None,
    }
}

#[test]
fn a_batch_names_where_its_reading_began_and_where_it_goes_on() {
    let buffer = buffer_at(3);
    for offset in [4, 5, 9] {
        buffer.push([record(offset)]);
    }
    buffer.end(Some(11));
    assert_eq!(batch(&buffer, 3, 2), Some((3, vec![4, 5], 6)));
    assert_eq!(batch(&buffer, 6, 2), Some((6, vec![9], 11)), "the markers behind it too");
    assert_eq!(batch(&buffer, 11, 2), None);
    buffer.end(Some(13));
    assert_eq!(batch(&buffer, 11, 2), Some((11, vec![], 13)), "only markers");
    buffer.end(None);
    assert_eq!(batch(&buffer, 13, 2), None, "nothing new at the end");
}

#[test]
fn what_was_fetched_before_a_seek_is_thrown_away() {
    let buffer = buffer_at(0);
    buffer.push([record(0)]);
    buffer.request(100);
    assert_eq!(buffer.held_bytes(), 0);
    buffer.push([record(1)]);
    buffer.end(Some(2));
    assert_eq!(batch(&buffer, 100, 9), None, "stale");
    assert_eq!((buffer.requested(), buffer.next()), (Some(100), None));
    buffer.begin(100);
    buffer.push([record(1)]);
    buffer.push([record(100)]);
    assert_eq!(batch(&buffer, 100, 9), Some((100, vec![100], 101)));
}

#[test]
fn a_batch_is_cut_by_bytes_but_never_empty() {
    let buffer = buffer_at(0);
    (0..3).for_each(|offset| buffer.push([record(offset)]));
    let size = record(0).size_bytes();
    assert_eq!(buffer.held_bytes(), 3 * size);
    let Some(Taking::Batch(first)) = buffer.try_take(0, 9, 2 * size) else { panic!("a batch") };
    assert_eq!(first.records.len(), 2);
    let Some(Taking::Batch(second)) = buffer.try_take(2, 9, 1) else { panic!("a batch") };
    assert_eq!(second.records.len(), 1);
    assert_eq!(buffer.held_bytes(), 0, "what is taken is the lane's");
}

#[tokio::test]
async fn a_waiting_lane_is_woken() {
    let buffer = Arc::new(buffer_at(0));
    let (commands, _keep) = std::sync::mpsc::channel();
    let at = LaneAt { topic: 0, partition: 0 };
    let feed = LaneFeed::new(at, 1, Arc::clone(&buffer), commands, Arc::new(AtomicUsize::new(1 << 20)));
    let taking = tokio::spawn(async move { feed.take(0, 9, 1 << 20).await });
    tokio::task::yield_now().await;
    buffer.push([record(0)]);
    assert!(matches!(taking.await, Ok(Taking::Batch(batch)) if batch.records.len() == 1));
}
