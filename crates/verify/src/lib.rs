//! An independent recount of what the sinks hold, against the log.
