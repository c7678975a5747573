//! Local servers and names for tests.
