//! What a fold writes for people to read beside its exact state.

use std::borrow::Cow;

use fleetlog_event::TimestampMs;

/// One readable part of an entity in hot state. All parts of an entity, its state and its version change in one
/// atomic step.
#[derive(Clone, Debug, PartialEq)]
pub enum HotWrite {
    /// A field of the entity's hash; none removes it. A projector names all of its fields each time, each once.
    Field {
        /// The field's name; never one that begins with `_`.
        name: Cow<'static, str>,
        /// Its value as text.
        value: Option<String>,
    },
    /// The entity's place in a sorted set; none takes it out.
    Ranked {
        /// The set's key, such as `seen:504`.
        list: String,
        /// The entity's name in it.
        member: String,
        /// Its rank.
        score: Option<f64>,
    },
    /// From when on the store may forget the entity; none is never. Only tidies: whether an entity is *known* is a
    /// rule of the fold.
    ExpireAt(Option<TimestampMs>),
}

impl HotWrite {
    /// A field that is there.
    #[must_use]
    pub fn field(name: &'static str, value: impl Into<String>) -> Self {
        Self::Field { name: Cow::Borrowed(name), value: Some(value.into()) }
    }

    /// A field that may be absent.
    #[must_use]
    pub fn maybe(name: &'static str, value: Option<impl ToString>) -> Self {
        Self::Field { name: Cow::Borrowed(name), value: value.map(|v| v.to_string()) }
    }
}
