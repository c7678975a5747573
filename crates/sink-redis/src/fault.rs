//! What a failure of Redis means: a table, case by case.

use std::borrow::Cow;

use fleetlog_projection::{Fault, SinkError};
use fleetlog_trust::CertificateFault;
use redis::{ErrorKind, RedisError};

/// What to do about an error code that does not pass by itself.
fn permanent_hint(code: &str) -> Option<&'static str> {
    Some(match code {
        "WRONGTYPE" => "another program uses this key: give fleetlog a redis.key_prefix or its own database",
        "NOAUTH" | "WRONGPASS" => {
            "check user and password in redis.url, or redis.username and redis.password"
        }
        "NOPERM" => {
            "give the user the commands of docs/security.md on fleetlog's keys; the server's ACL LOG names the one that it \
             missed"
        }
        "MOVED" | "ASK" | "CROSSSLOT" => {
            "Redis Cluster is not supported: point redis.url at a standalone Redis"
        }
        _ => return None,
    })
}

/// Error codes that pass: the store is starting, failing over, full, busy or cannot persist now.
const TRANSIENT_CODES: [&str; 10] = [
    "OOM",
    "LOADING",
    "MASTERDOWN",
    "READONLY",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "BUSY",
    "MISCONF",
    "NOREPLICAS",
    // Scripts are loaded and the call repeated where this is met; that it is met again and again is a flush storm.
    "NOSCRIPT",
];

/// The error code. Redis before 7 wraps an error of a command inside a script: `ERR Error running script …: -OOM …`.
fn code_of(error: &RedisError) -> Option<String> {
    let code = error.code()?;
    let inner = error.detail().filter(|_| code == "ERR").and_then(|detail| {
        let (_, after) = detail.split_once(": -").or_else(|| detail.split_once(" -"))?;
        let inner: String = after.chars().take_while(char::is_ascii_uppercase).collect();
        (inner.len() >= 3).then_some(inner)
    });
    Some(inner.unwrap_or_else(|| code.to_owned()))
}

/// How to treat an error of Redis, and what can be done about it.
pub(crate) fn judge_error(error: &RedisError) -> (Fault, Option<Cow<'static, str>>) {
    let hint = |text: &'static str| Some(Cow::Borrowed(text));
    if let Some(code) = code_of(error) {
        if TRANSIENT_CODES.contains(&code.as_str()) {
            return (Fault::Transient, None);
        }
        if code == "ERR" && error.detail().is_some_and(|detail| detail.contains("max number of clients")) {
            return (Fault::Transient, None);
        }
        return (Fault::Permanent, permanent_hint(&code).map(Cow::Borrowed));
    }
    if let Some(fault) = CertificateFault::in_chain(error) {
        return (Fault::Permanent, Some(format!("{fault}: {}", fault.remedy("redis.ca_file")).into()));
    }
    match error.kind() {
        // Refused, reset, closed, timed out, no such host (yet); a reply that is cut off.
        ErrorKind::Io | ErrorKind::Parse | ErrorKind::Client => (Fault::Transient, None),
        ErrorKind::AuthenticationFailed => (Fault::Permanent, permanent_hint("WRONGPASS").map(Cow::Borrowed)),
        ErrorKind::InvalidClientConfig => (Fault::Permanent, hint("check redis.url")),
        _ => (Fault::Permanent, None),
    }
}

/// The sink's error for an error of Redis met while doing `what`.
pub(crate) fn sink_error(what: &str, error: RedisError) -> SinkError {
    let (fault, hint) = judge_error(&error);
    match hint {
        None => SinkError::caused(fault, what.to_owned(), error),
        Some(hint) => SinkError::caused(fault, format!("{what} ({hint})"), error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error as the server would send it.
    fn server(line: &str) -> RedisError {
        match redis::parse_redis_value(format!("-{line}\r\n").as_bytes()) {
            Ok(redis::Value::ServerError(error)) => error.into(),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn faults_are_told_apart_case_by_case() {
        for line in [
            "OOM command not allowed when used memory > 'maxmemory'.",
            "ERR Error running script (call to f_0a): @user_script:9: @user_script: 9: -OOM command not allowed",
            "LOADING Redis is loading the dataset in memory",
            "MASTERDOWN Link with MASTER is down",
            "READONLY You can't write against a read only replica.",
            "CLUSTERDOWN The cluster is down",
            "BUSY Redis is busy running a script.",
            "MISCONF Redis is configured to save RDB snapshots, but is unable to persist on disk",
            "NOREPLICAS Not enough good replicas to write.",
            "ERR max number of clients reached",
        ] {
            assert_eq!(judge_error(&server(line)).0, Fault::Transient, "{line}");
        }
        for line in [
            "WRONGTYPE key `a` holds a string, not a hash",
            "NOAUTH Authentication required.",
            "WRONGPASS invalid username-password pair",
            "NOPERM this user has no permissions",
            "MOVED 1 127.0.0.1:7000",
        ] {
            let (fault, hint) = judge_error(&server(line));
            assert_eq!(fault, Fault::Permanent, "{line}");
            assert!(hint.is_some(), "{line}");
        }
        assert_eq!(judge_error(&server("ERR unknown command 'EVALSHA'")).0, Fault::Permanent);
        let refused = RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        assert_eq!(judge_error(&refused).0, Fault::Transient);
    }
}
