//! Stores under a session, against a model broker, with the power cut everywhere.

mod flash;
mod power;
mod story;
mod wear;
