//! `connection` → `Connected`, `Disconnected`.

use fleetlog_event::{
    TimestampMs,
    robot::{Connected, DisconnectReason, Disconnected},
};
use serde_json::Value;

use crate::{
    DeadReason, Line, Verdict, emit::Emit, factsheet::protocol, json::text, mapper::Mapped,
    time::timestamp_ms, topic::Address, vehicle::Vehicle,
};

/// What a `connection` message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionState {
    Online,
    Offline,
    /// The last will: built when the vehicle connected, published by the broker when it lost it.
    Broken,
    Hibernating,
}

impl ConnectionState {
    fn parse(body: &Value) -> Result<Self, (DeadReason, String)> {
        let state = text(body, "connectionState").ok_or_else(|| {
            (DeadReason::MissingField, "`connectionState` is not there, or no text".to_owned())
        })?;
        match state {
            "ONLINE" => Ok(Self::Online),
            "OFFLINE" => Ok(Self::Offline),
            "CONNECTIONBROKEN" | "CONNECTION_BROKEN" => Ok(Self::Broken),
            "HIBERNATING" => Ok(Self::Hibernating),
            other => Err((DeadReason::UnknownValue, format!("`connectionState` is `{other:.40}`"))),
        }
    }

    fn disconnect_reason(self) -> Option<DisconnectReason> {
        match self {
            Self::Online => None,
            Self::Offline => Some(DisconnectReason::Graceful),
            Self::Broken => Some(DisconnectReason::Broken),
            Self::Hibernating => Some(DisconnectReason::Hibernating),
        }
    }
}

/// Every live message is an event, in the order of arrival: the same vehicle can break twice. A retained replay is
/// one only where it contradicts what is known: then the message itself was never seen.
pub(crate) fn map(
    vehicle: &mut Vehicle,
    address: &Address<'_>,
    body: &Value,
    line: &Line,
    emit: &mut Emit<'_>,
) -> Mapped {
    let state = ConnectionState::parse(body)?;
    if line.retain && vehicle.connection == Some(state) {
        return Ok(Verdict::RetainedReplay);
    }
    vehicle.connection = Some(state);
    emit.occurred_at = occurred_at(vehicle, state, body, line);
    let mut meta = emit.meta();
    if !line.retain {
        vehicle.connection_counter.count("connection", body, &mut meta);
    }
    match state.disconnect_reason() {
        None => emit.robot(Connected { meta, protocol: Some(protocol(address, body)) }),
        Some(reason) => emit.robot(Disconnected { meta, reason }),
    }
    Ok(if line.retain { Verdict::RetainedNews } else { Verdict::Mapped })
}

/// A last will carries the time of the connect: it happened when it arrived, by the vehicle's clock. A replay may be
/// older than what the vehicle said since. All others happened when they say.
fn occurred_at(vehicle: &mut Vehicle, state: ConnectionState, body: &Value, line: &Line) -> TimestampMs {
    let arrival_ms = vehicle.clock.arrival_ms(line.ts_ms);
    let Some(said_ms) = timestamp_ms(body).filter(|_| state != ConnectionState::Broken) else {
        return TimestampMs(arrival_ms);
    };
    if line.retain {
        let stale = vehicle.clock.last_ms().is_some_and(|last_ms| said_ms < last_ms);
        return TimestampMs(if stale { arrival_ms } else { said_ms });
    }
    vehicle.clock.seen(said_ms, line.ts_ms);
    TimestampMs(said_ms)
}
