//! Commits whose answer comes with what is polled.

use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
};
use rdkafka_sys as sys;

/// Commits offsets without waiting. What came of it comes with what the consumer polls: as the commit callback of its context. Of a
/// commit by [`CommitMode::Async`](rdkafka::consumer::CommitMode) nothing is ever heard, as crate rdkafka asks for events and
/// librdkafka answers to a callback or a queue only.
///
/// # Errors
/// When the client is no member of a group.
pub fn commit_and_tell<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    offsets: &TopicPartitionList,
) -> KafkaResult<()> {
    let client = consumer.client();
    // SAFETY: client and list outlive the calls, which copy the list; the queue is the consumer's own, the reference to it is
    // given back, and nothing is called back: without a callback the answer is an event on that queue.
    let code = unsafe {
        let queue = sys::rd_kafka_queue_get_consumer(client.native_ptr());
        if queue.is_null() {
            return Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::UnknownGroup));
        }
        let code =
            sys::rd_kafka_commit_queue(client.native_ptr(), offsets.ptr(), queue, None, std::ptr::null_mut());
        sys::rd_kafka_queue_destroy(queue);
        code
    };
    match code {
        sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        code => Err(KafkaError::ConsumerCommit(code.into())),
    }
}
