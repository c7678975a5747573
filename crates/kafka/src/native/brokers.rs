//! Whether a client knows anybody to ask, and telling it whom.

use std::{ffi::CString, time::Duration};

use rdkafka::{ClientContext, client::Client};
use rdkafka_sys as sys;

/// Whether some broker answers within the timeout, *blocking*. Asked for what the client knows of: no list of all topics.
pub(crate) fn anybody_answers<C: ClientContext>(client: &Client<C>, timeout: Duration) -> bool {
    let mut metadata = std::ptr::null();
    // SAFETY: the client is alive; without a topic the call takes a null pointer; what it made is destroyed once.
    unsafe {
        let code = sys::rd_kafka_metadata(
            client.native_ptr(),
            0,
            std::ptr::null_mut(),
            &raw mut metadata,
            super::millis(timeout),
        );
        if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return false;
        }
        sys::rd_kafka_metadata_destroy(metadata);
    }
    true
}

/// Tells a client of bootstrap servers, as if it had just been made with them; those that it knows it keeps.
pub(crate) fn add_brokers<C: ClientContext>(client: &Client<C>, servers: &str) {
    // No client was made with a NUL in its servers.
    let Ok(servers) = CString::new(servers) else { return };
    // SAFETY: the client is alive, and the list is copied.
    unsafe { sys::rd_kafka_brokers_add(client.native_ptr(), servers.as_ptr()) };
}
