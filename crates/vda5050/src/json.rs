//! Reading JSON that may be anything.

use std::collections::BTreeMap;

use serde_json::Value;
use uuid::Uuid;

/// The text at `key`, if it is a text.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key)?.as_str()
}

/// The text at `key`, if it is one that says something.
pub(crate) fn filled<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    text(value, key).filter(|text| !text.is_empty())
}

/// The truth value at `key`.
pub(crate) fn flag(value: &Value, key: &str) -> Option<bool> {
    value.get(key)?.as_bool()
}

/// The whole number at `key`; `4.0` is one.
pub(crate) fn whole(value: &Value, key: &str) -> Option<i64> {
    let number = value.get(key)?;
    number.as_i64().or_else(|| {
        let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9e15)?;
        #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
        Some(float as i64)
    })
}

/// The elements of the array at `key`; none where there is no array.
pub(crate) fn elements<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Any value as text: a text as it is, everything else as JSON.
pub(crate) fn to_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A list of `{name, value}` objects as a map; several values of one name are joined by `, `.
pub(crate) fn pairs(list: &[Value], name: &str, value: &str) -> BTreeMap<String, String> {
    let mut map = BTreeMap::<String, String>::new();
    for pair in list {
        let Some(key) = text(pair, name) else { continue };
        let text = pair.get(value).map(to_text).unwrap_or_default();
        map.entry(key.to_owned())
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(&text);
            })
            .or_insert(text);
    }
    map
}

/// Longest identifying text of an event, in bytes (`fleetlog_event`).
pub(crate) const ID_BYTES_MAX: usize = 512;

/// `text` as an identifying text of an event: one that is too long is cut and ends in a hash of the whole, so that
/// what differed still differs.
pub(crate) fn fit(text: &str) -> (String, bool) {
    if text.len() <= ID_BYTES_MAX {
        return (text.to_owned(), false);
    }
    let hash = Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()).simple().to_string();
    let keep = text.floor_char_boundary(ID_BYTES_MAX - hash.len() - 1);
    (format!("{}~{hash}", &text[..keep]), true)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn long_ids_are_cut_and_still_differ() {
        let (one, two) = ("ä".repeat(300) + "1", "ä".repeat(300) + "2");
        let ((one, cut), (two, _)) = (fit(&one), fit(&two));
        assert!(cut && one.len() <= ID_BYTES_MAX && one != two);
        assert_eq!(fit("N05"), ("N05".to_owned(), false));
    }

    #[test]
    fn values_of_one_name_are_joined() {
        let list = json!([{"k": "a", "v": 1}, {"k": "a", "v": "x"}, {"k": "b"}, {"v": 1}, 5]);
        let map = pairs(list.as_array().unwrap(), "k", "v");
        assert_eq!(
            map,
            BTreeMap::from([("a".to_owned(), "1, x".to_owned()), ("b".to_owned(), String::new())])
        );
    }

    #[test]
    fn whole_numbers_are_read_in_either_spelling() {
        assert_eq!(whole(&json!({"n": 4}), "n"), Some(4));
        assert_eq!(whole(&json!({"n": 4.0}), "n"), Some(4));
        for other in [json!(4.5), json!("4"), json!(1e300), json!(null)] {
            assert_eq!(whole(&json!({ "n": other }), "n"), None);
        }
    }
}
