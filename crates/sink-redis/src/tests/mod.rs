//! The sink against real servers, each test with one of its own.

mod conformance;
mod judgement;
mod outages;
mod presence;
mod server;
