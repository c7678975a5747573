//! How bytes get from one side of a proxy to the other.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout_at},
};

use super::{Direction, Shared, Way};

/// The largest piece that is read at once.
const CHUNK_BYTES: usize = 16 << 10;
/// Pieces of one direction that a proxy holds; beyond, it does not read on and TCP holds up the sender.
const CHUNKS_MAX: usize = 64;
/// How often a trickle drips.
const DRIP_INTERVAL: Duration = Duration::from_millis(20);

/// A piece on its way, and when it came.
type Chunk = (Instant, Vec<u8>);

/// Carries both directions until both sides have ended, or one breaks.
pub(super) async fn carry(client: TcpStream, server: TcpStream, shared: &Shared) -> io::Result<()> {
    // Small pieces are what is asked for.
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(
        one_way(from_client, to_server, Direction::ToServer, shared),
        one_way(from_server, to_client, Direction::ToClient, shared),
    )?;
    Ok(())
}

/// Reads and writes side by side, so that a delay is one of each byte and not one of each answer.
async fn one_way(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    direction: Direction,
    shared: &Shared,
) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    let writer = Writer { to, direction, ways: shared.way.subscribe(), shared, is_lost: false };
    let ((), written) = tokio::join!(read(from, sender), writer.write(receiver));
    written
}

/// Until the sender hangs up. How it did, by an end or a reset, makes no difference: on a half-open way neither is seen.
async fn read(mut from: OwnedReadHalf, chunks: mpsc::Sender<Chunk>) {
    loop {
        let mut chunk = vec![0; CHUNK_BYTES];
        let Ok(length @ 1..) = from.read(&mut chunk).await else { return };
        chunk.truncate(length);
        // The writer is gone only when it failed, and then this ends too.
        if chunks.send((Instant::now(), chunk)).await.is_err() {
            return;
        }
    }
}

struct Writer<'a> {
    to: OwnedWriteHalf,
    direction: Direction,
    ways: watch::Receiver<Way>,
    shared: &'a Shared,
    /// Bytes of this direction were lost, so none may follow them.
    is_lost: bool,
}

impl Writer<'_> {
    async fn write(mut self, mut chunks: mpsc::Receiver<Chunk>) -> io::Result<()> {
        while let Some((arrived, chunk)) = chunks.recv().await {
            self.deliver(arrived, &chunk).await?;
        }
        // The sender has hung up. The other side hears of it on the same way as of bytes.
        self.pass_end().await
    }

    /// Delivers a piece as the way says, which may change in the midst of it.
    async fn deliver(&mut self, arrived: Instant, mut rest: &[u8]) -> io::Result<()> {
        while !rest.is_empty() && !self.is_lost {
            let way = *self.ways.borrow_and_update();
            let written = match way {
                Way::Lose(lost) if lost.covers(self.direction) => {
                    self.is_lost = true;
                    0
                }
                Way::Hold(held) if held.covers(self.direction) => {
                    self.changed().await;
                    0
                }
                Way::Delay(delay) if arrived + delay > Instant::now() => {
                    // Either the time has come, or the way has changed.
                    let _ = timeout_at(arrived + delay, self.ways.changed()).await;
                    0
                }
                Way::Trickle { bytes_per_second } => self.drip(rest, bytes_per_second).await?,
                Way::CutAfter { direction, .. } if direction.covers(self.direction) => {
                    let length = self.spend(rest.len())?;
                    self.to.write_all(&rest[..length]).await?;
                    length
                }
                _ => self.to.write(rest).await?,
            };
            rest = &rest[written..];
        }
        Ok(())
    }

    /// Some bytes of a trickle; how many.
    async fn drip(&mut self, rest: &[u8], bytes_per_second: u32) -> io::Result<usize> {
        let a_drip = u128::from(bytes_per_second.max(1)) * DRIP_INTERVAL.as_millis() / 1000;
        let length = usize::try_from(a_drip).unwrap_or(usize::MAX).clamp(1, rest.len());
        let pause =
            Duration::from_secs(1) / bytes_per_second.max(1) * u32::try_from(length).unwrap_or(u32::MAX);
        sleep(pause).await;
        self.to.write(&rest[..length]).await
    }

    /// How many of `wanted` bytes still go through; none left is the cut.
    fn spend(&self, wanted: usize) -> io::Result<usize> {
        let mut granted = None;
        self.shared.way.send_if_modified(|way| {
            match way {
                Way::CutAfter { bytes: 0, .. } => {
                    *way = Way::Pass;
                    return true;
                }
                Way::CutAfter { bytes, .. } => {
                    let spent = wanted.min(usize::try_from(*bytes).unwrap_or(usize::MAX));
                    *bytes -= spent as u64;
                    granted = Some(spent);
                }
                // Another connection was cut meanwhile.
                _ => granted = Some(0),
            }
            false
        });
        granted.ok_or_else(|| io::Error::other("cut by the proxy"))
    }

    async fn pass_end(mut self) -> io::Result<()> {
        loop {
            let way = *self.ways.borrow_and_update();
            match way {
                _ if self.is_lost => return std::future::pending().await,
                Way::Lose(lost) if lost.covers(self.direction) => self.is_lost = true,
                Way::Hold(held) if held.covers(self.direction) => self.changed().await,
                _ => return self.to.shutdown().await,
            }
        }
    }

    async fn changed(&mut self) {
        // The sender outlives every connection.
        let _ = self.ways.changed().await;
    }
}
