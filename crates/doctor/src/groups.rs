//! The consumer group of each projection.

use std::collections::BTreeSet;

use fleetlog_kafka::{GroupFacts, GroupMember, GroupState};

use crate::{Check, Finding, brokers::count};

/// How fleetlog's members share out partitions.
const ASSIGNOR: &str = "cooperative-sticky";

/// The group of a projection.
#[derive(Clone, Debug)]
pub struct Group {
    /// The projection's id.
    pub projection: String,
    /// The group's name.
    pub name: String,
    /// What fleetlog's processes call themselves (`client.id`).
    pub client: String,
    /// The partitions it reads.
    pub partitions: Vec<(String, i32)>,
    /// Whether there is anything to read.
    pub has_records: bool,
    /// What its coordinator says.
    pub facts: GroupFacts,
}

/// Judges all groups; `brokers` is what commands connect to.
#[must_use]
pub fn judge(groups: &[Group], brokers: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(idle(groups));
    for group in groups {
        findings.extend(
            [
                rebalancing(group, brokers),
                other_protocol(group, brokers),
                foreign(group, brokers),
                unowned(group),
            ]
            .into_iter()
            .flatten(),
        );
    }
    let running = groups.iter().filter(|group| !group.facts.members.is_empty());
    let running: Vec<String> =
        running.map(|group| format!("{} ({})", group.projection, group.facts.members.len())).collect();
    if !running.is_empty() {
        findings.push(Check::GroupsMembers.ok(format!("members: {}", running.join(", "))));
    }
    for (check, so) in [
        (Check::GroupsState, "no group is sharing out its partitions"),
        (Check::GroupsProtocol, "all members speak one protocol"),
        (Check::GroupsForeign, "all members are fleetlog's"),
        (Check::GroupsUnowned, "every partition of a running group has an owner"),
    ] {
        if !findings.iter().any(|finding| finding.check == check) {
            findings.push(check.ok(so));
        }
    }
    findings
}

/// Groups that nobody is in, together: often it is all of them.
fn idle(groups: &[Group]) -> Option<Finding> {
    let idle: Vec<&Group> = groups
        .iter()
        .filter(|group| group.facts.members.is_empty() && group.facts.state != GroupState::Rebalancing)
        .collect();
    let names: Vec<&str> = idle.iter().map(|group| group.projection.as_str()).collect();
    let found = || format!("nobody runs {}", names.join(", "));
    if names.is_empty() {
        return None;
    }
    let finding = if idle.iter().any(|group| group.has_records) {
        Check::GroupsMembers.warning(found())
    } else {
        Check::GroupsMembers.info(format!("{}, and there is nothing to read yet", found()))
    };
    Some(
        finding
            .cure("start it; a process that was killed counts as a member until its session times out")
            .by(if names.len() == groups.len() {
                "fleetlog run".to_owned()
            } else {
                format!("fleetlog run --projections {}", names.join(","))
            }),
    )
}

fn rebalancing(group: &Group, brokers: &str) -> Option<Finding> {
    let Group { projection, name, facts, .. } = group;
    match facts.state {
        GroupState::Rebalancing => Some(
            Check::GroupsState
                .warning(format!("{projection}: group {name} is sharing out its partitions"))
                .cure("ask again in some seconds; if it stays so, a member joins and leaves again and again: see the logs")
                .by(describe(name, brokers)),
        ),
        GroupState::Unknown => Some(
            Check::GroupsState
                .info(format!("{projection}: the coordinator of {name} says a state that is not known here"))
                .by(describe(name, brokers)),
        ),
        GroupState::Dead | GroupState::Empty | GroupState::Stable => None,
    }
}

fn other_protocol(group: &Group, brokers: &str) -> Option<Finding> {
    let Group { projection, name, facts, .. } = group;
    let spoken = if facts.is_of_new_protocol {
        "the newer group protocol (KIP-848)".to_owned()
    } else if facts.assignor.is_empty() || facts.assignor == ASSIGNOR {
        return None;
    } else {
        format!("`{}`", facts.assignor)
    };
    Some(
        Check::GroupsProtocol
            .error(format!("{projection}: the members of {name} share out by {spoken}"))
            .cure("stop whoever else uses this group's name, and start fleetlog again")
            .by(describe(name, brokers)),
    )
}

fn foreign(group: &Group, brokers: &str) -> Option<Finding> {
    let Group { projection, name, facts, client, .. } = group;
    let own_name = format!("-{projection}");
    // A member without a name is one of ours for moments, while it makes the group share out anew.
    let is_foreign = |member: &&GroupMember| match &member.instance {
        Some(instance) => !instance.ends_with(&own_name),
        None => member.client != *client,
    };
    let foreign: Vec<String> = facts
        .members
        .iter()
        .filter(is_foreign)
        .map(|member| {
            let named = member.instance.as_deref().unwrap_or(&member.client);
            format!("`{named}` from {} has {}", member.host, count(member.assignment.len(), "partition"))
        })
        .collect();
    (!foreign.is_empty()).then(|| {
        Check::GroupsForeign
            .error(format!("{projection}: in group {name} is somebody else: {}", foreign.join("; ")))
            .cure("give that client a group of its own (`group.id`)")
            .by(describe(name, brokers))
    })
}

fn unowned(group: &Group) -> Option<Finding> {
    let Group { projection, facts, partitions, .. } = group;
    if !facts.is_stable || facts.members.is_empty() {
        return None;
    }
    let owned: BTreeSet<&(String, i32)> =
        facts.members.iter().flat_map(|member| &member.assignment).collect();
    let free: Vec<String> = partitions
        .iter()
        .filter(|partition| !owned.contains(partition))
        .map(|(topic, partition)| format!("{topic}/{partition}"))
        .collect();
    (!free.is_empty()).then(|| {
        Check::GroupsUnowned
            .warning(format!("{projection}: nobody has {}", free.join(", ")))
            .cure("fleetlog makes the group share out anew within some seconds; if it stays so, restart its processes")
    })
}

fn describe(group: &str, brokers: &str) -> String {
    format!(
        "kafka-consumer-groups.sh --bootstrap-server {brokers} --describe --members --verbose --group {group}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Severity;

    fn member(instance: Option<&str>, client: &str, partitions: &[i32]) -> GroupMember {
        GroupMember {
            id: "id".into(),
            instance: instance.map(str::to_owned),
            client: client.into(),
            host: "/10.0.0.9".into(),
            assignment: partitions.iter().map(|partition| ("robot".to_owned(), *partition)).collect(),
        }
    }

    fn group(state: GroupState, members: Vec<GroupMember>) -> Group {
        Group {
            projection: "unit-status".into(),
            name: "p-unit-status-1".into(),
            client: "fleetlog".into(),
            partitions: (0..2).map(|partition| ("robot".to_owned(), partition)).collect(),
            has_records: true,
            facts: GroupFacts {
                is_stable: state == GroupState::Stable,
                state,
                assignor: if members.is_empty() { String::new() } else { ASSIGNOR.into() },
                is_of_new_protocol: false,
                members,
            },
        }
    }

    /// Severity and text of that check.
    fn told(group: Group, check: Check) -> (Severity, String) {
        let found = judge(&[group], "k:9092").into_iter().find(|finding| finding.check == check).unwrap();
        (found.severity, found.found)
    }

    #[test]
    fn a_running_group_is_fine() {
        let members = vec![member(Some("h-0-unit-status"), "fleetlog", &[0]), member(None, "fleetlog", &[1])];
        let findings = judge(&[group(GroupState::Stable, members)], "k:9092");
        assert!(findings.iter().all(|finding| finding.severity == Severity::Ok), "{findings:?}");
    }

    #[test]
    fn a_group_without_members_is_a_warning_only_where_there_is_something_to_read() {
        for state in [GroupState::Empty, GroupState::Dead] {
            let mut idle = group(state, vec![]);
            assert_eq!(told(idle.clone(), Check::GroupsMembers).0, Severity::Warning);
            idle.has_records = false;
            assert_eq!(told(idle, Check::GroupsMembers).0, Severity::Info);
        }
    }

    #[test]
    fn strangers_other_protocols_rebalances_and_partitions_of_nobody_are_found() {
        let own = || member(Some("h-0-unit-status"), "fleetlog", &[0]);
        let stranger = group(GroupState::Stable, vec![own(), member(None, "report-job", &[1])]);
        let (severity, text) = told(stranger, Check::GroupsForeign);
        assert_eq!(severity, Severity::Error);
        assert!(text.contains("`report-job` from /10.0.0.9 has 1 partition"), "{text}");
        let mut ranged = group(GroupState::Stable, vec![own()]);
        ranged.facts.assignor = "range".into();
        assert_eq!(told(ranged.clone(), Check::GroupsProtocol).0, Severity::Error);
        assert_eq!(told(ranged, Check::GroupsUnowned).0, Severity::Warning);
        assert_eq!(
            told(group(GroupState::Rebalancing, vec![own()]), Check::GroupsState).0,
            Severity::Warning
        );
    }
}
