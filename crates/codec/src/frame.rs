//! The first bytes of a record: which schema wrote it.
//!
//! | framing | bytes |
//! |---|---|
//! | Confluent (schema registry) | `00`, schema id as 4 bytes big-endian, datum |
//! | Avro single-object encoding | `C3 01`, CRC-64-AVRO fingerprint as 8 bytes little-endian, datum |

use fleetlog_event::{EventId, Reason, Reject};

/// Longest payload that is decoded, in bytes; more than any topic of the catalogue takes.
pub const PAYLOAD_BYTES_MAX: usize = 2 << 20;
/// Length of the Confluent prefix.
pub const CONFLUENT_BYTES: usize = 5;
/// Length of the single-object prefix.
pub const SINGLE_OBJECT_BYTES: usize = 10;

const CONFLUENT_MAGIC: u8 = 0;
const SINGLE_OBJECT_MAGIC: [u8; 2] = [0xC3, 0x01];

/// Which schema wrote a record, as its prefix says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SchemaRef {
    /// The registry's id.
    Id(u32),
    /// The CRC-64-AVRO fingerprint of the schema's canonical form.
    Fingerprint(u64),
}

impl std::fmt::Display for SchemaRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => write!(f, "schema id {id}"),
            Self::Fingerprint(fingerprint) => write!(f, "schema fingerprint {fingerprint:016x}"),
        }
    }
}

/// Takes a payload apart: the schema that wrote it, and the datum.
///
/// # Errors
/// `empty_payload`, `unknown_framing` (naming the framing where it is one that others use) or `undecodable` for a
/// payload that ends within its prefix or is longer than [`PAYLOAD_BYTES_MAX`].
pub fn parse(payload: Option<&[u8]>) -> Result<(SchemaRef, &[u8]), Reject> {
    let payload = match payload {
        None => return Err(Reject::new(Reason::EmptyPayload, "the record has no value (a tombstone)")),
        Some([]) => return Err(Reject::new(Reason::EmptyPayload, "the record's value has 0 bytes")),
        Some(payload) => payload,
    };
    if payload.len() > PAYLOAD_BYTES_MAX {
        let detail =
            format!("the value has {} bytes, at most {PAYLOAD_BYTES_MAX} are decoded", payload.len());
        return Err(Reject::new(Reason::Undecodable, detail));
    }
    match split(payload) {
        Some((SchemaRef::Id(0), _)) => Err(Reject::new(
            Reason::UnknownFraming,
            "schema id 0: no registry gives it; an Apicurio producer with 8-byte ids must be set to 4-byte ones",
        )),
        Some(parts) => Ok(parts),
        None => Err(foreign(payload)),
    }
}

/// The event's identity, from the first 16 bytes of the datum; none if there are fewer or the framing is unknown.
#[must_use]
pub fn event_id(payload: Option<&[u8]>) -> Option<EventId> {
    let (_, datum) = split(payload?)?;
    let bytes: [u8; 16] = datum.get(..16)?.try_into().ok()?;
    Some(EventId(uuid::Uuid::from_bytes(bytes)))
}

/// Appends the prefix to `out`.
pub fn write(schema: SchemaRef, out: &mut Vec<u8>) {
    match schema {
        SchemaRef::Id(id) => {
            out.push(CONFLUENT_MAGIC);
            out.extend_from_slice(&id.to_be_bytes());
        }
        SchemaRef::Fingerprint(fingerprint) => {
            out.extend_from_slice(&SINGLE_OBJECT_MAGIC);
            out.extend_from_slice(&fingerprint.to_le_bytes());
        }
    }
}

fn split(payload: &[u8]) -> Option<(SchemaRef, &[u8])> {
    if payload.first() == Some(&CONFLUENT_MAGIC) {
        let (id, datum) = payload[1..].split_first_chunk::<4>()?;
        return Some((SchemaRef::Id(u32::from_be_bytes(*id)), datum));
    }
    let (fingerprint, datum) = payload.strip_prefix(&SINGLE_OBJECT_MAGIC)?.split_first_chunk::<8>()?;
    Some((SchemaRef::Fingerprint(u64::from_le_bytes(*fingerprint)), datum))
}

/// Names a prefix that is not ours.
fn foreign(payload: &[u8]) -> Reject {
    let length = payload.len();
    if payload[0] == CONFLUENT_MAGIC {
        let detail = format!("a Confluent prefix has {CONFLUENT_BYTES} bytes, the value has {length}");
        return Reject::new(Reason::Undecodable, detail);
    }
    if payload.starts_with(&SINGLE_OBJECT_MAGIC) {
        let detail =
            format!("a single-object prefix has {SINGLE_OBJECT_BYTES} bytes, the value has {length}");
        return Reject::new(Reason::Undecodable, detail);
    }
    let known = match payload[0] {
        0x01 if length > 17 => {
            "01 begins a registry GUID (16 bytes): set the producer to prefix the 4-byte schema id instead"
        }
        b'{' | b'[' => "this looks like JSON: events are Avro",
        b'O' if payload.starts_with(b"Obj\x01") => "this is an Avro container file: events are single datums",
        _ => {
            "expected 00 (Confluent) or C3 01 (single object); a producer that puts the schema id into headers \
             (`__value_schema_id`) must be set to prefix it to the value"
        }
    };
    let head =
        payload[..length.min(8)].iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(" ");
    Reject::new(Reason::UnknownFraming, format!("the value begins with {head}: {known}"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn reason(payload: &[u8]) -> (Reason, String) {
        let reject = parse(Some(payload)).unwrap_err();
        (reject.reason, reject.detail)
    }

    #[test]
    fn both_framings_are_read() {
        assert_eq!(parse(Some(&[0, 0, 0, 1, 2, 9])).unwrap(), (SchemaRef::Id(258), &[9_u8][..]));
        let payload = [0xC3, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9];
        let fingerprint = SchemaRef::Fingerprint(0x0807_0605_0403_0201);
        assert_eq!(parse(Some(&payload)).unwrap(), (fingerprint, &[9_u8][..]));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        assert_eq!(parse(None).unwrap_err().reason, Reason::EmptyPayload);
        assert_eq!(reason(&[]).0, Reason::EmptyPayload);
        for (payload, expected, words) in [
            (&[0_u8, 0, 0][..], Reason::Undecodable, "a Confluent prefix has 5 bytes, the value has 3"),
            (&[0xC3, 1, 0], Reason::Undecodable, "a single-object prefix has 10 bytes, the value has 3"),
            (&[0, 0, 0, 0, 0, 0, 0, 0, 7, 1], Reason::UnknownFraming, "Apicurio"),
            (b"{\"a\":1}", Reason::UnknownFraming, "JSON"),
            (b"Obj\x01abc", Reason::UnknownFraming, "container file"),
            (&[1; 20], Reason::UnknownFraming, "registry GUID"),
            (&[0xC3, 2, 0, 0], Reason::UnknownFraming, "C3 02 00 00: expected 00 (Confluent)"),
            (b"hello", Reason::UnknownFraming, "__value_schema_id"),
        ] {
            let (reason, detail) = reason(payload);
            assert_eq!(reason, expected, "{detail}");
            assert!(detail.contains(words), "{detail}");
        }
    }

    #[test]
    fn a_huge_payload_is_not_decoded() {
        let (reason, detail) = reason(&vec![0; PAYLOAD_BYTES_MAX + 1]);
        assert_eq!(
            (reason, detail.as_str()),
            (Reason::Undecodable, "the value has 2097153 bytes, at most 2097152 are decoded")
        );
    }

    #[test]
    fn an_event_id_needs_sixteen_bytes_behind_a_known_prefix() {
        let mut payload = vec![0, 0, 0, 0, 1];
        payload.extend([7; 16]);
        assert_eq!(event_id(Some(&payload)).unwrap().0.as_bytes(), &[7; 16]);
        assert_eq!(event_id(Some(&payload[..20])), None);
        assert_eq!(event_id(Some(&[9; 40])), None);
        assert_eq!(event_id(None), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(id in 1_u32.., fingerprint: u64, datum: Vec<u8>) {
            for schema in [SchemaRef::Id(id), SchemaRef::Fingerprint(fingerprint)] {
                let mut payload = Vec::new();
                write(schema, &mut payload);
                payload.extend(&datum);
                prop_assert_eq!(parse(Some(&payload)), Ok((schema, datum.as_slice())));
            }
        }

        #[test]
        fn no_bytes_panic(payload: Vec<u8>) {
            let _ = parse(Some(&payload));
            let _ = event_id(Some(&payload));
        }
    }
}
