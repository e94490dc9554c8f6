//! A driver for devices and single-threaded programs.
