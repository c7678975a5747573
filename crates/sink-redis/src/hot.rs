//! Hot state as a reader sees it, in pages: for workers that look at all of it again and again.

use fleetlog_event::LogId;
use fleetlog_projection::{Fault, LaneId, SinkError, Version};
use redis::{FromRedisValue, Pipeline, Value};

use crate::{
    RedisSinkSettings,
    connection::Connection,
    keys::lane_key,
    sink::{parse_log, parse_version, text},
};

/// Keys that one step of a search looks at, and members that one page of a list has: what Redis does in about a
/// millisecond, so that others are served in between.
const PER_STEP: usize = 1000;
/// Hashes asked for in one piece.
const HOMES_PER_READ: usize = 500;

/// Reads hot state; changes nothing.
#[derive(Debug)]
pub struct HotReader {
    settings: RedisSinkSettings,
    connection: Connection,
}

/// One page of a sorted set.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// Where the next page begins; none after the last.
    pub next: Option<u64>,
    /// Members with their scores. What is there from the first page to the last is on some page; a member can be on two.
    pub members: Vec<(String, f64)>,
}

/// An entity, as far as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entity {
    /// How far it is.
    pub version: Version,
    /// The fields that were named, in that order; none where there is no such field.
    pub fields: Vec<Option<String>>,
}

impl HotReader {
    /// Prepares a reader of what a sink with these settings writes. Connects with the first call.
    ///
    /// # Errors
    /// Permanent if the address cannot be read.
    pub fn open(settings: RedisSinkSettings) -> Result<Self, SinkError> {
        let connection = Connection::open(&settings.url, settings.ca_pem.as_deref(), settings.timeout_ms)?;
        Ok(Self { settings, connection })
    }

    /// The log and the next offset of each lane; none for one that never wrote.
    ///
    /// # Errors
    /// Transient or Permanent.
    pub async fn progress(&self, lanes: &[LaneId]) -> Result<Vec<Option<(LogId, i64)>>, SinkError> {
        let mut pipeline = Pipeline::with_capacity(lanes.len());
        for lane in lanes {
            let key = lane_key(&self.settings.key_prefix, &self.settings.lane_prefix, lane);
            pipeline.cmd("HMGET").arg(key).arg("log").arg("main");
        }
        let what = "reading progress";
        let replies = self.connection.run(what, &[], &pipeline).await?;
        let one = |reply: &Value| match Vec::<Option<String>>::from_redis_value_ref(reply).ok()?.as_slice() {
            [Some(log), Some(main)] => Some(Some((parse_log(log).ok()?, main.parse().ok()?))),
            [None, _] | [_, None] => Some(None),
            _ => None,
        };
        replies.iter().map(|reply| one(reply).ok_or_else(|| self.odd(what, reply))).collect()
    }

    /// A step of the search for sorted sets `{start}…`: their names behind `start`, and where the next step begins (none
    /// when all was looked at). A name can come twice.
    ///
    /// # Errors
    /// Transient or Permanent.
    pub async fn lists(&self, start: &str, cursor: u64) -> Result<(Vec<String>, Option<u64>), SinkError> {
        let (mut first, suffix) = (String::new(), self.settings.suffix.as_str());
        first.push_str(&self.settings.key_prefix);
        first.push_str(start);
        let mut pipeline = Pipeline::with_capacity(1);
        let scan = pipeline.cmd("SCAN").arg(cursor).arg("MATCH");
        scan.arg(format!("{}*{}", glob(&first), glob(suffix)))
            .arg("COUNT")
            .arg(PER_STEP)
            .arg("TYPE")
            .arg("zset");
        let what = format!("looking for `{start}…`");
        let reply = self.one(&what, &pipeline).await?;
        let (next, keys) =
            <(u64, Vec<String>)>::from_redis_value_ref(&reply).map_err(|_| self.odd(&what, &reply))?;
        let name = |key: &String| Some(key.strip_prefix(&first)?.strip_suffix(suffix)?.to_owned());
        Ok((keys.iter().filter_map(name).collect(), Some(next).filter(|next| *next != 0)))
    }

    /// A page of the sorted set `list`; the first one begins at 0.
    ///
    /// # Errors
    /// Transient or Permanent.
    pub async fn page(&self, list: &str, cursor: u64) -> Result<Page, SinkError> {
        let mut key = String::new();
        self.settings.write_key(list, &mut key);
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.cmd("ZSCAN").arg(key).arg(cursor).arg("COUNT").arg(PER_STEP);
        let what = format!("reading `{list}`");
        let reply = self.one(&what, &pipeline).await?;
        let (next, members) =
            <(u64, Vec<(String, f64)>)>::from_redis_value_ref(&reply).map_err(|_| self.odd(&what, &reply))?;
        Ok(Page { next: Some(next).filter(|next| *next != 0), members })
    }

    /// The named fields of the hashes at `homes`, in the order asked; none where there is no such field or hash.
    ///
    /// # Errors
    /// Transient or Permanent.
    pub async fn fields(
        &self,
        homes: &[String],
        names: &[&str],
    ) -> Result<Vec<Vec<Option<String>>>, SinkError> {
        let mut read = Vec::with_capacity(homes.len());
        for homes in homes.chunks(HOMES_PER_READ) {
            let mut pipeline = Pipeline::with_capacity(homes.len());
            for home in homes {
                let mut key = String::new();
                self.settings.write_key(home, &mut key);
                pipeline.cmd("HMGET").arg(key).arg(names);
            }
            let what = "reading fields";
            for reply in self.connection.run(what, &[], &pipeline).await? {
                read.push(FromRedisValue::from_redis_value_ref(&reply).map_err(|_| self.odd(what, &reply))?);
            }
        }
        Ok(read)
    }

    /// The entity at `home` with its named fields, all of one moment; none where there is no such entity.
    ///
    /// # Errors
    /// Transient or Permanent.
    pub async fn entity(&self, home: &str, names: &[&str]) -> Result<Option<Entity>, SinkError> {
        let mut key = String::new();
        self.settings.write_key(home, &mut key);
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.cmd("HMGET").arg(key).arg("_version").arg(names);
        let what = format!("reading `{home}`");
        let reply = self.one(&what, &pipeline).await?;
        let mut fields = Vec::<Option<String>>::from_redis_value_ref(&reply)
            .ok()
            .filter(|fields| fields.len() == names.len() + 1)
            .ok_or_else(|| self.odd(&what, &reply))?;
        let Some(version) = fields.remove(0) else { return Ok(None) };
        let version = parse_version(&version).map_err(|_| self.odd(&what, &reply))?;
        Ok(Some(Entity { version, fields }))
    }

    async fn one(&self, what: &str, pipeline: &Pipeline) -> Result<Value, SinkError> {
        self.connection.run(what, &[], pipeline).await?.pop().ok_or_else(|| {
            SinkError::new(
                Fault::Transient,
                format!("redis at {}: {what}: no reply", self.connection.address()),
            )
        })
    }

    fn odd(&self, what: &str, reply: &Value) -> SinkError {
        let at = self.connection.address();
        SinkError::new(Fault::Permanent, format!("redis at {at}: {what}: got `{:.80}`", text_of(reply)))
    }
}

fn text_of(reply: &Value) -> String {
    text(reply).unwrap_or_else(|odd| odd)
}

/// Escapes what a Redis pattern would take for a wildcard.
fn glob(text: &str) -> String {
    text.chars().flat_map(|c| "*?[]\\^".contains(c).then_some('\\').into_iter().chain([c])).collect()
}
