//! An MQTT client session as a value: bytes and time in, bytes and events out. No heap, no unsafe code, no dependency..
