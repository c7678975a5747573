//! A map projector as a projection: no state, rows only.

use fleetlog_event::{Decode, EntityKey, EventSet};

use crate::{
    LaneScope, MapProjector, Projected, Projection, Record, RowChange, Rulings, SetAside,
    projection::{key_text_of, read_event_for, refused},
};

/// Drives a [`MapProjector`].
#[derive(Debug)]
pub struct Map<P>(pub P);

impl<P: MapProjector> Projection for Map<P> {
    type Write = P::Write;
    type Cache = ();
    type Pending = ();
    type Touched = ();

    fn id(&self) -> &'static str {
        P::ID
    }
    fn version(&self) -> u32 {
        P::VERSION
    }
    fn topics(&self) -> &'static [&'static str] {
        P::Event::TOPICS
    }

    fn project<D: Decode>(
        &self,
        scope: &LaneScope,
        decode: &D,
        records: &[&Record],
        rulings: &Rulings,
        (): &(),
    ) -> Projected<P::Write, ()> {
        let mut projected =
            Projected { pending: (), rows: Vec::with_capacity(records.len()), set_aside: Vec::new() };
        let mut rows = Vec::new();
        for &record in records {
            if rulings.named.contains(&record.offset) {
                continue;
            }
            match self.map_one(scope, decode, record, rulings, &mut rows) {
                Ok(()) => projected
                    .rows
                    .extend(rows.drain(..).map(|write| RowChange { offset: record.offset, write })),
                Err((reject, event_type)) => {
                    rows.clear();
                    projected.set_aside.push(SetAside { record: record.clone(), reject, event_type });
                }
            }
        }
        projected
    }
}

impl<P: MapProjector> Map<P> {
    fn map_one<D: Decode>(
        &self,
        scope: &LaneScope,
        decode: &D,
        record: &Record,
        rulings: &Rulings,
        rows: &mut Vec<P::Write>,
    ) -> Result<(), (fleetlog_event::Reject, Option<String>)> {
        let key = EntityKey::from(key_text_of(record).map_err(|reject| (reject, None))?);
        let event = read_event_for::<D, P::Event>(P::ID, scope, decode, record, key)?;
        let typed = |reject| (reject, Some(event.event.event_type().name.to_owned()));
        if let Some(detail) = rulings.refused.get(&record.offset) {
            return Err(typed(refused(detail)));
        }
        self.0.map(&event, rows).map_err(typed)
    }
}
