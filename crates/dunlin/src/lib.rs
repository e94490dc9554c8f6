//! An MQTT client for devices, gateways and services.
