//! The migrations, compiled in: `migrations/NNNN_name.sql`, add-only.

use uuid::Uuid;

use crate::migrate::Flavour;

/// One step of the schema, in one transaction.
#[derive(Debug, PartialEq, Eq)]
pub struct Migration {
    /// Its number; they count from 1 without gaps.
    pub version: i32,
    /// Its name, after the number.
    pub name: &'static str,
    /// The file, lines of both flavours still covered.
    pub sql: &'static str,
}

macro_rules! migrations {
    ($($version:literal $file:literal),* $(,)?) => {
        &[$(Migration {
            version: $version,
            name: $file.split_at("0000_".len()).1,
            sql: include_str!(concat!("../../../migrations/", $file, ".sql")),
        }),*]
    };
}

/// All of them, in order.
pub const MIGRATIONS: &[Migration] = migrations! {
    1 "0001_progress",
    2 "0002_history",
    3 "0003_views",
    4 "0004_task_ledger",
    5 "0005_aggregates",
    6 "0006_read_views",
    7 "0007_figures",
    8 "0008_gaps",
    9 "0009_telemetry_facts",
    10 "0010_work_of_units",
    11 "0011_fleet_now_as_told",
    12 "0012_ledger_states",
    13 "0013_dead_letters",
    14 "0014_milestones_of_what_is_folded_anew",
};

impl Migration {
    /// The SQL for a flavour: lines that begin with `--plain:` or `--timescale:` belong to that flavour only.
    #[must_use]
    pub fn sql_for(&self, flavour: Flavour) -> String {
        let marker = format!("--{}: ", flavour.as_str());
        let uncovered = self.sql.lines().map(|line| line.strip_prefix(&marker).unwrap_or(line));
        uncovered.collect::<Vec<_>>().join("\n")
    }

    /// What the database remembers of the file, to notice that an applied migration was edited.
    #[must_use]
    pub fn checksum(&self) -> Uuid {
        Uuid::new_v5(&Uuid::NAMESPACE_OID, self.sql.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `MIGRATIONS` names every file of the folder, and nothing else.
    #[test]
    fn the_folder_is_compiled_in() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let known: Vec<String> =
            MIGRATIONS.iter().map(|m| format!("{:04}_{}.sql", m.version, m.name)).collect();
        assert_eq!(files, known, "add the file to MIGRATIONS in crates/sink-timescale/src/migrations.rs");
        for (migration, version) in MIGRATIONS.iter().zip(1..) {
            assert_eq!(migration.version, version, "numbers have no gaps");
        }
    }

    #[test]
    fn a_flavour_sees_its_own_lines_only() {
        let migration = Migration { version: 1, name: "x", sql: "A\n--plain: B\n--timescale: C;\n-- D\n;" };
        assert_eq!(migration.sql_for(Flavour::Plain), "A\nB\n--timescale: C;\n-- D\n;");
        assert_eq!(migration.sql_for(Flavour::Timescale), "A\n--plain: B\nC;\n-- D\n;");
    }
}
