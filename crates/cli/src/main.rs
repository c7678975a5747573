//! fleetlog.
fn main() {}
