//! Whether a Redis can keep the guarantees: looked at once, at start.

use std::collections::BTreeMap;

use fleetlog_projection::{Fault, SinkError};

use crate::{
    connection::Connection,
    facts::{REDIS_VERSION_MIN, read_info},
};

/// Looks at version, eviction, cluster mode and persistence: INFO tells them all.
pub(crate) async fn check(connection: &Connection) -> Result<(), SinkError> {
    let info = read_info(connection, &["server", "memory", "cluster", "persistence"]).await?;
    judge_info(&info).map_err(|what| {
        SinkError::new(Fault::Permanent, format!("redis at {}: {what}", connection.address()))
    })?;
    let get = |name: &str| info.get(name).map(String::as_str);
    if get("aof_enabled") == Some("0") {
        tracing::warn!(
            redis = connection.address(),
            "redis keeps no append-only file: what it loses when it dies is folded again from the log; \
             set `appendonly yes` to lose at most a second"
        );
    }
    tracing::info!(
        redis = connection.address(),
        version = get("redis_version"),
        "redis is fit for hot state"
    );
    Ok(())
}

fn judge_info(info: &BTreeMap<String, String>) -> Result<(), String> {
    let get = |name: &str| info.get(name).map_or("", String::as_str);
    let mut numbers = get("redis_version").split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < REDIS_VERSION_MIN {
        let (major, minor) = REDIS_VERSION_MIN;
        return Err(format!(
            "version `{}` is too old; {major}.{minor} or later is needed",
            get("redis_version")
        ));
    }
    if get("cluster_enabled") == "1" {
        return Err(
            "it runs in cluster mode, which is not supported; point redis.url at a standalone one".to_owned()
        );
    }
    match get("maxmemory_policy") {
        "noeviction" => Ok(()),
        "" => Err("it does not tell its eviction policy (INFO memory); `noeviction` is needed".to_owned()),
        policy => Err(format!(
            "its eviction policy is `{policy}`: it would drop hot state silently; set `maxmemory-policy noeviction`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(pairs: &[(&str, &str)]) -> Result<(), String> {
        judge_info(&pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn only_a_redis_that_keeps_what_it_is_given_is_taken() {
        let fit = [("redis_version", "7.0.15"), ("maxmemory_policy", "noeviction"), ("cluster_enabled", "0")];
        assert_eq!(judge(&fit), Ok(()));
        let text =
            judge(&[("redis_version", "7.0.15"), ("maxmemory_policy", "allkeys-lru")]).expect_err("evicts");
        assert!(text.contains("`allkeys-lru`") && text.contains("noeviction"), "{text}");
        assert!(judge(&[("redis_version", "5.0.7"), ("maxmemory_policy", "noeviction")]).is_err());
        assert!(judge(&[("redis_version", "7.0.15"), ("cluster_enabled", "1")]).is_err());
        assert!(judge(&[]).is_err());
    }
}
