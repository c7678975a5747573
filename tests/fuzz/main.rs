//! Hostile input: everything that reads bytes from outside, given what nobody meant to send.
//!
//! `fleetlog_testkit::fuzz` says how: seeded mutation over the corpus in `tests/fuzz/corpus/`, memory and time bounded.
//! What is private to a crate is fuzzed by that crate's own tests with the same means: settings, recordings and dead
//! letters in `crates/cli/src/fuzz.rs`, replies of Redis in `crates/sink-redis/src/fuzz.rs`. `make fuzz` runs them all.
#![expect(clippy::unwrap_used, reason = "tests")]

mod frames;
mod headers;
mod schema_files;
mod texts;
mod topics;
mod vda5050;
mod writer_schemas;

use std::path::{Path, PathBuf};

use fleetlog_testkit::fuzz::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// A file or folder of the project.
fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The lines of the recording.
fn recording() -> Vec<Vec<u8>> {
    let packed = std::fs::read(project("data/vda5050/A.jsonl.zst")).unwrap();
    let plain = zstd::decode_all(&packed[..]).unwrap();
    plain.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
}
