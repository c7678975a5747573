//! History in PostgreSQL or TimescaleDB, on the chain of links.
