//! Clusters of processes, each of which is the benchmark itself with other arguments.

pub mod crossing;
pub mod supervised;
pub mod throughput;

use std::net::TcpListener;
use std::process::Child;

use crate::Outcome;

/// Addresses of this machine that are free now.
fn free_addresses(count: usize) -> Outcome<Vec<String>> {
    let bound = (0..count).map(|_| TcpListener::bind("127.0.0.1:0"));
    let bound: Vec<_> = bound.collect::<Result<_, _>>()?;
    let addresses = bound.iter().map(TcpListener::local_addr);
    let addresses = addresses.map(|address| address.map(|a| a.to_string()));
    Ok(addresses.collect::<Result<_, _>>()?)
}

/// Processes that are killed when this is dropped.
struct Children(Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
