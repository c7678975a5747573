//! What test targets share: a fleet of a test's own ([`World`]), and waiting for things to become so.

#![expect(clippy::unwrap_used, reason = "tests")]

mod endpoint;
mod world;

pub use endpoint::{Asked, Endpoint, Reply};
pub use world::{LIMIT, World, address_of, get, until};
