//! The progress row and the ledger of set-asides.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use fleetlog_event::{LogId, Reason, Reject, TimestampMs};
use fleetlog_projection::{
    EntryChange, EntryState, LaneId, LastRecord, LedgerEntry, Link, Progress, SetAside, Stored, UnitOfWork,
};
use sqlx::{Row, postgres::PgRow};

use crate::{
    connections::Lease,
    fault::{BUG, Failure},
};

/// Of a lane's link, progress and ledger, all at one moment.
const READ: &str = "
    SELECT p.link, p.log, p.main, p.inbox, p.last_offset, p.last_hash,
           ARRAY(SELECT s.log_offset FROM fleetlog_set_aside s
                 WHERE s.projection = p.projection AND s.version = p.version AND s.topic = p.topic
                   AND s.partition = p.partition AND s.log = p.log AND s.log_offset >= p.main
                 ORDER BY s.log_offset) AS named
    FROM fleetlog_progress p
    WHERE p.projection = $1 AND p.version = $2 AND p.topic = $3 AND p.partition = $4";

/// The row's lock makes writers of one lane wait for each other; then the link decides.
const MOVE: &str = "
    UPDATE fleetlog_progress
    SET link = $5, log = $6, main = $7, inbox = $8, last_offset = $9, last_hash = $10, written_at = now()
    WHERE projection = $1 AND version = $2 AND topic = $3 AND partition = $4 AND link = $11";

/// Before a lane's first row is there: writers wait for each other here, since nobody sees a row that is not committed.
const WAIT_FOR_FIRST: &str = "SELECT pg_advisory_xact_lock(hashtextextended($1 || '@' || $2::text || ':' || $3 || ':' || $4::text, 0))";

const FIRST: &str = "
    INSERT INTO fleetlog_progress
        (projection, version, topic, partition, link, log, main, inbox, last_offset, last_hash)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
    ON CONFLICT DO NOTHING";

/// An entry that is there stays as it is: a late write must not open a closed one again.
const SET_ASIDE: &str = "
    INSERT INTO fleetlog_set_aside
        (projection, version, topic, partition, log, log_offset, reason, detail, event_type, record_key,
         recorded_at, made_at)
    SELECT $1, $2, $3, $4, $5, e.log_offset, e.reason, e.detail, e.event_type, e.record_key,
           fleetlog_time(e.recorded_ms), fleetlog_time($6)
    FROM unnest($7::bigint[], $8::text[], $9::text[], $10::text[], $11::bytea[], $12::bigint[])
         AS e (log_offset, reason, detail, event_type, record_key, recorded_ms)
    ON CONFLICT DO NOTHING";

/// What a command changes of an entry; when and of which record it was made stays.
const CHANGE: &str = "
    UPDATE fleetlog_set_aside s
    SET status = e.status, reason = e.reason, detail = e.detail, event_type = e.event_type, replays = e.replays,
        changed_at = fleetlog_time($6)
    FROM unnest($7::bigint[], $8::text[], $9::text[], $10::text[], $11::text[], $12::integer[])
         AS e (log_offset, status, reason, detail, event_type, replays)
    WHERE s.projection = $1 AND s.version = $2 AND s.topic = $3 AND s.partition = $4 AND s.log = $5
      AND s.log_offset = e.log_offset";

const ENTRIES: &str = "
    SELECT log_offset, status, reason, detail, event_type, record_key, round(extract(epoch FROM made_at) * 1000)::bigint AS made_at,
           replays, round(extract(epoch FROM changed_at) * 1000)::bigint AS changed_at
    FROM fleetlog_set_aside
    WHERE projection = $1 AND version = $2 AND topic = $3 AND partition = $4 AND log = $5 AND log_offset = ANY($6)";

const NOT_TAKEN: &str = "
    SELECT log_offset
    FROM fleetlog_set_aside
    WHERE projection = $1 AND version = $2 AND topic = $3 AND partition = $4 AND log = $5
      AND log_offset >= $6 AND log_offset < $7 AND status <> 'redriven'";

/// Entries of one statement.
const ENTRIES_MAX: usize = 5_000;

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// A version is a small count; PostgreSQL has no unsigned type.
fn version(lane: &LaneId) -> i32 {
    i32::try_from(lane.version).unwrap_or(i32::MAX)
}

fn for_lane<'q>(sql: &'q str, lane: &'q LaneId) -> Query<'q> {
    sqlx::query(sql).bind(&lane.projection).bind(version(lane)).bind(&lane.topic).bind(lane.partition)
}

/// Reads what is stored for a lane.
pub(crate) async fn read(lease: &mut Lease<'_>, lane: &LaneId) -> Result<Stored, Failure> {
    let home = lease.home();
    let row = home.bounded(for_lane(READ, lane).fetch_optional(lease.connection())).await?;
    match row {
        None => Ok(Stored::default()),
        Some(row) => Ok(stored(&row)?),
    }
}

fn stored(row: &PgRow) -> Result<Stored, sqlx::Error> {
    let last =
        match (row.try_get::<Option<i64>, _>("last_offset")?, row.try_get::<Option<i64>, _>("last_hash")?) {
            (Some(offset), Some(hash)) => Some(LastRecord { offset, hash: hash.cast_unsigned() }),
            _ => None,
        };
    let progress = Progress {
        log: LogId(row.try_get("log")?),
        main: row.try_get("main")?,
        inbox: row.try_get("inbox")?,
        last,
    };
    let link = link_of(row.try_get("link")?)?;
    Ok(Stored {
        link: Some(link),
        progress: Some(progress),
        named: row.try_get("named")?,
        states: Vec::new(),
    })
}

fn link_of(text: &str) -> Result<Link, sqlx::Error> {
    text.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// Moves the chain, if the stored link is the one that the unit follows. True: it did, and the row is locked until the
/// transaction ends. False: [`stored_link`] says why not.
pub(crate) async fn move_chain<W>(lease: &mut Lease<'_>, unit: &UnitOfWork<W>) -> Result<bool, Failure> {
    let home = lease.home();
    if unit.follows.is_none() {
        home.bounded(for_lane(WAIT_FOR_FIRST, &unit.lane).execute(lease.connection())).await?;
    }
    let sql = if unit.follows.is_some() { MOVE } else { FIRST };
    let Progress { log, main, inbox, last } = unit.progress;
    let mut query = for_lane(sql, &unit.lane)
        .bind(unit.leaves.to_string())
        .bind(log.0)
        .bind(main)
        .bind(inbox)
        .bind(last.map(|last| last.offset))
        .bind(last.map(|last| last.hash.cast_signed()));
    if let Some(follows) = unit.follows {
        query = query.bind(follows.to_string());
    }
    let done = home.bounded(query.execute(lease.connection())).await?;
    Ok(done.rows_affected() == 1)
}

/// Ends the transaction that keeps a lane's progress row, or the place of its first one, locked if its server process only waits for its client.
///
/// Its host is gone, its way is cut, or it is paused: in the middle of a COPY neither the statement's time limit nor that
/// of idle transactions ends such a wait, only TCP does, after two hours. The lane has another writer by now, and the chain
/// makes it harmless to end a writer at any moment. Says which server processes were ended.
pub(crate) async fn end_absent_writer(lease: &mut Lease<'_>, lane: &LaneId) -> Result<Vec<i32>, Failure> {
    // `xmax` of a row that is being updated is the transaction that does; it holds the lock of its own number. Found out
    // first and ended then: as one more condition it might be evaluated before the others.
    const END: &str = "
        WITH holder AS MATERIALIZED (
            SELECT l.pid
            FROM fleetlog_progress p
            JOIN pg_locks l ON l.locktype = 'transactionid' AND l.granted AND l.transactionid = p.xmax
            WHERE p.projection = $1 AND p.version = $2 AND p.topic = $3 AND p.partition = $4
            UNION
            SELECT l.pid
            FROM pg_locks l
            WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
              AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
              AND (l.classid::bigint << 32) | l.objid::bigint
                  = hashtextextended($1 || '@' || $2::text || ':' || $3 || ':' || $4::text, 0)),
        absent AS MATERIALIZED (
            SELECT h.pid
            FROM holder h
            JOIN pg_stat_activity a ON a.pid = h.pid
            WHERE a.wait_event_type = 'Client' AND h.pid <> pg_backend_pid()
              AND a.state_change < clock_timestamp() - $5 * interval '1 millisecond')
        SELECT pid FROM absent WHERE pg_terminate_backend(pid)";
    let home = lease.home();
    let query = for_lane(END, lane).bind(home.lock_timeout_ms());
    let rows = home.bounded(query.fetch_all(lease.connection())).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// The link as it stands now.
pub(crate) async fn stored_link(lease: &mut Lease<'_>, lane: &LaneId) -> Result<Option<Link>, Failure> {
    Ok(read(lease, lane).await?.link)
}

/// Enters set-asides.
pub(crate) async fn enter<W>(lease: &mut Lease<'_>, unit: &UnitOfWork<W>) -> Result<(), Failure> {
    let home = lease.home();
    for entries in unit.set_aside.chunks(ENTRIES_MAX) {
        let column = |of: fn(&SetAside) -> &str| entries.iter().map(|e| storable(of(e))).collect::<Vec<_>>();
        let query = for_lane(SET_ASIDE, &unit.lane)
            .bind(unit.progress.log.0)
            .bind(unit.made_at.0)
            .bind(entries.iter().map(|e| e.record.offset).collect::<Vec<_>>())
            .bind(entries.iter().map(|e| e.reject.reason.as_str()).collect::<Vec<_>>())
            .bind(column(|e| &e.reject.detail))
            .bind(entries.iter().map(|e| e.event_type.as_deref().map(storable)).collect::<Vec<_>>())
            .bind(entries.iter().map(|e| e.record.key.as_deref()).collect::<Vec<_>>())
            .bind(entries.iter().map(|e| e.record.timestamp.0).collect::<Vec<_>>());
        home.bounded(query.execute(lease.connection())).await?;
    }
    Ok(())
}

/// Changes entries, which are there.
pub(crate) async fn change<W>(lease: &mut Lease<'_>, unit: &UnitOfWork<W>) -> Result<(), Failure> {
    let home = lease.home();
    for entries in unit.entries.chunks(ENTRIES_MAX) {
        let column =
            |of: fn(&EntryChange) -> &str| entries.iter().map(|e| storable(of(e))).collect::<Vec<_>>();
        let replays = |e: &EntryChange| i32::try_from(e.entry.replays).unwrap_or(i32::MAX);
        let query = for_lane(CHANGE, &unit.lane)
            .bind(unit.progress.log.0)
            .bind(unit.made_at.0)
            .bind(entries.iter().map(|e| e.offset).collect::<Vec<_>>())
            .bind(column(|e| e.entry.state.as_str()))
            .bind(column(|e| e.entry.reject.reason.as_str()))
            .bind(column(|e| &e.entry.reject.detail))
            .bind(entries.iter().map(|e| e.entry.event_type.as_deref().map(storable)).collect::<Vec<_>>())
            .bind(entries.iter().map(replays).collect::<Vec<_>>());
        let done = home.bounded(query.execute(lease.connection())).await?;
        if done.rows_affected() != entries.len() as u64 {
            let what = format!("lane {}: {} of {} entries", unit.lane, done.rows_affected(), entries.len());
            return Err(Failure::States { what: format!("{what} to be changed are there"), remedy: BUG });
        }
    }
    Ok(())
}

/// The entries of these offsets.
pub(crate) async fn entries(
    lease: &mut Lease<'_>,
    lane: &LaneId,
    log: LogId,
    offsets: &[i64],
) -> Result<BTreeMap<i64, LedgerEntry>, Failure> {
    let home = lease.home();
    let query = for_lane(ENTRIES, lane).bind(log.0).bind(offsets);
    let rows = home.bounded(query.fetch_all(lease.connection())).await?;
    Ok(rows.iter().map(entry).collect::<Result<_, _>>()?)
}

fn entry(row: &PgRow) -> Result<(i64, LedgerEntry), sqlx::Error> {
    let unknown = |what: String| sqlx::Error::Decode(format!("{what}: of a newer fleetlog?").into());
    let (status, reason): (String, String) = (row.try_get("status")?, row.try_get("reason")?);
    let key: Option<Vec<u8>> = row.try_get("record_key")?;
    let entry = LedgerEntry {
        reject: Reject::new(
            Reason::parse(&reason).ok_or_else(|| unknown(format!("reason `{reason}`")))?,
            row.try_get::<String, _>("detail")?,
        ),
        event_type: row.try_get("event_type")?,
        key: key.map(|key| String::from_utf8_lossy(&key).into_owned()),
        made_at: TimestampMs(row.try_get("made_at")?),
        state: EntryState::parse(&status).ok_or_else(|| unknown(format!("status `{status}`")))?,
        replays: row.try_get::<i32, _>("replays")?.cast_unsigned(),
        changed_at: row.try_get::<Option<i64>, _>("changed_at")?.map(TimestampMs),
    };
    Ok((row.try_get("log_offset")?, entry))
}

/// The offsets in a range that the ledger names and that were not taken later on.
pub(crate) async fn not_taken(
    lease: &mut Lease<'_>,
    lane: &LaneId,
    log: LogId,
    range: Range<i64>,
) -> Result<BTreeSet<i64>, Failure> {
    let home = lease.home();
    let query = for_lane(NOT_TAKEN, lane).bind(log.0).bind(range.start).bind(range.end);
    let rows = home.bounded(query.fetch_all(lease.connection())).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// PostgreSQL holds no NUL in text, and a detail may quote the very value that was refused for it.
fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{2400}").into() } else { text.into() }
}
