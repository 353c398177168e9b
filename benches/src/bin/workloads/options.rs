//! The command line.

use std::path::PathBuf;

use tidefeed_benches::Outcome;

use crate::views::Workload;

/// Where checkpoints go.
pub enum Checkpoint {
    /// Nothing is durable.
    Off,
    /// Every seal and commit is flushed to disk.
    Directory(PathBuf),
}

/// What is asked for.
pub struct Options {
    pub workload: Workload,
    data: PathBuf,
    customers: Option<PathBuf>,
    workers: usize,
    pub checkpoint: Checkpoint,
    pub out: PathBuf,
}

const USAGE: &str = "use: workloads w1|w2|w3|w4 --data FILE|DIR [--customers FILE] [--workers N] [--checkpoint off|DIR] --out FILE";

/// What an epoch of the first load takes at least, and what waits and is under way at most, bytes. Documents are small here, and the disk is
/// near: with small epochs what is under way stays in the caches. These are the fastest with recovery of those that were measured, from 256 KiB
/// to the default of 16 MiB.
const EPOCH: [u64; 3] = [1 << 20, 4 << 20, 16 << 20];

/// For the totals of the latest versions: a tenth less memory, for 6 % more time.
const SMALL_EPOCH: [u64; 3] = [512 << 10, 1 << 20, 4 << 20];

impl Options {
    /// # Errors
    /// When something is missing, unknown or twice the same.
    pub fn of(mut arguments: impl Iterator<Item = String>) -> Outcome<Options> {
        let workload = arguments.next().ok_or(USAGE)?;
        let workload = Workload::named(&workload).ok_or(USAGE)?;
        let (mut data, mut customers, mut out) = (None, None, None);
        let mut workers = 1;
        let mut checkpoint = Checkpoint::Off;
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(USAGE)?;
            match name.as_str() {
                "--data" => data = Some(PathBuf::from(value)),
                "--customers" => customers = Some(PathBuf::from(value)),
                "--out" => out = Some(PathBuf::from(value)),
                "--workers" => workers = value.parse()?,
                "--checkpoint" if value == "off" => checkpoint = Checkpoint::Off,
                "--checkpoint" => checkpoint = Checkpoint::Directory(value.into()),
                _ => return Err(USAGE.into()),
            }
        }
        if customers.is_none() && workload == Workload::Segments {
            return Err("w3 needs --customers FILE".into());
        }
        Ok(Options {
            workload,
            data: data.ok_or(USAGE)?,
            customers,
            workers,
            checkpoint,
            out: out.ok_or(USAGE)?,
        })
    }

    /// The job's configuration.
    pub fn config(&self) -> String {
        // Each event of w1 counts by itself; elsewhere an order's last event does.
        let key = match self.workload {
            Workload::Events => "/_lsn",
            _ => "/id",
        };
        let fields: &[&str] = match self.workload {
            Workload::Segments => &["customer", "amount"],
            Workload::Largest => &["id", "region", "amount"],
            Workload::Events | Workload::Orders => &["region", "amount"],
        };
        let data = match self.data.is_dir() {
            true => self.data.join("*.jsonl"),
            false => self.data.clone(),
        };
        let [load, waiting, in_flight] = match self.workload {
            Workload::Orders => SMALL_EPOCH,
            _ => EPOCH,
        };
        let mut text = format!(
            "workers = {}\n[epoch]\nload_bytes = {load}\nmax_waiting_bytes = {waiting}\nmax_in_flight_bytes = {in_flight}\n\
             [source.orders]\nfiles = {:?}\nkey = [{key:?}]\npartitioned = true\npage_size = 10000\nfields = {fields:?}\n\
             [sink.view]\ndatabase = \"memory\"\ncontainer = \"view\"\npartition_key = [\"/id\"]\n",
            self.workers,
            data.display().to_string(),
        );
        if let Some(customers) = &self.customers {
            let files = customers.display().to_string();
            text += &format!("[source.customers]\nfiles = {files:?}\nkey = [\"/id\"]\n");
        }
        text
    }
}
