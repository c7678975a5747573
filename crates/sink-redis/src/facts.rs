//! What a Redis says of itself, for those who judge whether it is fit for hot state.

use std::collections::BTreeMap;

use fleetlog_projection::{Fault, SinkError};
use redis::{FromRedisValue, Pipeline, Value};

use crate::{RedisSink, connection::Connection};

/// The oldest Redis that the scripts were tried with.
pub const REDIS_VERSION_MIN: (u32, u32) = (6, 2);

/// The parts of INFO that are looked at.
const SECTIONS: [&str; 6] = ["server", "memory", "cluster", "persistence", "replication", "clients"];

/// A Redis, as it describes itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisFacts {
    /// Host and port, without user and password.
    pub address: String,
    /// The lines of INFO by name.
    pub info: BTreeMap<String, String>,
    /// The folder of its files; none where CONFIG is not allowed, as on hosted servers.
    pub folder: Option<String>,
}

impl RedisFacts {
    /// A line of INFO; empty if it is not there.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.info.get(name).map_or("", String::as_str)
    }

    /// A line of INFO that is a whole number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name).parse().ok()
    }
}

impl RedisSink {
    /// Asks it to describe itself. Changes nothing.
    ///
    /// # Errors
    /// Transient when it does not answer; Permanent when it does not let this user in.
    pub async fn facts(&self) -> Result<RedisFacts, SinkError> {
        let connection = self.connection();
        let info = read_info(connection, &SECTIONS).await?;
        let mut pipeline = Pipeline::new();
        pipeline.cmd("CONFIG").arg("GET").arg("dir");
        // Where CONFIG is forbidden the folder stays unknown.
        let folder = connection.run("CONFIG GET", &[], &pipeline).await.ok().and_then(|replies| {
            let pairs: Vec<String> = Vec::from_redis_value_ref(replies.first()?).ok()?;
            pairs.into_iter().nth(1)
        });
        Ok(RedisFacts { address: connection.address().to_owned(), info, folder })
    }

    /// What its clock says, in ms since 1970.
    ///
    /// # Errors
    /// Transient when it does not answer.
    pub async fn time_ms(&self) -> Result<i64, SinkError> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("TIME");
        let replies = self.connection().run("TIME", &[], &pipeline).await?;
        let parts: Option<(i64, i64)> =
            replies.first().and_then(|reply| FromRedisValue::from_redis_value_ref(reply).ok());
        let (seconds, us) = parts.ok_or_else(|| {
            SinkError::new(Fault::Permanent, format!("redis answered {replies:?} when asked for the time"))
        })?;
        Ok(seconds * 1000 + us / 1000)
    }
}

/// The lines of some sections of INFO. Unlike CONFIG it is allowed on hosted servers too.
pub(crate) async fn read_info(
    connection: &Connection,
    sections: &[&str],
) -> Result<BTreeMap<String, String>, SinkError> {
    let mut pipeline = Pipeline::new();
    for section in sections {
        pipeline.cmd("INFO").arg(*section);
    }
    let replies = connection.run("INFO", &[], &pipeline).await?;
    let mut info = BTreeMap::new();
    for reply in &replies {
        if let Value::BulkString(text) = reply {
            let text = String::from_utf8_lossy(text);
            let pairs = text.lines().filter_map(|line| line.split_once(':'));
            info.extend(pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())));
        }
    }
    Ok(info)
}
