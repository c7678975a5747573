//! How many units there are, for `/metrics`, told by one process at a time.
//!
//! Whoever is asked first holds the figures, and keeps them as long as he is asked again in time; all others tell
//! nothing. So a sum over all processes is right at every moment, and only a process that is reached can hold them.

use std::time::Duration;

use fleetlog_projection::{Fault, SinkError};
use redis::{FromRedisValue, Pipeline, Value};

use crate::{
    RedisSink,
    connection::Script,
    metrics::{UnitCount, UnitFigures},
};

/// A type of units, and the list of its units: rank 1 for those that are online.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitList {
    /// The type, such as `robot`.
    pub unit_type: String,
    /// The list's name, without prefix.
    pub list: String,
}

impl RedisSink {
    /// How many units there are in each list, if `instance` is the one to tell; it is then for `hold` from now on.
    ///
    /// # Errors
    /// As any call: Transient, or Permanent with what to do.
    pub async fn unit_figures(
        &self,
        lists: &[UnitList],
        instance: &str,
        hold: Duration,
    ) -> Result<Option<UnitFigures>, SinkError> {
        let script = Script::new(include_str!("figures.lua"));
        let mut pipeline = Pipeline::new();
        let command = pipeline.cmd("EVALSHA").arg(script.hash()).arg(1 + lists.len());
        for name in
            std::iter::once("fleetlog:figures:unit").chain(lists.iter().map(|list| list.list.as_str()))
        {
            let mut key = String::new();
            self.settings().write_key(name, &mut key);
            command.arg(key);
        }
        // Redis takes no 0 here; a hold that short is as good as none.
        command.arg(instance).arg(hold.as_millis().max(1).to_string());
        let replies = self.connection().run("figures of units", &[&script], &pipeline).await?;
        figures(lists, replies.first()).map_err(|what| SinkError::new(Fault::Permanent, what))
    }
}

/// The script's answer.
fn figures(lists: &[UnitList], reply: Option<&Value>) -> Result<Option<UnitFigures>, String> {
    if let Some(Value::Nil) = reply {
        return Ok(None);
    }
    let wrong = || format!("redis told {reply:?} where figures of {} lists belong", lists.len());
    let counts: Vec<u64> = reply.and_then(|reply| Vec::from_redis_value_ref(reply).ok()).ok_or_else(wrong)?;
    if counts.len() != 2 * lists.len() {
        return Err(wrong());
    }
    let count = |(list, counts): (&UnitList, &[u64])| UnitCount {
        unit_type: list.unit_type.clone(),
        units: counts[0],
        online: counts[1],
    };
    Ok(Some(UnitFigures { by_type: lists.iter().zip(counts.chunks(2)).map(count).collect() }))
}
