//! What a measurement cost: CPU seconds of every program that took part, and memory.

use std::{collections::BTreeMap, fs, path::Path};

/// Programs whose time is counted, by the name that the kernel has for them.
const PROGRAMS: [(&str, &str); 5] = [
    ("java", "kafka"),
    ("redis-server", "redis"),
    ("postgres", "postgres"),
    ("fleetlog", "fleetlog"),
    ("fleetlog-bench", "bench"),
];
/// Clock ticks a second (`getconf CLK_TCK`): 100 on every Linux of today.
const TICKS_PER_S: f64 = 100.0;

/// CPU seconds by program, and the peak memory of a process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spent {
    pub(crate) cpu_s: BTreeMap<String, f64>,
    pub(crate) peak_rss_mb: Option<f64>,
}

/// CPU seconds of each program until now. Processes that ended are counted where their parent still runs.
fn until_now() -> BTreeMap<String, f64> {
    let mut seconds = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        // `self` and `thread-self` are we once more.
        let is_process = entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit());
        let Some((name, ticks)) = times(&entry.path()).filter(|_| is_process) else { continue };
        if let Some((_, program)) = PROGRAMS.iter().find(|(comm, _)| *comm == name) {
            *seconds.entry((*program).to_owned()).or_default() += ticks / TICKS_PER_S;
        }
    }
    seconds
}

/// A process' name, and its ticks of user and system time with those of children that it waited for (proc(5), stat).
fn times(process: &Path) -> Option<(String, f64)> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let (head, rest) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // `rest` begins with field 3; utime, stime, cutime and cstime are fields 14 to 17.
    let own = fields.get(11..13)?;
    let of_children = if name == "postgres" { fields.get(13..15)? } else { &[] };
    let ticks = own.iter().chain(of_children).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    Some((name.to_owned(), ticks))
}

/// Measures what passes between two moments.
pub(crate) struct Meter {
    before: BTreeMap<String, f64>,
    children_s: f64,
}

impl Meter {
    pub(crate) fn start() -> Self {
        Self { before: until_now(), children_s: children_s() }
    }

    /// What was spent since; a program that spent next to nothing is left out.
    pub(crate) fn stop(self) -> Spent {
        let spent = until_now().into_iter().map(|(program, now)| {
            let before = self.before.get(&program).copied().unwrap_or_default();
            (program, now - before)
        });
        Spent { cpu_s: spent.filter(|(_, seconds)| *seconds >= 0.05).collect(), peak_rss_mb: None }
    }

    /// The same where one child of ours, of that name, came and went.
    pub(crate) fn stop_with_child(self, name: &str) -> Spent {
        let seconds = children_s() - self.children_s;
        let mut spent = self.stop();
        spent.cpu_s.insert(name.to_owned(), seconds);
        spent
    }
}

/// CPU seconds of our children that ended.
fn children_s() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>());
    let of_children = fields.as_deref().and_then(|fields| fields.get(13..15)).unwrap_or_default();
    of_children.iter().filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_S
}
