//! Tests against real servers.

#![expect(clippy::unwrap_used, reason = "tests")]

mod authors;
mod bad_input;
mod bad_input_stores;
mod cli_commands;
mod clients;
mod dead_letter_index;
mod dead_letters;
mod doctor;
mod engine;
mod facts;
mod halts;
mod handlers;
mod import;
mod import_rig;
mod kafka;
mod kill;
mod logs;
mod month;
mod platform_figures;
mod presence;
mod producer;
mod read_side;
mod redrive;
mod redrive_outages;
mod schema_topic;
mod sql_tables;
mod task_watch;
mod tls;
mod topics;
mod verify;
mod wire;
