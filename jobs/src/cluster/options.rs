//! What the command line says about a cluster.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgMatches, value_parser};
use tidefeed_runtime::checkpoint::Supervised;
use tidefeed_runtime::cluster::{Hosts, Secret, Tls};
use tidefeed_runtime::{Context, Error, ErrorKind, Result};

use super::Member;

/// Part of whose environment name a pod's own name is: Kubernetes sets it to that.
const POD_VARIABLE: &str = "HOSTNAME";

/// What this process is to be.
pub(crate) enum Role {
    /// One process of a run, or the whole run.
    Runner(Option<Member>),
    /// None of it: it starts so many processes on this machine, and starts them again.
    Supervisor(u32),
}

/// The options.
pub(crate) fn options() -> [Arg; 8] {
    let number = || value_parser!(u32).range(1..=256);
    [
        Arg::new("processes").long("processes").value_name("N").value_parser(number()).overrides_with("processes").help(
            "Run as N processes of --workers each on this machine, and start all again when one fails; with --service, the number of pods",
        ),
        Arg::new("process").long("process").value_name("I").value_parser(value_parser!(u32)).help(
            "Run as process I, from 0, of those at --hosts or in --hostfile; all share the secret in TIDEFEED_CLUSTER_SECRET",
        ),
        Arg::new("hosts").long("hosts").value_name("HOST:PORT,...").requires("process").help(
            "Where all processes of the cluster are, by their numbers",
        ),
        Arg::new("hostfile").long("hostfile").value_name("FILE").value_parser(value_parser!(PathBuf)).requires("process")
            .conflicts_with("hosts").help("The same from a file, one address a line"),
        Arg::new("service").long("service").value_name("NAME:PORT").requires("processes").conflicts_with_all(["process", "hosts", "hostfile"]).help(
            "Run as a pod of a Kubernetes StatefulSet behind this headless service: the number at the end of HOSTNAME is the process",
        ),
        Arg::new("cluster-secret-file").long("cluster-secret-file").value_name("FILE").value_parser(value_parser!(PathBuf)).help(
            "The file with the cluster's secret, 16 bytes or more [default: the variable TIDEFEED_CLUSTER_SECRET]",
        ),
        Arg::new("cluster-tls").long("cluster-tls").value_name("DIR").value_parser(value_parser!(PathBuf)).help(
            "Encrypt what processes say to each other: the directory with tls.crt and tls.key of this process, for the name or address \
             by which the others look for it, and with ca.crt, which signed those of all",
        ),
        Arg::new("peer-timeout").long("peer-timeout").value_name("MS").value_parser(value_parser!(u64).range(100..=600_000)).help(
            "Milliseconds of silence after which another process is lost, and all end [default: 5000]",
        ),
    ]
}

/// What the options say.
///
/// # Errors
/// `Config` when they do not go together, or the secret or a file cannot be read.
pub(crate) fn role(matches: &ArgMatches) -> Result<Role> {
    let processes = matches.get_one::<u32>("processes").copied();
    let (process, hosts) = match (
        matches.get_one::<u32>("process"),
        matches.get_one::<String>("service"),
        processes,
    ) {
        (Some(process), ..) => (*process, hosts(matches)?),
        (None, Some(service), Some(processes)) => {
            let pod = std::env::var(POD_VARIABLE).context(ErrorKind::Config, || {
                format!("--service needs the pod's name in the variable {POD_VARIABLE}")
            })?;
            Hosts::stateful_set(&pod, service, processes)?
        }
        (None, _, Some(processes)) => return Ok(Role::Supervisor(processes)),
        (None, _, None) => return Ok(Role::Runner(None)),
    };
    if processes.is_some_and(|processes| processes != hosts.processes()) {
        return Err(Error::new(
            ErrorKind::Config,
            format!(
                "--processes and the {} hosts say different numbers: leave out --processes",
                hosts.processes()
            ),
        ));
    }
    let supervised = Supervised::from_env()?;
    let file = matches.get_one::<PathBuf>("cluster-secret-file");
    // What a supervisor knows of its run it knows of those that have the secret of the run.
    let secret = match file.filter(|_| supervised.is_none()) {
        Some(path) => Secret::from_file(path)?,
        None => Secret::from_env()?,
    };
    let mut member = Member::new(process, hosts, secret)?.supervised(supervised);
    if let Some(directory) = matches.get_one::<PathBuf>("cluster-tls") {
        member = member.tls(Tls::from_directory(directory)?);
    }
    if let Some(ms) = matches.get_one::<u64>("peer-timeout") {
        member = member.peer_timeout(Duration::from_millis(*ms));
    }
    Ok(Role::Runner(Some(member)))
}

fn hosts(matches: &ArgMatches) -> Result<Hosts> {
    if let Some(list) = matches.get_one::<String>("hosts") {
        return Hosts::parse_list(list);
    }
    let Some(path) = matches.get_one::<PathBuf>("hostfile") else {
        let what = "--process needs --hosts or --hostfile";
        return Err(Error::new(ErrorKind::Config, what));
    };
    let text = std::fs::read_to_string(path).context(ErrorKind::Config, || {
        format!("cannot read the hosts from {}", path.display())
    })?;
    Hosts::parse_file(&text).map_err(|error| error.wrap(path.display().to_string()))
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::*;

    fn parsed(line: &str) -> std::result::Result<ArgMatches, clap::Error> {
        let command = Command::new("job").args(options());
        command.try_get_matches_from(line.split(' '))
    }

    #[test]
    fn a_process_is_alone_a_member_or_watches_over_others() {
        let role = |line: &str| role(&parsed(line).expect("options"));
        assert!(matches!(
            role("job --peer-timeout 700"),
            Ok(Role::Runner(None))
        ));
        assert!(matches!(role("job --processes 3"), Ok(Role::Supervisor(3))));
        let directory = tempfile::tempdir().expect("a directory");
        let (secret, hosts) = (directory.path().join("s"), directory.path().join("h"));
        std::fs::write(&secret, "0123456789abcdef\n").expect("written");
        std::fs::write(&hosts, "a:1\nb:2\n").expect("written");
        let with = format!(
            "job --process 1 --hostfile {} --cluster-secret-file {}",
            hosts.display(),
            secret.display()
        );
        let Ok(Role::Runner(Some(member))) = role(&with) else {
            panic!("a member");
        };
        assert_eq!(member.position().processes, 2);
        for (line, says) in [
            ("job --process 1", "--process needs --hosts"),
            ("job --process 1 --hosts a", "\"a\" is not an address"),
            (
                "job --process 1 --hosts a:1,b:2 --processes 3",
                "different numbers",
            ),
            (&format!("{with} --processes 3"), "different numbers"),
        ] {
            let report = role(line).err().expect("wrong").report();
            assert!(report.contains(says), "{report}");
        }
        for wrong in [
            "job --hosts a:1",
            "job --service s:1",
            "job --processes 0",
            "job --process 1 --hosts a:1 --hostfile h",
            "job --peer-timeout 5",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
