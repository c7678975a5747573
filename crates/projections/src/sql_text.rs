//! Texts that are only shown, as SQL can hold them: NUL becomes `␀`.

use std::borrow::Cow;

use serde_json::Value;

/// A text for a column of type `text`.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{2400}").into() } else { text.into() }
}

/// JSON for a column of type `jsonb`.
pub(crate) fn shown_json(json: String) -> String {
    // An escaped backslash before `u0000` is no NUL, so JSON that may hold one is looked at text by text.
    if !json.contains("\\u0000") {
        return json;
    }
    serde_json::from_str(&json).map_or(json, |value| without_nul(value).to_string())
}

fn without_nul(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(shown(&text).into_owned()),
        Value::Array(items) => Value::Array(items.into_iter().map(without_nul).collect()),
        Value::Object(members) => {
            let member = |(name, value): (String, _)| (shown(&name).into_owned(), without_nul(value));
            Value::Object(members.into_iter().map(member).collect())
        }
        other => other,
    }
}
