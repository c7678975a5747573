//! The allocator: jemalloc, for librdkafka as well.
//!
//! Records are taken by librdkafka's threads, handed to poll threads, and given back by lanes: memory that one thread
//! takes and another one gives back. glibc keeps it in up to eight pieces a core (arenas) and gives little of it back to
//! the system: the same catch-up took 776 MB with glibc, 412 MB of it still at its end, and 553 MB with jemalloc, 133 MB
//! at its end (docs/adr/0007).
#![expect(unsafe_code, reason = "jemalloc reads its settings from a symbol of this name")]

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Memory that is not used goes back to the system after a second, by a thread of jemalloc's own; and few arenas, since
/// each keeps some for itself. After 100 ms a catch-up spent twice the time in the system for pages that it had just given
/// back, and took 30 MB less.
#[unsafe(no_mangle)]
static malloc_conf: &[u8; 70] = b"background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0,narenas:4\0";
