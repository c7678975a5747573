//! What is asked of history, as SQL.

use anyhow::Context;
use fleetlog_event::{EventSet, UnitKey, robot::RobotEvent, task::TaskEvent};
use fleetlog_projection::Column;
use fleetlog_projections::{event_history, telemetry_history};
use jiff::Timestamp;
use sqlx::{PgConnection, Postgres, postgres::PgArguments, query::Query};

/// What is said where a query fails.
pub(super) const READING: &str = "reading history; are the tables there? (fleetlog migrate)";

/// Which table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    UnitEvent,
    Telemetry,
    TaskEvent,
}

impl Table {
    fn name(self) -> &'static str {
        self.table().name
    }

    fn table(self) -> &'static fleetlog_projection::Table {
        match self {
            Self::UnitEvent => &event_history::UNIT_EVENT,
            Self::Telemetry => &telemetry_history::TELEMETRY,
            Self::TaskEvent => &event_history::TASK_EVENT,
        }
    }

    /// The names of its columns.
    pub(super) fn columns(self) -> impl Iterator<Item = &'static str> {
        self.table().columns.iter().map(|Column { name, .. }| *name)
    }

    /// The short names of the events that it holds.
    pub(super) fn known_events(self) -> Vec<&'static str> {
        let types = match self {
            Self::UnitEvent => RobotEvent::TYPES,
            Self::TaskEvent => TaskEvent::TYPES,
            Self::Telemetry => &[],
        };
        types.iter().map(fleetlog_event::EventType::short_name).collect()
    }

    /// The event types of these names, short or full.
    ///
    /// # Errors
    /// The first name that none has.
    pub(super) fn event_types(self, names: &[String]) -> Result<Vec<&'static str>, &str> {
        let known = self.known_events();
        let find = |name: &'static str, wanted: &str| wanted.rsplit('.').next() == Some(name);
        let one = |wanted: &'_ String| known.iter().copied().find(|name| find(name, wanted));
        let mut found = Vec::new();
        for name in names {
            found.push(one(name).ok_or(name.as_str())?);
        }
        Ok(found)
    }
}

/// Which rows: the newest `limit` of those that meet all conditions.
#[derive(Clone, Debug)]
pub(super) struct Select {
    pub(super) table: Table,
    /// The unit, or the task.
    pub(super) first: String,
    /// The unit's site; empty for a task.
    pub(super) second: String,
    pub(super) since: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
    /// None: all.
    pub(super) event_types: Vec<&'static str>,
    pub(super) limit: Option<i64>,
}

impl Select {
    pub(super) fn of_unit(unit: &UnitKey, table: Table, limit: i64) -> Self {
        Self {
            table,
            first: unit.unit_uid.clone(),
            second: unit.site_uid.clone(),
            since: None,
            until: None,
            event_types: Vec::new(),
            limit: Some(limit),
        }
    }

    /// Any row of the same subject.
    pub(super) fn without_conditions(&self) -> Self {
        Self { since: None, until: None, event_types: Vec::new(), limit: Some(1), ..self.clone() }
    }

    fn conditions(&self) -> String {
        let who = match self.table {
            Table::TaskEvent => "task_id = $1 AND $2 = ''",
            Table::UnitEvent | Table::Telemetry => "unit_uid = $1 AND site_uid = $2",
        };
        let mut conditions = format!("{who} AND $5::text[] IS NOT NULL");
        for (asked, condition) in [
            (self.since.is_some(), " AND recorded_at >= $3::timestamptz"),
            (self.until.is_some(), " AND recorded_at < $4::timestamptz"),
            (!self.event_types.is_empty(), " AND event_type = ANY($5)"),
        ] {
            if asked {
                conditions.push_str(condition);
            }
        }
        conditions
    }

    /// One JSON text a row, in log order.
    pub(super) fn sql(&self) -> String {
        let newest = self.limit.map_or_else(String::new, |limit| {
            format!(" ORDER BY recorded_at DESC, log_offset DESC LIMIT {limit}")
        });
        format!(
            "SELECT row_to_json(t)::text FROM (SELECT * FROM {} WHERE {}{newest}) t ORDER BY log_partition, log_offset",
            self.table.name(),
            self.conditions()
        )
    }

    /// The statement with its values. Conditions that are not asked for are not in it, so that the plan fits those that are;
    /// their values are named once all the same.
    pub(super) fn bound<'q>(&'q self, sql: &'q str) -> Query<'q, Postgres, PgArguments> {
        sqlx::query(sql)
            .bind(&self.first)
            .bind(&self.second)
            .bind(self.since.map(|time| time.to_string()))
            .bind(self.until.map(|time| time.to_string()))
            .bind(&self.event_types)
    }

    /// All rows at once: for few.
    pub(super) async fn query(&self, postgres: &mut PgConnection) -> anyhow::Result<Vec<String>> {
        let sql = self.sql();
        let rows = self.bound(&sql).fetch_all(postgres).await.context(READING)?;
        Ok(rows.iter().map(|row| sqlx::Row::try_get(row, 0)).collect::<Result<_, _>>()?)
    }

    /// Whether there are more rows than the limit.
    pub(super) async fn has_more(&self, postgres: &mut PgConnection) -> anyhow::Result<bool> {
        let Some(limit) = self.limit else { return Ok(false) };
        let sql = format!(
            "SELECT 1 FROM {} WHERE {} ORDER BY recorded_at DESC, log_offset DESC OFFSET {limit} LIMIT 1",
            self.table.name(),
            self.conditions()
        );
        Ok(self.bound(&sql).fetch_optional(postgres).await.context(READING)?.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select() -> Select {
        Select::of_unit(&UnitKey::new("504", "7"), Table::UnitEvent, 10)
    }

    #[test]
    fn only_what_is_asked_for_is_a_condition() {
        let plain = select().sql();
        assert!(
            !plain.contains("$3") && plain.contains("LIMIT 10) t ORDER BY log_partition, log_offset"),
            "{plain}"
        );
        let narrow = Select {
            since: Some(Timestamp::UNIX_EPOCH),
            event_types: vec!["Connected"],
            limit: None,
            ..select()
        };
        let sql = narrow.sql();
        for part in ["recorded_at >= $3", "event_type = ANY($5)", "FROM unit_event"] {
            assert!(sql.contains(part), "{sql}");
        }
        assert!(!sql.contains("LIMIT") && !sql.contains("$4"), "{sql}");
    }

    #[test]
    fn event_types_are_named_short_or_full() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let asked = names(&["Connected", "fleetlog.robot.FaultRaised"]);
        assert_eq!(Table::UnitEvent.event_types(&asked), Ok(vec!["Connected", "FaultRaised"]));
        assert_eq!(Table::TaskEvent.event_types(&asked), Err("Connected"));
        assert_eq!(Table::UnitEvent.event_types(&[]), Ok(vec![]));
    }
}
