//! A name for this process that a restarted one takes again at once.
//!
//! Kafka replaces a killed member without waiting for its session if the new one carries the same
//! `group.instance.id` (KIP-345), and throws one of two out that carry the same at a time. So each process on a host
//! holds the lock of a numbered slot; a kill frees it, and the next process takes the lowest free one.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::config::Config;

/// More processes on one host than any fleet has.
const SLOTS_MAX: u32 = 10_000;

/// The name, held as long as this value lives.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) name: String,
    /// None where the name was given in the settings.
    _lock: Option<File>,
}

/// Where slot locks are kept.
pub(crate) fn folder(config: &Config) -> PathBuf {
    if config.run.state_dir.is_empty() {
        std::env::temp_dir().join("fleetlog")
    } else {
        PathBuf::from(&config.run.state_dir)
    }
}

impl Instance {
    /// The configured name, or the host's name and the lowest slot that is free.
    pub(crate) fn take(config: &Config) -> anyhow::Result<Self> {
        if !config.run.instance.is_empty() {
            return Ok(Self { name: config.run.instance.clone(), _lock: None });
        }
        Self::take_slot(&folder(config), &config.kafka.topic_prefix)
    }

    fn take_slot(dir: &Path, prefix: &str) -> anyhow::Result<Self> {
        let place =
            || format!("folder for slot locks `{}`: set run.state_dir or run.instance", dir.display());
        std::fs::create_dir_all(dir).with_context(place)?;
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = match host.trim() {
            "" => "host",
            name => name,
        };
        for slot in 0..SLOTS_MAX {
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(dir.join(format!("{prefix}slot-{slot}.lock")))
                .with_context(place)?;
            match file.try_lock() {
                Ok(()) => return Ok(Self { name: format!("{host}-{slot}"), _lock: Some(file) }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error).with_context(place),
            }
        }
        anyhow::bail!("all {SLOTS_MAX} slots in `{}` are taken", dir.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_free_again_when_its_holder_is_gone() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let first = Instance::take_slot(dir.path(), "p-")?;
        let second = Instance::take_slot(dir.path(), "p-")?;
        assert!(first.name.ends_with("-0") && second.name.ends_with("-1"), "{} {}", first.name, second.name);
        let name = first.name.clone();
        drop(first);
        assert_eq!(Instance::take_slot(dir.path(), "p-")?.name, name);
        Ok(())
    }
}
