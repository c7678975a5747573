//! Compat
