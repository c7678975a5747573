//! Free space, where it can be seen from here, and plain words where it cannot.

use crate::{Check, Finding};

const GIB: u64 = 1 << 30;
/// A folder that holds locks only needs next to nothing.
const LOCKS_BYTES_MIN: u64 = 1 << 20;

/// Room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// For whoever asked, in bytes.
    pub free: u64,
    /// All told, in bytes.
    pub total: u64,
}

/// Judges the folder of slot locks: where it is, and whether this user may write there.
#[must_use]
pub fn judge_state(folder: &str, space: Option<Space>, is_writable: bool) -> Finding {
    let cure = "give it room and rights, or set `run.state_dir` (or `run.instance`, which needs no folder)";
    if !is_writable {
        return Check::DiskState.error(format!("this user may not write to `{folder}`")).cure(cure);
    }
    match space {
        Some(space) if space.free < LOCKS_BYTES_MIN => {
            Check::DiskState.error(format!("`{folder}` is full: {}", shown(space))).cure(cure)
        }
        Some(space) => Check::DiskState.ok(format!("`{folder}`: {}", shown(space))),
        None => Check::DiskState.info(format!("the file system of `{folder}` does not tell its space")),
    }
}

/// Judges a server's disk, seen from its own host.
#[must_use]
pub fn judge_server(check: Check, whose: &str, folder: &str, space: Space) -> Finding {
    let found = format!("{whose}'s `{folder}`: {}", shown(space));
    let share = space.free.saturating_mul(100) / space.total.max(1);
    let cure = "free space or give it a larger disk before writes are refused";
    let by = format!("df -h {folder}");
    if share < 3 && space.free < 10 * GIB {
        check.error(found).cure(cure).by(by)
    } else if share < 10 && space.free < 50 * GIB {
        check.warning(found).cure(cure).by(by)
    } else {
        check.ok(found)
    }
}

/// Whether a folder's `meta.properties` says that it is that broker's, of that cluster: a folder of the same name on this
/// host may be anybody's. The number is `node.id`, before KRaft `broker.id`.
#[must_use]
pub fn is_of_broker(properties: &str, cluster_id: &str, broker: i32) -> bool {
    let value = |name: &str| {
        let lines = properties.lines().filter_map(|line| line.split_once('='));
        lines.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim()).next()
    };
    let number = value("node.id").or_else(|| value("broker.id"));
    value("cluster.id") == Some(cluster_id) && number == Some(broker.to_string().as_str())
}

/// A server's disk cannot be seen from here; `known` is what is known all the same.
#[must_use]
pub fn unseen(check: Check, whose: &str, why: &str, known: &str) -> Finding {
    let known = if known.is_empty() { String::new() } else { format!(" ({known})") };
    check
        .info(format!("free space of {whose} cannot be seen from here: {why}{known}"))
        .cure("watch it on its host, and have it alert at 20 %")
}

fn shown(space: Space) -> String {
    let share = space.free.saturating_mul(100) / space.total.max(1);
    format!("{:.1} of {:.1} GB free ({share} %)", gigabytes(space.free), gigabytes(space.total))
}

fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Severity;

    #[test]
    fn a_disk_is_judged_by_its_share_and_by_what_is_left() {
        let at = |free, total| judge_server(Check::DiskRedis, "redis", "/d", Space { free, total }).severity;
        assert_eq!(at(50 * GIB, 100 * GIB), Severity::Ok);
        assert_eq!(at(5 * GIB, 100 * GIB), Severity::Warning);
        assert_eq!(at(GIB, 100 * GIB), Severity::Error);
        assert_eq!(at(20 * GIB, 1000 * GIB), Severity::Warning);
        assert_eq!(at(100 * GIB, 10_000 * GIB), Severity::Ok);
    }

    #[test]
    fn a_brokers_folder_says_so() {
        let kraft = "#\n#Sat Nov 28\ncluster.id=abc\nversion=1\nnode.id = 3\ndirectory.id=x\n";
        assert!(is_of_broker(kraft, "abc", 3));
        assert!(!is_of_broker(kraft, "abc", 1), "another broker's");
        assert!(!is_of_broker(kraft, "abd", 3), "another cluster's");
        assert!(is_of_broker("broker.id=0\ncluster.id=abc", "abc", 0));
        assert!(!is_of_broker("", "abc", 0));
    }

    #[test]
    fn a_folder_of_locks_needs_rights_and_next_to_nothing() {
        let small = Some(Space { free: 2 << 20, total: 1 << 30 });
        assert_eq!(judge_state("/s", small, true).severity, Severity::Ok);
        assert_eq!(judge_state("/s", small, false).severity, Severity::Error);
        assert_eq!(judge_state("/s", Some(Space { free: 0, total: 1 }), true).severity, Severity::Error);
        assert!(unseen(Check::DiskKafka, "kafka", "no", "").found.contains("cannot be seen"));
    }
}
