//! What each failure of the database means for a lane: one table over the SQLSTATE codes.
//!
//! Codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.

use std::time::Duration;

use fleetlog_projection::{Fault, SinkError};
use fleetlog_trust::CertificateFault;

/// A step on a connection failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The server or the way to it said so.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// A fold's states and their table do not fit together.
    #[error("{what}")]
    States {
        /// What was found.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The password was taken before and is refused now: it is being changed, or the exchange was cut off.
    #[error("{0}, though the same password was taken before; is it being changed?")]
    RefusedLater(String),
    /// Nothing came back in time.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
}

/// What a failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// It passes.
    Transient,
    /// The database does not want these rows, whoever brings them and whenever.
    Refused,
    /// It stays until somebody does this.
    Permanent(&'static str),
}

const MIGRATE: &str = "the tables are not those of this version: run `fleetlog migrate`";
const ACCESS: &str = "check user and password in `postgres.url`, or `postgres.password`";
const CERTIFICATE: &str = "see docs/security.md";
const NO_TLS: &str = "switch TLS on at the server, or ask for less in `sslmode` of `postgres.url`";
const RIGHTS: &str = "grant the user of `postgres.url` rights on fleetlog's tables";
const DATABASE: &str = "make the database named in `postgres.url`, or correct the name";
const CORRUPT: &str = "the server reports damaged data: see its log, restore or repair";
pub(crate) const BUG: &str = "this is a bug in fleetlog: please report it";
const UNCLEAR: &str = "see the server's log";

/// Reads a SQLSTATE, most telling codes first, then their classes.
pub(crate) fn meaning_of_code(code: &str) -> Meaning {
    use Meaning::{Permanent, Refused, Transient};
    match code {
        // What COPY answers to bytes that are not what the column types want: our encoder's fault.
        "22P03" => Permanent(BUG),
        // A value too large for an index (54000): the row's own, as are a trigger's and a view's objections.
        "54000" | "P0001" | "44000" => Refused,
        "25006" => Transient, // read-only: a standby that is about to be promoted
        "25P03" => Transient, // idle in transaction too long: we were slow
        "55P03" | "55006" => Transient, // lock not available, object in use
        "57014" => Transient, // cancelled: statement timeout
        "57P01" | "57P02" | "57P03" | "57P05" => Transient, // shut down, crashed, starting up, idle session
        "57P04" => Permanent(DATABASE), // database was dropped
        "58030" => Transient, // I/O error of the server's disk
        "42501" => Permanent(RIGHTS),
        "XX001" | "XX002" | "58P01" => Permanent(CORRUPT),
        // Internal: what the server says where it foresaw no code, such as of a file that a full disk cut short.
        "XX000" => Transient,
        _ => match code.get(..2).unwrap_or_default() {
            // Connection. 08P01 too: a message that a broken connection cut short is none of the protocol's.
            "08" => Transient,
            "40" => Transient,      // serialization, deadlock, completion unknown
            "53" => Transient,      // disk full, too many connections, out of memory
            "22" | "23" => Refused, // data exception, integrity constraint
            "28" => Permanent(ACCESS),
            "3D" => Permanent(DATABASE),
            "3F" | "42" => Permanent(MIGRATE), // no schema, no table, no column, wrong type
            _ => Permanent(UNCLEAR),
        },
    }
}

/// A certificate that was refused stays so, and a server without TLS too; a handshake that broke off passes.
fn meaning_of_tls(error: &(dyn std::error::Error + 'static)) -> Meaning {
    if CertificateFault::in_chain(error).is_some() {
        return Meaning::Permanent(CERTIFICATE);
    }
    if error.to_string().contains("does not support TLS") {
        return Meaning::Permanent(NO_TLS);
    }
    Meaning::Transient
}

impl Failure {
    /// What it means for the lane.
    pub(crate) fn meaning(&self) -> Meaning {
        use sqlx::Error;
        match self {
            Self::TimedOut(_) | Self::RefusedLater(_) => Meaning::Transient,
            Self::States { remedy, .. } => Meaning::Permanent(remedy),
            Self::Sql(Error::Database(error)) => match error.code() {
                Some(code) => meaning_of_code(&code),
                None => Meaning::Transient,
            },
            // The stream broke or was cut in the middle of a message.
            Self::Sql(Error::Io(_) | Error::Protocol(_) | Error::WorkerCrashed) => Meaning::Transient,
            Self::Sql(Error::Tls(error)) => meaning_of_tls(error.as_ref()),
            Self::Sql(Error::Configuration(_)) => Meaning::Permanent("correct `postgres.url`"),
            Self::Sql(_) => Meaning::Permanent(BUG),
        }
    }

    /// The server's words on why it refused a row, with the code.
    pub(crate) fn refusal(&self) -> String {
        match self {
            Self::Sql(sqlx::Error::Database(error)) => {
                format!("{} (SQLSTATE {})", error.message(), error.code().unwrap_or_default())
            }
            Self::Sql(sqlx::Error::Tls(error)) => match CertificateFault::in_chain(error.as_ref()) {
                Some(fault) => format!("{fault}: {} ({error})", fault.remedy("`postgres.ca_file`")),
                None => error.to_string(),
            },
            other => other.to_string(),
        }
    }

    /// The server did not take the password.
    pub(crate) fn is_password_refused(&self) -> bool {
        matches!(self, Self::Sql(sqlx::Error::Database(error)) if error.code().as_deref() == Some("28P01"))
    }

    /// Somebody else had a lock for longer than this transaction may wait.
    pub(crate) fn is_lock_timeout(&self) -> bool {
        matches!(self, Self::Sql(sqlx::Error::Database(error)) if error.code().as_deref() == Some("55P03"))
    }

    /// As the error of a sink; `tried` says what was tried, such as "commit of lane x".
    pub(crate) fn into_sink_error(self, tried: &str) -> SinkError {
        match self.meaning() {
            Meaning::Transient => SinkError::caused(Fault::Transient, format!("postgresql: {tried}"), self),
            Meaning::Permanent(remedy) => {
                let what = format!("postgresql: {tried}: {}; {remedy}", self.refusal());
                SinkError::new(Fault::Permanent, what)
            }
            Meaning::Refused => {
                let what = format!("postgresql: {tried}: {}; {UNCLEAR}", self.refusal());
                SinkError::new(Fault::Permanent, what)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_down_or_full_is_waited_for() {
        for code in [
            "08000", "08003", "08006", "08P01", "XX000", "40001", "40P01", "53100", "53200", "53300",
            "55P03", "57014", "57P01", "57P02", "57P03", "25006", "58030",
        ] {
            assert_eq!(meaning_of_code(code), Meaning::Transient, "{code}");
        }
    }

    #[test]
    fn bad_data_is_refused() {
        for code in ["22021", "22P05", "22P02", "22003", "22001", "23514", "23502", "23505", "54000", "P0001"]
        {
            assert_eq!(meaning_of_code(code), Meaning::Refused, "{code}");
        }
    }

    #[test]
    fn what_a_person_has_to_mend_says_how() {
        for (code, word) in [
            ("28P01", "password"),
            ("3D000", "make the database"),
            ("42P01", "fleetlog migrate"),
            ("42703", "fleetlog migrate"),
            ("42501", "grant"),
            ("XX001", "damaged"),
            ("22P03", "bug"),
            ("0A000", "log"),
            ("", "log"),
        ] {
            let Meaning::Permanent(remedy) = meaning_of_code(code) else { panic!("{code} is not permanent") };
            assert!(remedy.contains(word), "{code}: {remedy}");
        }
    }
}
