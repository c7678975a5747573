//! Which version of VDA 5050 a message speaks, and whether this mapping knows it.
//!
//! The names of versions 1.1, 2.x and 3.0 are read side by side, because vehicles mix them; what two versions call the same
//! means the same. Of a version that did not exist when this was written nobody knows that.

use serde_json::Value;

use crate::{DeadReason, json::text, outcome::Dead, topic::Address};

/// The newest major version whose words are known.
const MAJOR_MAX: u32 = 3;

/// Whether the message's version is known: that of its payload, else that of its topic. One that cannot be read is taken
/// for a known one: makers write all sorts of things.
pub(crate) fn check(address: &Address<'_>, body: &Value) -> Result<(), Dead> {
    let said = text(body, "version").and_then(major);
    let by_topic = || major(address.version.trim_start_matches(['v', 'V']));
    match said.or_else(by_topic) {
        Some(major) if major > MAJOR_MAX => {
            let detail = format!("it speaks version {major} of VDA 5050, known are 1 to {MAJOR_MAX}");
            Err((DeadReason::UnknownVersion, detail))
        }
        _ => Ok(()),
    }
}

/// `2` of `2.1.0`.
fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.trim().parse().ok()
}
