//! Hostile input to what is private to this crate: settings, recordings, dead letters of whoever wrote them.
//!
//! The means are those of `tests/fuzz`; the corpus is there.
#![expect(clippy::result_large_err, reason = "figment's Jail asks for its own error type")]

use std::io::Cursor;

use bytes::Bytes;
use figment::{
    Jail,
    providers::{Format, Toml},
};
use fleetlog_dead_letters::{Letter, RawLetter, ReadLetter, readable};
use fleetlog_event::TimestampMs;
use fleetlog_kafka::OwnedRecord;
use fleetlog_testkit::{
    fuzz::{Allowance, Answer, CountingAllocator, Target},
    workspace_root,
};

use crate::{
    commands::{dlq, import::file},
    config::{Config, DEFAULT_TOML},
};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Between a file of settings and the variables beside it.
const BETWEEN: &str = "\n%%\n";

#[test]
fn settings() {
    let defaults =
        format!("{DEFAULT_TOML}{BETWEEN}FLEETLOG_KAFKA__BROKERS=b:1\nFLEETLOG_RUN__PROJECTIONS=a,b");
    let target = Target::new("settings", 2_000, Allowance::per_byte(1_024)).made([defaults.into_bytes()]);
    // A jail each: it remembers every variable that was ever set in it.
    let check = |input: &[u8]| {
        let mut answer = Ok("");
        Jail::expect_with(|jail| {
            answer = check_settings(jail, input);
            Ok(())
        });
        answer
    };
    target.run(|mutator, corpus| mutator.bytes(corpus, &SETTINGS), check);
}

const SETTINGS: [&[u8]; 34] = [
    b"\n%%\nFLEETLOG_",
    b"\nFLEETLOG_KAFKA__PROPERTIES__",
    b"\nFLEETLOG_KAFKA=",
    b"\nFLEETLOG_RUN__=",
    b"\nFLEETLOG___=1",
    b"{a={b=[1,2]}}",
    b"[1,2,[3,[4",
    b"\"\\u0000\"",
    b"99999999999999999999999999999999999999999",
    b"-1",
    b"1e400",
    b"true",
    b"kafka = 5\n",
    b"[kafka.properties]\n",
    b"\"socket.timeout.ms\" = 7000\n",
    b"[kafka]\nbrokers = [",
    b"[[run]]\n",
    b"[run]\n",
    b"url = \"redis://user:geheim@",
    b"url = \"postgres://a:b@c:d/e\"\n",
    b"memory_bytes_max = 18446744073709551615\n",
    b"filter = \"a=b=c,,\"\n",
    b"\n%%\nFLEETLOG_WEBHOOKS__A_B__",
    b"[webhooks.a-b]\nurl = \"https://a/geheim\"\n",
    b"secret = \"whsec_",
    b"retry_delays_ms = [1000, 1",
    b"[webhooks.\"",
    b"\n%%\nFLEETLOG_TASK_WATCH__TIMEOUTS_MS=a=5,",
    b"[task_watch]\ntimeouts_ms = { a = 5000, \"b.c\" = ",
    b"[task_watch.timeouts_ms]\n",
    b"'''",
    b"\"\"\"",
    b"{{{{{{{{{{{{",
    b"[[[[[[[[[[[[",
];

/// A file, and after a line `%%` the environment, a variable a line.
fn check_settings(jail: &mut Jail, input: &[u8]) -> Answer {
    let text = &*String::from_utf8_lossy(input);
    let (file, environment) = text.split_once(BETWEEN).unwrap_or((text, ""));
    jail.clear_env();
    for (name, value) in environment.lines().filter_map(|line| line.split_once('=')) {
        // No environment can hold others.
        if !name.is_empty() && !text.contains('\0') {
            jail.set_env(name, value);
        }
    }
    let error = match Config::read(Some(Toml::string(file))) {
        Ok(loaded) => {
            drop(Config::redacted(&loaded.settings));
            return Ok("fits");
        }
        Err(error) => error.to_string(),
    };
    if !error.contains("in the settings:\n  ") || error.contains("\n  : ") {
        return Err(format!("a problem without a place: {error}"));
    }
    Ok(if error.contains("TOML") { "no TOML" } else { "problems found" })
}

/// A line is held whole, up to 64 MiB, in a buffer that doubles; unpacking takes some buffers.
const RECORDINGS: Allowance = Allowance { base_bytes: 200 << 20, per_byte: 16 };

#[test]
fn recordings() {
    let packed =
        std::fs::read(workspace_root().join("data/vda5050/A.jsonl.zst")).unwrap_or_else(|e| panic!("{e}"));
    let plain = zstd::decode_all(&packed[..]).unwrap_or_else(|e| panic!("{e}"));
    let pack = |plain: &[u8]| zstd::encode_all(plain, 3).unwrap_or_else(|e| panic!("{e}"));
    let parts = [
        pack(&plain[..40_000]),
        plain[..9_000].to_vec(),
        pack(b"one\n\ntwo"),
        pack(b""),
        packed[..5_000].to_vec(),
    ];
    // Longer than a line may be, and more empty lines than anybody has, in a few kilobytes each: not for mutation, as
    // each takes a second.
    for bomb in [pack(&vec![b'x'; 70 << 20]), pack(&vec![b'\n'; 1 << 20])] {
        Target::new("recordings-that-swell", 0, RECORDINGS)
            .made([bomb])
            .run(|_, _| Vec::new(), check_recording);
    }
    Target::new("recordings", 3_000, RECORDINGS).made(parts).run(
        |mutator, corpus| {
            mutator.bytes(corpus, &[b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18", b"\n", b"\xff\xff\xff\x7f"])
        },
        check_recording,
    );
}

fn check_recording(input: &[u8]) -> Answer {
    let lines = match file::lines(Cursor::new(input.to_vec()), "recording `x`".to_owned()) {
        Ok(lines) => lines,
        Err(error) => return named(&error),
    };
    let is_plain = !input.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    let (mut count, mut all) = (0_u64, Vec::new());
    for line in lines {
        match line {
            // What a few packed bytes become may be more than anybody wants to hold.
            Ok(line) if is_plain => all.push(line),
            Ok(_) => {}
            Err(error) => return named(&error),
        }
        count += 1;
    }
    if is_plain && all.join(&b'\n') != input.strip_suffix(b"\n").unwrap_or(input) {
        return Err("its lines are not its content".to_owned());
    }
    Ok(if count == 0 { "empty" } else { "read" })
}

fn named(error: &anyhow::Error) -> Answer {
    let text = format!("{error:#}");
    if !text.starts_with("recording `x`") || text.len() > 400 {
        return Err(format!("an error without its place, or a long one: {text}"));
    }
    Ok(if text.contains("longer than") { "line too long" } else { "not to be unpacked" })
}

#[test]
fn dead_letters_of_anybody() {
    let seeds: [&[u8]; 4] = [
        b"original-topic\x00robot\x00__connect.errors.partition\x000\x00__connect.errors.offset\x0077",
        b"kafka_dlt-original-partition\x00\x00\x00\x00\x05\x00kafka_dlt-original-offset\x00\xff\xff\xff\xff\xff\xff\xff\xff",
        b"fleetlog-import-file\x00A.jsonl\x00fleetlog-import-line\x0017\x00error-message\x00not_json: x",
        b"\xff\xfe\x00\xff\x00\x00\x00",
    ];
    Target::new("dead-letters", 40_000, Allowance::per_byte(64)).made(seeds.map(<[u8]>::to_vec)).run(
        |mutator, corpus| {
            mutator.bytes(
                corpus,
                &[b"\x00fleetlog-dlq-group\x00", b"\x00kafka_dlt-original-timestamp\x00", b"\x1b[2J"],
            )
        },
        check_dead_letter,
    );
}

/// Names and values of headers, in turn, with a zero byte between them.
fn check_dead_letter(input: &[u8]) -> Answer {
    let parts: Vec<&[u8]> = input.split(|byte| *byte == 0).collect();
    let header = |pair: &[&[u8]]| {
        let value = pair.get(1).map(|value| Bytes::copy_from_slice(value));
        (pair[0].into(), value)
    };
    let record = OwnedRecord {
        topic: "x-robot-dlq".into(),
        partition: 3,
        offset: i64::MAX,
        timestamp: TimestampMs(i64::from_le_bytes(std::array::from_fn(|n| {
            input.get(n).copied().unwrap_or(0)
        }))),
        key: Some(Bytes::copy_from_slice(input)),
        value: Some(Bytes::copy_from_slice(input)),
        headers: parts.chunks(2).map(header).collect(),
    };
    let letter = Letter::read(&record, "robot-dlq");
    let origin = letter.origin.to_string();
    if letter.place.to_string() != "robot-dlq/3/9223372036854775807" || origin.is_empty() {
        return Err(format!("it has no place or no origin: {letter:?}"));
    }
    for (name, value) in &record.headers {
        drop(readable(name, value.as_deref()));
    }
    if RawLetter::of(&record).restore().as_ref() != Ok(&record) {
        return Err("an export that does not restore the record".to_owned());
    }
    if dlq::hex_dump(input).len() > 4_000 {
        return Err("a long dump".to_owned());
    }
    Ok(if origin.starts_with("x-robot-dlq") { "origin is its own place" } else { "origin read" })
}
