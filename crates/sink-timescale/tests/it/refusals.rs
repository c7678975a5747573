//! Rows that the database does not want: found among many, with its words.

use std::time::Instant;

use fleetlog_projection::{Chain, Commit, Fault, Sink, SinkError};
use fleetlog_sink_timescale::SqlSink;

use crate::support::{FreshDatabase, TestRow, lane, number, refused_row, row, run, unit};

async fn refused_of(sink: &SqlSink<TestRow>, count: i64, bad: &[i64]) -> Vec<(i64, String)> {
    let (lane, mut chain) = (lane(), Chain::resume(1, None));
    let rows = (0..count)
        .map(|offset| if bad.contains(&offset) { refused_row(&lane, offset) } else { row(&lane, offset, 1) });
    match sink.commit(&unit(&lane, &mut chain, rows.collect())).await.unwrap() {
        Commit::Refused(refused) => refused.into_iter().map(|r| (r.offset, r.detail)).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_rows_are_found_among_a_hundred_thousand() {
    let database = FreshDatabase::migrated().await;
    let sink = database.open().sink();
    let fifty: Vec<i64> = (0..50).map(|n| n * 1999 + 7).collect();
    for bad in [vec![61_803], fifty] {
        let began = Instant::now();
        let refused = refused_of(&sink, 100_000, &bad).await;
        println!("{} bad rows of 100000 found in {:?}", bad.len(), began.elapsed());
        assert_eq!(refused.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), bad);
        assert!(
            refused[0].1.contains("invalid byte sequence") && refused[0].1.contains("22021"),
            "{refused:?}"
        );
    }
    assert_eq!(number(&mut database.connect().await, "SELECT count(*) FROM telemetry").await, 0);
    assert_eq!(number(&mut database.connect().await, "SELECT count(*) FROM fleetlog_progress").await, 0);
}

/// Objections of the user's own constraints and triggers, and of an index that a value is too large for.
#[tokio::test]
async fn every_kind_of_objection_to_a_row_names_it() {
    let database = FreshDatabase::migrated().await;
    let mut beside = database.connect().await;
    run(
        &mut beside,
        "ALTER TABLE telemetry ADD CONSTRAINT small CHECK (sequence < 1000);
         CREATE FUNCTION no_thirteen() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN IF NEW.sequence = 13 THEN RAISE EXCEPTION 'thirteen is unlucky'; END IF; RETURN NEW; END $$;
         CREATE TRIGGER no_thirteen BEFORE INSERT ON telemetry FOR EACH ROW EXECUTE FUNCTION no_thirteen();",
    )
    .await;
    let sink = database.open().sink::<TestRow>();
    let (lane, mut chain) = (lane(), Chain::resume(1, None));
    let mut rows: Vec<_> = (0..10).map(|offset| row(&lane, offset, offset)).collect();
    rows[2].value = 5000;
    rows[4].value = 13;
    // Beyond what a btree page holds, and not to be compressed below it.
    rows[6].unit =
        (0..40_000_u32).map(|n| n.wrapping_mul(2_654_435_761) % 94 + 33).filter_map(char::from_u32).collect();
    let unit = unit(&lane, &mut chain, rows);
    let Commit::Refused(refused) = sink.commit(&unit).await.unwrap() else { panic!("not refused") };
    let told: Vec<_> = refused.iter().map(|r| (r.offset, r.detail.as_str())).collect();
    assert_eq!(told.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [2, 4, 6], "{told:?}");
    assert!(told[0].1.contains("small") && told[0].1.contains("23514"), "{told:?}");
    assert!(told[1].1.contains("thirteen is unlucky"), "{told:?}");
    assert!(told[2].1.contains("index"), "{told:?}");
}

/// A constraint on fleetlog's own table is nobody's row: stopping is right, asking again for ever is not.
#[tokio::test]
async fn a_refusal_that_no_row_explains_stops_the_projection() {
    let database = FreshDatabase::migrated().await;
    let mut beside = database.connect().await;
    run(&mut beside, "ALTER TABLE fleetlog_progress ADD CONSTRAINT odd CHECK (main < 0)").await;
    let sink = database.open().sink::<TestRow>();
    let (lane, mut chain) = (lane(), Chain::resume(1, None));
    match sink.commit(&unit(&lane, &mut chain, vec![row(&lane, 0, 1)])).await {
        Err(SinkError { fault: Fault::Permanent, what, .. }) => {
            assert!(what.contains("none of its rows alone") && what.contains("\"odd\""), "{what}");
        }
        other => panic!("{other:?}"),
    }
}
