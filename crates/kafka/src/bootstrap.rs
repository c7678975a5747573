//! Clients that have lost all their brokers.
//!
//! librdkafka (2.12.1) forgets each broker that an answer with metadata does not name. Where the only broker of a cluster was fenced
//! for a moment, because it had stood still for longer than `broker.session.timeout.ms`, the answer names none: the client then has
//! nobody to ask, never asks again, and says nothing (`rd_kafka_metadata_decommission_unavailable_brokers`; the re-bootstrap of
//! KIP-899 begins with a broker that goes down or a request that fails, and there is neither). So whoever hears nothing
//! for a while looks whether anybody answers, and tells the client its bootstrap servers anew where nobody does.

use std::time::{Duration, Instant};

use rdkafka::{ClientContext, client::Client};

use crate::native;

/// How long a client may hear nothing before it is looked after.
const SILENCE: Duration = Duration::from_secs(10);
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// For how long it is looked again where nobody answers, or no broker is named yet.
const LOOK_MAX: Duration = Duration::from_secs(3);
/// Between two such looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How long a question, or a change, may take before it is made again: a client that lost its brokers is looked after in between.
pub(crate) const ASK_TIMEOUT: Duration = Duration::from_secs(15);
/// For how long it is made again while what keeps it from being answered passes by waiting.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Looks after one client.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    servers: String,
    looked_at: Instant,
}

impl Bootstrap {
    /// For a client made just now with these bootstrap servers.
    #[must_use]
    pub fn new(servers: &str) -> Self {
        Self { servers: servers.to_owned(), looked_at: Instant::now() }
    }

    /// To be called while nothing is heard, or where a question failed: looks every ten seconds whether some broker names brokers, and
    /// tells the client its bootstrap servers anew where none does, again and again for a few seconds (*blocking*).
    #[expect(clippy::disallowed_methods, reason = "time itself is meant, on a thread that may block")]
    pub fn look_after<C: ClientContext>(&mut self, client: &Client<C>) {
        if self.looked_at.elapsed() < SILENCE {
            return;
        }
        let begun = Instant::now();
        while !native::names_brokers(client, ANSWER_TIMEOUT) && begun.elapsed() < LOOK_MAX {
            tracing::info!(servers = self.servers, "no broker answers; asking the bootstrap servers");
            native::add_brokers(client, &self.servers);
            std::thread::sleep(LOOK_INTERVAL);
        }
        self.looked_at = Instant::now();
    }
}
