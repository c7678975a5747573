//! What people read of an entity, and where: the fields of a hash, the columns of a row.

use std::borrow::Cow;

use fleetlog_event::{EntityKey, LogId, TimestampMs};
use fleetlog_projection::{EntityRow, FoldProjector, HotWrite};

use crate::{
    HistoryStore, HotStore, VerifyError,
    entity::{self, expires_at},
    hot_store::Wanted,
    progress::LaneSource,
    row,
};

/// What a store holds of an entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The log it was folded from.
    pub log: LogId,
    /// The partition it was folded from.
    pub partition: i32,
    /// One past the last event that it took.
    pub next: i64,
    /// The field; none if it is absent.
    pub value: Option<String>,
}

/// A store whose entities people read field by field.
#[expect(private_bounds, reason = "what a store says of lanes is this crate's business")]
pub trait Readable<P: FoldProjector>: LaneSource {
    /// The names of all fields, in the order of the projector.
    fn names(projector: &P) -> Vec<String>;

    /// A field of a state; none if it is absent.
    ///
    /// # Errors
    /// When the projector does not write what it has to.
    fn value(
        projector: &P,
        key: &EntityKey,
        state: &P::State,
        field: &str,
    ) -> Result<Option<String>, VerifyError>;

    /// From when on the store may have forgotten an entity of that state.
    fn expires_at(projector: &P, key: &EntityKey, state: &P::State) -> Option<TimestampMs>;

    /// What the store holds of the entity; none if it does not know it.
    fn stored(
        &self,
        projector: &P,
        key: &EntityKey,
        field: &str,
    ) -> impl Future<Output = Result<Option<Stored>, VerifyError>> + Send;
}

fn writes_of<P: FoldProjector>(projector: &P, key: &EntityKey, state: &P::State) -> Vec<P::Write> {
    let mut writes = Vec::new();
    projector.writes(key, state, &mut writes);
    writes
}

/// Hashes in Redis.
impl<P: FoldProjector<Write = HotWrite>> Readable<P> for HotStore {
    fn names(projector: &P) -> Vec<String> {
        let name = |write| match write {
            HotWrite::Field { name, .. } => Some(Cow::into_owned(name)),
            HotWrite::Ranked { .. } | HotWrite::ExpireAt(_) => None,
        };
        let writes = writes_of(projector, &EntityKey::from(""), &P::State::default());
        writes.into_iter().filter_map(name).collect()
    }

    fn value(
        projector: &P,
        key: &EntityKey,
        state: &P::State,
        field: &str,
    ) -> Result<Option<String>, VerifyError> {
        let value = |write| match write {
            HotWrite::Field { name, value } if name == field => value,
            _ => None,
        };
        Ok(writes_of(projector, key, state).into_iter().find_map(value))
    }

    fn expires_at(projector: &P, key: &EntityKey, state: &P::State) -> Option<TimestampMs> {
        expires_at(&writes_of(projector, key, state))
    }

    async fn stored(
        &self,
        projector: &P,
        key: &EntityKey,
        field: &str,
    ) -> Result<Option<Stored>, VerifyError> {
        let home = projector.home(key);
        let mut shown = self.entities(&[Wanted { home: home.clone(), places: Vec::new() }]).await?;
        let Some(mut shown) = shown.pop().filter(|shown| shown.kind != "none") else { return Ok(None) };
        let malformed = |what: String| VerifyError::Malformed(format!("redis: `{home}` {what}"));
        let (log, partition, next) = entity::Stored::read(&shown).map_err(malformed)?.version()?;
        Ok(Some(Stored { log, partition, next, value: shown.fields.remove(field) }))
    }
}

/// Rows in SQL.
impl<P: FoldProjector<Write: EntityRow>> Readable<P> for HistoryStore {
    fn names(_: &P) -> Vec<String> {
        P::Write::TABLE.columns.iter().map(|column| column.name.to_owned()).collect()
    }

    fn value(
        projector: &P,
        key: &EntityKey,
        state: &P::State,
        field: &str,
    ) -> Result<Option<String>, VerifyError> {
        match writes_of(projector, key, state).as_slice() {
            [row] => Ok(column::<P>(&row::fields(row)?, field)),
            other => {
                let (id, rows) = (P::ID, other.len());
                Err(VerifyError::Malformed(format!(
                    "projection `{id}` makes {rows} rows of `{key}`, not one"
                )))
            }
        }
    }

    fn expires_at(_: &P, _: &EntityKey, _: &P::State) -> Option<TimestampMs> {
        None
    }

    async fn stored(&self, _: &P, key: &EntityKey, field: &str) -> Result<Option<Stored>, VerifyError> {
        let mut rows = self.entities(P::Write::TABLE, &[key.as_str()]).await?;
        let stored = rows.remove(key.as_str());
        Ok(stored.map(|row| Stored {
            log: row.log,
            partition: row.partition,
            next: row.next,
            value: column::<P>(&row.fields, field),
        }))
    }
}

/// A column of a row as people read it; none is NULL.
fn column<P: FoldProjector<Write: EntityRow>>(row: &row::Fields, name: &str) -> Option<String> {
    let (column, form) = P::Write::TABLE.columns.iter().zip(row).find(|(column, _)| column.name == name)?;
    row::value(column.sql_type, form.as_deref())
}
