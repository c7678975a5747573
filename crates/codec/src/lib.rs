//! Avro on the wire: framings, schema resolution, registry client.
