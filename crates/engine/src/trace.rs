//! The trace that a record is part of: its header `traceparent` (W3C Trace Context, section 3.2).

use fleetlog_projection::Record;

/// Bytes of `version "-" trace-id "-" parent-id "-" trace-flags`.
const TRACEPARENT_BYTES: usize = 55;

/// The header as it is, if it is well-formed; versions to come may say more behind what version 00 does.
pub(crate) fn traceparent(record: &Record) -> Option<&str> {
    let text = header(record, "traceparent")?;
    let parts = text.get(..TRACEPARENT_BYTES)?;
    let [version, trace, parent, flags] = parts.split('-').collect::<Vec<_>>().try_into().ok()?;
    let is_hex = |part: &str, length| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    // All zeros is how a missing one is written.
    let is_id = |part: &str, length| is_hex(part, length) && part.bytes().any(|byte| byte != b'0');
    let rest = &text[TRACEPARENT_BYTES..];
    let ends = rest.is_empty()
        || (version != "00" && rest.starts_with('-') && rest.bytes().all(|b| b.is_ascii_graphic()));
    let is_well_formed = is_hex(version, 2)
        && version != "ff"
        && is_id(trace, 32)
        && is_id(parent, 16)
        && is_hex(flags, 2)
        && ends;
    is_well_formed.then_some(text)
}

/// The trace's id of a well-formed header.
pub(crate) fn trace_id(record: &Record) -> Option<&str> {
    traceparent(record)?.split('-').nth(1)
}

/// A header that is short text; others are nothing to log.
pub(crate) fn header<'a>(record: &'a Record, name: &str) -> Option<&'a str> {
    let text = std::str::from_utf8(record.headers.get(name)?).ok()?;
    (text.len() <= 128 && !text.chars().any(char::is_control)).then_some(text)
}

#[cfg(test)]
mod tests {
    use fleetlog_event::TimestampMs;
    use fleetlog_projection::Headers;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    fn record(headers: &[(&str, Option<&[u8]>)]) -> Record {
        let headers = Headers::pack(headers.iter().copied());
        Record { offset: 7, timestamp: TimestampMs(0), key: None, value: None, headers }
    }

    fn traced(value: &str) -> Option<(String, String)> {
        let record = record(&[("traceparent", Some(value.as_bytes()))]);
        Some((traceparent(&record)?.to_owned(), trace_id(&record)?.to_owned()))
    }

    #[test]
    fn a_well_formed_header_is_told_as_it_is_with_its_trace() {
        for text in [format!("00-{TRACE}-{PARENT}-01"), format!("cc-{TRACE}-{PARENT}-00-what-comes")] {
            assert_eq!(traced(&text), Some((text.clone(), TRACE.to_owned())), "{text}");
        }
    }

    #[test]
    fn anything_else_is_no_trace() {
        for wrong in [
            String::new(),
            "00".to_owned(),
            "00-xyz-1-1".to_owned(),
            format!("00-{}-{PARENT}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{PARENT}-01-more"),
            format!("01-{TRACE}-{PARENT}-01more"),
            format!("00-{TRACE}-{PARENT}-0"),
            format!("00-{TRACE}-{}é-01", &PARENT[..14]),
            "a".repeat(10_000),
        ] {
            assert_eq!(traced(&wrong), None, "{wrong}");
        }
        assert_eq!(traceparent(&record(&[("traceparent", Some(b"\xff\xfe"))])), None);
        assert_eq!(traceparent(&record(&[("traceparent", None)])), None);
        assert_eq!(traceparent(&record(&[])), None);
    }

    #[test]
    fn a_header_cannot_forge_a_line() {
        assert_eq!(header(&record(&[("ce_id", Some(b"a\nERROR all is lost"))]), "ce_id"), None);
        assert_eq!(header(&record(&[("ce_id", Some(b"abc"))]), "ce_id"), Some("abc"));
    }
}
