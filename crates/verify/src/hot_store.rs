//! Redis, read as any reader would.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use fleetlog_event::LogId;
use fleetlog_projection::LaneId;
use redis::{AsyncCommands, Cmd, FromRedisValue, Value, aio::MultiplexedConnection};

use crate::{VerifyError, progress::LaneSource};

/// Where hot state is, and under which names.
#[derive(Clone, Debug)]
pub struct HotStoreSettings {
    /// `redis://`, `rediss://` or `unix://`.
    pub url: String,
    /// Who may have signed the server's certificate (PEM), in the place of those whom the system trusts.
    pub ca_pem: Option<Vec<u8>>,
    /// Stands before every key.
    pub key_prefix: String,
    /// Stands before the projection's name in a lane's key.
    pub lane_prefix: String,
    /// Stands after homes and lists: empty, or `~{version}`.
    pub suffix: String,
    /// How long one call may take, in ms.
    pub timeout_ms: u64,
}

/// Redis, read as any reader would.
#[derive(Clone)]
pub struct HotStore {
    settings: HotStoreSettings,
    connection: MultiplexedConnection,
}

/// Where a lane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LaneProgress {
    pub(crate) log: LogId,
    pub(crate) main: i64,
}

/// An entity and its places in lists, read at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shown {
    /// `hash`, `none`, or what else lives there.
    pub(crate) kind: String,
    pub(crate) fields: BTreeMap<String, String>,
    /// Rank in each of the lists asked for.
    pub(crate) places: Vec<Option<f64>>,
}

/// Entities and their places, read at one moment.
/// KEYS: homes. ARGV: per home the number of places, then list and member of each.
const READ_ENTITIES: &str = "
local at, shown = 1, {}
for i, home in ipairs(KEYS) do
  local kind = redis.call('TYPE', home).ok
  local places = {}
  for p = 1, tonumber(ARGV[at]) do
    places[p] = redis.call('ZSCORE', ARGV[at + 2 * p - 1], ARGV[at + 2 * p]) or ''
  end
  at = at + 1 + 2 * tonumber(ARGV[at])
  shown[i] = { kind, kind == 'hash' and redis.call('HGETALL', home) or {}, places }
end
return shown";

/// Keys asked for in one SCAN step.
const SCAN_COUNT: usize = 1000;

impl HotStore {
    /// Connects.
    ///
    /// # Errors
    /// When Redis does not answer, or not to this user.
    pub async fn connect(settings: HotStoreSettings) -> Result<Self, VerifyError> {
        let timeout = Duration::from_millis(settings.timeout_ms);
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout));
        let failed = |source| VerifyError::Redis { what: "connecting".to_owned(), source };
        let client = match &settings.ca_pem {
            None => redis::Client::open(settings.url.as_str()),
            Some(pem) => {
                let trusted = redis::TlsCertificates { client_tls: None, root_cert: Some(pem.clone()) };
                redis::Client::build_with_tls(settings.url.as_str(), trusted)
            }
        };
        let client = client.map_err(failed)?;
        let connection =
            client.get_multiplexed_async_connection_with_config(&config).await.map_err(failed)?;
        Ok(Self { settings, connection })
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}{}", self.settings.key_prefix, self.settings.suffix)
    }

    fn lane_key(&self, lane: &LaneId) -> String {
        format!("{}fleetlog:{}{lane}", self.settings.key_prefix, self.settings.lane_prefix)
    }

    /// Entities, each with its places in the named lists, at one moment.
    pub(crate) async fn entities(&self, wanted: &[Wanted]) -> Result<Vec<Shown>, VerifyError> {
        let mut command = Cmd::new();
        command.arg("EVAL").arg(READ_ENTITIES).arg(wanted.len());
        for wanted in wanted {
            command.arg(self.key(&wanted.home));
        }
        for wanted in wanted {
            command.arg(wanted.places.len());
            for (list, member) in &wanted.places {
                command.arg(self.key(list)).arg(member);
            }
        }
        let what = || {
            format!("reading {} entities from `{}` on", wanted.len(), wanted.first().map_or("", |w| &w.home))
        };
        let read = command.query_async::<Vec<Value>>(&mut self.connection.clone()).await;
        let read = read.map_err(|source| VerifyError::Redis { what: what(), source })?;
        read.iter()
            .map(|value| {
                shown(value)
                    .ok_or_else(|| VerifyError::Malformed(format!("redis: {}: got {value:?}", what())))
            })
            .collect()
    }

    /// Names (without prefix and suffix) of all keys `{before}{name}{after}`.
    pub(crate) async fn names(&self, before: &str, after: &str) -> Result<BTreeSet<String>, VerifyError> {
        let (first, last) =
            (format!("{}{before}", self.settings.key_prefix), format!("{after}{}", self.settings.suffix));
        let pattern = format!("{}*{}", glob(&first), glob(&last));
        let mut names = BTreeSet::new();
        let mut cursor = 0_u64;
        loop {
            let mut command = redis::cmd("SCAN");
            command.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_COUNT);
            let step = command.query_async::<(u64, Vec<String>)>(&mut self.connection.clone()).await;
            let (next, keys) = step
                .map_err(|source| VerifyError::Redis { what: format!("looking for `{pattern}`"), source })?;
            let name = |key: &String| Some(key.strip_prefix(&first)?.strip_suffix(&last)?.to_owned());
            let is_own = |name: &String| !self.settings.suffix.is_empty() || !is_of_other_version(name);
            names.extend(keys.iter().filter_map(name).filter(is_own));
            cursor = next;
            if cursor == 0 {
                return Ok(names);
            }
        }
    }

    /// All members of a list with their ranks.
    pub(crate) async fn members(&self, list: &str) -> Result<HashMap<String, f64>, VerifyError> {
        let key = self.key(list);
        let members = self.connection.clone().zrange_withscores(&key, 0, -1).await;
        members.map_err(|source| VerifyError::Redis { what: format!("reading `{key}`"), source })
    }
}

impl LaneSource for HotStore {
    async fn progress(&self, lane: &LaneId) -> Result<Option<LaneProgress>, VerifyError> {
        let key = self.lane_key(lane);
        let fields = self.connection.clone().hmget(&key, &["log", "main"]).await;
        let (log, main): (Option<String>, Option<i64>) =
            fields.map_err(|source| VerifyError::Redis { what: format!("reading `{key}`"), source })?;
        let (Some(log), Some(main)) = (log, main) else { return Ok(None) };
        let log = uuid::Uuid::parse_str(&log)
            .map_err(|error| VerifyError::Malformed(format!("redis: `{key}` names log `{log}`: {error}")))?;
        Ok(Some(LaneProgress { log: LogId(log), main }))
    }

    async fn ledger(&self, lane: &LaneId, _: LogId) -> Result<BTreeSet<i64>, VerifyError> {
        // One hash for whatever log: of another one than progress names, nothing is compared.
        #[derive(serde::Deserialize)]
        struct Entry {
            /// Whatever is no redrive leaves the event out.
            #[serde(default)]
            state: String,
        }
        let key = format!("{}:set_aside", self.lane_key(lane));
        let failed = |source| VerifyError::Redis { what: format!("reading `{key}`"), source };
        let mut connection = self.connection.clone();
        // Step by step: a ledger is kept for ever, and Redis serves nobody else during a call.
        let mut entries = connection.hscan::<_, (i64, String)>(&key).await.map_err(failed)?;
        let mut named = BTreeSet::new();
        while let Some(entry) = entries.next_item().await {
            let (offset, json) = entry.map_err(failed)?;
            let entry: Entry = serde_json::from_str(&json).map_err(|error| {
                VerifyError::Malformed(format!("redis: `{key}`, entry {offset}: {error}"))
            })?;
            if entry.state != "redriven" {
                named.insert(offset);
            }
        }
        Ok(named)
    }
}

/// What to read of an entity.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) home: String,
    /// List and member.
    pub(crate) places: Vec<(String, String)>,
}

/// Keys of a version that is not promoted end in `~{version}`.
fn is_of_other_version(name: &str) -> bool {
    name.rsplit_once('~')
        .is_some_and(|(_, version)| !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Escapes what a Redis pattern would take for a wildcard.
fn glob(text: &str) -> String {
    text.chars().flat_map(|c| "*?[]\\^".contains(c).then_some('\\').into_iter().chain([c])).collect()
}

fn shown(value: &Value) -> Option<Shown> {
    let Value::Array(parts) = value else { return None };
    let [kind, fields, places] = parts.as_slice() else { return None };
    let fields: Vec<String> = Vec::from_redis_value_ref(fields).ok()?;
    let places: Vec<String> = Vec::from_redis_value_ref(places).ok()?;
    Some(Shown {
        kind: String::from_redis_value_ref(kind).ok()?,
        fields: fields.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect(),
        places: places.iter().map(|rank| rank.parse().ok()).collect(),
    })
}
