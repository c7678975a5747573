//! Rows of history, encoded straight into PostgreSQL's binary COPY format.
//!
//! Format: <https://www.postgresql.org/docs/current/sql-copy.html>, "Binary Format".

use fleetlog_event::{EventId, TimestampMs};

use crate::Version;

/// A table that rows are copied into.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its columns, in the order in which [`HistoryRow::encode`] writes them.
    pub columns: &'static [Column],
}

/// A column: its name and PostgreSQL type, as in the migration.
#[derive(Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its type, as `format_type` prints it, such as `timestamp with time zone`.
    pub sql_type: &'static str,
}

/// A row of history: one event of the log.
pub trait HistoryRow: Send + Sync + 'static {
    /// The table it belongs to.
    fn table(&self) -> &'static Table;
    /// Writes its columns, in the table's order.
    fn encode(&self, out: &mut CopyEncoder);
    /// Rows of a batch go in by this order: that of the table's main index.
    fn sort_key(&self) -> (&str, i64);
}

/// A row of a fold in SQL: one per entity, put in the place of the one before. The entity's exact state and its version
/// stand in the same row, in [`FOLD_COLUMNS`].
pub trait EntityRow: HistoryRow {
    /// The table of all rows of this type. Its first column is its primary key, of type `text`, and holds the entity's
    /// home.
    const TABLE: &'static Table;
}

/// A row of a record as it lies on the log, whatever it is. Columns `topic`, `log`, `log_partition` and `log_offset` say where
/// that is.
pub trait PlacedRow: HistoryRow {
    /// The table of all rows of this type.
    const TABLE: &'static Table;
}

/// The columns behind those of an [`EntityRow`]'s table: log, partition, next and revision of the entity's version, and
/// its state.
pub const FOLD_COLUMNS: [Column; 5] = [
    Column { name: "fold_log", sql_type: "uuid" },
    Column { name: "fold_partition", sql_type: "integer" },
    Column { name: "fold_next", sql_type: "bigint" },
    Column { name: "fold_revision", sql_type: "integer" },
    Column { name: "fold_state", sql_type: "text" },
];

/// Collects rows in the binary COPY format.
#[derive(Debug)]
pub struct CopyEncoder {
    buffer: Vec<u8>,
    open_field_count_at: usize,
    fields: u16,
}

/// Milliseconds from 1970-01-01 to 2000-01-01, PostgreSQL's epoch.
const POSTGRES_EPOCH_MS: i64 = 946_684_800_000;

impl Default for CopyEncoder {
    fn default() -> Self {
        Self::new()
    }
}

impl CopyEncoder {
    /// An empty COPY stream with its header.
    #[must_use]
    pub fn new() -> Self {
        let mut buffer = Vec::with_capacity(4096);
        buffer.extend_from_slice(b"PGCOPY\n\xff\r\n\0");
        buffer.extend_from_slice(&[0; 8]); // flags, length of header extension
        Self { buffer, open_field_count_at: 0, fields: 0 }
    }

    /// Adds a row.
    pub fn row(&mut self, row: &impl HistoryRow) {
        self.open(row);
        self.close();
    }

    /// Adds a row of an entity, with [`FOLD_COLUMNS`].
    pub fn entity(&mut self, row: &impl HistoryRow, version: &Version, state: &[u8]) {
        self.open(row);
        self.bytes(version.log.0.as_bytes());
        self.int4(version.partition);
        self.int8(version.next);
        // A small count; PostgreSQL has no unsigned type.
        self.int4(i32::try_from(version.revision).unwrap_or(i32::MAX));
        self.bytes(state);
        self.close();
    }

    fn open(&mut self, row: &impl HistoryRow) {
        self.open_field_count_at = self.buffer.len();
        self.fields = 0;
        self.buffer.extend_from_slice(&[0; 2]);
        row.encode(self);
        debug_assert_eq!(
            usize::from(self.fields),
            row.table().columns.len(),
            "columns of {}",
            row.table().name
        );
    }

    fn close(&mut self) {
        let count = self.fields.to_be_bytes();
        self.buffer[self.open_field_count_at..self.open_field_count_at + 2].copy_from_slice(&count);
    }

    /// The stream so far, without its trailer; [`Self::finish`] ends it.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The whole stream with its trailer.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.buffer.extend_from_slice(&(-1_i16).to_be_bytes());
        self.buffer
    }

    fn bytes(&mut self, value: &[u8]) {
        self.fields += 1;
        // A value is at most a Kafka message (megabytes), so its length fits.
        self.buffer.extend_from_slice(&i32::try_from(value.len()).unwrap_or(i32::MAX).to_be_bytes());
        self.buffer.extend_from_slice(value);
    }

    /// NULL.
    pub fn null(&mut self) {
        self.fields += 1;
        self.buffer.extend_from_slice(&(-1_i32).to_be_bytes());
    }

    fn maybe<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            Some(value) => write(self, value),
            None => self.null(),
        }
    }

    /// `text`
    pub fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    /// `text`, may be NULL
    pub fn maybe_text(&mut self, value: Option<&str>) {
        self.maybe(value, Self::text);
    }

    /// `integer`
    pub fn int4(&mut self, value: i32) {
        self.bytes(&value.to_be_bytes());
    }

    /// `bigint`
    pub fn int8(&mut self, value: i64) {
        self.bytes(&value.to_be_bytes());
    }

    /// `bigint`, may be NULL
    pub fn maybe_int8(&mut self, value: Option<i64>) {
        self.maybe(value, Self::int8);
    }

    /// `bytea`, may be NULL
    pub fn maybe_bytea(&mut self, value: Option<&[u8]>) {
        self.maybe(value, Self::bytes);
    }

    /// `double precision`, may be NULL
    pub fn maybe_float8(&mut self, value: Option<f64>) {
        self.maybe(value, |out, value| out.bytes(&value.to_be_bytes()));
    }

    /// `boolean`, may be NULL
    pub fn maybe_bool(&mut self, value: Option<bool>) {
        self.maybe(value, |out, value| out.bytes(&[u8::from(value)]));
    }

    /// `timestamp with time zone`, may be NULL
    pub fn maybe_timestamptz(&mut self, value: Option<TimestampMs>) {
        self.maybe(value, Self::timestamptz);
    }

    /// `timestamp with time zone`; times that PostgreSQL cannot hold become its nearest (±infinity).
    pub fn timestamptz(&mut self, value: TimestampMs) {
        self.bytes(&postgres_micros(value).to_be_bytes());
    }

    /// `uuid`
    pub fn uuid(&mut self, value: EventId) {
        self.bytes(value.0.as_bytes());
    }

    /// `uuid`, may be NULL
    pub fn maybe_uuid(&mut self, value: Option<EventId>) {
        self.maybe(value, Self::uuid);
    }

    /// `jsonb`, from JSON text
    pub fn jsonb(&mut self, json: &str) {
        self.fields += 1;
        self.buffer.extend_from_slice(&i32::try_from(json.len() + 1).unwrap_or(i32::MAX).to_be_bytes());
        self.buffer.push(1); // version of the jsonb wire format
        self.buffer.extend_from_slice(json.as_bytes());
    }

    /// `jsonb`, may be NULL
    pub fn maybe_jsonb(&mut self, json: Option<&str>) {
        self.maybe(json, Self::jsonb);
    }
}

/// Microseconds since PostgreSQL's epoch. PostgreSQL holds 4713 BC to 294276 AD; beyond is ±infinity.
fn postgres_micros(value: TimestampMs) -> i64 {
    const FIRST: i64 = -211_813_488_000_000_000;
    const END: i64 = 9_223_371_331_200_000_000;
    match value.0.checked_sub(POSTGRES_EPOCH_MS).and_then(|ms| ms.checked_mul(1000)) {
        Some(micros) if micros < FIRST => i64::MIN,
        Some(micros) if micros < END => micros,
        Some(_) => i64::MAX,
        None if value.0 < 0 => i64::MIN,
        None => i64::MAX,
    }
}
