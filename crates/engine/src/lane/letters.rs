//! Dead letters of a lane: acknowledged before the write that enters what they are about.

use std::sync::Arc;

use fail::fail_point;
use fleetlog_projection::{
    EntryState, LedgerEntry, Projection, SetAside, Sink,
    mutant::{Mutant, on},
};

use super::{Lane, Work, now};
use crate::{DeadLetter, Origin, fault::Interrupt, ports::Schemas};

impl<P, S, C> Lane<P, S, C>
where
    P: Projection,
    S: Sink<Write = P::Write>,
    C: Schemas,
{
    /// Sends dead letters and waits until every one is acknowledged. Where headers were not read the lane begins again, with
    /// them.
    pub(super) async fn publish(
        &self,
        work: &Work<P, C::Decode>,
        set_aside: &[SetAside],
    ) -> Result<(), Interrupt> {
        if let Some(last) = set_aside.last() {
            self.headers.set_aside(last.record.offset);
        }
        if set_aside.iter().any(|aside| !aside.record.headers.are_read()) {
            return Err(Interrupt::Again("what is set aside is read once more, with its headers".to_owned()));
        }
        self.send(set_aside.iter().map(|aside| self.letter(work, aside)).collect()).await
    }

    /// Sends the letters of events that were rejected once more.
    pub(super) async fn publish_again(
        &self,
        work: &Work<P, C::Decode>,
        news: &[(SetAside, LedgerEntry)],
    ) -> Result<(), Interrupt> {
        let letter = |(aside, entry): &(SetAside, LedgerEntry)| -> DeadLetter {
            let is_parked = entry.state == EntryState::Parked;
            self.letter(work, aside).replayed(entry.replays, is_parked.then_some(&self.lane.topic))
        };
        self.send(news.iter().map(letter).collect()).await
    }

    fn letter(&self, work: &Work<P, C::Decode>, set_aside: &SetAside) -> DeadLetter {
        let config = &self.shared.config;
        let origin = Origin {
            lane: &self.lane,
            log: work.core.scope().log,
            group: &self.shared.group,
            application_version: &config.application_version,
            now: now(),
        };
        DeadLetter::new(set_aside, &origin, config.dead_letter_bytes_max)
    }

    async fn send(&self, letters: Vec<DeadLetter>) -> Result<(), Interrupt> {
        if letters.is_empty() {
            return Ok(());
        }
        fail_point!("dead-letters.before");
        if on(Mutant::DeadLetterNotAwaited) {
            let dead_letters = Arc::clone(&self.shared.dead_letters);
            tokio::spawn(async move { dead_letters.publish(&letters).await });
            return Ok(());
        }
        self.persist("publishing dead letters", || self.shared.dead_letters.publish(&letters)).await?;
        fail_point!("dead-letters.after");
        Ok(())
    }
}
