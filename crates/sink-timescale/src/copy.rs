//! Rows into tables by binary COPY.

use fleetlog_projection::{CopyEncoder, HistoryRow, RowChange, Table};

use crate::{connections::Lease, fault::Failure};

/// Rows of one COPY. Measured: more gains nothing, fewer cost (DESIGN, numbers to live by).
pub(crate) const CHUNK_ROWS_MAX: usize = 20_000;
/// Bytes of one COPY, for rows with large payloads; the last row may go beyond.
pub(crate) const CHUNK_BYTES_MAX: usize = 4 << 20;
/// Bytes handed to the connection at a time: it copies them into a buffer of its own.
const SEND_BYTES: usize = 256 << 10;

/// The rows by table, and in each table in the order of its main index: sorted rows go into a btree twice as fast.
/// Rows of equal key keep the order of the log.
#[must_use]
pub fn in_index_order<W: HistoryRow>(rows: &[RowChange<W>]) -> Vec<&RowChange<W>> {
    let mut sorted: Vec<_> = rows.iter().collect();
    sorted.sort_by(|a, b| {
        (a.write.table().name, a.write.sort_key()).cmp(&(b.write.table().name, b.write.sort_key()))
    });
    sorted
}

/// One COPY of the first rows, those of one table up to the bounds, and how many these are. `rows` is not empty.
#[must_use]
pub fn encode_chunk<W: HistoryRow>(rows: &[&RowChange<W>]) -> (usize, Vec<u8>) {
    let table = rows[0].write.table();
    let mut encoder = CopyEncoder::new();
    let mut taken = 0;
    for row in rows.iter().take(CHUNK_ROWS_MAX) {
        if row.write.table() != table || encoder.len_bytes() > CHUNK_BYTES_MAX {
            break;
        }
        encoder.row(&row.write);
        taken += 1;
    }
    (taken, encoder.finish())
}

/// Copies all rows, sorted by [`in_index_order`].
pub(crate) async fn copy_all<W: HistoryRow>(
    lease: &mut Lease<'_>,
    mut rows: &[&RowChange<W>],
) -> Result<(), Failure> {
    while let Some(first) = rows.first() {
        let (taken, bytes) = encode_chunk(rows);
        copy(lease, first.write.table(), &bytes).await?;
        rows = &rows[taken..];
    }
    Ok(())
}

/// One COPY. When the server refuses, the connection is in step again: the error's end was read.
pub(crate) async fn copy(lease: &mut Lease<'_>, table: &Table, bytes: &[u8]) -> Result<(), Failure> {
    let columns: Vec<&str> = table.columns.iter().map(|column| column.name).collect();
    copy_into(lease, table.name, &columns, bytes).await
}

/// One COPY into these columns of a table.
pub(crate) async fn copy_into(
    lease: &mut Lease<'_>,
    table: &str,
    columns: &[&str],
    bytes: &[u8],
) -> Result<(), Failure> {
    let statement = format!("COPY \"{table}\" (\"{}\") FROM STDIN (FORMAT binary)", columns.join("\", \""));
    let home = lease.home();
    let connection = lease.connection();
    home.bounded(async {
        let mut copy = connection.copy_in_raw(&statement).await?;
        for part in bytes.chunks(SEND_BYTES) {
            copy.send(part).await?;
        }
        copy.finish().await
    })
    .await
    .map(|_| ())
}
