//! The sink's one connection. A fresh one is made after any failure, by the next call, so that nothing is ever
//! repeated behind the caller's back.

use std::time::Duration;

use fleetlog_projection::{Fault, SinkError};
use redis::{AsyncConnectionConfig, Pipeline, RedisError, Value, aio::MultiplexedConnection};
use tokio::sync::Mutex;

use crate::fault::{judge_error, sink_error};

/// A script and the hash it is called by.
#[derive(Debug)]
pub(crate) struct Script {
    code: &'static str,
    hash: String,
}

impl Script {
    pub(crate) fn new(code: &'static str) -> Self {
        Self { code, hash: redis::Script::new(code).get_hash().to_owned() }
    }

    pub(crate) fn hash(&self) -> &str {
        &self.hash
    }
}

/// A connection that is made when it is needed, shared by all lanes of a sink.
///
/// Calls of one lane stay in order because a lane awaits one pipeline before it sends the next, and a pipeline is
/// written to the connection in one piece. Calls left over on a connection that was given up may still be carried
/// out, before or after those of the next connection: the chain makes that harmless.
#[derive(Debug)]
pub(crate) struct Connection {
    client: redis::Client,
    config: AsyncConnectionConfig,
    /// Where it leads, without user and password.
    address: String,
    live: Mutex<Live>,
}

#[derive(Default)]
struct Live {
    /// Counts connections, so that a late failure of an old one does not end a newer one.
    generation: u64,
    connection: Option<MultiplexedConnection>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// How often a pipeline is repeated because Redis forgot the scripts.
const SCRIPT_LOADS_MAX: u32 = 3;

impl Connection {
    /// Reads the address; connects to nothing yet.
    pub(crate) fn open(url: &str, ca_pem: Option<&[u8]>, timeout_ms: u64) -> Result<Self, SinkError> {
        let client = client(url, ca_pem).map_err(|error| {
            let what = "redis.url or redis.ca_file cannot be read (check them: fleetlog config show)";
            SinkError::caused(Fault::Permanent, what, error)
        })?;
        let timeout = Duration::from_millis(timeout_ms);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout));
        let address = client.get_connection_info().addr().to_string();
        Ok(Self { client, config, address, live: Mutex::default() })
    }

    /// Host and port, for messages.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    async fn live(&self) -> Result<(u64, MultiplexedConnection), RedisError> {
        let mut live = self.live.lock().await;
        if let Some(connection) = &live.connection {
            return Ok((live.generation, connection.clone()));
        }
        let connection = self.client.get_multiplexed_async_connection_with_config(&self.config).await?;
        live.generation += 1;
        live.connection = Some(connection.clone());
        Ok((live.generation, connection))
    }

    async fn give_up(&self, generation: u64) {
        let mut live = self.live.lock().await;
        if live.generation == generation {
            live.connection = None;
        }
    }

    /// Sends the commands in one piece and awaits all replies. The replies before the first error that a server gave
    /// are returned with it: they were carried out.
    async fn send(&self, pipeline: &Pipeline) -> Result<Replies, RedisError> {
        let (generation, mut connection) = self.live().await?;
        let sent = connection.send_packed_commands(pipeline, 0, pipeline.len()).await;
        let replies = match sent {
            Ok(values) => Replies::new(values),
            Err(error) => {
                self.give_up(generation).await;
                return Err(error);
            }
        };
        if let Some(error) = &replies.error
            && judge_error(error).0 == Fault::Transient
            && !is_noscript(error)
        {
            // After a failover the address may lead elsewhere.
            self.give_up(generation).await;
        }
        Ok(replies)
    }

    /// Runs commands of which some call `scripts`; loads the scripts and sends everything again when Redis does not
    /// know them. The caller vouches that its commands may be repeated.
    pub(crate) async fn run(
        &self,
        what: &str,
        scripts: &[&Script],
        pipeline: &Pipeline,
    ) -> Result<Vec<Value>, SinkError> {
        let fail =
            |error: RedisError| sink_error(&format!("redis at {}: {what} failed", self.address), error);
        for _ in 0..SCRIPT_LOADS_MAX {
            let replies = self.send(pipeline).await.map_err(fail)?;
            match replies.error {
                None => return Ok(replies.values),
                Some(error) if is_noscript(&error) => self.load(scripts).await.map_err(fail)?,
                Some(error) => return Err(fail(error)),
            }
        }
        Err(SinkError::new(
            Fault::Transient,
            format!(
                "redis at {}: {what} failed: the scripts were flushed {SCRIPT_LOADS_MAX} times",
                self.address
            ),
        ))
    }

    async fn load(&self, scripts: &[&Script]) -> Result<(), RedisError> {
        let mut pipeline = Pipeline::new();
        for script in scripts {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(script.code);
        }
        self.send(&pipeline).await?.error.map_or(Ok(()), Err)
    }
}

/// A client for the Redis at `url`. `ca_pem`, if given, stands for whom the system trusts, and asks for `rediss://`.
///
/// # Errors
/// When the address or the certificates cannot be read.
pub fn client(url: &str, ca_pem: Option<&[u8]>) -> Result<redis::Client, RedisError> {
    match ca_pem {
        None => redis::Client::open(url),
        Some(pem) => {
            let trusted = redis::TlsCertificates { client_tls: None, root_cert: Some(pem.to_vec()) };
            redis::Client::build_with_tls(url, trusted)
        }
    }
}

fn is_noscript(error: &RedisError) -> bool {
    error.code() == Some("NOSCRIPT")
}

/// The first error in a reply; that of a transaction holds the replies to its commands.
fn first_error(value: &Value) -> Option<RedisError> {
    match value {
        Value::ServerError(error) => Some(error.clone().into()),
        Value::Array(values) => values.iter().find_map(first_error),
        _ => None,
    }
}

/// The replies to a pipeline.
struct Replies {
    values: Vec<Value>,
    /// The first error among them, in the order of the commands: later ones only follow from it.
    error: Option<RedisError>,
}

impl Replies {
    fn new(values: Vec<Value>) -> Self {
        let error = values.iter().find_map(first_error);
        Self { values, error }
    }
}
