//! The script judges as [`fleetlog_projection::judge`] does, on all combinations.

use fleetlog_event::{LogId, TimestampMs};
use fleetlog_projection::{Chain, HotWrite, LaneId, Link, Progress, UnitOfWork, Verdict, judge};
use redis::{AsyncCommands, Value};

use super::server::Server;
use crate::{calls::Plan, lane_key};

/// A unit that only moves progress: one call.
pub(super) fn progress_only(
    lane: &LaneId,
    follows: Option<Link>,
    leaves: Link,
    main: i64,
) -> UnitOfWork<HotWrite> {
    let log: LogId = serde_json::from_str("\"00000000-0000-0000-0000-00000000f1ee\"").unwrap();
    UnitOfWork {
        lane: lane.clone(),
        follows,
        leaves,
        progress: Progress { log, main, inbox: 0, last: None },
        entities: Vec::new(),
        rows: Vec::new(),
        set_aside: Vec::new(),
        entries: Vec::new(),
        made_at: TimestampMs(0),
    }
}

pub(super) fn lane() -> LaneId {
    LaneId { projection: "judged".to_owned(), version: 1, topic: "p-robot".to_owned(), partition: 0 }
}

#[tokio::test]
async fn the_script_judges_as_the_rule_does() {
    let server = Server::start(&[]).await;
    let (sink, settings, lane) = (server.sink(), server.settings(), lane());
    let key = lane_key(&settings.key_prefix, &settings.lane_prefix, &lane);
    let mut connection = server.connect().await;
    let links: Vec<Link> = [1, 2]
        .into_iter()
        .flat_map(|nonce| {
            let mut chain = Chain::resume(nonce, None);
            let (first, second) = (chain.next().1, chain.next().1);
            [first, first.part(1), first.part(2), second]
        })
        .collect();
    let maybe: Vec<Option<Link>> = links.iter().copied().map(Some).chain([None]).collect();
    let mut seen = [0; 3];
    for &stored in &maybe {
        for &follows in &maybe {
            for &leaves in &links {
                let _: () = connection.del(&key).await.unwrap();
                if let Some(stored) = stored {
                    let _: () = connection.hset(&key, "link", stored.to_string()).await.unwrap();
                }
                let unit = progress_only(&lane, follows, leaves, 7);
                let plan = Plan::new(&unit, &settings, sink.commit_script_hash()).unwrap();
                let mut pipeline = redis::pipe();
                pipeline.add_command(plan.command(0, crate::calls::Extent::Needed));
                let replies = sink.run("judging", &pipeline).await.unwrap();
                let after: Option<String> = connection.hget(&key, "link").await.unwrap();
                let main: Option<i64> = connection.hget(&key, "main").await.unwrap();
                let verdict = judge(stored, follows, leaves);
                let what = format!("stored {stored:?}, follows {follows:?}, leaves {leaves:?}");
                let text = |link: Option<Link>| link.map(|link| link.to_string());
                match verdict {
                    Verdict::Apply => {
                        assert_eq!((&replies[0], main), (&Value::Int(1), Some(7)), "{what}");
                        assert_eq!(after, text(Some(leaves)), "{what}");
                    }
                    Verdict::AlreadyApplied | Verdict::Fenced => {
                        let found = text(stored).unwrap_or_default();
                        assert_eq!(replies[0], Value::BulkString(found.into_bytes()), "{what}");
                        assert_eq!((after, main), (text(stored), None), "{what}");
                    }
                }
                seen[verdict as usize] += 1;
            }
        }
    }
    assert!(seen.iter().all(|&count| count > 0), "every verdict was met: {seen:?}");
}
