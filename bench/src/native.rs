//! The one call of librdkafka that crate rdkafka does not wrap and a bare client may well use: many records at a time.
#![expect(unsafe_code, reason = "a call of librdkafka that crate rdkafka does not wrap")]

use std::{marker::PhantomData, ptr::NonNull, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rdkafka::{
    consumer::{BaseConsumer, Consumer as _},
    error::RDKafkaErrorCode,
};
use rdkafka_sys as sys;

/// Reads a consumer's records in batches. Its partitions have to be assigned by hand: of a member of a group this call
/// would take the rebalance as well, which then nobody answers, and the member would have no partitions.
pub(crate) struct Batches<'c> {
    queue: NonNull<sys::rd_kafka_queue_t>,
    messages: Vec<*mut sys::rd_kafka_message_t>,
    _consumer: PhantomData<&'c BaseConsumer>,
}

impl<'c> Batches<'c> {
    /// Of at most `records_max` records each.
    pub(crate) fn of(consumer: &'c BaseConsumer, records_max: usize) -> Result<Self> {
        // SAFETY: the client is alive; the result is checked for null and destroyed in `drop`, before the client, which
        // is borrowed for longer.
        let queue = unsafe { sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        let queue = NonNull::new(queue).context("a client without `group.id` has no consumer queue")?;
        Ok(Self { queue, messages: vec![std::ptr::null_mut(); records_max], _consumer: PhantomData })
    }

    /// Hands key and value of the next records, `most` of them at most, to `take`; how many it took. It waits until there
    /// are as many, or until the time is over.
    pub(crate) fn next(
        &mut self,
        most: usize,
        timeout: Duration,
        mut take: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<usize> {
        let most = most.min(self.messages.len());
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue is valid, and `messages` has room for `most` pointers.
        let count = unsafe {
            sys::rd_kafka_consume_batch_queue(
                self.queue.as_ptr(),
                timeout_ms,
                self.messages.as_mut_ptr(),
                most,
            )
        };
        let count = usize::try_from(count).context("the batch was not read")?;
        let mut outcome = Ok(());
        for &message in &self.messages[..count] {
            // Each is given back, also those behind one that was not taken.
            let message = Message(message);
            outcome = outcome.and_then(|()| {
                let (key, value) = message.key_and_value()?;
                take(key, value)
            });
        }
        outcome.map(|()| count)
    }
}

impl Drop for Batches<'_> {
    fn drop(&mut self) {
        // SAFETY: the queue came from `rd_kafka_queue_get_consumer` and is given back once, here, before the client.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

/// A message of librdkafka, given back on drop. Made of a pointer that was just read from the queue, and of each one once.
struct Message(*mut sys::rd_kafka_message_t);

impl Message {
    /// Both empty where they are absent.
    fn key_and_value(&self) -> Result<(&[u8], &[u8])> {
        // SAFETY: the message is valid until `drop`, and nobody writes to it.
        let message = unsafe { &*self.0 };
        let code = RDKafkaErrorCode::from(message.err);
        ensure!(code == RDKafkaErrorCode::NoError, "a record was not read: {code}");
        // SAFETY: both point to as many bytes as the message says, or are null, and live as long as the message.
        unsafe {
            Ok((bytes(message.key.cast(), message.key_len), bytes(message.payload.cast(), message.len)))
        }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: by the type's contract.
        unsafe { sys::rd_kafka_message_destroy(self.0) };
    }
}

/// # Safety
/// `start` is null, or points to `length` bytes that live for `'m` and are not written.
unsafe fn bytes<'m>(start: *const u8, length: usize) -> &'m [u8] {
    if start.is_null() {
        return &[];
    }
    // SAFETY: by this function's contract.
    unsafe { std::slice::from_raw_parts(start, length) }
}
