//! Which rows the database refuses, found by halving.
//!
//! Runs in a transaction that is rolled back at its end. Good halves stay in it meanwhile, so that rows which are
//! refused only beside each other (a unique index) are found too: the later one of them, in index order.

use fleetlog_projection::{HistoryRow, RefusedAt, RowChange};

use crate::{
    connections::Lease,
    copy::{copy, encode_chunk, in_index_order},
    fault::{Failure, Meaning},
};

/// The refused events, by offset, each once; empty if every row went in when tried alone.
///
/// For `n` rows with `k` bad ones: about `k log2(n)` COPYs.
pub(crate) async fn refused<W: HistoryRow>(
    lease: &mut Lease<'_>,
    rows: &[RowChange<W>],
) -> Result<Vec<RefusedAt>, Failure> {
    let sorted = in_index_order(rows);
    let mut found = Vec::new();
    lease.begin().await?;
    let mut rest = &sorted[..];
    while !rest.is_empty() {
        let (taken, _) = encode_chunk(rest);
        let (chunk, after) = rest.split_at(taken);
        halve(lease, chunk, &mut found).await?;
        rest = after;
    }
    lease.run("ROLLBACK").await?;
    found.sort_by_key(|refused| refused.offset);
    found.dedup_by_key(|refused| refused.offset);
    Ok(found)
}

/// Rows of one table that fit into one COPY.
async fn halve<W: HistoryRow>(
    lease: &mut Lease<'_>,
    chunk: &[&RowChange<W>],
    found: &mut Vec<RefusedAt>,
) -> Result<(), Failure> {
    let mut open = vec![chunk];
    while let Some(rows) = open.pop() {
        let Some(failure) = try_rows(lease, rows).await? else { continue };
        match rows {
            [] => {}
            [one] => found.push(RefusedAt { offset: one.offset, detail: failure.refusal() }),
            _ => {
                let (left, right) = rows.split_at(rows.len() / 2);
                open.push(right);
                open.push(left);
            }
        }
    }
    Ok(())
}

/// None if the rows went in; the refusal if the database does not want (some of) them.
async fn try_rows<W: HistoryRow>(
    lease: &mut Lease<'_>,
    rows: &[&RowChange<W>],
) -> Result<Option<Failure>, Failure> {
    let Some(first) = rows.first() else { return Ok(None) };
    let (taken, bytes) = encode_chunk(rows);
    debug_assert_eq!(taken, rows.len(), "parts of a chunk fit into a chunk");
    lease.run("SAVEPOINT part").await?;
    match copy(lease, first.write.table(), &bytes).await {
        Ok(()) => {
            lease.run("RELEASE SAVEPOINT part").await?;
            Ok(None)
        }
        Err(failure) if failure.meaning() == Meaning::Refused => {
            lease.run("ROLLBACK TO SAVEPOINT part").await?;
            Ok(Some(failure))
        }
        Err(failure) => Err(failure),
    }
}
