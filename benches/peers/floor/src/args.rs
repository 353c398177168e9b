//! The command line.

use std::path::PathBuf;

use crate::Outcome;

/// What to compute, from what, and how.
#[derive(Debug)]
pub struct Args {
    /// `w1` to `w4`.
    pub workload: String,
    /// A file of orders, or a directory of such files.
    pub data: PathBuf,
    /// The file of customers, which only `w3` wants.
    pub customers: Option<PathBuf>,
    /// Threads.
    pub workers: usize,
    /// Where the result goes.
    pub out: PathBuf,
}

impl Args {
    /// Reads the arguments that follow the program's name.
    pub fn parse(mut args: impl Iterator<Item = String>) -> Outcome<Self> {
        let workload = args.next().ok_or("usage: floor w1|w2|w3|w4 --data FILE_OR_DIR --out FILE [--customers FILE] [--workers N]")?;
        let (mut data, mut customers, mut out, mut workers) = (None, None, None, 1);
        while let Some(option) = args.next() {
            let value = args
                .next()
                .ok_or_else(|| format!("{option} wants a value"))?;
            match option.as_str() {
                "--data" => data = Some(value.into()),
                "--customers" => customers = Some(value.into()),
                "--out" => out = Some(value.into()),
                "--workers" => workers = value.parse().map_err(|_| format!("--workers wants a number, not `{value}`"))?,
                "--checkpoint" if value == "off" => {}
                _ => return Err(format!("`{option} {value}` is not understood: there are --data, --customers, --workers, --out").into()),
            }
        }
        if workload == "w3" && customers.is_none() {
            return Err("w3 wants --customers FILE".into());
        }
        Ok(Self {
            workload,
            data: data.ok_or("--data is missing")?,
            customers,
            workers,
            out: out.ok_or("--out is missing")?,
        })
    }
}
