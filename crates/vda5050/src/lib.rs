//! VDA 5050 messages to fleetlog events.
