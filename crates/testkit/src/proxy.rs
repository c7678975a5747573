//! A way to a server that can be bad: refused, cut, half-open, slow.
//!
//! It carries TCP from a port of its own to a server, and does to the bytes what [`Way`] says, for connections that are
//! open as for new ones. It knows no protocol: Kafka, Redis and PostgreSQL all go through it. (A Kafka broker tells its
//! clients where it is, so it has to advertise the proxy's port: see [`crate::KafkaServer::start_behind_proxy`].)

mod pump;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::sleep,
};

use crate::process::free_port;
use pump::carry;

/// Which bytes are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What clients say.
    ToServer,
    /// What the server answers.
    ToClient,
    /// Both.
    Both,
}

/// What happens on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Everything goes through.
    Pass,
    /// New connections are refused; open ones go on.
    Refuse,
    /// Half-open: bytes are taken and thrown away, and neither side hears of it, not even that the other has hung up.
    /// A connection that lost bytes so stays dumb in this direction until it is cut: what was lost is not sent again.
    Lose(Direction),
    /// Bytes are held back, none is lost: they arrive once the way is another, perhaps long after the sender gave up.
    Hold(Direction),
    /// Every byte arrives this much later.
    Delay(Duration),
    /// So many bytes a second of each connection and direction, at least one.
    Trickle {
        /// Bytes a second.
        bytes_per_second: u32,
    },
    /// Once: after so many more bytes in this direction, of all connections together, the connection that carries the
    /// next one is cut, in the middle of whatever it was. Then as [`Way::Pass`]. (With `Both`, both are counted.)
    CutAfter {
        /// What is counted.
        direction: Direction,
        /// How many still go through.
        bytes: u64,
    },
}

impl Direction {
    /// Whether `other`, which is one of the two, is meant by this.
    fn covers(self, other: Self) -> bool {
        self == Self::Both || self == other
    }
}

/// A running proxy. Gone, with all its connections, when it is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    port: u16,
    shared: Arc<Shared>,
    listening: watch::Receiver<bool>,
    accepting: AbortHandle,
}

/// What connections look at.
#[derive(Debug)]
struct Shared {
    way: watch::Sender<Way>,
    /// Where new connections lead.
    target: watch::Sender<String>,
    /// Counts cuts: a connection ends when it grows.
    cuts: watch::Sender<u64>,
    /// Connections that are open now, by number.
    open: watch::Sender<BTreeSet<usize>>,
    /// Connections that were taken in all: the number of the next.
    accepted: watch::Sender<usize>,
}

impl FaultProxy {
    /// A proxy to `target` (`host:port`), that lets everything pass. The server need not be there yet.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start(target: impl Into<String>) -> Result<Self> {
        let port = free_port()?;
        let listener = TcpListener::bind(("127.0.0.1", port)).await.context("cannot listen for the proxy")?;
        let shared = Arc::new(Shared {
            way: watch::Sender::new(Way::Pass),
            target: watch::Sender::new(target.into()),
            cuts: watch::Sender::new(0),
            open: watch::Sender::new(BTreeSet::new()),
            accepted: watch::Sender::new(0),
        });
        let (listening_sender, listening) = watch::channel(true);
        let accepting = tokio::spawn(accept(port, listener, Arc::clone(&shared), listening_sender));
        Ok(Self { port, shared, listening, accepting: accepting.abort_handle() })
    }

    /// The same to the server of a URL such as `redis://127.0.0.1:6379/0`.
    ///
    /// # Errors
    /// As [`Self::start`], or if the URL names no host and port.
    pub async fn start_before(url: &str) -> Result<Self> {
        let Authority { host_and_port, .. } = Authority::of(url)?;
        Self::start(host_and_port).await
    }

    /// `127.0.0.1:PORT`
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port it listens on; the same however often it refuses.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A server's URL with the proxy in the place of host and port.
    ///
    /// # Errors
    /// If the URL names no host.
    pub fn url_instead(&self, url: &str) -> Result<String> {
        let Authority { before, after, .. } = Authority::of(url)?;
        Ok(format!("{before}{}{after}", self.address()))
    }

    /// From now on the way is like this, also for what is under way in the proxy. Returns once new connections are
    /// taken or refused accordingly.
    pub async fn set(&self, way: Way) {
        self.shared.way.send_replace(way);
        let wanted = way != Way::Refuse;
        // Fails only if the accepting task is gone, which lives as long as this value.
        let _ = self.listening.clone().wait_for(|listening| *listening == wanted).await;
    }

    /// Closes all connections now, on both sides. New ones are possible (but for [`Way::Refuse`]), and clients may be
    /// back before this returns.
    pub async fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
        let next = self.accepted();
        // The sender lives as long as this value.
        let _ = self.shared.open.subscribe().wait_for(|open| open.range(..next).next().is_none()).await;
    }

    /// New connections lead to another server; open ones stay where they are.
    pub fn lead_to(&self, target: impl Into<String>) {
        self.shared.target.send_replace(target.into());
    }

    /// How many connections it has taken so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        *self.shared.accepted.borrow()
    }

    /// How many connections are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.shared.open.borrow().len()
    }

    /// Waits until so many connections are open.
    pub async fn open_becomes(&self, count: usize) {
        // The sender lives as long as this value.
        let _ = self.shared.open.subscribe().wait_for(|open| open.len() == count).await;
    }

    /// Waits until the way is open again after [`Way::CutAfter`]: the cut has struck.
    pub async fn has_struck(&self) {
        let _ = self.shared.way.subscribe().wait_for(|way| !matches!(way, Way::CutAfter { .. })).await;
    }
}

/// A URL, cut before and after host and port.
struct Authority<'a> {
    before: &'a str,
    host_and_port: &'a str,
    after: &'a str,
}

impl<'a> Authority<'a> {
    fn of(url: &'a str) -> Result<Self> {
        let scheme = url.find("//").with_context(|| format!("`{url}` has no `//` before its host"))? + 2;
        let end = url[scheme..].find(['/', '?']).map_or(url.len(), |at| scheme + at);
        // A password may hold an `@`.
        let begin = url[scheme..end].rfind('@').map_or(scheme, |at| scheme + at + 1);
        ensure!(begin < end, "`{url}` names no host");
        Ok(Self { before: &url[..begin], host_and_port: &url[begin..end], after: &url[end..] })
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Takes connections while it may, and closes its port while it must not.
async fn accept(port: u16, listener: TcpListener, shared: Arc<Shared>, listening: watch::Sender<bool>) {
    let mut ways = shared.way.subscribe();
    let mut listener = Some(listener);
    // Dropped with this task, and with it all connections.
    let mut connections = JoinSet::new();
    loop {
        let refuse = *ways.borrow_and_update() == Way::Refuse;
        if refuse {
            listener = None;
        } else if listener.is_none() {
            listener = Some(listen_again(port).await);
        }
        listening.send_replace(!refuse);
        tokio::select! {
            changed = ways.changed() => if changed.is_err() { return },
            client = next_client(listener.as_ref()) => {
                // Subject to cuts and counted, in this order, from here on and not from when its task first runs.
                let cuts = shared.cuts.subscribe();
                connections.spawn(connection(client, Open::count(Arc::clone(&shared)), cuts));
            }
            // Ended ones are taken out as they end.
            Some(_) = connections.join_next() => {}
        }
    }
}

/// The port is outside the range of outgoing connections, so nobody else takes it in the meantime but by bad luck.
async fn listen_again(port: u16) -> TcpListener {
    loop {
        match TcpListener::bind(("127.0.0.1", port)).await {
            Ok(listener) => return listener,
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

/// The next client; never, while nobody listens.
async fn next_client(listener: Option<&TcpListener>) -> TcpStream {
    let Some(listener) = listener else { return std::future::pending().await };
    loop {
        match listener.accept().await {
            Ok((client, _)) => return client,
            // Out of descriptors, or the client is gone already.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

/// One connection, from its first byte to its end or the next cut.
async fn connection(client: TcpStream, open: Open, mut cuts: watch::Receiver<u64>) {
    let shared = &open.shared;
    let target = shared.target.borrow().clone();
    let carried = async {
        // A server that is not there: the client's connection is closed.
        let server = TcpStream::connect(target).await?;
        carry(client, server, shared).await
    };
    tokio::select! {
        // Whatever ended it, both sides close here.
        _ = carried => {}
        _ = cuts.changed() => {}
    }
}

/// Counts an open connection for as long as it lives.
struct Open {
    shared: Arc<Shared>,
    number: usize,
}

impl Open {
    fn count(shared: Arc<Shared>) -> Self {
        // Only the accepting task counts.
        let number = *shared.accepted.borrow();
        shared.open.send_modify(|open| {
            open.insert(number);
        });
        shared.accepted.send_modify(|accepted| *accepted += 1);
        Self { shared, number }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.open.send_modify(|open| {
            open.remove(&self.number);
        });
    }
}
