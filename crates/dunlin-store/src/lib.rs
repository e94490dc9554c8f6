//! Durable MQTT sessions on flash and files, for dunlin.
