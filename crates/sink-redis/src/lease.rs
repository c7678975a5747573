//! One worker at a time: a key that its holder renews and that Redis forgets.
//!
//! What it guarantees: while Redis keeps what it is told, two workers hold the lease at once only where one of them was
//! frozen between looking at its clock and acting. What it does not: a failover that loses the key, or a clock of the Redis
//! host that jumps, can make two holders for a moment. Whatever is done under it has to bear being done twice.

use std::time::{Duration, Instant};

use fleetlog_projection::SinkError;
use redis::{Pipeline, Value};
use uuid::Uuid;

use crate::{
    RedisSinkSettings,
    connection::{Connection, Script},
};

/// Takes the key if it is free, keeps it if it is one's own.
const HOLD: &str = "
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1";

/// Gives the key back if it is one's own.
const RELEASE: &str = "
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])";

/// A lease on the key `fleetlog:{lane_prefix}{name}:lease`.
#[derive(Debug)]
pub struct Lease {
    connection: Connection,
    key: String,
    /// Names this holder, for people who look: the caller's name and a value never used before.
    token: String,
    ttl_ms: u64,
    hold: Script,
    release: Script,
    /// By the own monotonic clock, counted from before it was asked for.
    held_until: Option<Instant>,
}

impl Lease {
    /// Prepares a lease of `ttl_ms` for the holder `holder`. Connects with the first call.
    ///
    /// # Errors
    /// Permanent if the address cannot be read.
    pub fn open(
        settings: &RedisSinkSettings,
        name: &str,
        holder: &str,
        ttl_ms: u64,
    ) -> Result<Self, SinkError> {
        Ok(Self {
            connection: Connection::open(&settings.url, settings.ca_pem.as_deref(), settings.timeout_ms)?,
            key: format!("{}fleetlog:{}{name}:lease", settings.key_prefix, settings.lane_prefix),
            token: format!("{holder} {}", Uuid::new_v4().simple()),
            ttl_ms,
            hold: Script::new(HOLD),
            release: Script::new(RELEASE),
            held_until: None,
        })
    }

    /// Takes the lease, or renews it. Whether this holder has it now.
    ///
    /// # Errors
    /// Transient or Permanent; a lease that was held is held on until it runs out ([`Self::is_held`]).
    pub async fn hold(&mut self) -> Result<bool, SinkError> {
        let asked_at = Instant::now();
        let reply = self.call(&self.hold, "holding a lease").await?;
        let is_held = reply == Value::Int(1);
        self.held_until = is_held.then(|| asked_at + Duration::from_millis(self.ttl_ms));
        Ok(self.is_held())
    }

    /// Whether this holder can still rely on it, by its own clock.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held_until.is_some_and(|until| Instant::now() < until)
    }

    /// Gives it back, so that the next one need not wait. Nothing if somebody else has it.
    ///
    /// # Errors
    /// Transient or Permanent: then it runs out by itself.
    pub async fn release(&mut self) -> Result<(), SinkError> {
        self.held_until = None;
        self.call(&self.release, "releasing a lease").await.map(drop)
    }

    async fn call(&self, script: &Script, what: &str) -> Result<Value, SinkError> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.cmd("EVALSHA").arg(script.hash()).arg(1).arg(&self.key).arg(&self.token).arg(self.ttl_ms);
        let mut replies = self.connection.run(what, &[script], &pipeline).await?;
        Ok(replies.pop().unwrap_or(Value::Nil))
    }
}
