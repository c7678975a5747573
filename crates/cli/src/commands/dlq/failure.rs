//! What the tools could not do, with its exit code and what to do about it.

use fleetlog_dead_letters::ToolError;
use fleetlog_kafka::KafkaFault;

use crate::exit::{Code, Failure};

/// The error with its code and hint.
pub(crate) fn failure(error: ToolError) -> Failure {
    let (code, hint) = match &error {
        ToolError::Selector(_) => (Code::Usage, "fleetlog dlq list --help".to_owned()),
        ToolError::NoPlace(_) => {
            (Code::Usage, "written TOPIC/PARTITION/OFFSET, as `fleetlog dlq list` prints it".to_owned())
        }
        ToolError::UnknownTopic { known, .. } => {
            (Code::Usage, format!("topics that have one: {}", known.join(", ")))
        }
        ToolError::Text { .. } => (Code::Usage, "say in a sentence why: --reason TEXT".to_owned()),
        ToolError::MatchesAll { .. } => {
            (Code::Usage, "name fewer, or say that all are meant: --all".to_owned())
        }
        ToolError::UnknownGroup { known, .. } => (Code::Found, format!("groups: {}", known.join(", "))),
        ToolError::NothingMatches { .. } => {
            (Code::Found, "fleetlog dlq stats --state any: what there is".to_owned())
        }
        ToolError::NoLetter(_) => (Code::Found, "fleetlog dlq list".to_owned()),
        ToolError::NoTopics { .. } | ToolError::NoOpsTopic(_) => {
            (Code::Found, "`fleetlog topics plan` shows what is missing, `apply` creates it".to_owned())
        }
        ToolError::Read(error) => server(error.fault()),
        ToolError::Cluster(error) => server(error.fault()),
        ToolError::Schema(_) => {
            (Code::Unreachable, "is the schema registry running, and is registry.url right?".to_owned())
        }
        ToolError::NotSent { .. } => {
            (Code::Failed, "run the same command again: it takes the letters that are still open".to_owned())
        }
        ToolError::Interrupted => (Code::Failed, "run it again".to_owned()),
    };
    Failure::new(code, error.to_string(), hint)
}

fn server(fault: KafkaFault) -> (Code, String) {
    match fault {
        KafkaFault::Transient => (Code::Unreachable, "are the brokers up? (fleetlog doctor)".to_owned()),
        KafkaFault::Permanent => {
            (Code::Failed, "where retention was quicker than reading, run it again".to_owned())
        }
    }
}
