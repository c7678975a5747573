//! Files against code.
