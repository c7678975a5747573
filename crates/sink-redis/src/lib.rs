//! Hot state in Redis, on the chain of links.
