//! A deterministic fleet to size things with.
