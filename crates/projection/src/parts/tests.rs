use fleetlog_event::{EntityKey, LogId, Reason, Reject, TimestampMs};
use proptest::prelude::*;

use super::*;
use crate::{Chain, Headers, LaneId, Progress, Record, Version};

const LOG: LogId = LogId(uuid::Uuid::from_u128(1));

fn unit(set_asides: usize, entities: usize) -> UnitOfWork<()> {
    let mut chain = Chain::resume(1, None);
    let before = chain.next().1;
    chain.written(before);
    let (follows, leaves) = chain.next();
    let set_aside = |offset: usize| SetAside {
        record: Record {
            offset: i64::try_from(offset).unwrap_or_default(),
            timestamp: TimestampMs(0),
            key: None,
            value: None,
            headers: Headers::default(),
        },
        reject: Reject::new(Reason::NoKey, ""),
        event_type: None,
    };
    let entity = |n: usize| EntityChange {
        key: EntityKey::from(n.to_string()),
        home: n.to_string(),
        version: Version { log: LOG, partition: 0, next: 0, revision: 0 },
        state: Vec::new(),
        writes: Vec::new(),
        base: crate::Base::Unknown,
    };
    UnitOfWork {
        lane: LaneId { projection: "p".into(), version: 1, topic: "t".into(), partition: 0 },
        follows,
        leaves,
        progress: Progress { log: LOG, main: 0, inbox: 0, last: None },
        entities: (0..entities).map(entity).collect(),
        rows: Vec::new(),
        set_aside: (0..set_asides).map(set_aside).collect(),
        entries: Vec::new(),
        made_at: TimestampMs(0),
    }
}

proptest! {
    #[test]
    fn everything_is_carried_once_and_set_asides_come_first(
        set_asides in 0..20_usize, entities in 0..20_usize, items_max in 1..8_usize, bytes_max in 0..100_usize,
        sizes in prop::collection::vec(0..60_usize, 1..10),
    ) {
        let unit = unit(set_asides, entities);
        let size = |item: &Item<'_, ()>| match item {
            Item::SetAside(aside) => sizes[aside.record.offset.unsigned_abs() as usize % sizes.len()],
            Item::Entity(entity) => sizes[entity.home.len() % sizes.len()],
        };
        let parts = Parts::cut(&unit, items_max, bytes_max, size);
        let (mut asides_to, mut entities_to) = (0, 0);
        for index in 0..parts.len() {
            let part = parts.part(index);
            prop_assert_eq!(part.set_asides.start, asides_to);
            prop_assert_eq!(part.entities.start, entities_to);
            (asides_to, entities_to) = (part.set_asides.end, part.entities.end);
            prop_assert!(part.entities.is_empty() || asides_to == set_asides, "an entity before a set-aside");
            let items = part.set_asides.len() + part.entities.len();
            prop_assert!(items <= items_max && (items <= 1 || part.size_bytes <= bytes_max));
            prop_assert!(items > 0 || parts.len() == 1, "a part for nothing");
        }
        prop_assert_eq!((asides_to, entities_to), (set_asides, entities));
    }
}

#[test]
fn links_lead_from_what_the_unit_follows_to_what_it_leaves() {
    let unit = unit(1, 3);
    let parts = Parts::cut(&unit, 1, usize::MAX, |_| 0);
    assert_eq!(parts.len(), 4);
    assert_eq!(parts.links(0), (unit.follows, unit.leaves.part(1)));
    assert_eq!(parts.links(3), (Some(unit.leaves.part(3)), unit.leaves));
    for done in 0..=4 {
        assert_eq!(parts.standing(parts.link_after(done)), Standing::Done(done));
    }
    assert_eq!(parts.standing(None), Standing::Foreign);
    assert_eq!(
        parts.standing(Some(unit.leaves.part(4))),
        Standing::Foreign,
        "the last part has the unit's link"
    );
    assert!(parts.is_last(3) && !parts.is_last(2));
}

#[test]
fn a_commit_under_way_believes_the_last_reply() {
    let unit = unit(1, 3);
    let parts = Parts::cut(&unit, 1, usize::MAX, |_| 0);
    let stands = |done| Reply::Stands(parts.link_after(done));

    let mut sending = Sending::default();
    assert_eq!(sending.answered(&parts, 2, true, Reply::Taken), Sent::GoOn);
    assert_eq!(sending.first(), 2);
    assert_eq!(sending.answered(&parts, 4, true, Reply::Taken), Sent::Over(Commit::Applied));

    let mut again = Sending::default();
    assert_eq!(again.answered(&parts, 4, false, stands(4)), Sent::Over(Commit::AlreadyApplied));
    let mut half = Sending::default();
    assert_eq!(half.answered(&parts, 4, false, stands(3)), Sent::GoOn);
    assert_eq!(half.first(), 3, "goes on behind what was taken before");

    let mut broken = Sending::default();
    assert_eq!(broken.answered(&parts, 4, false, Reply::Stands(None)), Sent::Fenced(None));

    let mut losing = Sending::default();
    for _ in 0..3 {
        assert_eq!(losing.answered(&parts, 4, true, stands(0)), Sent::GoOn);
    }
    assert_eq!(losing.answered(&parts, 4, true, stands(0)), Sent::KeepsLosing(4));
}
