//! Headers of records as they come, and of the dead letters made of them.

use std::collections::BTreeSet;

use bytes::Bytes;
use fleetlog_engine::{DeadLetter, Origin};
use fleetlog_event::{LogId, Reason, Reject, TimestampMs};
use fleetlog_projection::{Headers, LaneId, Record, SetAside};
use fleetlog_testkit::fuzz::{Allowance, Answer, Target};

/// As large as the topic takes; header objects are small beside their bytes, but an empty header is an object too.
const ALLOWANCE: Allowance = Allowance::per_byte(200);
const LETTER_BYTES_MAX: usize = 64 << 10;

#[test]
fn headers() {
    let seeds = [
        pack(&[
            (b"traceparent", Some(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")),
            (b"ce_id", Some(b"x")),
        ]),
        pack(&[(b"fleetlog-dlq-first-failure", Some(b"4000")), (b"fleetlog-dlq-replay-count", Some(b"2"))]),
        pack(&[(b"original-topic", Some(b"robot")), (b"__connect.errors.offset", None), (b"", Some(b""))]),
        pack(&[
            (b"\xff\xfe", Some(b"\xff")),
            (b"tracestate", Some(b"a=1,b=2")),
            (b"a", Some(b"1")),
            (b"a", Some(b"2")),
        ]),
    ];
    Target::new("headers", 60_000, ALLOWANCE)
        .made(seeds)
        .run(|mutator, corpus| mutator.bytes(corpus, &WORDS), check);
}

const WORDS: [&[u8]; 12] = [
    b"\x0btraceparent\x37",
    b"\x0bcontent-type\x10",
    b"\x0eoriginal-topic\x05",
    b"\x0derror-message\x05",
    b"\x1afleetlog-dlq-first-failure\x04",
    b"\x19fleetlog-dlq-replay-count\x01",
    b"\x17__connect.errors.offset\x02",
    b"\x18kafka_dlt-original-topic\x03",
    b"\x05ce_id\x04",
    b"\x00\x00",
    b"\x01a\xff",
    b"00-ffffffffffffffffffffffffffffffff-0000000000000000-ff",
];

type Pairs<'a> = Vec<(&'a [u8], Option<&'a [u8]>)>;

/// Name and value, each behind its length in one byte; 255 is a value that is absent.
fn pack(headers: &[(&[u8], Option<&[u8]>)]) -> Vec<u8> {
    let mut packed = Vec::new();
    for (name, value) in headers {
        packed.push(u8::try_from(name.len()).unwrap());
        packed.extend(*name);
        packed.push(value.map_or(u8::MAX, |value| u8::try_from(value.len()).unwrap()));
        packed.extend(value.unwrap_or_default());
    }
    packed
}

fn unpack(mut rest: &[u8]) -> Pairs<'_> {
    let mut headers = Vec::new();
    while let [length, tail @ ..] = rest {
        let (name, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        let [length, tail @ ..] = tail else { break };
        if *length == u8::MAX {
            headers.push((name, None));
            rest = tail;
            continue;
        }
        let (value, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        headers.push((name, Some(value)));
        rest = tail;
    }
    headers
}

fn check(input: &[u8]) -> Answer {
    let headers = unpack(input);
    let packed = Headers::pack(headers.iter().copied());
    if packed.iter().collect::<Vec<_>>() != headers {
        return Err("headers do not come out as they went in".to_owned());
    }
    let letter = letter(&packed, input);
    let foreign: Vec<_> = headers.iter().filter(|(name, _)| !is_ours(name)).collect();
    let kept = letter.headers.iter().take(foreign.len());
    if !kept.zip(&foreign).all(|((name, value), (n, v))| name.as_ref() == *n && value.as_deref() == *v) {
        return Err("foreign headers were changed".to_owned());
    }
    let ours: Vec<_> = letter.headers[foreign.len()..].iter().map(|(name, _)| name).collect();
    if ours.iter().collect::<BTreeSet<_>>().len() != ours.len() {
        return Err(format!("a header stands twice: {ours:?}"));
    }
    // Set aside once more: everything of ours is replaced.
    let again = Headers::pack(letter.headers.iter().map(|(name, value)| (name, value.as_deref())));
    let again = self::letter(&again, input);
    let names = |letter: &DeadLetter| letter.headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    if names(&again) != names(&letter) {
        return Err(format!("set aside again, {:?} became {:?}", names(&letter), names(&again)));
    }
    Ok(match (foreign.is_empty(), foreign.len() == headers.len()) {
        (true, _) => "all headers replaced",
        (false, true) => "all headers kept",
        (false, false) => "some headers replaced",
    })
}

fn is_ours(name: &[u8]) -> bool {
    ["__connect.errors.", "kafka_dlt-", "fleetlog-dlq-"]
        .iter()
        .any(|prefix| name.starts_with(prefix.as_bytes()))
        || ["original-topic", "error-message", "retry-count"].iter().any(|ours| name == ours.as_bytes())
}

fn letter(headers: &Headers, input: &[u8]) -> DeadLetter {
    let record = Record {
        offset: 77,
        timestamp: TimestampMs(1_000),
        key: Some(Bytes::copy_from_slice(&input[..input.len().min(10)])),
        value: Some(Bytes::copy_from_slice(input)),
        headers: headers.clone(),
    };
    let detail = String::from_utf8_lossy(input).into_owned();
    let set_aside = SetAside { record, reject: Reject::new(Reason::Undecodable, detail), event_type: None };
    let lane = LaneId { projection: "p".into(), version: 1, topic: "x-robot".into(), partition: 3 };
    let origin = Origin {
        lane: &lane,
        log: LogId(uuid::Uuid::from_u128(9)),
        group: "x-fleetlog-p-v1",
        application_version: "0.1.0",
        now: TimestampMs(5_000),
    };
    DeadLetter::new(&set_aside, &origin, LETTER_BYTES_MAX)
}
