//! The checks of the events. Each is declared once, beside its event ([`events!`](crate::event)): it is what
//! [`Event::validate`](crate::Event::validate) asks of every producer and every reader, and what the documentation says.

use std::fmt;

use crate::{EventMeta, Reason, Reject};

/// Longest identifying text (uids, ids, types), in bytes.
pub(crate) const ID_BYTES_MAX: usize = 512;

/// From here on a number is written with an exponent, or it would fill lines.
const PLAIN_NUMBER_MAX: f64 = 1e15;

/// What has to hold of one field, beside its type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Check {
    /// The field's path; `[]` stands for every element of a list: `meta.site_uid`, `loads[].weight_kg`.
    pub field: &'static str,
    /// What has to hold.
    pub rule: Rule,
}

/// What a value has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// An identifying text: not empty, and short enough for keys and indexes.
    Id,
    /// A number: finite and not beyond these bounds. Where the field is optional, absent is right.
    Number {
        /// The smallest one.
        min: f64,
        /// The largest one.
        max: f64,
    },
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id => write!(f, "a text of 1 to {ID_BYTES_MAX} bytes"),
            Self::Number { min, max } => write!(f, "a number from {min} to {max}"),
        }
    }
}

/// [`Rule::Number`], for declarations.
pub(crate) const fn number(min: f64, max: f64) -> Rule {
    Rule::Number { min, max }
}

/// What the head of every event about a unit has to have; asked by [`unit_head`].
pub(crate) const UNIT_HEAD: &[Check] = &[SITE_UID, UNIT_UID, SOURCE];

/// What the head of every event about a task has to have; asked by [`task_head`].
pub(crate) const TASK_HEAD: &[Check] = &[SITE_UID, SOURCE];

/// What the head of every event about the work of tools has to have; asked by [`ops_head`].
pub(crate) const OPS_HEAD: &[Check] = &[SOURCE];

const SITE_UID: Check = Check { field: "meta.site_uid", rule: Rule::Id };
const UNIT_UID: Check = Check { field: "meta.unit_uid", rule: Rule::Id };
const SOURCE: Check = Check { field: "meta.source", rule: Rule::Id };

/// Asks [`UNIT_HEAD`].
pub(crate) fn unit_head(meta: &EventMeta) -> Result<(), Reject> {
    id("meta.site_uid", &meta.site_uid)?;
    id("meta.unit_uid", meta.unit_uid.as_deref().unwrap_or_default())?;
    id("meta.source", &meta.source)
}

/// Asks [`TASK_HEAD`].
pub(crate) fn task_head(meta: &EventMeta) -> Result<(), Reject> {
    id("meta.site_uid", &meta.site_uid)?;
    id("meta.source", &meta.source)
}

/// Asks [`OPS_HEAD`].
pub(crate) fn ops_head(meta: &EventMeta) -> Result<(), Reject> {
    id("meta.source", &meta.source)
}

/// A type of field that rules are declared for.
pub(crate) trait Checked {
    /// Whether the value of `field` is as `rule` wants.
    fn check(&self, field: &str, rule: Rule) -> Result<(), Reject>;
}

impl Checked for String {
    fn check(&self, field: &str, rule: Rule) -> Result<(), Reject> {
        match rule {
            Rule::Id => id(field, self),
            Rule::Number { .. } => Err(no_such_rule(field, rule)),
        }
    }
}

impl Checked for Option<f64> {
    fn check(&self, field: &str, rule: Rule) -> Result<(), Reject> {
        match (rule, self) {
            (_, None) => Ok(()),
            (Rule::Number { min, max }, Some(value)) if (min..=max).contains(value) => Ok(()),
            (Rule::Number { .. }, Some(value)) => Err(out_of_range(field, *value, rule)),
            (Rule::Id, Some(_)) => Err(no_such_rule(field, rule)),
        }
    }
}

impl Checked for i32 {
    fn check(&self, field: &str, rule: Rule) -> Result<(), Reject> {
        Some(f64::from(*self)).check(field, rule)
    }
}

/// A rejection of an element of a list, with its place.
pub(crate) fn in_list(list: &str, index: usize, reject: Reject) -> Reject {
    Reject { detail: format!("{list}[{index}].{}", reject.detail), ..reject }
}

/// Both lists as one: an event's checks are those of its head and its own.
pub(crate) const fn joined<const N: usize>(head: &[Check], own: &[Check]) -> [Check; N] {
    let mut all = [SITE_UID; N];
    let mut n = 0;
    while n < N {
        all[n] = if n < head.len() { head[n] } else { own[n - head.len()] };
        n += 1;
    }
    all
}

fn id(field: &str, value: &str) -> Result<(), Reject> {
    let rule = Rule::Id;
    let is = match value.len() {
        0 => "is empty".to_owned(),
        1..=ID_BYTES_MAX => return Ok(()),
        bytes => format!("has {bytes} bytes"),
    };
    Err(Reject::new(Reason::InvalidText, format!("{field} {is}, expected {rule}")))
}

fn out_of_range(field: &str, value: f64, rule: Rule) -> Reject {
    let value = if value.abs() < PLAIN_NUMBER_MAX { value.to_string() } else { format!("{value:e}") };
    Reject::new(Reason::OutOfRange, format!("{field} is {value}, expected {rule}"))
}

/// A mistake in a declaration: never silently right, and found by the first event that is checked.
fn no_such_rule(field: &str, rule: Rule) -> Reject {
    Reject::new(Reason::OutOfRange, format!("{field} cannot be {rule}: its check is declared wrongly"))
}
