//! Checks shared by the events: numbers are finite and in range, identifying texts are there and bounded.

use crate::{EventMeta, Reason, Reject};

/// Longest identifying text (uids, ids, types), in bytes.
pub(crate) const ID_BYTES_MAX: usize = 512;

/// `value` is finite and within `range`.
pub(crate) fn number(
    name: &str,
    value: Option<f64>,
    range: std::ops::RangeInclusive<f64>,
) -> Result<(), Reject> {
    match value {
        Some(v) if !v.is_finite() || !range.contains(&v) => Err(Reject::new(
            Reason::OutOfRange,
            format!("{name} is {v}, expected a number from {} to {}", range.start(), range.end()),
        )),
        _ => Ok(()),
    }
}

/// `value` is an identifying text: not empty, not longer than [`ID_BYTES_MAX`].
pub(crate) fn id(name: &str, value: &str) -> Result<(), Reject> {
    if value.is_empty() {
        return Err(Reject::new(Reason::InvalidText, format!("{name} is empty")));
    }
    if value.len() > ID_BYTES_MAX {
        return Err(Reject::new(
            Reason::InvalidText,
            format!("{name} has {} bytes, at most {ID_BYTES_MAX} are allowed", value.len()),
        ));
    }
    Ok(())
}

/// The meta data of an event about a unit.
pub(crate) fn unit_meta(meta: &EventMeta) -> Result<(), Reject> {
    id("meta.site_uid", &meta.site_uid)?;
    id("meta.unit_uid", meta.unit_uid.as_deref().unwrap_or_default())
}
