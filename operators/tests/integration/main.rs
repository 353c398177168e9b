//! Feeds, targets and operators from outside: one program, because each that links the SDK takes long to build.

mod bulk_wire;
mod bulk_writer;
mod change_feed;
mod conformance;
mod cosmos_conformance;
mod cosmos_endings;
mod cosmos_errors;
mod cosmos_letters;
mod faults;
#[path = "../../../emulator/tests/install/mod.rs"]
#[allow(dead_code)] // Shared; Python is for others.
mod install;
mod memory_conformance;
mod self_signed;
mod stateful;
mod strategies;
