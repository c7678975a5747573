//! The sink itself: reading a lane, and carrying a commit through its calls.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use fleetlog_event::LogId;
use fleetlog_projection::{
    Commit, Fault, HotWrite, LaneId, LastRecord, LedgerEntry, Link, Progress, Sink, SinkError, Stored,
    StoredState, UnitOfWork, Version,
    parts::{Reply, Sending, Sent},
};
use redis::{FromRedisValue, Pipeline, Value};

use crate::{
    calls::{Extent, Plan},
    check,
    connection::{Connection, Script},
    keys::{lane_key, ledger_key},
};

/// Where and how hot state is kept.
#[derive(Clone, Debug)]
pub struct RedisSinkSettings {
    /// `redis://`, `rediss://` or `unix://`, with user, password and database.
    pub url: String,
    /// Who may have signed the server's certificate (PEM), in the place of those whom the system trusts.
    pub ca_pem: Option<Vec<u8>>,
    /// Put before every key.
    pub key_prefix: String,
    /// Put before the projection's name in the lane's key: the prefix of the topics' names.
    pub lane_prefix: String,
    /// Put after every home and list: empty, or `~{version}` while a projection's version is not promoted.
    pub suffix: String,
    /// How long a connection attempt or a pipeline may take, in ms, before its outcome counts as unknown.
    pub timeout_ms: u64,
    /// Most entities and set-asides of one script call: Redis serves nobody else while one runs.
    pub call_items_max: usize,
    /// Most bytes of one script call, but that a single entity may be larger.
    pub call_bytes_max: usize,
    /// Most bytes of calls that are sent before their replies are awaited. All lanes of all projections share one Redis,
    /// which works off what they sent one after the other, and what is sent is held three times (the call, the
    /// pipeline, the connection's buffer): with 8 MiB a lane 18 lanes had 144 MiB under way, for longer than a call
    /// may take.
    pub window_bytes_max: usize,
}

impl RedisSinkSettings {
    /// Settings for a Redis at `url`, everything else as it suits most.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ca_pem: None,
            key_prefix: String::new(),
            lane_prefix: String::new(),
            suffix: String::new(),
            timeout_ms: 5000,
            call_items_max: 256,
            call_bytes_max: 512 * 1024,
            window_bytes_max: 512 * 1024,
        }
    }

    /// The full key of a home or list.
    pub(crate) fn write_key(&self, name: &str, out: &mut String) {
        out.push_str(&self.key_prefix);
        out.push_str(name);
        out.push_str(&self.suffix);
    }
}

/// Hot state in Redis.
#[derive(Debug)]
pub struct RedisSink {
    settings: RedisSinkSettings,
    connection: Connection,
    commit: Script,
    read: Script,
}

/// States read in one transaction: Redis serves nobody else while one runs.
const STATES_PER_READ: usize = 1000;

impl RedisSink {
    /// Prepares a sink. Connects with the first call, so that a Redis that is not up yet is Transient there.
    ///
    /// # Errors
    /// Permanent if the address cannot be read.
    ///
    /// # Panics
    /// When `call_items_max` is 0: no call could carry anything.
    pub fn open(settings: RedisSinkSettings) -> Result<Self, SinkError> {
        assert!(settings.call_items_max > 0, "a call takes at least one entity");
        let connection = Connection::open(&settings.url, settings.ca_pem.as_deref(), settings.timeout_ms)?;
        let commit = Script::new(include_str!("commit.lua"));
        let read = Script::new(include_str!("read.lua"));
        Ok(Self { settings, connection, commit, read })
    }

    pub(crate) fn settings(&self) -> &RedisSinkSettings {
        &self.settings
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// By which the commit script is called.
    #[cfg(test)]
    pub(crate) fn commit_script_hash(&self) -> &str {
        self.commit.hash()
    }

    /// Runs commands; loads the scripts and sends all of them again when Redis does not know them.
    pub(crate) async fn run(&self, what: &str, pipeline: &Pipeline) -> Result<Vec<Value>, SinkError> {
        self.connection.run(what, &[&self.commit, &self.read], pipeline).await
    }

    /// The lane and the states at `homes`, all of one moment: a state of another moment than its link would be folded
    /// on after the store fell back to the link's moment, and what it covers would be missing.
    async fn read_moment(&self, lane: &LaneId, homes: &[String]) -> Result<Stored, SinkError> {
        let key = lane_key(&self.settings.key_prefix, &self.settings.lane_prefix, lane);
        let mut pipeline = Pipeline::with_capacity(homes.len() + 3);
        pipeline.cmd("MULTI");
        pipeline
            .cmd("EVALSHA")
            .arg(self.read.hash())
            .arg(2)
            .arg(&key)
            .arg(ledger_key(&key))
            .arg(u8::from(homes.is_empty()));
        let mut name = String::new();
        for home in homes {
            name.clear();
            self.settings.write_key(home, &mut name);
            pipeline.cmd("HMGET").arg(&name).arg("_state").arg("_version");
        }
        pipeline.cmd("EXEC");
        let replies = self.run(&format!("reading lane {lane}"), &pipeline).await?;
        let address = self.connection.address();
        let bad = |name: &str, what: String, way_out: &str| {
            SinkError::new(Fault::Permanent, format!("redis at {address}: `{name}` holds {what}; {way_out}"))
        };
        let Some(Value::Array(moment)) = replies.into_iter().next_back() else {
            return Err(SinkError::new(Fault::Transient, format!("lane {lane}: redis gave no reply")));
        };
        let mut moment = moment.into_iter();
        let of_lane = moment.by_ref().take(1).collect();
        let mut stored = parse_lane(of_lane).map_err(|what| bad(&key, what, "rebuild the projection"))?;
        for (home, reply) in homes.iter().zip(moment) {
            let state = parse_state(reply)
                .map_err(|what| bad(home, what, "rebuild the projection, or remove the key"))?;
            stored.states.push(state);
        }
        Ok(stored)
    }

    /// Sends calls `first..` up to a window's worth.
    async fn send_window(
        &self,
        plan: &Plan<'_>,
        first: usize,
        extent: Extent,
        lane: &LaneId,
    ) -> Result<Window, SinkError> {
        let window = plan.window(first);
        let mut pipeline = Pipeline::with_capacity(window.len());
        for index in window.clone() {
            pipeline.add_command(plan.command(index, extent));
        }
        fail::fail_point!("redis.call");
        let replies = self.run(&format!("a commit of lane {lane}"), &pipeline).await?;
        let is_taken = |reply: &Value| *reply == Value::Int(1);
        let is_other = |reply: &Value| *reply == Value::Int(0);
        let any_taken = replies.iter().any(is_taken);
        let last = match replies.last() {
            Some(reply) if is_taken(reply) => Reply::Taken,
            // It was its turn.
            Some(reply) if is_other(reply) => Reply::Stands(plan.parts().link_after(window.end - 1)),
            Some(reply) => Reply::Stands(parse_link(reply).map_err(|what| {
                SinkError::new(Fault::Permanent, format!("lane {lane}: its stored link is {what}"))
            })?),
            None => {
                let what = format!("lane {lane}: redis gave no reply");
                return Err(SinkError::new(Fault::Transient, what));
            }
        };
        let any_other = replies.iter().any(is_other);
        Ok(Window { end: window.end, any_taken, any_other, last })
    }
}

/// What became of the calls that were sent in one piece.
struct Window {
    end: usize,
    any_taken: bool,
    /// An entity is not as this lane left it: deleted by somebody, its term was over, or a hash that nobody knows of.
    any_other: bool,
    last: Reply,
}

impl Sink for RedisSink {
    type Write = HotWrite;
    const IN_PARTS: bool = true;

    async fn check(&self) -> Result<(), SinkError> {
        check::check(&self.connection).await
    }

    async fn read(&self, lane: &LaneId, homes: &[String]) -> Result<Stored, SinkError> {
        let (first, rest) = homes.split_at(homes.len().min(STATES_PER_READ));
        let mut stored = self.read_moment(lane, first).await?;
        for homes in rest.chunks(STATES_PER_READ) {
            let next = self.read_moment(lane, homes).await?;
            // Links are never used twice, so moments with the same link show the same entities.
            if next.link != stored.link {
                let what = format!("lane {lane}: somebody wrote to it while its states were read");
                return Err(SinkError::new(Fault::Transient, what));
            }
            stored.states.extend(next.states);
        }
        Ok(stored)
    }

    async fn entries(
        &self,
        lane: &LaneId,
        _: LogId,
        offsets: &[i64],
    ) -> Result<BTreeMap<i64, LedgerEntry>, SinkError> {
        self.ledger_entries(lane, offsets).await
    }

    async fn not_taken(
        &self,
        lane: &LaneId,
        _: LogId,
        range: Range<i64>,
    ) -> Result<BTreeSet<i64>, SinkError> {
        self.ledger_not_taken(lane, range).await
    }

    async fn commit(&self, unit: &UnitOfWork<HotWrite>) -> Result<Commit, SinkError> {
        let plan = Plan::new(unit, &self.settings, self.commit.hash())?;
        let (parts, lane) = (plan.parts(), &unit.lane);
        let (mut sending, mut extent) = (Sending::default(), Extent::Needed);
        loop {
            let Window { end, any_taken, any_other, last } =
                self.send_window(&plan, sending.first(), extent, lane).await?;
            if any_other {
                extent = Extent::Whole;
            }
            match sending.answered(parts, end, any_taken, last) {
                Sent::GoOn => {}
                Sent::Over(commit) => return Ok(commit),
                Sent::Fenced(found) => return Err(SinkError::fenced(lane, parts.follows(), found)),
                Sent::KeepsLosing(times) => {
                    let what = format!("lane {lane}: redis lost the same calls {times} times");
                    return Err(SinkError::new(Fault::Transient, what));
                }
            }
        }
    }
}

pub(crate) fn text(value: &Value) -> Result<String, String> {
    String::from_redis_value_ref(value).map_err(|_| format!("{value:?} where text belongs"))
}

/// A stored link; the empty text is none.
pub(crate) fn parse_link(value: &Value) -> Result<Option<Link>, String> {
    let text = text(value)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error: fleetlog_projection::chain::NotALink| error.to_string())
}

pub(crate) fn parse_lane(replies: Vec<Value>) -> Result<Stored, String> {
    let [Value::Array(read)] = replies.as_slice() else {
        return Err(format!("{replies:?} where a lane belongs"));
    };
    let [link, log, main, inbox, last_offset, last_hash, named @ ..] = read.as_slice() else {
        return Err(format!("{read:?} where a lane belongs"));
    };
    let number = |value: &Value| {
        let text = text(value)?;
        text.parse::<i64>().map_err(|_| format!("`{text}` where an offset belongs"))
    };
    let log = text(log)?;
    let progress = if log.is_empty() {
        None
    } else {
        let last_hash = text(last_hash)?;
        let last = if last_hash.is_empty() {
            None
        } else {
            let hash =
                u64::from_str_radix(&last_hash, 16).map_err(|_| format!("`{last_hash}` as last_hash"))?;
            Some(LastRecord { offset: number(last_offset)?, hash })
        };
        Some(Progress { log: parse_log(&log)?, main: number(main)?, inbox: number(inbox)?, last })
    };
    let mut named = named.iter().map(number).collect::<Result<Vec<_>, _>>()?;
    named.sort_unstable();
    Ok(Stored { link: parse_link(link)?, progress, named, states: Vec::new() })
}

pub(crate) fn parse_log(text: &str) -> Result<LogId, String> {
    // LogId has no parser of its own; its serde form is a UUID's, which takes the simple form too.
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
        .map_err(|_| format!("`{text}` as a log's id"))
}

pub(crate) fn parse_state(reply: Value) -> Result<Option<StoredState>, String> {
    let Value::Array(mut fields) = reply else { return Err(format!("{reply:?} where a hash belongs")) };
    match (fields.pop(), fields.pop()) {
        (Some(Value::Nil), Some(Value::Nil)) => Ok(None),
        (Some(version @ Value::BulkString(_)), Some(Value::BulkString(state))) => {
            Ok(Some(StoredState { version: parse_version(&text(&version)?)?, state }))
        }
        _ => Err("only one of `_state` and `_version`".to_owned()),
    }
}

/// `log:partition:next:revision`
pub(crate) fn parse_version(text: &str) -> Result<Version, String> {
    let wrong = || format!("`{text}` as `_version`");
    let mut parts = text.split(':');
    let mut part = || parts.next().ok_or_else(wrong);
    let version = Version {
        log: parse_log(part()?)?,
        partition: part()?.parse().map_err(|_| wrong())?,
        next: part()?.parse().map_err(|_| wrong())?,
        revision: part()?.parse().map_err(|_| wrong())?,
    };
    if parts.next().is_some() { Err(wrong()) } else { Ok(version) }
}
