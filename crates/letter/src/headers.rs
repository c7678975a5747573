//! Headers of a dead letter, looked up by name.

/// The headers of one record.
#[derive(Clone, Copy)]
pub(crate) struct Headers<'r>(pub(crate) &'r [(&'r [u8], Option<&'r [u8]>)]);

impl<'r> Headers<'r> {
    fn all(self, name: &'static str) -> impl DoubleEndedIterator<Item = &'r [u8]> {
        self.0.iter().filter(move |(found, _)| *found == name.as_bytes()).filter_map(|(_, value)| *value)
    }

    /// The value that was written last, as readers of Kafka's clients take it (`Headers.lastHeader`).
    pub(crate) fn last(self, name: &'static str) -> Option<&'r [u8]> {
        self.all(name).next_back()
    }

    /// The value that was written first: of headers that are appended, the oldest.
    pub(crate) fn first(self, name: &'static str) -> Option<&'r [u8]> {
        self.all(name).next()
    }

    /// The last value as a text; none where it is absent or empty. Bytes that are no UTF-8 are replaced, and so is NUL.
    pub(crate) fn text(self, name: &'static str) -> Option<String> {
        self.last(name).and_then(text)
    }

    /// The last value as a number in digits; none where it is absent, or none.
    pub(crate) fn number<N: std::str::FromStr>(self, name: &'static str) -> Option<N> {
        digits(self.last(name)?)
    }
}

/// A text; none where it is empty. NUL, which no database stores in a text, becomes `␀`, as everywhere in history: a letter
/// reads the same wherever it is read from.
pub(crate) fn text(value: &[u8]) -> Option<String> {
    (!value.is_empty()).then(|| String::from_utf8_lossy(value).replace('\0', "\u{2400}"))
}

/// A number in decimal digits.
pub(crate) fn digits<N: std::str::FromStr>(value: &[u8]) -> Option<N> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

/// A number as Spring writes it, or as others write it under the same names: four or eight bytes big-endian, or decimal
/// digits.
///
/// Digits of just that length are read as digits: as a binary number they would be a partition above 800 million, or an
/// offset or time above 3·10¹⁸, which there are not.
#[must_use]
pub fn binary_or_digits(value: &[u8]) -> Option<i64> {
    if !value.is_empty() && value.iter().all(u8::is_ascii_digit) {
        return digits(value);
    }
    if let Ok(bytes) = <[u8; 4]>::try_from(value) {
        return Some(i32::from_be_bytes(bytes).into());
    }
    if let Ok(bytes) = <[u8; 8]>::try_from(value) {
        return Some(i64::from_be_bytes(bytes));
    }
    digits(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_every_form_that_is_written() {
        for (value, expected) in [
            (&3_i32.to_be_bytes()[..], Some(3)),
            (&(-1_i32).to_be_bytes(), Some(-1)),
            (&77_i64.to_be_bytes(), Some(77)),
            (b"77", Some(77)),
            (b"1234", Some(1234)),
            (b"12345678", Some(12_345_678)),
            (b"-1", Some(-1)),
            (b"", None),
            (b"\x00\x01\x02", None),
            (b"nine", Some(0x6e69_6e65)),
        ] {
            assert_eq!(binary_or_digits(value), expected, "{value:?}");
        }
    }

    #[test]
    fn a_text_is_one_that_a_database_takes() {
        assert_eq!(text(b"a\0b\xffc").as_deref(), Some("a\u{2400}b\u{fffd}c"));
        assert_eq!(text(b""), None);
    }
}
