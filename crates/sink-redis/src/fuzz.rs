//! Replies that no script of ours gives: whoever else writes to that Redis, or stands between it and us.

use fleetlog_testkit::fuzz::{Allowance, Answer, CountingAllocator, Target};
use redis::Value;

use crate::sink::{parse_lane, parse_link, parse_state};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn redis_replies() {
    let lane: &[u8] = b"*8\r\n$21\r\n00000000000000ff.12.0\r\n$36\r\n6d1b1e2a-0000-4000-8000-000000000001\r\n$2\r\n77\r\n$1\r\n0\r\n\
                        $2\r\n76\r\n$16\r\n00000000000000aa\r\n$1\r\n5\r\n$1\r\n9\r\n";
    let state: &[u8] = b"*2\r\n$2\r\n{}\r\n$43\r\n6d1b1e2a-0000-4000-8000-000000000001:3:77:0\r\n";
    let seeds = [
        lane,
        state,
        b"*2\r\n$-1\r\n$-1\r\n",
        b"$17\r\n00000000000000ff.\r\n",
        b":1\r\n",
        b"-ERR x\r\n",
        b"*0\r\n",
    ];
    Target::new("redis-replies", 60_000, Allowance::per_byte(400)).made(seeds.map(<[u8]>::to_vec)).run(
        |mutator, corpus| {
            mutator.bytes(
                corpus,
                &[
                    b"$-1\r\n",
                    b"*-1\r\n",
                    b"*2\r\n",
                    b"%1\r\n",
                    b"$999999999\r\n",
                    b":-9\r\n",
                    b"_\r\n",
                    b"18446744073709551616",
                ],
            )
        },
        check,
    );
}

fn check(input: &[u8]) -> Answer {
    let reply = redis::parse_redis_value(input).unwrap_or_else(|_| by_lines(input));
    for error in [parse_link(&reply).err(), parse_state(reply.clone()).err()].into_iter().flatten() {
        if error.is_empty() {
            return Err("an error without words".to_owned());
        }
    }
    if matches!(parse_link(&reply), Ok(Some(_))) {
        return Ok("link");
    }
    if matches!(parse_state(reply.clone()), Ok(Some(_))) {
        return Ok("state");
    }
    match parse_lane(vec![reply]) {
        Ok(stored) if stored.progress.is_some() => Ok("lane"),
        Ok(_) => Ok("lane without progress"),
        Err(error) if error.is_empty() => Err("an error without words".to_owned()),
        Err(_) => Ok("refused"),
    }
}

/// A reply that does not hang on lengths: a text a line, `_` for nothing, `:` before a number.
fn by_lines(input: &[u8]) -> Value {
    let lines = input.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let values =
        lines.filter(|line| !line.starts_with(b"*") && !line.starts_with(b"$")).map(|line| match line {
            b"_" => Value::Nil,
            [b':', number @ ..] => Value::Int(number.len() as i64),
            text => Value::BulkString(text.to_vec()),
        });
    Value::Array(values.collect())
}

/// What a hash holds under `_version` is a text of anybody's.
#[test]
fn a_reply_of_another_kind_is_named() {
    let error = parse_state(Value::Array(vec![Value::Nil, Value::Int(3)])).unwrap_err();
    assert_eq!(error, "only one of `_state` and `_version`");
}
