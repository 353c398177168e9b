//! The program `flight-delays` from outside: one program of tests, because each that links a job takes long to build.
#![cfg(feature = "ready-made")]

mod bad_input;
mod common;
#[cfg(unix)]
mod kill;
