//! Files of JSON lines.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::Outcome;

const BUFFER: usize = 1 << 20;

/// One version of an order; its strings are those of the line where they have no escapes.
#[derive(Deserialize)]
pub struct Order<'a> {
    /// The order.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// Whose it is.
    #[serde(borrow)]
    pub customer: Cow<'a, str>,
    /// Where it is counted.
    #[serde(borrow)]
    pub region: Cow<'a, str>,
    /// What it is about.
    pub amount: i64,
    /// The larger, the newer.
    #[serde(rename = "_lsn")]
    pub lsn: u64,
}

#[derive(Deserialize)]
struct Customer {
    id: String,
    segment: String,
    #[serde(rename = "_lsn")]
    lsn: u64,
}

/// The latest segment of each customer, and its version.
pub type Customers = HashMap<String, (String, u64)>;

/// Calls `apply` with every order of the file, and returns how many there are.
pub fn each_order(path: &Path, mut apply: impl FnMut(Order<'_>)) -> Outcome<u64> {
    each_line(path, |line| {
        apply(serde_json::from_slice(line)?);
        Ok(())
    })
}

/// The customers of the file.
pub fn customers(path: &Path) -> Outcome<Customers> {
    let mut customers = Customers::new();
    each_line(path, |line| {
        let customer: Customer = serde_json::from_slice(line)?;
        if customers
            .get(&customer.id)
            .is_none_or(|(_, lsn)| customer.lsn > *lsn)
        {
            customers.insert(customer.id, (customer.segment, customer.lsn));
        }
        Ok(())
    })?;
    Ok(customers)
}

fn each_line(path: &Path, mut apply: impl FnMut(&[u8]) -> serde_json::Result<()>) -> Outcome<u64> {
    let error = |error| format!("cannot read {}: {error}", path.display());
    let mut reader = BufReader::with_capacity(BUFFER, File::open(path).map_err(error)?);
    let (mut line, mut number) = (Vec::new(), 0);
    while reader.read_until(b'\n', &mut line).map_err(error)? > 0 {
        number += 1;
        apply(&line).map_err(|error| format!("line {number} of {}: {error}", path.display()))?;
        line.clear();
    }
    Ok(number)
}

/// The files at `path`, dealt to at most `workers` threads.
pub fn shares(path: &Path, workers: usize) -> Outcome<Vec<Vec<PathBuf>>> {
    let mut files = vec![path.to_path_buf()];
    if path.is_dir() {
        files = std::fs::read_dir(path)?
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<_>>()?;
        files.sort();
    }
    if files.is_empty() {
        return Err(format!("there is no file in {}", path.display()).into());
    }
    let mut shares = vec![Vec::new(); workers.clamp(1, files.len())];
    let count = shares.len();
    for (index, file) in files.into_iter().enumerate() {
        shares[index % count].push(file);
    }
    Ok(shares)
}
