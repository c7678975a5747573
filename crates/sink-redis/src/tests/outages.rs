//! What a Redis can do to its writers, beside what the suite asks.

use fleetlog_event::{EntityKey, Reason, Reject, TimestampMs};
use fleetlog_projection::{
    Base, Chain, Commit, EntityChange, Fault, Headers, HotWrite, Record, SetAside, Sink, UnitOfWork, Version,
};
use redis::AsyncCommands;

use super::{
    judgement::{lane, progress_only},
    server::Server,
};
use crate::{RedisSink, RedisSinkSettings, lane_key, ledger_key};

/// The lane's next unit: `count` entities with states of `bytes` bytes.
fn unit(chain: &mut Chain, main: i64, count: i64, bytes: usize) -> UnitOfWork<HotWrite> {
    let (follows, leaves) = chain.next();
    let mut unit = progress_only(&lane(), follows, leaves, main);
    let log = unit.progress.log;
    unit.entities = (0..count)
        .map(|n| EntityChange {
            key: EntityKey::from(format!("e{n}")),
            home: format!("unit:e{n}"),
            version: Version { log, partition: 0, next: main, revision: 0 },
            state: vec![b'7'; bytes],
            writes: vec![HotWrite::field("main", main.to_string())],
            base: Base::Unknown,
        })
        .collect();
    unit
}

async fn applied(sink: &RedisSink, chain: &mut Chain, unit: &UnitOfWork<HotWrite>) {
    assert_eq!(sink.commit(unit).await.unwrap(), Commit::Applied);
    chain.written(unit.leaves);
}

#[tokio::test]
async fn an_append_only_server_keeps_what_it_acknowledged() {
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let (sink, mut chain) = (server.sink(), Chain::resume(1, None));
    let first = unit(&mut chain, 5, 400, 10);
    applied(&sink, &mut chain, &first).await;
    server.kill();
    let error = sink.read(&lane(), &[]).await.unwrap_err();
    assert_eq!(error.fault, Fault::Transient, "{error}");
    server.start_again().await;
    assert_eq!(sink.commit(&first).await.unwrap(), Commit::AlreadyApplied);
    let second = unit(&mut chain, 6, 3, 10);
    applied(&sink, &mut chain, &second).await;
}

/// The model found what happens otherwise: a state read after its link, a tail lost in between, and the next write
/// goes on from both.
#[tokio::test]
async fn link_and_states_are_read_at_one_moment() {
    let server = Server::start(&[]).await;
    let (reader, writer) = (server.sink(), server.sink());
    let mut chain = Chain::resume(1, None);
    let first = unit(&mut chain, 1, 100, 10);
    let homes: Vec<String> = first.entities.iter().map(|entity| entity.home.clone()).collect();
    applied(&writer, &mut chain, &first).await;
    let writing = tokio::spawn(async move {
        for main in 2..2000 {
            let next = unit(&mut chain, main, 100, 10);
            applied(&writer, &mut chain, &next).await;
        }
    });
    let mut seen = 0;
    while !writing.is_finished() {
        let stored = reader.read(&lane(), &homes).await.unwrap();
        let main = stored.progress.unwrap().main;
        let nexts: Vec<i64> = stored.states.iter().flatten().map(|state| state.version.next).collect();
        assert_eq!(nexts, vec![main; homes.len()], "states of another moment than progress and link");
        seen += 1;
    }
    writing.await.unwrap();
    assert!(seen > 10, "only {seen} reads met the writer");
}

#[tokio::test]
async fn a_flushed_server_fences_the_owner() {
    let server = Server::start(&[]).await;
    let (sink, mut chain) = (server.sink(), Chain::resume(1, None));
    let first = unit(&mut chain, 5, 3, 10);
    applied(&sink, &mut chain, &first).await;
    let _: String = redis::cmd("FLUSHALL").query_async(&mut server.connect().await).await.unwrap();
    assert_eq!(sink.read(&lane(), &[]).await.unwrap().link, None);
    let error = sink.commit(&unit(&mut chain, 6, 3, 10)).await.unwrap_err();
    assert_eq!(error.fault, Fault::Fenced, "{error}");
    assert!(error.to_string().contains("the stored link is none"), "{error}");
}

#[tokio::test]
async fn a_full_server_is_waited_for_and_the_commit_completed() {
    let server = Server::start(&["--maxmemory", "6mb"]).await;
    let (sink, mut chain) = (server.sink(), Chain::resume(1, None));
    let first = unit(&mut chain, 5, 1, 10);
    applied(&sink, &mut chain, &first).await;
    // Far more than fits, in many calls: the first ones go in.
    let large = unit(&mut chain, 9, 2000, 20_000);
    for _ in 0..2 {
        let error = sink.commit(&large).await.unwrap_err();
        assert_eq!(error.fault, Fault::Transient, "{error}");
        assert!(error.to_string().contains("OOM"), "{error}");
    }
    let stored = sink.read(&lane(), &[]).await.unwrap();
    assert_eq!(stored.progress.unwrap().main, 5, "progress moves with the last call only");
    let mut connection = server.connect().await;
    let _: String =
        redis::cmd("CONFIG").arg(&["SET", "maxmemory", "0"]).query_async(&mut connection).await.unwrap();
    applied(&sink, &mut chain, &large).await;
    let homes: Vec<String> = large.entities.iter().map(|entity| entity.home.clone()).collect();
    let stored = sink.read(&lane(), &homes).await.unwrap();
    assert!(stored.states.iter().all(|state| state.as_ref().is_some_and(|state| state.version.next == 9)));
}

#[tokio::test]
async fn a_foreign_list_leaves_nothing_of_the_call() {
    let server = Server::start(&[]).await;
    let (sink, mut chain) = (server.sink(), Chain::resume(1, None));
    let mut connection = server.connect().await;
    let _: () = connection.sadd("test/online:504", "not ours").await.unwrap();
    let mut first = unit(&mut chain, 5, 2, 10);
    let ranked = HotWrite::Ranked { list: "online:504".into(), member: "e1".into(), score: Some(1.0) };
    first.entities[1].writes.push(ranked);
    let error = sink.commit(&first).await.unwrap_err();
    assert_eq!(error.fault, Fault::Permanent, "{error}");
    let text = error.to_string();
    assert!(
        text.contains("`test/online:504` holds a set, not a zset") && text.contains("key_prefix"),
        "{text}"
    );
    let keys: Vec<String> = connection.keys("*").await.unwrap();
    assert_eq!(keys, ["test/online:504"]);
}

#[tokio::test]
async fn a_server_that_is_down_at_start_is_waited_for() {
    let mut server = Server::start(&[]).await;
    server.kill();
    let sink = server.sink();
    let error = sink.check().await.unwrap_err();
    assert_eq!(error.fault, Fault::Transient, "{error}");
    assert!(error.to_string().contains("redis at 127.0.0.1:"), "{error}");
    server.start_again().await;
    sink.check().await.unwrap();
}

#[tokio::test]
async fn a_server_that_evicts_is_refused() {
    let server = Server::start(&["--maxmemory-policy", "allkeys-lru"]).await;
    let error = server.sink().check().await.unwrap_err();
    assert_eq!(error.fault, Fault::Permanent);
    assert!(error.to_string().contains("set `maxmemory-policy noeviction`"), "{error}");
}

#[tokio::test]
async fn a_wrong_password_is_permanent() {
    let server = Server::start(&[]).await;
    let mut connection = server.connect().await;
    let set = redis::cmd("CONFIG").arg(&["SET", "requirepass", "right"]).clone();
    let _: String = set.query_async(&mut connection).await.unwrap();
    let wrong = server.url().replace("127", ":wrong@127");
    for url in [server.url(), wrong] {
        let sink = RedisSink::open(RedisSinkSettings::new(url)).unwrap();
        let error = sink.check().await.unwrap_err();
        assert_eq!(error.fault, Fault::Permanent, "{error}");
        assert!(
            error.to_string().contains("check user and password") && !error.to_string().contains("wrong@")
        );
    }
}

/// A server that hangs: the outcome is unknown, and what it does later, when the owner has gone on, harms nobody.
#[tokio::test]
async fn a_call_whose_reply_never_came_is_found_taken() {
    let server = Server::start(&[]).await;
    let settings = RedisSinkSettings { timeout_ms: 200, ..server.settings() };
    let (sink, mut chain) = (RedisSink::open(settings).unwrap(), Chain::resume(1, None));
    let first = unit(&mut chain, 5, 600, 10);
    applied(&sink, &mut chain, &first).await;
    server.signal("STOP");
    let second = unit(&mut chain, 6, 600, 10);
    let error = sink.commit(&second).await.unwrap_err();
    assert_eq!(error.fault, Fault::Transient, "{error}");
    server.signal("CONT");
    let outcome = loop {
        match sink.commit(&second).await {
            Ok(outcome) => break outcome,
            Err(error) => assert_eq!(error.fault, Fault::Transient, "{error}"),
        }
    };
    assert!(matches!(outcome, Commit::Applied | Commit::AlreadyApplied));
    chain.written(second.leaves);
    let third = unit(&mut chain, 7, 1, 10);
    applied(&sink, &mut chain, &third).await;
}

#[tokio::test]
async fn a_closed_ledger_entry_is_not_opened_again() {
    let server = Server::start(&[]).await;
    let (sink, mut chain) = (server.sink(), Chain::resume(1, None));
    let ledger = ledger_key(&lane_key("test/", "p-", &lane()));
    let mut connection = server.connect().await;
    let _: () = connection.hset(&ledger, 3, r#"{"state":"closed"}"#).await.unwrap();
    let mut first = unit(&mut chain, 5, 0, 0);
    first.set_aside = [3, 4].map(set_aside).into();
    applied(&sink, &mut chain, &first).await;
    let entry: String = connection.hget(&ledger, 3).await.unwrap();
    assert_eq!(entry, r#"{"state":"closed"}"#);
    let entry: String = connection.hget(&ledger, 4).await.unwrap();
    assert!(
        entry.contains(r#""reason":"no_key","detail":"why","key":"k�","event_type":null,"state":"open""#),
        "{entry}"
    );
}

fn set_aside(offset: i64) -> SetAside {
    SetAside {
        record: Record {
            offset,
            timestamp: TimestampMs(0),
            key: Some(b"k\xff".to_vec().into()),
            value: None,
            headers: Headers::default(),
        },
        reject: Reject::new(Reason::NoKey, "why"),
        event_type: None,
    }
}

#[tokio::test]
async fn expiry_never_comes_earlier_than_a_week_after_the_write() {
    const WEEK_MS: i64 = 7 * 24 * 3600 * 1000;
    let server = Server::start(&[]).await;
    let (sink, mut chain) = (server.sink(), Chain::resume(1, None));
    let mut connection = server.connect().await;
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    for (expire, expected) in [
        (Some(1), Some(now + WEEK_MS)),
        (Some(now + 9 * WEEK_MS), Some(now + 9 * WEEK_MS)),
        (None, None),
        (Some(i64::MAX), Some(i64::MAX / 4)),
    ] {
        let mut next = unit(&mut chain, 5, 1, 10);
        next.made_at = TimestampMs(now);
        next.entities[0].writes.push(HotWrite::ExpireAt(expire.map(TimestampMs)));
        applied(&sink, &mut chain, &next).await;
        let at: i64 =
            redis::cmd("PEXPIRETIME").arg("test/unit:e0").query_async(&mut connection).await.unwrap();
        assert_eq!((at >= 0).then_some(at), expected, "{expire:?}");
    }
}

#[tokio::test]
async fn what_a_projector_must_not_write_is_refused_before_anything_is_sent() {
    let server = Server::start(&[]).await;
    let (sink, mut chain) = (server.sink(), Chain::resume(1, None));
    let rank = HotWrite::Ranked { list: "l".into(), member: "m".into(), score: Some(f64::NAN) };
    for write in [HotWrite::field("_state", "x"), rank] {
        let mut bad = unit(&mut chain, 5, 1, 10);
        bad.entities[0].writes.push(write);
        let error = sink.commit(&bad).await.unwrap_err();
        assert_eq!(error.fault, Fault::Permanent);
        assert!(error.to_string().contains("`judged`") && error.to_string().contains("unit:e0"), "{error}");
    }
    let keys: Vec<String> = server.connect().await.keys("*").await.unwrap();
    assert!(keys.is_empty());
}

/// A version that is not promoted lives beside the live one.
#[tokio::test]
async fn a_suffix_keeps_versions_apart() {
    let server = Server::start(&[]).await;
    let settings = RedisSinkSettings { suffix: "~2".to_owned(), ..server.settings() };
    let (sink, mut chain) = (RedisSink::open(settings).unwrap(), Chain::resume(1, None));
    let mut first = unit(&mut chain, 5, 1, 1);
    let ranked = HotWrite::Ranked { list: "online:504".into(), member: "e1".into(), score: Some(1.0) };
    first.entities[0].writes.push(ranked);
    applied(&sink, &mut chain, &first).await;
    let mut keys: Vec<String> = server.connect().await.keys("*").await.unwrap();
    keys.sort();
    assert_eq!(keys, ["test/fleetlog:p-judged@1:p-robot:0", "test/online:504~2", "test/unit:e0~2"]);
    let stored = sink.read(&lane(), &["unit:e0".to_owned()]).await.unwrap();
    assert_eq!(stored.states[0].as_ref().unwrap().state, b"7");
}
