//! Signatures by the Standard Webhooks scheme (`standard-webhooks.md`, "Signature scheme" and "Webhook headers").
//!
//! By `hmac` and `sha2`, which `sqlx` uses already; the crate `standardwebhooks` signs with one secret, wants bodies that are
//! UTF-8, and brings a third base64 and a second SHA-256.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// What marks a secret for symmetric signatures (section "Signature scheme", row "Secret serialization").
const PREFIX: &str = "whsec_";
/// The fewest and the most bytes of a secret (there, row "Signing secret").
const SECRET_BYTES_MIN: usize = 24;
const SECRET_BYTES_MAX: usize = 64;

/// A secret that both sides know.
#[derive(Clone)]
pub(crate) struct Secret(Hmac<Sha256>);

/// Why a text is no secret. Does not repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SecretError {
    /// Another kind of key, or none.
    #[error(
        "does not begin with `{PREFIX}`: write that before the base64 of {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} random bytes"
    )]
    Prefix,
    /// After the prefix something else.
    #[error(
        "is no base64 after `{PREFIX}`: make a new one of {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} random bytes, or copy it anew"
    )]
    Base64,
    /// Too easy to guess, or longer than receivers take.
    #[error("has {0} bytes, expected {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX}: make a new one")]
    Length(usize),
}

impl Secret {
    /// Reads `whsec_…`.
    ///
    /// # Errors
    /// [`SecretError`].
    pub(crate) fn parse(text: &str) -> Result<Self, SecretError> {
        let encoded = text.strip_prefix(PREFIX).ok_or(SecretError::Prefix)?;
        let key = STANDARD.decode(encoded).map_err(|_| SecretError::Base64)?;
        let length = SecretError::Length(key.len());
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&key.len()) {
            return Err(length);
        }
        // HMAC takes keys of every length.
        Hmac::new_from_slice(&key).map(Self).map_err(|_| length)
    }

    /// The signature of one call: `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`. `timestamp_s` is when the call
    /// is made, in seconds since 1970.
    fn sign(&self, id: &str, timestamp_s: i64, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(format!("{id}.{timestamp_s}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The value of `webhook-signature`: one signature a secret, in their order, so that receivers can change from one to the
/// other; none without secrets.
pub(crate) fn signatures(secrets: &[Secret], id: &str, timestamp_s: i64, body: &[u8]) -> Option<String> {
    let signed: Vec<String> = secrets.iter().map(|secret| secret.sign(id, timestamp_s, body)).collect();
    (!signed.is_empty()).then(|| signed.join(" "))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// What the scheme's own libraries are tested with.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIMESTAMP_S: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    #[test]
    fn the_published_vector_is_met() {
        let secret = Secret::parse(SECRET).unwrap();
        assert_eq!(secret.sign(ID, TIMESTAMP_S, BODY), SIGNATURE);
    }

    #[test]
    fn every_secret_signs_and_the_first_signs_first() {
        let other = Secret::parse(&format!("whsec_{}", STANDARD.encode([7; 64]))).unwrap();
        let own = Secret::parse(SECRET).unwrap();
        let both = signatures(&[own, other.clone()], ID, TIMESTAMP_S, BODY).unwrap();
        let (first, second) = both.split_once(' ').unwrap();
        assert_eq!(first, SIGNATURE);
        assert_eq!(second, other.sign(ID, TIMESTAMP_S, BODY));
        assert_ne!(first, second);
        assert_eq!(signatures(&[], ID, TIMESTAMP_S, BODY), None);
    }

    #[test]
    fn a_body_that_is_no_utf_8_is_signed_byte_for_byte() {
        let secret = Secret::parse(SECRET).unwrap();
        assert_ne!(
            secret.sign(ID, TIMESTAMP_S, b"\xff"),
            secret.sign(ID, TIMESTAMP_S, "\u{fffd}".as_bytes())
        );
    }

    #[test]
    fn what_is_no_secret_is_refused_and_never_repeated() {
        let of = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![1; bytes]));
        for (text, error) in [
            ("", SecretError::Prefix),
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", SecretError::Prefix),
            ("whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", SecretError::Prefix),
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", SecretError::Base64),
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS-", SecretError::Base64),
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n", SecretError::Base64),
            ("whsec_", SecretError::Length(0)),
            (&of(23), SecretError::Length(23)),
            (&of(65), SecretError::Length(65)),
        ] {
            assert_eq!(Secret::parse(text).unwrap_err(), error, "{text}");
            assert!(!error.to_string().contains("MfKQ"), "{error}");
        }
        assert!([24, 64].iter().all(|bytes| Secret::parse(&of(*bytes)).is_ok()));
        assert_eq!(format!("{:?}", Secret::parse(SECRET).unwrap()), "Secret(…)");
    }
}
