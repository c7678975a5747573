//! Whether a client knows anybody to ask, and telling it whom.

use std::{ffi::CString, time::Duration};

use rdkafka::{ClientContext, client::Client};
use rdkafka_sys as sys;

/// Whether some broker answers within the timeout, *blocking*, and names brokers: itself, or those to go to. Asked for the
/// topics that the client knows of, not for a list of all.
pub(crate) fn names_brokers<C: ClientContext>(client: &Client<C>, timeout: Duration) -> bool {
    let mut metadata: *const sys::rd_kafka_metadata = std::ptr::null();
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
        let named = (*metadata).broker_cnt;
        sys::rd_kafka_metadata_destroy(metadata);
        named > 0
    }
}

/// Tells a client of bootstrap servers, as if it had just been made with them; those that it knows it keeps.
pub(crate) fn add_brokers<C: ClientContext>(client: &Client<C>, servers: &str) {
    // No client was made with a NUL in its servers.
    let Ok(servers) = CString::new(servers) else { return };
    // SAFETY: the client is alive, and the list is copied.
    unsafe { sys::rd_kafka_brokers_add(client.native_ptr(), servers.as_ptr()) };
}
