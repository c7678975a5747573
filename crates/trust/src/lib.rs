//! Why a server's certificate was not taken, read off what TLS libraries say, with what to do about it.
//!
//! Redis, PostgreSQL, the registry and Kafka are reached by four client libraries, which hand on OpenSSL's words, each
//! wrapped in its own. Only a certificate that was looked at and refused is told here: a handshake that broke off (a
//! server that died, a cut connection) passes by itself, and is none.

use std::fmt;

/// Why a certificate was refused. None of these passes by waiting: a person has to mend the certificate or the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateFault {
    /// Its time is over.
    Expired,
    /// Its time has not come: most likely a clock is wrong.
    NotYetValid,
    /// It names other hosts than the one that was asked for.
    OtherHost,
    /// Whoever signed it is not trusted.
    UnknownAuthority,
    /// Something else is wrong with it.
    Other,
}

/// OpenSSL's own words for a refusal.
const REFUSED: &str = "certificate verify failed";

/// OpenSSL's words for the reasons (`X509_verify_cert_error_string`).
const REASONS: [(&str, CertificateFault); 8] = [
    ("certificate has expired", CertificateFault::Expired),
    ("certificate is not yet valid", CertificateFault::NotYetValid),
    ("hostname mismatch", CertificateFault::OtherHost),
    ("ip address mismatch", CertificateFault::OtherHost),
    ("self-signed certificate", CertificateFault::UnknownAuthority),
    ("self signed certificate", CertificateFault::UnknownAuthority),
    ("unable to get local issuer certificate", CertificateFault::UnknownAuthority),
    ("unable to verify the first certificate", CertificateFault::UnknownAuthority),
];

impl CertificateFault {
    /// Reads it off an error's text; `None` if that is not about a refused certificate.
    #[must_use]
    pub fn told_by(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        if !text.contains(REFUSED) {
            return None;
        }
        let known = REASONS.iter().find(|(words, _)| text.contains(words));
        Some(known.map_or(Self::Other, |(_, fault)| *fault))
    }

    /// The same from an error and its causes.
    #[must_use]
    pub fn in_chain(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let told = std::iter::successors(Some(error), |error| error.source())
            .filter_map(|error| Self::told_by(&error.to_string()));
        // Causes further in may have lost the reason.
        told.reduce(|first, next| if first == Self::Other { next } else { first })
    }

    /// What to do; `authority` is the setting that names who is trusted, such as `redis.ca_file`.
    #[must_use]
    pub fn remedy(self, authority: &str) -> String {
        match self {
            Self::Expired => "renew it on the server".to_owned(),
            Self::NotYetValid => "compare the clocks of this machine and of who made it".to_owned(),
            Self::OtherHost => {
                "ask for the server by a name that its certificate holds, or give it a certificate for this one"
                    .to_owned()
            }
            Self::UnknownAuthority => format!("name the authority that signed it in {authority}"),
            Self::Other => format!("look at the server's certificate and at {authority}"),
        }
    }
}

impl fmt::Display for CertificateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "its certificate has expired",
            Self::NotYetValid => "its certificate is not valid yet",
            Self::OtherHost => "its certificate is for another host",
            Self::UnknownAuthority => "its certificate is signed by an unknown authority",
            Self::Other => "its certificate was refused",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_certificate_is_told_with_its_reason() {
        let openssl = "error:0A000086:SSL routines:tls_post_process_server_certificate:certificate verify failed:\
                       ../ssl/statem/statem_clnt.c:1889:";
        for (reason, fault) in [
            ("(certificate has expired)", CertificateFault::Expired),
            ("(certificate is not yet valid)", CertificateFault::NotYetValid),
            ("(Hostname mismatch)", CertificateFault::OtherHost),
            ("(IP address mismatch)", CertificateFault::OtherHost),
            ("(self-signed certificate in certificate chain)", CertificateFault::UnknownAuthority),
            ("(unable to get local issuer certificate)", CertificateFault::UnknownAuthority),
            ("(CA signature digest algorithm too weak)", CertificateFault::Other),
            ("", CertificateFault::Other),
        ] {
            assert_eq!(CertificateFault::told_by(&format!("{openssl} {reason}")), Some(fault), "{reason}");
        }
    }

    #[test]
    fn a_handshake_that_broke_off_is_no_refusal() {
        for text in ["unexpected EOF", "Connection reset by peer (os error 104)", "certificate has expired?"]
        {
            assert_eq!(CertificateFault::told_by(text), None, "{text}");
        }
    }

    #[test]
    fn an_authority_is_mended_where_it_is_named() {
        assert!(CertificateFault::UnknownAuthority.remedy("redis.ca_file").contains("redis.ca_file"));
        assert!(CertificateFault::Expired.remedy("redis.ca_file").contains("renew"));
    }
}
