//! A wall clock that jumps, for a process under test.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// What answers a process's questions for the time; compiled when it is needed.
const LIBRARY_SOURCE: &str = include_str!("clock/wall_clock.c");

/// The wall clock of the processes that are given it ([`Self::variables`]): it runs, and jumps when told to. Their
/// monotonic clock, by which timeouts are measured, stays right, as on a machine whose time somebody sets. What waits for
/// a time of the wall clock waits longer or shorter by the jump.
///
/// By a small library that is preloaded. Not by libfaketime, which does not know C11's `cnd_timedwait`: in a process
/// with librdkafka every wait of its threads would last as long as the clock is ahead.
#[derive(Debug)]
pub struct WallClock {
    folder: TempDir,
    offset: File,
}

impl WallClock {
    /// A clock that is right so far.
    ///
    /// # Errors
    /// If there is no C compiler (`cc`).
    pub fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let source = folder.path().join("wall_clock.c");
        fs::write(&source, LIBRARY_SOURCE)?;
        let offset = File::create(folder.path().join("offset"))?;
        let clock = Self { folder, offset };
        clock.jump_to(0)?;
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(clock.library())
            .arg(source)
            .output()
            .context("cannot start the C compiler `cc`")?;
        if !compiled.status.success() {
            bail!("the wall clock was not compiled:\n{}", String::from_utf8_lossy(&compiled.stderr));
        }
        Ok(clock)
    }

    /// From now on the clock is wrong by so many seconds, negative being in the past.
    ///
    /// # Errors
    /// If its file cannot be written.
    pub fn jump_to(&self, seconds: i64) -> Result<()> {
        // The file is mapped by the processes: one write of a word is seen whole.
        let nanoseconds = seconds.checked_mul(1_000_000_000).context("a jump of more than 292 years")?;
        self.offset.write_all_at(&nanoseconds.to_ne_bytes(), 0).context("cannot set the clock")
    }

    /// The environment of a process that is to live by this clock.
    ///
    /// jemalloc's own threads are off in it: they wait for a time of the wall clock, by a call that this library does not know,
    /// and where the clock is in the past they would spin, until servers beside them starve.
    #[must_use]
    pub fn variables(&self) -> [(&'static str, String); 3] {
        let offset = self.folder.path().join("offset");
        [
            ("LD_PRELOAD", self.library().display().to_string()),
            ("TESTKIT_WALL_CLOCK", offset.display().to_string()),
            ("MALLOC_CONF", "background_thread:false".to_owned()),
        ]
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("wall_clock.so")
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    fn shown(clock: &WallClock, command: &str) -> f64 {
        let output = Command::new("sh").args(["-c", command]).envs(clock.variables()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.trim().parse().unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
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

    #[test]
    fn a_process_that_runs_sees_the_jump_at_once() {
        let clock = WallClock::new().unwrap();
        let mut child = Command::new("python3")
            .args(["-c", "import time\nwhile input() is not None: print(time.time(), flush=True)"])
            .envs(clock.variables())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stdout));
        let mut ask = || -> f64 {
            std::io::Write::write_all(&mut stdin, b"\n").unwrap();
            lines.next().unwrap().unwrap().parse().unwrap()
        };
        let before = ask();
        clock.jump_to(-86_400).unwrap();
        assert!(before - ask() > 80_000.0);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
