//! What the measurements of this folder share: measurements like a fleet's, and fleetlog's pure parts as workloads, which
//! the clock (`benches/pure.rs`) and the counter of instructions (`bin/instructions/`) both run.

pub mod pure;
pub mod telemetry;

use tikv_jemallocator::Jemalloc;

/// That of the program which is measured, for bare clients too: with glibc's, the threads of a client wait for each other's
/// arenas more than for anything else.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;
