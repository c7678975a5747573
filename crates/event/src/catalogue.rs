//! The topic catalogue.
