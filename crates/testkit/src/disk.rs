//! A disk small enough to be filled.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// What takes up the space.
const BALLAST: &str = "ballast";

/// A file system in memory of a fixed size (tmpfs), unmounted when it is dropped.
#[derive(Debug)]
pub(crate) struct SmallDisk(TempDir);

impl SmallDisk {
    /// Mounts one; `None` where this process may not (it takes root).
    pub(crate) fn mount(bytes: u64) -> Result<Option<Self>> {
        let folder = tempfile::Builder::new().prefix("fleetlog-disk-").tempdir()?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "fleetlog-test"])
            .arg(folder.path())
            .output()
            .context("cannot start mount")?;
        Ok(mounted.status.success().then(|| Self(folder)))
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes every block that is free.
    pub(crate) fn fill(&self) -> Result<()> {
        let mut ballast = File::create(self.ballast())?;
        let block = [0; 4096];
        loop {
            match ballast.write_all(&block) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => bail!("cannot fill {}: {error}", self.path().display()),
            }
        }
    }

    /// Gives them back.
    pub(crate) fn empty(&self) -> Result<()> {
        fs::remove_file(self.ballast()).context("the disk was not filled")
    }

    fn ballast(&self) -> PathBuf {
        self.path().join(BALLAST)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server that was just killed may still hold a file. A failure leaves a mount behind and says so.
        let unmounted = Command::new("umount").arg("--lazy").arg(self.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.path().display());
        }
    }
}
