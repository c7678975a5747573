//! The rules of a redrive against a fleet that is made of maps.

mod jobs;
mod leases;
mod plans;
mod world;
