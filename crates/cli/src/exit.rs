//! Exit codes, the same for every command.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | looked, and found something wrong: differences, a refused plan, an incompatible schema, a stopped projection |
//! | 2 | wrong usage or settings |
//! | 3 | a server could not be reached, or did not answer in time |
//! | 4 | failed otherwise |

use std::process::ExitCode;

use fleetlog_kafka::{ClusterError, KafkaFault};

use crate::config::ConfigError;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// 0
    Done,
    /// 1
    Found,
    /// 2
    Usage,
    /// 3
    Unreachable,
    /// 4
    Failed,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// An error that knows its exit code and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    /// With which code to end.
    pub(crate) code: Code,
    /// What was wrong, and where.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// A failure with a hint.
    pub(crate) fn new(code: Code, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: Some(hint.into()) }
    }
}

/// An error with its causes, in one line. Libraries often repeat their source's text in their own, which is told once.
pub(crate) fn text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
    }
    text
}

/// Prints an error with its causes and its hint; says with which code to end.
pub(crate) fn report(error: &anyhow::Error) -> Code {
    eprintln!("error: {}", text(error));
    if let Some(failure) = error.downcast_ref::<Failure>() {
        if let Some(hint) = &failure.hint {
            eprintln!("hint: {hint}");
        }
        return failure.code;
    }
    if error.downcast_ref::<ConfigError>().is_some() {
        return Code::Usage;
    }
    // Brokers that answered at first and not any more, or not in time.
    let is_silence = |cause: &ClusterError| cause.fault() == KafkaFault::Transient;
    let is_silent = error.chain().filter_map(|cause| cause.downcast_ref()).any(is_silence);
    if is_silent { Code::Unreachable } else { Code::Failed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_falls_silent_in_the_middle_is_unreachable_and_one_that_refuses_is_not() {
        let silent = ClusterError::NotVisible { what: "topic `robot`".to_owned(), waited_s: 60 };
        let refused = ClusterError::UnknownTopic("robot".to_owned());
        for (error, code) in [(silent, Code::Unreachable), (refused, Code::Failed)] {
            assert_eq!(
                (error.fault() == KafkaFault::Transient, report(&error.into())),
                (code == Code::Unreachable, code)
            );
        }
    }
}
