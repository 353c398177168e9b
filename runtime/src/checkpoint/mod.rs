//! The checkpoint store.
