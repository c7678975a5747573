//! Read models as pure functions of the log, the chain of links, and the sink they land in.
