//! Units, entities and how foreign ids are written into keys.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// The key of an entity: a unit (`s504.u1010020021`) or a task id. It is the Kafka key, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntityKey(Arc<str>);

impl EntityKey {
    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for EntityKey {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for EntityKey {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl std::borrow::Borrow<str> for EntityKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EntityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A unit of the fleet: site and unit as their sources name them, written `s{site}.u{unit}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitKey {
    /// The site's id, not encoded.
    pub site_uid: String,
    /// The unit's id, not encoded.
    pub unit_uid: String,
}

/// Why a text is no unit key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not of the form `s{site}.u{unit}`.
    #[error("`{0}` is no unit key: expected `s{{site}}.u{{unit}}`, such as `s504.u1010020021`")]
    Form(String),
    /// A percent sign that is not followed by two upper-case hex digits of UTF-8.
    #[error("`{0}` is not percent-encoded properly")]
    Encoding(String),
}

impl UnitKey {
    /// A unit by its parts.
    #[must_use]
    pub fn new(site_uid: impl Into<String>, unit_uid: impl Into<String>) -> Self {
        Self { site_uid: site_uid.into(), unit_uid: unit_uid.into() }
    }

    /// The key's text as an entity key.
    #[must_use]
    pub fn entity(&self) -> EntityKey {
        unit_entity(&self.site_uid, &self.unit_uid)
    }

    /// Undoes `Display`.
    ///
    /// # Errors
    /// When `text` is not of that form or not properly encoded.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        let form = || IdentityError::Form(text.to_owned());
        let (site, unit) = text.strip_prefix('s').and_then(|t| t.split_once(".u")).ok_or_else(form)?;
        Ok(Self { site_uid: decode_id(site)?, unit_uid: decode_id(unit)? })
    }
}

impl fmt::Display for UnitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(unit_entity(&self.site_uid, &self.unit_uid).as_str())
    }
}

/// The entity key of a unit by its parts: asked for every event that is read.
pub(crate) fn unit_entity(site_uid: &str, unit_uid: &str) -> EntityKey {
    let mut key = String::with_capacity(site_uid.len() + unit_uid.len() + 8);
    key.push('s');
    encode_onto(&mut key, site_uid);
    key.push_str(".u");
    encode_onto(&mut key, unit_uid);
    key.into()
}

/// Percent-encodes every byte outside `[A-Za-z0-9_-]`, so that joined ids can be taken apart again.
#[must_use]
pub fn encode_id(id: &str) -> String {
    let mut out = String::with_capacity(id.len() + 8);
    encode_onto(&mut out, id);
    out
}

fn encode_onto(out: &mut String, id: &str) {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    // As nearly all ids are.
    if id.bytes().all(is_plain) {
        out.push_str(id);
        return;
    }
    for byte in id.bytes() {
        if is_plain(byte) {
            out.push(byte as char);
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Undoes [`encode_id`]; only its exact output is accepted, so that an id has one spelling.
///
/// # Errors
/// When `text` could not have come from [`encode_id`].
pub fn decode_id(text: &str) -> Result<String, IdentityError> {
    let wrong = || IdentityError::Encoding(text.to_owned());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|d| HEX.iter().position(|h| *h == d));
        let (high, low) = (digit().ok_or_else(wrong)?, digit().ok_or_else(wrong)?);
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| wrong())?);
    }
    let id = String::from_utf8(bytes).map_err(|_| wrong())?;
    if encode_id(&id) == text { Ok(id) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_foreign_unit_is_written_as_the_design_says() {
        assert_eq!(UnitKey::new("werk1", "NordFTS/0001").to_string(), "swerk1.uNordFTS%2F0001");
        assert_eq!(UnitKey::new("504", "1010020021").to_string(), "s504.u1010020021");
    }

    #[test]
    fn what_is_no_unit_key_is_named() {
        for text in ["", "504.u1", "s504", "s504.u%zz", "s504.u%2f", "s5.04.u1", "s1.uä"] {
            assert!(UnitKey::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_unit_key_can_be_taken_apart_again(site in ".*", unit in ".*") {
            let key = UnitKey::new(site, unit);
            prop_assert_eq!(UnitKey::parse(&key.to_string()), Ok(key));
        }
    }
}
