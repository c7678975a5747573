//! What presence asks of Redis: pages of lists, progress, a lease.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use fleetlog_projection::{Chain, Fault, LaneId, Sink, Version};
use redis::AsyncCommands;

use super::{
    judgement::{lane, progress_only},
    server::Server,
};
use crate::{Entity, HotReader, Lease, calls::version_text};

fn lease(server: &Server, holder: &str, ttl_ms: u64) -> Lease {
    Lease::open(&server.settings(), "presence", holder, ttl_ms).unwrap()
}

#[tokio::test]
async fn one_holds_a_lease_and_the_next_has_it_when_it_is_given_back_or_runs_out() {
    let server = Server::start(&[]).await;
    let (mut first, mut second) = (lease(&server, "first", 60_000), lease(&server, "second", 300));
    assert!(first.hold().await.unwrap() && first.hold().await.unwrap());
    assert!(!second.hold().await.unwrap() && !second.is_held());
    second.release().await.unwrap();
    assert!(first.is_held() && !second.hold().await.unwrap(), "nobody gives back what is another's");
    first.release().await.unwrap();
    assert!(!first.is_held() && second.hold().await.unwrap());

    let key = "test/fleetlog:p-presence:lease";
    let token: String = server.connect().await.get(key).await.unwrap();
    assert!(token.starts_with("second "), "{token}");
    // The holder is gone: nobody renews it.
    let begun = Instant::now();
    while !first.hold().await.unwrap() {
        assert!(begun.elapsed() < Duration::from_secs(10), "a lease that nobody renews did not run out");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!second.is_held(), "it knows by its own clock");
    assert!(!second.hold().await.unwrap());
}

#[tokio::test]
async fn a_lease_is_relied_on_while_redis_is_away_and_no_longer_than_it_lasts() {
    let mut server = Server::start(&[]).await;
    let mut held = lease(&server, "first", 60_000);
    assert!(held.hold().await.unwrap());
    server.kill();
    assert_eq!(held.hold().await.unwrap_err().fault, Fault::Transient);
    assert!(held.is_held());
    server.start_again().await;
    // The server forgot it, and the script: it is taken anew.
    assert!(held.hold().await.unwrap());
}

#[tokio::test]
async fn all_of_a_list_is_on_its_pages_and_all_lists_are_found() {
    let server = Server::start(&[]).await;
    let mut redis = server.connect().await;
    let mut expected = BTreeMap::new();
    let mut pipe = redis::pipe();
    for n in 0..5000 {
        expected.insert(format!("s504.u{n}"), f64::from(n) + 1.795e12);
        pipe.zadd("test/seen:504", format!("s504.u{n}"), f64::from(n) + 1.795e12).ignore();
        pipe.set(format!("other:{n}"), n).ignore();
    }
    pipe.zadd("test/seen:a*b", "sa%2Ab.u1", 1).ignore().zadd("other/seen:9", "s9.u1", 1).ignore();
    pipe.set("test/seen:text", "no list").ignore();
    pipe.query_async::<()>(&mut redis).await.unwrap();

    let reader = HotReader::open(server.settings()).unwrap();
    let (mut found, mut cursor) = (BTreeSet::new(), Some(0));
    while let Some(at) = cursor {
        let (names, next) = reader.lists("seen:", at).await.unwrap();
        found.extend(names);
        cursor = next;
    }
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["504", "a*b"]);

    let (mut members, mut cursor, mut pages) = (BTreeMap::new(), Some(0), 0);
    while let Some(at) = cursor {
        let page = reader.page("seen:504", at).await.unwrap();
        members.extend(page.members);
        cursor = page.next;
        pages += 1;
    }
    assert_eq!(members, expected);
    assert!(pages > 3, "5000 members on {pages} pages");
    let page = reader.page("seen:nobody", 0).await.unwrap();
    assert_eq!((page.next, page.members.len()), (None, 0));
    let error = reader.page("seen:text", 0).await.unwrap_err();
    assert_eq!(error.fault, Fault::Permanent, "{error}");
}

#[tokio::test]
async fn progress_and_fields_are_what_the_sink_wrote() {
    let server = Server::start(&[]).await;
    let (sink, mut chain) = (server.sink(), Chain::resume(1, None));
    let (follows, leaves) = chain.next();
    let unit = progress_only(&lane(), follows, leaves, 42);
    sink.commit(&unit).await.unwrap();
    let reader = HotReader::open(server.settings()).unwrap();
    let other = LaneId { partition: 7, ..lane() };
    let read = reader.progress(&[lane(), other]).await.unwrap();
    assert_eq!(read, [Some((unit.progress.log, 42)), None]);

    let mut redis = server.connect().await;
    let _: () = redis.hset("test/unit:s504.u1", "connection", "online").await.unwrap();
    let homes = ["unit:s504.u1".to_owned(), "unit:s504.u2".to_owned()];
    let read = reader.fields(&homes, &["connection", "connects"]).await.unwrap();
    assert_eq!(read, [vec![Some("online".to_owned()), None], vec![None, None]]);

    let version = Version { log: unit.progress.log, partition: 3, next: 43, revision: 1 };
    let _: () = redis.hset("test/unit:s504.u1", "_version", version_text(&version)).await.unwrap();
    let read = async |home: &str| reader.entity(home, &["connects", "connection"]).await;
    let fields = vec![None, Some("online".to_owned())];
    assert_eq!(read("unit:s504.u1").await.unwrap(), Some(Entity { version, fields }));
    assert_eq!(read("unit:s504.u2").await.unwrap(), None);
    let _: () = redis.hset("test/unit:s504.u1", "_version", "of somebody else").await.unwrap();
    assert_eq!(read("unit:s504.u1").await.unwrap_err().fault, Fault::Permanent);
}
