//! The names of keys (DESIGN §5).

use fleetlog_projection::LaneId;

/// The lane's hash: `link`, and progress as `log`, `main`, `inbox`, `last_offset`, `last_hash`.
///
/// `key_prefix` stands before every key of an installation; `lane_prefix` is the prefix of the topics' names.
#[must_use]
pub fn lane_key(key_prefix: &str, lane_prefix: &str, lane: &LaneId) -> String {
    format!("{key_prefix}fleetlog:{lane_prefix}{lane}")
}

/// The lane's ledger of set-asides: a hash, offset → JSON.
#[must_use]
pub fn ledger_key(lane_key: &str) -> String {
    format!("{lane_key}:set_aside")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_as_the_design_says() {
        let lane = LaneId {
            projection: "unit-status".to_owned(),
            version: 1,
            topic: "prod-robot".to_owned(),
            partition: 3,
        };
        let key = lane_key("", "prod-", &lane);
        assert_eq!(key, "fleetlog:prod-unit-status@1:prod-robot:3");
        assert_eq!(ledger_key(&key), "fleetlog:prod-unit-status@1:prod-robot:3:set_aside");
    }
}
