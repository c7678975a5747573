//! librdkafka's log lines and errors, told to `tracing`.

use crate::error_code;
use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
};
use tracing::{debug, error, info, warn};

/// The context of clients without callbacks of their own: logs go to `tracing` under target `librdkafka`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingContext;

impl ClientContext for TracingContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ConsumerContext for TracingContext {}

/// A log line of librdkafka; for contexts that have callbacks of their own.
pub fn log_line(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => {
            error!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Warning => warn!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => info!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Debug => debug!(target: "librdkafka", facility, "{message}"),
    }
}

/// A global error of a client. Most are about one connection and heal by themselves: warned about, not passed on.
pub fn log_error(error: &KafkaError, reason: &str) {
    if error_code(error) == Some(RDKafkaErrorCode::PartitionEOF) {
        // Asked for (`enable.partition.eof`), and also told to whoever polls.
        return;
    }
    warn!(target: "librdkafka", %error, "{reason}");
}
