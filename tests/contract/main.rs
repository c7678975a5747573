//! Files against code: what has to agree without any server.
#![expect(clippy::unwrap_used, reason = "tests")]

mod borders;
mod doctor;
mod events_page;
mod metrics;
mod packaging;
mod reading;
mod schemas;
mod topics;

use std::path::{Path, PathBuf};

/// A folder of the project.
fn project(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder)
}
