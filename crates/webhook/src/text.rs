//! Text that others wrote, made fit for a log, a dead letter and a terminal.

use std::error::Error;

/// Most characters of a foreign text that are shown.
const EXCERPT_CHARS_MAX: usize = 200;

/// The first 200 characters of what somebody answered, in one line: bytes that are no UTF-8 and characters that steer a
/// terminal or turn the direction of writing are shown as `U+FFFD`, and white space is a single space.
#[must_use]
pub fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::new();
    let mut chars = 0;
    for word in text.split_whitespace() {
        let space = usize::from(!shown.is_empty());
        for c in " ".chars().take(space).chain(word.chars()) {
            if chars == EXCERPT_CHARS_MAX {
                shown.push('…');
                return shown;
            }
            shown.push(if is_harmless(c) { c } else { char::REPLACEMENT_CHARACTER });
            chars += 1;
        }
    }
    shown
}

/// Neither a control character, nor one that is not seen and changes what is (Unicode TR 36: marks and overrides of direction).
fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// An error and its causes, the outermost first.
pub(crate) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// An error with its causes: reqwest's own text names only the outermost. Each cause is told once.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut told = String::new();
    for cause in causes(error) {
        let cause = cause.to_string();
        if !told.contains(&cause) {
            if !told.is_empty() {
                told.push_str(": ");
            }
            told.push_str(&cause);
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_shown_in_one_printable_line() {
        for (bytes, shown) in [
            (&b""[..], ""),
            (b" \r\n\t ", ""),
            (b"no such\r\n\r\n  unit\t504 ", "no such unit 504"),
            (b"\x1b[2Jgone\x07", "\u{fffd}[2Jgone\u{fffd}"),
            ("grün \u{202e}nekcurt\u{200b}".as_bytes(), "grün \u{fffd}nekcurt\u{fffd}"),
            (b"half\xff\xe2\x82", "half\u{fffd}\u{fffd}"),
        ] {
            assert_eq!(excerpt(bytes), shown);
        }
    }

    #[test]
    fn a_long_text_is_cut_at_characters_and_says_so() {
        assert_eq!(excerpt("ü".repeat(200).as_bytes()), "ü".repeat(200));
        assert_eq!(excerpt("ü".repeat(201).as_bytes()), format!("{}…", "ü".repeat(200)));
        let words = "ab ".repeat(100);
        assert_eq!(excerpt(words.as_bytes()).chars().count(), 201);
    }
}
