//! A wall clock that jumps, for a process under test.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// The wall clock of the processes that are given it ([`Self::variables`]): it runs, and jumps when told to. Their monotonic
/// clock, by which timeouts are measured, stays right, as on a machine whose time somebody sets.
///
/// By libfaketime (Debian package `faketime`), which answers a program's questions for the time in the place of the
/// system.
#[derive(Debug)]
pub struct WallClock {
    folder: TempDir,
    library: String,
}

impl WallClock {
    /// A clock that is right so far.
    ///
    /// # Errors
    /// If `faketime` is not installed.
    pub fn new() -> Result<Self> {
        let clock = Self { folder: tempfile::tempdir()?, library: library()? };
        clock.jump_to(0)?;
        Ok(clock)
    }

    /// From now on the clock is wrong by so many seconds, negative being in the past. Seen within a question or two.
    ///
    /// # Errors
    /// If its file cannot be written.
    pub fn jump_to(&self, seconds: i64) -> Result<()> {
        // Renamed over, so that nobody reads half of it.
        let new = self.folder.path().join("new");
        fs::write(&new, format!("{seconds:+}\n"))?;
        fs::rename(new, self.file()).context("cannot set the clock")
    }

    /// The environment of a process that is to live by this clock.
    #[must_use]
    pub fn variables(&self) -> [(&'static str, String); 4] {
        [
            ("LD_PRELOAD", self.library.clone()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }
}

/// Where the library for programs with several threads is: what the command `faketime -m` would preload.
fn library() -> Result<String> {
    const MISSING: &str = "faketime is missing: install the Debian package `faketime`";
    let shown = Command::new("faketime")
        .args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"])
        .output()
        .context(MISSING)?;
    let library = String::from_utf8_lossy(&shown.stdout).trim().to_owned();
    if !shown.status.success() || library.is_empty() {
        bail!("{MISSING} ({})", String::from_utf8_lossy(&shown.stderr).trim());
    }
    Ok(library)
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    fn shown(clock: &WallClock, command: &str) -> f64 {
        let output = Command::new("sh").args(["-c", command]).envs(clock.variables()).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    }

    #[test]
    fn wall_clocks_jump_and_stopwatches_do_not() {
        const HOUR: f64 = 3600.0;
        let clock = WallClock::new().unwrap();
        for (offset, expected) in [(0, 0.0), (3600, HOUR), (-3600, -HOUR)] {
            clock.jump_to(offset).unwrap();
            let real = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
            let off = shown(&clock, "date +%s.%N") - real;
            assert!((off - expected).abs() < 60.0, "off by {off} s where {expected} s was set");
        }
        let python = "python3 -c 'import time; print(time.monotonic())'";
        clock.jump_to(0).unwrap();
        let before = shown(&clock, python);
        clock.jump_to(86_400).unwrap();
        assert!(shown(&clock, python) - before < HOUR);
    }
}
