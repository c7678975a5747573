//! A row as bytes that Rust and SQL make alike, and its hash.
//!
//! The form of a column is what PostgreSQL's own `…send` functions give (the binary form that a projector's row
//! already has), but for `jsonb`: there it is the text form, which [`jsonb_text`] makes as PostgreSQL does.

use fleetlog_projection::{Column, CopyEncoder, HistoryRow, Table};
use md5::{Digest, Md5};
use serde_json::Value;

use crate::VerifyError;

/// The columns of a row, each in its form; none is NULL.
pub(crate) type Fields = Vec<Option<Vec<u8>>>;

/// Bytes before the first row of a binary COPY stream: signature, flags, length of an empty extension.
const COPY_HEADER_BYTES: usize = 19;

/// The columns of a row as its projector writes them.
pub(crate) fn fields(row: &impl HistoryRow) -> Result<Fields, VerifyError> {
    let mut encoder = CopyEncoder::new();
    encoder.row(row);
    let stream = encoder.finish();
    let table = row.table();
    let malformed =
        || VerifyError::Malformed(format!("a row of `{}` has not the form of binary COPY", table.name));
    let (count, mut rest) =
        stream.get(COPY_HEADER_BYTES..).and_then(<[u8]>::split_first_chunk::<2>).ok_or_else(malformed)?;
    if usize::try_from(i16::from_be_bytes(*count)).ok() != Some(table.columns.len()) {
        return Err(malformed());
    }
    let mut fields = Vec::with_capacity(table.columns.len());
    for column in table.columns {
        let (length, tail) = rest.split_first_chunk::<4>().ok_or_else(malformed)?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            rest = tail;
            fields.push(None);
            continue;
        };
        let (bytes, tail) = tail.split_at_checked(length).ok_or_else(malformed)?;
        rest = tail;
        fields.push(Some(if column.sql_type == "jsonb" {
            // The first byte is the version of jsonb's wire form.
            jsonb_text(bytes.get(1..).unwrap_or_default()).ok_or_else(malformed)?.into_bytes()
        } else {
            bytes.to_vec()
        }));
    }
    Ok(fields)
}

/// The hash of a row: 60 bits of the MD5 over what PostgreSQL's `record_send` gives for it, which is the number of
/// columns, and for each column the oid of its type, the length of its form (-1 for NULL) and the form.
pub(crate) fn hash(table: &Table, fields: &Fields) -> Result<i64, VerifyError> {
    let mut digest = Md5::new();
    digest.update(length(fields.len()));
    for (column, field) in table.columns.iter().zip(fields) {
        digest.update(sql_type(column)?.oid.to_be_bytes());
        match field {
            None => digest.update((-1_i32).to_be_bytes()),
            Some(bytes) => {
                digest.update(length(bytes.len()));
                digest.update(bytes);
            }
        }
    }
    let digest: [u8; 16] = digest.finalize().into();
    let head = digest[..8].iter().fold(0_u64, |bits, &byte| (bits << 8) | u64::from(byte));
    Ok((head >> 4).cast_signed())
}

/// A length on the wire; a value is at most a Kafka message (megabytes), so it fits.
fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

/// What has to be known of a column's type.
struct SqlType {
    /// The function that gives its binary form.
    send: &'static str,
    /// The oid that `record_send` names, from `pg_type`.
    oid: u32,
}

fn sql_type(column: &Column) -> Result<SqlType, VerifyError> {
    let (send, oid) = match column.sql_type {
        "text" => ("textsend", 25),
        "integer" => ("int4send", 23),
        "bigint" => ("int8send", 20),
        "double precision" => ("float8send", 701),
        "boolean" => ("boolsend", 16),
        "uuid" => ("uuid_send", 2950),
        "bytea" => ("byteasend", 17),
        "timestamp with time zone" => ("timestamptz_send", 1184),
        // Compared by its text form.
        "jsonb" => ("textsend", 25),
        other => {
            let name = column.name;
            return Err(VerifyError::Malformed(format!(
                "column `{name}`: type `{other}` cannot be compared yet"
            )));
        }
    };
    Ok(SqlType { send, oid })
}

/// The SQL expression of a column as it is compared.
fn sql_value(column: &Column) -> String {
    let cast = if column.sql_type == "jsonb" { "::text" } else { "" };
    format!("\"{}\"{cast}", column.name)
}

/// The SQL expressions of the forms of all columns of a table.
pub(crate) fn sql_forms(table: &Table) -> Result<Vec<String>, VerifyError> {
    let form = |column: &Column| Ok(format!("{}({})", sql_type(column)?.send, sql_value(column)));
    table.columns.iter().map(form).collect()
}

/// The SQL expression of [`hash`].
pub(crate) fn sql_hash(table: &Table) -> String {
    let values: Vec<String> = table.columns.iter().map(sql_value).collect();
    format!("('x' || substr(md5(record_send(ROW({}))), 1, 15))::bit(60)::bigint", values.join(", "))
}

/// Microseconds from 1970 to 2000, where PostgreSQL begins to count.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// PostgreSQL's form of a time as RFC 3339, in milliseconds unless there is more to tell; beyond the years -9999 to 9999 its number.
fn time_text(micros: i64) -> String {
    match micros {
        i64::MIN => return "-infinity".to_owned(),
        i64::MAX => return "infinity".to_owned(),
        _ => {}
    }
    let time = micros.checked_add(POSTGRES_EPOCH_MICROS).map(jiff::Timestamp::from_microsecond);
    match time {
        Some(Ok(time)) if micros % 1000 == 0 => format!("{time:.3}"),
        Some(Ok(time)) => format!("{time:.6}"),
        _ => format!("2000-01-01 + {micros} µs"),
    }
}

/// A column's form for people; none is NULL.
pub(crate) fn value(sql_type: &str, form: Option<&[u8]>) -> Option<String> {
    form.is_some().then(|| show(sql_type, form))
}

/// A column's form for people.
fn show(sql_type: &str, form: Option<&[u8]>) -> String {
    let Some(bytes) = form else { return "NULL".to_owned() };
    let number = || bytes.try_into().map(i64::from_be_bytes);
    let shown = match sql_type {
        "text" | "jsonb" => Some(String::from_utf8_lossy(bytes).into_owned()),
        "integer" => bytes.try_into().map(|bytes| i32::from_be_bytes(bytes).to_string()).ok(),
        "bigint" => number().map(|number| number.to_string()).ok(),
        "double precision" => bytes.try_into().map(|bytes| f64::from_be_bytes(bytes).to_string()).ok(),
        "boolean" => Some((bytes == [1]).to_string()),
        "uuid" => uuid::Uuid::from_slice(bytes).map(|uuid| uuid.to_string()).ok(),
        "timestamp with time zone" => number().map(time_text).ok(),
        _ => None,
    };
    shown.unwrap_or_else(|| format!("{bytes:02x?}"))
}

/// A row for people: the columns that are not NULL.
pub(crate) fn shown(table: &Table, row: &Fields) -> String {
    let columns = table.columns.iter().zip(row).filter(|(_, form)| form.is_some());
    let texts: Vec<String> = columns
        .map(|(column, form)| format!("{} = {}", column.name, show(column.sql_type, form.as_deref())))
        .collect();
    texts.join(", ")
}

/// The columns in which two rows differ.
pub(crate) fn difference(table: &Table, expected: &Fields, found: &Fields) -> String {
    let columns = table.columns.iter().zip(expected.iter().zip(found)).filter(|(_, (e, f))| e != f);
    let texts: Vec<String> = columns
        .map(|(column, (e, f))| {
            let show = |form: &Option<Vec<u8>>| show(column.sql_type, form.as_deref());
            format!("{} is {}, the log says {}", column.name, show(f), show(e))
        })
        .collect();
    texts.join("; ")
}

/// JSON as PostgreSQL prints a `jsonb`: keys by length and then by bytes, `, ` and `: `, numbers without exponent.
pub(crate) fn jsonb_text(json: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(json).ok()?;
    let mut text = String::with_capacity(json.len() + 16);
    write_jsonb(&value, &mut text);
    Some(text)
}

fn write_jsonb(value: &Value, out: &mut String) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by(|a, b| (a.0.len(), a.0.as_bytes()).cmp(&(b.0.len(), b.0.as_bytes())));
            out.push('{');
            for (index, (name, value)) in members.into_iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                out.push_str(&Value::String(name.clone()).to_string());
                out.push_str(": ");
                write_jsonb(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                write_jsonb(item, out);
            }
            out.push(']');
        }
        Value::Number(number) => out.push_str(&plain_decimal(&number.to_string())),
        other => out.push_str(&other.to_string()),
    }
}

/// A JSON number as `numeric` prints it: `1.5e-7` is `0.00000015`, `1e3` is `1000`, `-0.0` is `0.0`.
fn plain_decimal(number: &str) -> String {
    let (sign, digits) = number.strip_prefix('-').map_or(("", number), |digits| ("-", digits));
    let (mantissa, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
    let exponent: i64 = exponent.parse().unwrap_or(0);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
    // Where the point stands among all digits, and how many digits follow it.
    let point = i64::try_from(whole.len()).unwrap_or(0) + exponent;
    let scale = (i64::try_from(fraction.len()).unwrap_or(0) - exponent).max(0);
    let digit =
        |index: i64| usize::try_from(index).ok().and_then(|i| all.get(i)).map_or('0', |&b| char::from(b));
    let mut whole: String = (0..point.max(0)).map(digit).collect();
    whole = whole.trim_start_matches('0').to_owned();
    if whole.is_empty() {
        whole.push('0');
    }
    let fraction: String = (point..point + scale).map(digit).collect();
    let is_zero = whole == "0" && fraction.bytes().all(|byte| byte == b'0');
    let sign = if is_zero { "" } else { sign };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_printed_as_numeric_prints_them() {
        for (number, expected) in [
            ("0", "0"),
            ("-0.0", "0.0"),
            ("12", "12"),
            ("1.5", "1.5"),
            ("-1.5e-7", "-0.00000015"),
            ("1e21", "1000000000000000000000"),
            ("1.25e1", "12.5"),
            ("1.5e3", "1500"),
            ("1e-7", "0.0000001"),
        ] {
            assert_eq!(plain_decimal(number), expected, "{number}");
        }
    }

    #[test]
    fn times_are_printed_as_rfc_3339() {
        for (micros, expected) in [
            (0, "2000-01-01T00:00:00.000Z"),
            (1_500_001, "2000-01-01T00:00:01.500001Z"),
            (-POSTGRES_EPOCH_MICROS, "1970-01-01T00:00:00.000Z"),
            (i64::MAX, "infinity"),
            (i64::MIN, "-infinity"),
            (i64::MAX - 1, "2000-01-01 + 9223372036854775806 µs"),
        ] {
            assert_eq!(time_text(micros), expected, "{micros}");
        }
    }

    #[test]
    fn json_is_printed_as_jsonb_prints_it() {
        let json = br#"{"bb":[1,2.50,{"z":null}],"a":"x\u000b\n\"","c":1e2}"#;
        assert_eq!(
            jsonb_text(json).as_deref(),
            Some(r#"{"a": "x\u000b\n\"", "c": 100.0, "bb": [1, 2.5, {"z": null}]}"#)
        );
    }
}
