//! Redis: whether it keeps what it is given.

use fleetlog_sink_redis::{REDIS_VERSION_MIN, RedisFacts};

use crate::{Check, Finding};

/// Shares of memory in use, in per cent.
const MEMORY_WARNING: u64 = 80;
const MEMORY_ERROR: u64 = 95;

/// Judges a Redis; `url` (without password) is what commands connect to.
#[must_use]
pub fn judge(facts: &RedisFacts, url: &str) -> Vec<Finding> {
    let set = |setting: &str| format!("redis-cli -u {url} CONFIG SET {setting}");
    vec![
        Check::RedisReachable.ok(facts.address.clone()),
        version(facts),
        mode(facts),
        eviction(facts, set("maxmemory-policy noeviction")),
        persistence(facts, set("appendonly yes"), format!("redis-cli -u {url} INFO persistence")),
        memory(facts, format!("redis-cli -u {url} INFO memory")),
    ]
}

fn version(facts: &RedisFacts) -> Finding {
    let text = facts.get("redis_version");
    let mut numbers = text.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < REDIS_VERSION_MIN {
        let (major, minor) = REDIS_VERSION_MIN;
        return Check::RedisVersion
            .error(format!("version `{text}`"))
            .cure(format!("upgrade it to {major}.{minor} or later"));
    }
    Check::RedisVersion.ok(text)
}

fn mode(facts: &RedisFacts) -> Finding {
    if facts.get("cluster_enabled") == "1" {
        return Check::RedisMode
            .error("it runs in cluster mode, which is not supported")
            .cure("point `redis.url` at a standalone Redis, or one with Sentinel");
    }
    if facts.get("role") == "slave" {
        let primary = format!("{}:{}", facts.get("master_host"), facts.get("master_port"));
        return Check::RedisMode
            .error(format!("it is a replica of {primary} and takes no writes"))
            .cure(format!("point `redis.url` at the primary, {primary}, or let Sentinel promote this one"));
    }
    Check::RedisMode.ok(format!("standalone, {} replicas", facts.number("connected_slaves").unwrap_or(0)))
}

fn eviction(facts: &RedisFacts, set: String) -> Finding {
    match facts.get("maxmemory_policy") {
        "noeviction" => Check::RedisEviction.ok("noeviction"),
        "" => Check::RedisEviction
            .error("it does not tell its eviction policy (INFO memory)")
            .cure("allow INFO to fleetlog's user, and set `maxmemory-policy noeviction`"),
        policy => Check::RedisEviction
            .error(format!("the eviction policy is `{policy}`"))
            .cure("set `maxmemory-policy noeviction`, in redis.conf too, and size the memory")
            .by(set),
    }
}

fn persistence(facts: &RedisFacts, set: String, look: String) -> Finding {
    let failed = |name: &str| facts.get(name) == "err";
    if facts.get("loading") == "1" {
        return Check::RedisPersistence
            .warning("it is still loading its files and answers nobody")
            .cure("wait; projections do the same")
            .by(look);
    }
    if failed("aof_last_write_status") || failed("aof_last_bgrewrite_status") {
        return Check::RedisPersistence
            .error("it could not write its append-only file: most likely its disk is full")
            .cure("give its disk space, and look into its log")
            .by(look);
    }
    if failed("rdb_last_bgsave_status") {
        return Check::RedisPersistence
            .error("its last snapshot failed; unless `stop-writes-on-bgsave-error no` it refuses writes")
            .cure("give its disk space and its host memory (`vm.overcommit_memory=1`), and look into its log")
            .by(look);
    }
    match facts.get("aof_enabled") {
        "1" => Check::RedisPersistence.ok("it keeps an append-only file"),
        "0" => Check::RedisPersistence
            .warning("it keeps no append-only file")
            .cure("set `appendonly yes`, in redis.conf too: a crash then loses at most a second")
            .by(set),
        _ => Check::RedisPersistence.info("it does not tell whether it keeps an append-only file"),
    }
}

fn memory(facts: &RedisFacts, look: String) -> Finding {
    let Some(used) = facts.number("used_memory") else {
        return Check::RedisMemory.info("it does not tell how much memory it has in use");
    };
    let (limit, of) = match (facts.number("maxmemory"), facts.number("total_system_memory")) {
        (Some(limit), _) if limit > 0 => (limit, "maxmemory"),
        (_, Some(limit)) if limit > 0 => (limit, "its host's memory (it has no maxmemory)"),
        _ => return Check::RedisMemory.ok(format!("{} in use, no limit", megabytes(used))),
    };
    let percent = used.saturating_mul(100) / limit;
    let found = format!("{} in use, {percent} % of {of}, {}", megabytes(used), megabytes(limit));
    let cure = "raise maxmemory, or give it a host with more; keys that are not fleetlog's count too";
    match percent {
        MEMORY_ERROR.. => Check::RedisMemory.error(found).cure(cure).by(look),
        MEMORY_WARNING.. => Check::RedisMemory.warning(found).cure(cure).by(look),
        _ => Check::RedisMemory.ok(found),
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Severity;

    const GOOD: [(&str, &str); 9] = [
        ("redis_version", "7.0.15"),
        ("cluster_enabled", "0"),
        ("role", "master"),
        ("maxmemory_policy", "noeviction"),
        ("aof_enabled", "1"),
        ("aof_last_write_status", "ok"),
        ("used_memory", "1000000"),
        ("maxmemory", "0"),
        ("total_system_memory", "8000000000"),
    ];

    /// What is found where these lines differ from a good Redis.
    fn with(differ: &[(&str, &str)]) -> Vec<(Severity, &'static str)> {
        let lines = GOOD.iter().chain(differ).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let facts = RedisFacts { address: "r:6379".into(), info: lines.collect(), folder: None };
        let wrong =
            judge(&facts, "redis://r:6379").into_iter().filter(|found| found.severity != Severity::Ok);
        wrong.map(|found| (found.severity, found.check.code())).collect()
    }

    #[test]
    fn each_cause_has_its_own_code() {
        assert_eq!(with(&[]), []);
        for (line, value, severity, code) in [
            ("redis_version", "5.0.7", Severity::Error, "redis-version"),
            ("cluster_enabled", "1", Severity::Error, "redis-mode"),
            ("role", "slave", Severity::Error, "redis-mode"),
            ("maxmemory_policy", "allkeys-lru", Severity::Error, "redis-eviction"),
            ("maxmemory_policy", "", Severity::Error, "redis-eviction"),
            ("aof_enabled", "0", Severity::Warning, "redis-persistence"),
            ("loading", "1", Severity::Warning, "redis-persistence"),
            ("aof_last_write_status", "err", Severity::Error, "redis-persistence"),
            ("rdb_last_bgsave_status", "err", Severity::Error, "redis-persistence"),
            ("maxmemory", "1010000", Severity::Error, "redis-memory"),
            ("maxmemory", "1200000", Severity::Warning, "redis-memory"),
        ] {
            assert_eq!(with(&[(line, value)]), [(severity, code)], "{line} {value}");
        }
    }

    #[test]
    fn the_cure_is_a_command_to_paste() {
        let info = [("maxmemory_policy".to_owned(), "allkeys-lru".to_owned())].into();
        let facts = RedisFacts { info, ..RedisFacts::default() };
        let finding =
            judge(&facts, "redis://r:6379/0").into_iter().find(|f| f.check == Check::RedisEviction).unwrap();
        let command = "redis-cli -u redis://r:6379/0 CONFIG SET maxmemory-policy noeviction";
        assert_eq!(finding.command.as_deref(), Some(command));
    }
}
