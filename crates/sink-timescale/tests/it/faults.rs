//! Servers that are down, hang, are full, are locked, or are not what they should be.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fleetlog_event::{Reason, Reject, TimestampMs};
use fleetlog_projection::{Chain, Commit, Fault, Headers, Record, SetAside, Sink, SinkError};
use fleetlog_sink_timescale::{Migrator, SqlSink};
use fleetlog_testkit::PostgresServer;
use rand::{Rng, SeedableRng, rngs::StdRng};
use sqlx::{Connection, PgConnection};
use tokio::sync::watch;

use crate::{
    proxy::{Proxy, Trouble},
    support::{
        FreshDatabase, TestRow, address_of, lane, number, open, row, run, stack_url, unit, with_address,
        with_database,
    },
};

const PATIENT: Duration = Duration::from_secs(20);

fn fault<T: std::fmt::Debug>(outcome: Result<T, SinkError>) -> (Fault, String) {
    let error = outcome.expect_err("a failure");
    (error.fault, error.to_string())
}

/// A COMMIT that was carried out and whose answer was lost: Transient, and the retry finds its own link.
#[tokio::test]
async fn a_lost_reply_of_commit_is_found_out_by_the_retry() {
    let database = FreshDatabase::migrated().await;
    let proxy = Proxy::to(address_of(&database.url)).await;
    let sink: SqlSink<TestRow> = open(&with_address(&database.url, &proxy.address), PATIENT).sink();
    let (lane, mut chain) = (lane(), Chain::resume(1, None));
    let unit = unit(&lane, &mut chain, vec![row(&lane, 0, 1), row(&lane, 1, 1)]);
    proxy.trouble_at("COMMIT\0", Trouble::LoseReply);
    assert_eq!(fault(sink.commit(&unit).await).0, Fault::Transient);
    assert_eq!(proxy.struck(), 1);
    assert_eq!(sink.commit(&unit).await.unwrap(), Commit::AlreadyApplied);
    assert_eq!(number(&mut database.connect().await, "SELECT count(*) FROM telemetry").await, 2);
}

/// A way that breaks in the middle of rows: Transient, and the retry stores them once.
#[tokio::test]
async fn a_connection_cut_in_mid_copy_leaves_nothing() {
    let database = FreshDatabase::migrated().await;
    let proxy = Proxy::to(address_of(&database.url)).await;
    let sink: SqlSink<TestRow> = open(&with_address(&database.url, &proxy.address), PATIENT).sink();
    let (lane, mut chain) = (lane(), Chain::resume(1, None));
    let unit = unit(&lane, &mut chain, (0..5000).map(|offset| row(&lane, offset, 1)).collect());
    proxy.trouble_at("COPY \"telemetry\"", Trouble::LoseReply);
    assert_eq!(fault(sink.commit(&unit).await).0, Fault::Transient);
    assert_eq!(number(&mut database.connect().await, "SELECT count(*) FROM telemetry").await, 0);
    assert_eq!(sink.commit(&unit).await.unwrap(), Commit::Applied);
    assert_eq!(number(&mut database.connect().await, "SELECT count(*) FROM telemetry").await, 5000);
}

/// A writer whose host is gone in the middle of a COPY keeps the lane's row locked: no time limit of the server ends that
/// wait for its client. Who has the lane now ends it, and goes on.
#[tokio::test]
async fn a_writer_that_is_gone_in_mid_copy_does_not_keep_its_lane() {
    let database = FreshDatabase::migrated().await;
    let sink: SqlSink<TestRow> = open(&database.url, Duration::from_secs(1)).sink();
    let (lane, mut chain) = (lane(), Chain::resume(1, None));
    let first = unit(&lane, &mut chain, vec![row(&lane, 0, 1)]);
    assert_eq!(sink.commit(&first).await.unwrap(), Commit::Applied);
    chain.written(first.leaves);
    let mut gone = database.connect().await;
    run(
        &mut gone,
        "BEGIN; SET LOCAL statement_timeout = 1000; UPDATE fleetlog_progress SET written_at = now()",
    )
    .await;
    let _copying = gone.copy_in_raw("COPY telemetry FROM STDIN (FORMAT binary)").await.unwrap();
    let next = unit(&lane, &mut chain, vec![row(&lane, 1, 1)]);
    let (fault, text) = fault(sink.commit(&next).await);
    assert_eq!(fault, Fault::Transient);
    assert!(text.contains("lock timeout"), "{text}");
    assert_eq!(sink.commit(&next).await.unwrap(), Commit::Applied);
}

/// The same before the lane has a row that anybody else could see.
#[tokio::test]
async fn a_writer_that_is_gone_in_its_first_copy_does_not_keep_its_lane() {
    let database = FreshDatabase::migrated().await;
    let sink: SqlSink<TestRow> = open(&database.url, Duration::from_secs(1)).sink();
    let (lane, chain) = (lane(), Chain::resume(1, None));
    let mut gone = database.connect().await;
    let lock = format!("SELECT pg_advisory_xact_lock(hashtextextended('{lane}', 0))");
    let row_of_gone = format!(
        "INSERT INTO fleetlog_progress (projection, version, topic, partition, link, log, main, inbox)
         VALUES ('{}', {}, '{}', {}, '00000000000000ff.1.0', '{}', 1, 0)",
        lane.projection,
        lane.version,
        lane.topic,
        lane.partition,
        uuid::Uuid::nil()
    );
    run(&mut gone, &format!("BEGIN; SET LOCAL statement_timeout = 1000; {lock}; {row_of_gone}")).await;
    let _copying = gone.copy_in_raw("COPY telemetry FROM STDIN (FORMAT binary)").await.unwrap();
    let first = unit(&lane, &mut { chain }, vec![row(&lane, 0, 1)]);
    let (fault, text) = fault(sink.commit(&first).await);
    assert_eq!(fault, Fault::Transient);
    assert!(text.contains("lock timeout"), "{text}");
    assert_eq!(sink.commit(&first).await.unwrap(), Commit::Applied);
}

/// One that works keeps its lock, however long it takes.
#[tokio::test]
async fn a_writer_that_is_at_work_keeps_its_lane() {
    let database = FreshDatabase::migrated().await;
    let sink: SqlSink<TestRow> = open(&database.url, Duration::from_secs(1)).sink();
    let (lane, mut chain) = (lane(), Chain::resume(1, None));
    let first = unit(&lane, &mut chain, vec![row(&lane, 0, 1)]);
    assert_eq!(sink.commit(&first).await.unwrap(), Commit::Applied);
    chain.written(first.leaves);
    let mut busy = database.connect().await;
    let working = tokio::spawn(async move {
        let work = "DO $$ BEGIN UPDATE fleetlog_progress SET written_at = now(); PERFORM pg_sleep(3); END $$";
        run(&mut busy, work).await;
    });
    let next = unit(&lane, &mut chain, vec![row(&lane, 1, 1)]);
    let done = loop {
        match sink.commit(&next).await {
            Ok(done) => break done,
            Err(error) => assert_eq!(error.fault, Fault::Transient, "{error}"),
        }
    };
    assert_eq!(done, Commit::Applied);
    working.await.expect("it was not ended");
}

/// A server that says nothing is given up after the time limit, and its connection is not used again.
#[tokio::test]
async fn a_server_that_hangs_is_transient_in_bounded_time() {
    let database = FreshDatabase::migrated().await;
    let proxy = Proxy::to(address_of(&database.url)).await;
    let url = with_address(&database.url, &proxy.address);
    let sink: SqlSink<TestRow> = open(&url, Duration::from_millis(300)).sink();
    let (lane, mut chain) = (lane(), Chain::resume(1, None));
    let unit = unit(&lane, &mut chain, vec![row(&lane, 0, 1)]);
    proxy.trouble_at("COMMIT\0", Trouble::Hang);
    let (fault, text) = fault(sink.commit(&unit).await);
    assert_eq!(fault, Fault::Transient);
    assert!(text.contains("no answer within 2300 ms"), "{text}");
    assert_eq!(sink.commit(&unit).await.unwrap(), Commit::AlreadyApplied);
}

/// Somebody holds a lock on a table: Transient after half a statement's time, nothing stored, later it goes in.
#[tokio::test]
async fn a_lock_that_does_not_come_free_is_transient() {
    let database = FreshDatabase::migrated().await;
    let mut holder = database.connect().await;
    run(&mut holder, "BEGIN; LOCK TABLE telemetry IN ACCESS EXCLUSIVE MODE").await;
    let sink: SqlSink<TestRow> = open(&database.url, Duration::from_millis(400)).sink();
    let (lane, mut chain) = (lane(), Chain::resume(1, None));
    let unit = unit(&lane, &mut chain, vec![row(&lane, 0, 1)]);
    let (fault, text) = fault(sink.commit(&unit).await);
    assert_eq!(fault, Fault::Transient);
    assert!(text.contains("lock timeout"), "{text}");
    run(&mut holder, "ROLLBACK").await;
    assert_eq!(sink.commit(&unit).await.unwrap(), Commit::Applied);
}

/// What a full disk, a serialization failure, a deadlock and the like come as: Transient, and nothing is lost. Raised by
/// a trigger with the code that the server itself uses.
#[tokio::test]
async fn faults_of_the_server_are_transient_and_lose_nothing() {
    let database = FreshDatabase::migrated().await;
    let mut beside = database.connect().await;
    run(
        &mut beside,
        "CREATE TABLE trouble (code text);
         CREATE FUNCTION be_in_trouble() RETURNS trigger LANGUAGE plpgsql AS $$
             DECLARE code text := (SELECT t.code FROM trouble t);
             BEGIN
                 IF code IS NOT NULL THEN RAISE EXCEPTION 'could not extend file' USING ERRCODE = code; END IF;
                 RETURN NEW;
             END $$;
         CREATE TRIGGER trouble BEFORE INSERT ON telemetry FOR EACH ROW EXECUTE FUNCTION be_in_trouble()",
    )
    .await;
    let sink: SqlSink<TestRow> = database.open().sink();
    let (lane, mut chain) = (lane(), Chain::resume(1, None));
    let unit = unit(&lane, &mut chain, (0..10).map(|offset| row(&lane, offset, 1)).collect());
    for code in ["53100", "53200", "40001", "40P01", "55P03", "57014", "25006"] {
        run(&mut beside, &format!("TRUNCATE trouble; INSERT INTO trouble VALUES ('{code}')")).await;
        let (fault, text) = fault(sink.commit(&unit).await);
        assert_eq!(fault, Fault::Transient, "{code}: {text}");
        assert!(text.contains("could not extend file"), "{text}");
        assert_eq!(sink.read(&lane, &[]).await.unwrap().link, None, "nothing is stored");
    }
    run(&mut beside, "TRUNCATE trouble").await;
    assert_eq!(sink.commit(&unit).await.unwrap(), Commit::Applied);
    assert_eq!(number(&mut beside, "SELECT count(*) FROM telemetry").await, 10);
}

/// Wrong ways to the database say what to do.
#[tokio::test]
async fn what_a_person_has_to_mend_is_said() {
    let database = FreshDatabase::migrated().await;
    let text_of = async |url: String| {
        let sink: SqlSink<TestRow> = open(&url, PATIENT).sink();
        fault(sink.check().await)
    };
    let (kind, text) = text_of(with_database(stack_url(), "nowhere")).await;
    assert_eq!(kind, Fault::Permanent);
    assert!(text.contains("\"nowhere\" does not exist") && text.contains("make the database"), "{text}");

    let nobody = database.url.replacen("//fleetlog", "//nobody", 1);
    assert_ne!(nobody, database.url);
    let (kind, text) = text_of(nobody).await;
    assert_eq!(kind, Fault::Permanent, "{text}");
    assert!(text.contains("check user and password"), "{text}");

    // A port that nobody listens on: it was ours a moment ago.
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (kind, text) = text_of(with_address(&database.url, &free.to_string())).await;
    assert_eq!(kind, Fault::Transient, "{text}");
    assert!(text.contains("refused"), "{text}");

    let mut beside = database.connect().await;
    run(&mut beside, "ALTER TABLE telemetry RENAME TO elsewhere").await;
    let sink: SqlSink<TestRow> = database.open().sink();
    let (lane, mut chain) = (lane(), Chain::resume(1, None));
    let (kind, text) = fault(sink.commit(&unit(&lane, &mut chain, vec![row(&lane, 0, 1)])).await);
    assert_eq!(kind, Fault::Permanent);
    assert!(text.contains("\"telemetry\" does not exist") && text.contains("fleetlog migrate"), "{text}");
}

/// One connection and many lanes: they wait for each other, and none for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_share_one_connection_without_locking_up() {
    let database = FreshDatabase::migrated().await;
    let settings = fleetlog_sink_timescale::ConnectionSettings {
        url: database.url.clone(),
        connections_max: 1,
        timeout: PATIENT,
    };
    let sink: SqlSink<TestRow> = fleetlog_sink_timescale::Database::new(&settings).unwrap().sink();
    let lanes = (0..8).map(|_| {
        let sink = sink.clone();
        tokio::spawn(async move {
            let (lane, mut chain) = (lane(), Chain::resume(1, None));
            for offset in 0..20 {
                let unit = unit(&lane, &mut chain, vec![row(&lane, offset, 1)]);
                assert_eq!(sink.commit(&unit).await.unwrap(), Commit::Applied);
                chain.written(unit.leaves);
                assert_eq!(sink.read(&lane, &[]).await.unwrap().link, chain.seen());
            }
        })
    });
    for lane in lanes.collect::<Vec<_>>() {
        lane.await.unwrap();
    }
    assert_eq!(number(&mut database.connect().await, "SELECT count(*) FROM telemetry").await, 160);
}

/// A detail that quotes a NUL, a key that is no text, a wild time: the ledger takes every set-aside.
#[tokio::test]
async fn the_ledger_takes_any_set_aside_and_opens_none_again() {
    let database = FreshDatabase::migrated().await;
    let sink: SqlSink<TestRow> = database.open().sink();
    let (lane, mut chain) = (lane(), Chain::resume(1, None));
    let mut first = unit(&lane, &mut chain, Vec::new());
    first.set_aside = (0..3)
        .map(|offset| SetAside {
            record: Record {
                offset,
                timestamp: TimestampMs(i64::MAX - offset),
                key: Some(vec![0xff, 0x00, 0xfe].into()),
                value: None,
                headers: Headers::default(),
            },
            reject: Reject::new(Reason::InvalidText, "`a\0b` has a NUL"),
            event_type: (offset == 1).then(|| "odd\0name".into()),
        })
        .collect();
    first.progress.main = 1;
    assert_eq!(sink.commit(&first).await.unwrap(), Commit::Applied);
    chain.written(first.leaves);
    assert_eq!(sink.read(&lane, &[]).await.unwrap().named, [1, 2], "those at or above progress");

    let mut beside = database.connect().await;
    run(&mut beside, "UPDATE fleetlog_set_aside SET status = 'redriven'").await;
    let mut again = unit(&lane, &mut chain, Vec::new());
    again.set_aside = first.set_aside;
    assert_eq!(sink.commit(&again).await.unwrap(), Commit::Applied);
    let open = "SELECT count(*) FROM fleetlog_set_aside WHERE status = 'open'";
    assert_eq!(number(&mut beside, open).await, 0);
    let odd = "SELECT count(*) FROM fleetlog_set_aside
               WHERE detail = '`a␀b` has a NUL' AND recorded_at = 'infinity' AND record_key = '\\xff00fe'";
    assert_eq!(number(&mut beside, odd).await, 3);
}

/// `kill -9` of the server at random moments under load, and its restart: every failure is Transient, and in the end
/// every row is there once. The seed is printed; put it here to replay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_at_random_moments_loses_and_doubles_nothing() {
    const KILLS: usize = 6;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut server = PostgresServer::start().await.unwrap();
    Migrator::new(&open(&server.url(), PATIENT)).apply().await.unwrap();
    let (written, mut commits) = watch::channel(0);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write_until(stop.clone(), open(&server.url(), PATIENT).sink(), written));
    for _ in 0..KILLS {
        commits.changed().await.unwrap();
        // A moment within the next commits: time itself is meant.
        tokio::time::sleep(Duration::from_micros(random.random_range(0..60_000))).await;
        server.kill();
        server.restart().await.unwrap();
        commits.mark_unchanged();
    }
    commits.changed().await.unwrap();
    stop.store(true, Ordering::Relaxed);
    let rows = writer.await.unwrap();
    let mut beside = PgConnection::connect(&server.url()).await.unwrap();
    assert_eq!(number(&mut beside, "SELECT count(*) FROM telemetry").await, rows);
    assert_eq!(number(&mut beside, "SELECT count(DISTINCT log_offset) FROM telemetry").await, rows);
}

/// Commits batches in order, each until it is stored, as a lane does. Returns how many rows there should be.
async fn write_until(stop: Arc<AtomicBool>, sink: SqlSink<TestRow>, written: watch::Sender<usize>) -> i64 {
    const ROWS: i64 = 3000;
    let (lane, mut chain) = (lane(), Chain::resume(1, None));
    let (mut next, mut failures, mut already) = (0, 0, 0);
    while !stop.load(Ordering::Relaxed) {
        let rows = (next..next + ROWS).map(|offset| row(&lane, offset, 1)).collect();
        let unit = unit(&lane, &mut chain, rows);
        loop {
            match sink.commit(&unit).await {
                Ok(Commit::Applied) => break,
                Ok(Commit::AlreadyApplied) => {
                    already += 1;
                    break;
                }
                Err(error) if error.fault == Fault::Transient => failures += 1,
                other => panic!("{other:?}"),
            }
            // The server is away: a lane backs off too.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        chain.written(unit.leaves);
        next += ROWS;
        written.send_modify(|count| *count += 1);
    }
    assert_eq!(sink.read(&lane, &[]).await.unwrap().progress.unwrap().main, next);
    println!("{next} rows, {failures} failures, {already} found already applied");
    next
}
