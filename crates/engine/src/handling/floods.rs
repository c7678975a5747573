//! Too many dead letters: rather a wrong setting than a few poison events.

use std::sync::Arc;

use fleetlog_event::{Reject, ops::ProjectionHalted};

use super::{Shared, carried::Carried};
use crate::{halting::Tripped, lane::Trip};

impl<H, C> Shared<H, C> {
    /// The breaker tripped at this record (none where it is ours no more), which would be a dead letter for that reason, or at one
    /// that was handled.
    pub(super) fn tripped(
        &self,
        trip: Trip,
        record: Option<&Arc<Carried>>,
        reject: Option<&Reject>,
    ) -> ProjectionHalted {
        let journey = record.map(|carried| carried.journey());
        let (topic, partition, offset) = journey.as_ref().map_or((&*self.topics[0].name, 0, 0), |journey| {
            (&*journey.topic, journey.position.partition, journey.position.offset)
        });
        let found = Tripped {
            group: &self.group,
            id: &self.id,
            version: 1,
            counted: format!("handler {}", self.id),
            trip,
            topic,
            partition,
            first: reject.filter(|_| journey.is_some()).map(|reject| (offset, reject)),
            hint: "does whoever is called refuse everything, for a wrong secret or address?",
        };
        let halt = self.halting.tripped(&self.config, &found);
        // At once, not when it has drained: it never looks like a failure.
        self.status.set_halted(halt.cause(), &halt.state());
        halt
    }
}
