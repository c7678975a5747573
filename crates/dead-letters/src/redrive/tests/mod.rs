//! The rules of a redrive against a fleet that is made of maps.

mod jobs;
mod leases;
mod orders;
mod plans;
mod world;
