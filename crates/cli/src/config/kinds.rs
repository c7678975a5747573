//! Of which kind a value is, and whether its key takes that.

use figment::value::{Num, Value};

use super::webhooks;

/// Texts of which one has to be chosen: the key (of a webhook without its section), the texts, and what is said of others.
const CHOICES: [(&str, &[&str], &str); 5] = [
    ("log.format", &["text", "json"], "text or json"),
    ("mode", &["structured", "binary"], "structured or binary"),
    ("start_at", &["end", "begin"], "end or begin"),
    ("task_watch.policy", &["fail", "alert"], "fail or alert"),
    ("task_watch.start_at", &["end", "begin"], "end or begin"),
];

/// Whether a value is of the default's kind; if another one is meant, that one. What looks like a number is taken as text where
/// text belongs, and a list may be written `a,b`. The environment has only text: numbers and flags are read from it.
pub(super) fn fit(
    default: Option<&Value>,
    value: &Value,
    is_text_only: bool,
) -> Result<Option<Value>, &'static str> {
    match (default, value) {
        (None | Some(Value::String(..)), Value::String(..)) | (Some(Value::Bool(..)), Value::Bool(..)) => {
            Ok(None)
        }
        (None | Some(Value::String(..)), other) => text(other).map(|t| Some(Value::from(t))).ok_or("a text"),
        (Some(Value::Num(_, default)), _) => number(*default, value, is_text_only),
        (Some(Value::Bool(..)), Value::String(_, text)) if is_text_only => {
            text.trim().parse::<bool>().map(|flag| Some(Value::from(flag))).map_err(|_| "true or false")
        }
        (Some(Value::Array(_, default)), Value::Array(_, items)) => {
            list(default.first(), items, is_text_only).map(Some)
        }
        (Some(Value::Array(_, default)), other) => {
            let text = text(other).ok_or("a list")?;
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(Value::from);
            list(default.first(), &items.collect::<Vec<_>>(), true).map(Some)
        }
        _ => Err("a value of another kind"),
    }
}

/// Items of a list are of the kind of its default's, or texts where that is empty.
fn list(default: Option<&Value>, items: &[Value], is_text_only: bool) -> Result<Value, &'static str> {
    let expected = if default.is_some() { "a list of whole numbers" } else { "a list of texts" };
    let fitted = items.iter().map(|item| match fit(default, item, is_text_only) {
        Ok(corrected) => Ok(corrected.unwrap_or_else(|| item.clone())),
        Err(_) => Err(expected),
    });
    fitted.collect::<Result<Vec<_>, _>>().map(Value::from)
}

/// No setting is below zero.
fn number(default: Num, value: &Value, is_text_only: bool) -> Result<Option<Value>, &'static str> {
    let expected = if is_whole(default) { "a whole number" } else { "a number" };
    match value {
        Value::Num(_, number) if !is_whole(default) || is_whole(*number) => {
            if is_below_zero(*number) {
                Err("a number that is not below 0")
            } else {
                Ok(None)
            }
        }
        Value::String(_, text) if is_text_only && is_whole(default) => {
            let whole = text.trim().parse::<i128>().map_err(|_| expected)?;
            u64::try_from(whole)
                .map(|whole| Some(Value::from(whole)))
                .map_err(|_| if whole < 0 { "a number that is not below 0" } else { "a smaller number" })
        }
        Value::String(_, text) if is_text_only => {
            text.trim().parse::<f64>().map(|number| Some(Value::from(number))).map_err(|_| expected)
        }
        _ => Err(expected),
    }
}

/// Whether a text is one of those that its key takes.
pub(super) fn among_choices(key: &str, value: &Value) -> Result<(), &'static str> {
    let key = webhooks::key_within(key).unwrap_or(key);
    let choice = CHOICES.iter().find(|(known, ..)| *known == key);
    match (choice, value.as_str()) {
        (Some((_, texts, expected)), Some(text)) if !texts.contains(&text) => Err(*expected),
        _ => Ok(()),
    }
}

/// A value as a message shows it.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("the text {text:?}"),
        Value::Num(_, number) => format!("the number {}", number_text(*number)),
        Value::Bool(_, flag) => format!("{flag}"),
        Value::Array(..) => "a list".to_owned(),
        Value::Dict(..) => "a section".to_owned(),
        _ => "something else".to_owned(),
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.clone()),
        Value::Num(_, number) => Some(number_text(*number)),
        Value::Bool(_, flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// A setting whose default is a whole number takes whole numbers only.
fn is_whole(number: Num) -> bool {
    number.to_i128().is_some() || number.to_u128().is_some()
}

fn is_below_zero(number: Num) -> bool {
    number.to_i128().is_some_and(|number| number < 0)
}

fn number_text(number: Num) -> String {
    match (number.to_i128(), number.to_u128(), number.to_f64()) {
        (Some(n), _, _) => n.to_string(),
        (_, Some(n), _) => n.to_string(),
        (_, _, n) => n.unwrap_or_default().to_string(),
    }
}
