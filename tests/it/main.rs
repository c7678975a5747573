//! Tests against real servers.

mod kafka;
mod topics;
