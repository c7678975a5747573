//! Poll thread, lanes, batching, rebalance, faults, dead letters.
