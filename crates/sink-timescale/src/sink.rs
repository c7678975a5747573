//! The sink: a unit of work as one transaction.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    marker::PhantomData,
    ops::Range,
    time::Duration,
};

use fleetlog_event::LogId;
use fleetlog_projection::{
    Commit, EntityRow, Fault, HistoryRow, LaneId, LedgerEntry, Link, Sink, SinkError, Stored, Table,
    UnitOfWork, Verdict, judge,
};

use crate::{
    Database,
    bisect::refused,
    connections::Lease,
    copy::{copy_all, in_index_order},
    entities,
    fault::{Failure, Meaning},
    ledger,
};

/// Where a projection's rows of type `W` land: those of a map ([`Database::sink`]), or those of a fold with its states
/// ([`Database::fold_sink`]). A unit that carries entities is Permanent where there is no table for them.
pub struct SqlSink<W> {
    database: Database,
    /// Where states live.
    entities: Option<&'static Table>,
    rows: PhantomData<fn() -> W>,
}

impl<W> Clone for SqlSink<W> {
    fn clone(&self) -> Self {
        Self { database: self.database.clone(), entities: self.entities, rows: PhantomData }
    }
}

impl<W> fmt::Debug for SqlSink<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlSink").finish_non_exhaustive()
    }
}

/// A transaction waits for the disk, leaves a dead version of its lane's progress, and takes about a millisecond of the
/// server's CPU, were it for one row: a lane makes at most fifty a second.
const WRITE_INTERVAL: Duration = Duration::from_millis(20);

/// How a transaction ended that did not fail.
enum Ended {
    Applied,
    AlreadyApplied,
    Fenced(Option<Link>),
}

impl<W: HistoryRow> Sink for SqlSink<W> {
    type Write = W;
    const IN_PARTS: bool = false;

    fn write_interval(&self) -> Duration {
        WRITE_INTERVAL
    }

    async fn check(&self) -> Result<(), SinkError> {
        self.database.check().await.map(|_| ())
    }

    async fn read(&self, lane: &LaneId, homes: &[String]) -> Result<Stored, SinkError> {
        let tried = || format!("read of lane {lane}, {} states", homes.len());
        let mut lease = self.lease(&tried).await?;
        let read = match self.entities {
            _ if homes.is_empty() => ledger::read(&mut lease, lane).await,
            Some(table) => entities::read(&mut lease, table, lane, homes).await,
            None => return Err(no_states(lane)),
        };
        self.given_back(lease, read, &tried)
    }

    async fn entries(
        &self,
        lane: &LaneId,
        log: LogId,
        offsets: &[i64],
    ) -> Result<BTreeMap<i64, LedgerEntry>, SinkError> {
        let tried = || format!("read of the ledger of lane {lane}");
        let mut lease = self.lease(&tried).await?;
        let entries = ledger::entries(&mut lease, lane, log, offsets).await;
        self.given_back(lease, entries, &tried)
    }

    async fn not_taken(
        &self,
        lane: &LaneId,
        log: LogId,
        range: Range<i64>,
    ) -> Result<BTreeSet<i64>, SinkError> {
        let tried = || format!("search of the ledger of lane {lane}");
        let mut lease = self.lease(&tried).await?;
        let named = ledger::not_taken(&mut lease, lane, log, range).await;
        self.given_back(lease, named, &tried)
    }

    async fn commit(&self, unit: &UnitOfWork<W>) -> Result<Commit, SinkError> {
        let lane = &unit.lane;
        if self.entities.is_none() && !unit.entities.is_empty() {
            return Err(no_states(lane));
        }
        let tried =
            || format!("commit of lane {lane}, {} rows, {} states", unit.rows.len(), unit.entities.len());
        let mut lease = self.lease(&tried).await?;
        match transaction(&mut lease, unit, self.entities).await {
            Ok(ended) => {
                lease.give_back();
                match ended {
                    Ended::Applied => Ok(Commit::Applied),
                    Ended::AlreadyApplied => Ok(Commit::AlreadyApplied),
                    Ended::Fenced(found) => Err(SinkError::fenced(lane, unit.follows, found)),
                }
            }
            Err(failure) if failure.meaning() == Meaning::Refused => {
                drop(lease); // left in the middle of a transaction
                self.name_refused(unit, &failure).await
            }
            Err(failure) => {
                drop(lease); // left in the middle of a transaction
                if failure.is_lock_timeout() {
                    self.end_absent_writer(lane).await?;
                }
                Err(self.failed(failure, &tried))
            }
        }
    }
}

impl<W: HistoryRow> SqlSink<W> {
    pub(crate) fn new(database: Database) -> Self {
        Self { database, entities: None, rows: PhantomData }
    }

    pub(crate) fn of_fold(database: Database) -> Self
    where
        W: EntityRow,
    {
        Self { database, entities: Some(W::TABLE), rows: PhantomData }
    }

    async fn lease(&self, tried: &impl Fn() -> String) -> Result<Lease<'_>, SinkError> {
        self.database.lease().await.map_err(|failure| self.failed(failure, tried))
    }

    /// What was read, and the connection goes back if it is well.
    fn given_back<T>(
        &self,
        lease: Lease<'_>,
        read: Result<T, Failure>,
        tried: &impl Fn() -> String,
    ) -> Result<T, SinkError> {
        match read {
            Ok(read) => {
                lease.give_back();
                Ok(read)
            }
            Err(failure) => Err(self.failed(failure, tried)),
        }
    }

    fn failed(&self, failure: Failure, tried: &impl Fn() -> String) -> SinkError {
        self.database.connections().forget_idle();
        failure.into_sink_error(&tried())
    }

    /// Somebody else has the lane's lock for too long: ends it if it is away.
    async fn end_absent_writer(&self, lane: &LaneId) -> Result<(), SinkError> {
        let tried = || format!("search for who keeps lane {lane} locked");
        let mut lease = self.lease(&tried).await?;
        match ledger::end_absent_writer(&mut lease, lane).await {
            Ok(ended) => {
                lease.give_back();
                if !ended.is_empty() {
                    tracing::warn!(%lane, ?ended, "a writer that was away kept the lane locked; its server processes ended");
                }
                Ok(())
            }
            Err(failure) => Err(self.failed(failure, &tried)),
        }
    }

    /// The database refused something of the unit: finds out which of its events. Nothing is stored.
    async fn name_refused(&self, unit: &UnitOfWork<W>, first: &Failure) -> Result<Commit, SinkError> {
        let tried = || format!("search for refused rows of lane {}", unit.lane);
        let mut lease = self.lease(&tried).await?;
        let found = match refused(&mut lease, &unit.rows).await {
            Ok(found) => found,
            Err(failure) => return Err(self.failed(failure, &tried)),
        };
        lease.give_back();
        if found.is_empty() {
            // Not one of its rows: a constraint checked at the end, one on fleetlog's own tables, or a fold's row, which
            // is made so that the schema has nothing against it.
            let what = format!(
                "postgresql: the batch of lane {} was refused, but none of its rows alone: {}; look for constraints \
                 or triggers that fleetlog's migrations did not make",
                unit.lane,
                first.refusal()
            );
            return Err(SinkError::new(Fault::Permanent, what));
        }
        Ok(Commit::Refused(found))
    }
}

/// Progress first: its row's lock keeps a second writer of the lane out before it has copied anything.
async fn transaction<W: HistoryRow>(
    lease: &mut Lease<'_>,
    unit: &UnitOfWork<W>,
    states: Option<&'static Table>,
) -> Result<Ended, Failure> {
    lease.begin().await?;
    fail::fail_point!("sql.begun");
    if !ledger::move_chain(lease, unit).await? {
        return stopped(lease, unit).await;
    }
    fail::fail_point!("sql.progress");
    copy_all(lease, &in_index_order(&unit.rows)).await?;
    if let (Some(table), false) = (states, unit.entities.is_empty()) {
        entities::store(lease, table, &unit.entities).await?;
    }
    fail::fail_point!("sql.rows");
    ledger::enter(lease, unit).await?;
    ledger::change(lease, unit).await?;
    // A lost answer leaves the outcome open. The retry finds it out: the stored link is `leaves`, or it is `follows`.
    lease.run("COMMIT").await?;
    fail::fail_point!("sql.committed");
    Ok(Ended::Applied)
}

/// The chain did not take the unit: because it did before, or because it belongs to somebody else.
async fn stopped<W>(lease: &mut Lease<'_>, unit: &UnitOfWork<W>) -> Result<Ended, Failure> {
    let found = ledger::stored_link(lease, &unit.lane).await?;
    lease.run("ROLLBACK").await?;
    match judge(found, unit.follows, unit.leaves) {
        Verdict::AlreadyApplied => Ok(Ended::AlreadyApplied),
        // `Apply` here means that the link changed between the two statements, so another writer is at work.
        Verdict::Apply | Verdict::Fenced => Ok(Ended::Fenced(found)),
    }
}

fn no_states(lane: &LaneId) -> SinkError {
    SinkError::new(
        Fault::Permanent,
        format!(
            "lane {lane}: this sink takes rows of history, no states of a fold; open it with `fold_sink`"
        ),
    )
}
