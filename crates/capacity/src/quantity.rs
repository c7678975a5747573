//! Numbers as people read them.

/// `1.2 TB`, with three digits that count; powers of 1000.
pub(crate) fn bytes(value: f64) -> String {
    scaled(value, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// `990 /s`, `1.00 M/s`.
pub(crate) fn per_s(value: f64) -> String {
    scaled(value, &["/s", "k/s", "M/s", "G/s"])
}

/// `14.4 G`, `200 k`.
pub(crate) fn count(value: f64) -> String {
    scaled(value, &["", "k", "M", "G", "T"]).trim_end().to_owned()
}

/// A number of things, whole, in groups of three digits: `10,000,000`.
pub(crate) fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) && digit.is_ascii_digit() {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `90 days`, `12 h`, `45 s`.
pub(crate) fn duration(seconds: f64) -> String {
    let (size, unit) = match seconds {
        long if long >= 2.0 * crate::SECONDS_PER_DAY => (crate::SECONDS_PER_DAY, "days"),
        hours if hours >= 7200.0 => (3600.0, "h"),
        _ => (1.0, "s"),
    };
    format!("{} {unit}", digits(seconds / size))
}

/// Three digits that count, no more than are there.
pub(crate) fn digits(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 || large == 0.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => trimmed(format!("{value:.1}")),
        small if small >= 0.005 => trimmed(format!("{value:.2}")),
        _ => "under 0.01".to_owned(),
    }
}

fn trimmed(text: String) -> String {
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn scaled(value: f64, units: &[&str]) -> String {
    let mut rest = value;
    let mut at = 0;
    // 999.5 would be shown as 1000.
    while rest.abs() >= 999.5 && at + 1 < units.len() {
        rest /= 1000.0;
        at += 1;
    }
    format!("{} {}", digits(rest), units[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_count() {
        for (value, expected) in [
            (0.0, "0 B"),
            (250.0, "250 B"),
            (999.7, "1 kB"),
            (1234.0, "1.23 kB"),
            (2.5e13, "25 TB"),
            (7e21, "7000 EB"),
        ] {
            assert_eq!(bytes(value), expected);
        }
        assert_eq!(per_s(1e6), "1 M/s");
        assert_eq!(count(14.4e9), "14.4 G");
        assert_eq!(count(12.0), "12");
        assert_eq!(whole(10_000_000.0), "10,000,000");
        assert_eq!(whole(999.0), "999");
        assert_eq!(digits(0.034), "0.03");
        assert_eq!(digits(0.0034), "under 0.01");
    }

    #[test]
    fn a_duration_is_in_the_largest_unit_that_it_has_two_of() {
        for (seconds, expected) in
            [(30.0, "30 s"), (86_400.0, "24 h"), (30.0 * 86_400.0, "30 days"), (5400.0, "5400 s")]
        {
            assert_eq!(duration(seconds), expected);
        }
    }
}
