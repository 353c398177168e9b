//! Where the processes of a cluster are.
//!
//! Every process is given the same list of addresses, and which of them is its own. The list comes from the command line, from
//! a file with one address a line, or from what Kubernetes calls the pods of a StatefulSet.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Error, ErrorKind, Result};

/// Processes that a cluster has at most: every one is connected with every other. A guess.
const MAX_PROCESSES: usize = 256;

/// The addresses of all processes, `host:port`, by their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// The addresses in this order.
    ///
    /// # Errors
    /// `Config` when there are none or too many, when one is not of the form `host:port`, or stands there twice.
    pub fn new(addresses: impl IntoIterator<Item = impl Into<String>>) -> Result<Hosts> {
        let addresses: Vec<String> = addresses.into_iter().map(Into::into).collect();
        if !(1..=MAX_PROCESSES).contains(&addresses.len()) {
            return Err(wrong(format!(
                "a cluster has 1 to {MAX_PROCESSES} processes, not {}",
                addresses.len()
            )));
        }
        let mut seen = BTreeSet::new();
        for address in &addresses {
            parts(address)?;
            if !seen.insert(address) {
                return Err(wrong(format!(
                    "{address} stands twice among the hosts: every process needs an address of its own"
                )));
            }
        }
        Ok(Hosts(addresses))
    }

    /// Addresses separated by commas.
    ///
    /// # Errors
    /// As [`Hosts::new`].
    pub fn parse_list(text: &str) -> Result<Hosts> {
        Hosts::new(text.split(',').map(str::trim))
    }

    /// One address a line; empty lines, and what follows a `#`, do not count.
    ///
    /// # Errors
    /// As [`Hosts::new`].
    pub fn parse_file(text: &str) -> Result<Hosts> {
        let lines = text.lines().map(|line| line.split('#').next());
        let lines = lines.map(|line| line.unwrap_or_default().trim());
        Hosts::new(lines.filter(|line| !line.is_empty()))
    }

    /// The pods of a Kubernetes StatefulSet behind the headless service `service` (`name:port`), and which of them is called
    /// `pod`, for example `orders-2`: a pod is reached as `orders-2.name:port`.
    ///
    /// # Errors
    /// `Config` when `pod` does not end in a number below `processes`, or the service is not of the form `name:port`.
    pub fn stateful_set(pod: &str, service: &str, processes: u32) -> Result<(u32, Hosts)> {
        let (name, port) = parts(service)?;
        // A host name may be the full one.
        let pod = pod.split('.').next().unwrap_or_default();
        let ordinal = pod
            .rsplit_once('-')
            .and_then(|(set, number)| Some((set, number.parse::<u32>().ok()?)));
        let Some((set, process)) = ordinal.filter(|(_, process)| *process < processes) else {
            return Err(wrong(format!(
                "{pod} is not the name of one of {processes} pods of a StatefulSet, as NAME-0: give --process and --hosts instead"
            )));
        };
        let pods = (0..processes).map(|process| format!("{set}-{process}.{name}:{port}"));
        Ok((process, Hosts::new(pods)?))
    }

    /// How many processes there are.
    pub fn processes(&self) -> u32 {
        // At most `MAX_PROCESSES`.
        self.0.len() as u32
    }

    /// Where a process is.
    ///
    /// # Errors
    /// `Config` when there is no such process.
    pub fn address(&self, process: u32) -> Result<&str> {
        let address = self.0.get(process as usize).map(String::as_str);
        address.ok_or_else(|| {
            wrong(format!(
                "there is no process {process} among {} hosts: they are numbered from 0",
                self.0.len()
            ))
        })
    }

    /// Where a process listens: at its own address if that is of this machine alone, else at every address that the machine has,
    /// because the name by which others reach it may be known outside only.
    ///
    /// # Errors
    /// `Config` when there is no such process.
    pub fn listens_at(&self, process: u32) -> Result<String> {
        let (host, port) = parts(self.address(process)?)?;
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        let any = match literal.parse::<IpAddr>() {
            Ok(ip) if ip.is_loopback() => ip,
            Ok(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
            Err(_) if literal == "localhost" => Ipv4Addr::LOCALHOST.into(),
            _ => Ipv4Addr::UNSPECIFIED.into(),
        };
        Ok(std::net::SocketAddr::new(any, port).to_string())
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

fn parts(address: &str) -> Result<(&str, u16)> {
    let parts = address.rsplit_once(':');
    let parts = parts.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    let bracketed = |host: &str| host.starts_with('[') && host.ends_with(']');
    parts
        .filter(|(host, port)| {
            let plain = !host.is_empty() && !host.contains(char::is_whitespace);
            plain && *port > 0 && (bracketed(host) || !host.contains(':'))
        })
        .ok_or_else(|| {
            wrong(format!(
                "{address:?} is not an address of the form host:port"
            ))
        })
}

fn wrong(what: String) -> Error {
    Error::new(ErrorKind::Config, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_and_a_file_say_the_same() {
        let list = Hosts::parse_list("a:1, b.c:22,[::1]:3").expect("addresses");
        let file = Hosts::parse_file("# the cluster\na:1\n\nb.c:22  # second\n[::1]:3\n");
        assert_eq!(list, file.expect("addresses"));
        assert_eq!(
            (list.processes(), list.address(1).ok()),
            (3, Some("b.c:22"))
        );
        assert_eq!(list.to_string(), "a:1,b.c:22,[::1]:3");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("a:1,b", "\"b\" is not an address"),
            ("a:1,b:0", "\"b:0\" is not"),
            ("a:1,b:70000", "\"b:70000\" is not"),
            ("a:1,::1:5", "\"::1:5\" is not"),
            ("a:1,b:2,a:1", "a:1 stands twice"),
            ("", "\"\" is not"),
        ] {
            let report = Hosts::parse_list(text).expect_err(text).report();
            assert!(report.contains(part), "{report}");
        }
        let none = Hosts::parse_file("# none\n").expect_err("none").report();
        assert!(none.contains("1 to 256"), "{none}");
        let list = Hosts::parse_list("a:1").expect("one");
        let report = list.address(1).expect_err("there is one").report();
        assert!(report.contains("no process 1 among 1 hosts"), "{report}");
    }

    #[test]
    fn a_pod_knows_its_number_and_the_others() {
        let (process, hosts) = Hosts::stateful_set("shop-1", "shop-peers:7100", 3).expect("a pod");
        assert_eq!(process, 1);
        let all = "shop-0.shop-peers:7100,shop-1.shop-peers:7100,shop-2.shop-peers:7100";
        assert_eq!(hosts.to_string(), all);
        let full = Hosts::stateful_set("shop-1.shop-peers.ns.svc", "shop-peers:7100", 3);
        assert_eq!(full.expect("a pod").0, 1);
        for pod in ["shop", "shop-x", "shop-3", ""] {
            assert!(Hosts::stateful_set(pod, "s:1", 3).is_err(), "{pod}");
        }
    }

    #[test]
    fn a_loopback_address_is_not_open_to_other_machines() {
        let hosts =
            Hosts::parse_list("127.0.0.1:5,localhost:6,[::1]:7,node1:8,10.0.0.1:9,[fd00::1]:10");
        let hosts = hosts.expect("addresses");
        let at: Vec<_> = (0..6)
            .map(|p| hosts.listens_at(p).expect("there"))
            .collect();
        assert_eq!(
            at,
            [
                "127.0.0.1:5",
                "127.0.0.1:6",
                "[::1]:7",
                "0.0.0.0:8",
                "0.0.0.0:9",
                "[::]:10"
            ]
        );
    }
}
