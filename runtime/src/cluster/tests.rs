//! Processes of a cluster as tasks of one, over loopback.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::tls::tests::Authority;
use super::*;
use crate::fence::{Fence, Renewal};
use crate::{Epoch, Error, ErrorKind, Generation, Ledger, Result};

const DEADLINE: Duration = Duration::from_secs(60);

/// What all processes of a cluster are told.
struct Cluster {
    hosts: Hosts,
    listeners: Vec<TcpListener>,
    peer_timeout: Duration,
    tls: Option<Tls>,
}

impl Cluster {
    fn of(processes: usize) -> Cluster {
        let listeners: Vec<_> = (0..processes)
            .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"))
            .collect();
        let addresses = listeners.iter().map(|l| l.local_addr().expect("bound"));
        Cluster {
            hosts: Hosts::new(addresses.map(|a| a.to_string())).expect("addresses"),
            listeners,
            peer_timeout: Duration::from_secs(20),
            tls: None,
        }
    }

    fn address(&self, process: usize) -> SocketAddr {
        self.listeners[process].local_addr().expect("bound")
    }

    fn place(&self, process: u32) -> Place {
        let listener = self.listeners[process as usize].try_clone();
        Place {
            process,
            hosts: self.hosts.clone(),
            secret: Secret::new("a secret of this test").expect("long enough"),
            tls: self.tls.clone(),
            peer_timeout: self.peer_timeout,
            lease: Duration::from_secs(10),
            job: "job".to_owned(),
            workers: 2,
            graph: "g".to_owned(),
            listener: Some(listener.expect("a listener")),
            awaited: Default::default(),
        }
    }
}

fn ledger() -> Ledger {
    Ledger::new(Epoch(0), Epoch(0))
}

/// A member from its start until its dataflow could begin.
async fn follow(place: Place, ledger: &Ledger) -> Result<(Follow, Mesh, Begun)> {
    let mut follow = Follow::join(place).await?;
    let begun = follow.begun().await?;
    follow.attach(ledger);
    let mesh = follow.mesh(ledger).await?;
    Ok((follow, mesh, begun))
}

async fn lead(place: Place, ledger: &Ledger) -> Result<(Lead, Mesh)> {
    let mut lead = Lead::assemble(place).await?;
    lead.begin(Generation(7), ledger.fence(), &json!({"a": 1}));
    lead.attach(ledger);
    let mesh = lead.mesh(ledger).await?;
    Ok((lead, mesh))
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let holds = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(DEADLINE, holds).await.expect(what);
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_find_each_other_share_what_they_know_and_end_together() {
    find_share_and_end(Cluster::of(3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_they_do_with_tls() {
    let mut cluster = Cluster::of(3);
    cluster.tls = Some(Authority::new().tls("127.0.0.1"));
    find_share_and_end(cluster).await;
}

async fn find_share_and_end(cluster: Cluster) {
    let ledgers = [ledger(), ledger(), ledger()];
    let (leading, one, two) = tokio::join!(
        lead(cluster.place(0), &ledgers[0]),
        follow(cluster.place(1), &ledgers[1]),
        follow(cluster.place(2), &ledgers[2]),
    );
    let (lead, _mesh) = leading.expect("leads");
    let ((one, _, begun), (two, _, _)) = (one.expect("joins"), two.expect("joins"));
    assert_eq!(
        (begun.generation, begun.plan),
        (Generation(7), json!({"a": 1}))
    );
    ledgers[1].page_arrived(10);
    ledgers[2].page_arrived(20);
    until("news", || ledgers[0].observe().waiting_bytes == 30).await;
    assert!(ledgers[1].tell_report("\"}\n".into()));
    assert!(ledgers[2].tell_report("é".repeat(MAX_REPORT_BYTES / 2).into()));
    until("reports", || {
        let told = ledgers[0].member_reports();
        let told = told.iter().map(|one| (one.process, one.text.len()));
        told.eq([(1, 3), (2, MAX_REPORT_BYTES)])
    })
    .await;
    until("word that sinks may write", || ledgers[2].writable()).await;
    // Nobody is let go before all have ended.
    let mut end = Box::pin(lead.end(DEADLINE));
    let early = timeout(Duration::from_millis(50), end.as_mut()).await;
    assert!(early.is_err());
    let (all, (), ()) = tokio::join!(end, one.end(DEADLINE), two.end(DEADLINE));
    assert!(all);
    assert!(ledgers.iter().all(|ledger| ledger.take_failure().is_none()));
}

/// Of another version, which reports nothing, or more.
#[test]
fn a_word_needs_no_report() {
    for word in [
        r#"{"number":1,"facts":{},"over":false}"#,
        r#"{"number":1,"facts":{},"over":false,"report":null,"more":7}"#,
    ] {
        let word: super::lead::FromMember = serde_json::from_str(word).expect("understood");
        assert!(word.number == 1 && word.report.is_none());
    }
}

/// What is wrong is said by whoever comes; the others wait for one that is right.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_does_not_fit_learns_why_and_keeps_nobody_out() {
    does_not_fit(
        Cluster::of(2),
        &[
            (
                Box::new(|p| p.secret = Secret::new("another secret of it").expect("long")),
                "same secret",
            ),
            (
                Box::new(|p| p.workers = 3),
                "workers of each process: 2 there, 3 here",
            ),
            (
                Box::new(|p| p.graph = "h".to_owned()),
                "sinks: g there, h here",
            ),
            (
                Box::new(|p| p.job = "other".to_owned()),
                "job: job there, other here",
            ),
            (
                Box::new(|p| {
                    let lead = p.hosts.address(0).expect("there");
                    let hosts = format!("{lead},127.0.0.1:1,127.0.0.1:2");
                    p.hosts = Hosts::parse_list(&hosts).expect("addresses");
                }),
                "number of processes: 2 there, 3 here",
            ),
            (
                Box::new(|p| p.tls = Some(Authority::new().tls("127.0.0.1"))),
                "this process uses TLS and it does not",
            ),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_does_one_whose_certificate_is_of_another_authority() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let mut cluster = Cluster::of(2);
    cluster.tls = Some(ours.tls("127.0.0.1"));
    // It trusts process 0, which does not trust it.
    let directory = theirs.directory("127.0.0.1");
    ours.accept_in(directory.path());
    let stranger = Tls::from_directory(directory.path()).expect("they go together");
    does_not_fit(
        cluster,
        &[
            (Box::new(|p| p.tls = None), "it uses TLS and this process"),
            (
                Box::new(move |p| p.tls = Some(theirs.tls("127.0.0.1"))),
                "UnknownIssuer",
            ),
            (
                Box::new(move |p| p.tls = Some(stranger.clone())),
                "it does not accept this process",
            ),
        ],
    )
    .await;
}

type Change = Box<dyn Fn(&mut Place)>;

async fn does_not_fit(cluster: Cluster, wrong: &[(Change, &str)]) {
    let ours = ledger();
    let place = cluster.place(0);
    let leading = tokio::spawn(async move { lead(place, &ours).await.map(|(lead, _)| lead) });
    for (change, says) in wrong {
        let mut place = cluster.place(1);
        place.listener = Some(TcpListener::bind("127.0.0.1:0").expect("a free port"));
        change(&mut place);
        let joined = timeout(DEADLINE, Follow::join(place))
            .await
            .expect("an answer");
        let error = joined.err().expect("it does not fit");
        assert_eq!(error.kind(), ErrorKind::Config);
        let report = error.report();
        assert!(report.contains(*says), "{report}");
        assert!(!leading.is_finished());
    }
    let mine = ledger();
    follow(cluster.place(1), &mine).await.expect("fits");
    leading.await.expect("no panic").expect("leads");
}

/// Garbage, other protocols, connections that say nothing or break off: more of them than may be in a handshake at a time.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_neither_join_nor_delay_a_member() {
    let cluster = Cluster::of(2);
    let ours = ledger();
    let (place, address) = (cluster.place(0), cluster.address(0));
    let leading = tokio::spawn(async move { lead(place, &ours).await.map(|(lead, _)| lead) });
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut silent = Vec::new();
    for stranger in 0..400 {
        let mut stream = TcpStream::connect(address).await.expect("accepts");
        let bytes: Vec<u8> = match stranger % 5 {
            0 => Vec::new(),
            1 => b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            2 => (0..random.usize(1..200)).map(|_| random.u8(..)).collect(),
            // The beginning of a greeting, and no end.
            3 => b"tidefeed\0\0\0".to_vec(),
            // A whole one, and then garbage.
            _ => {
                let mut hello = b"tidefeed\0\0\0\x01\0".to_vec();
                hello.extend([5; 32]);
                hello.extend((0..random.usize(0..100)).map(|_| random.u8(..)));
                hello
            }
        };
        // It may be gone by now.
        let _ = stream.write_all(&bytes).await;
        if stranger % 3 > 0 {
            silent.push(stream);
        }
    }
    let mine = ledger();
    let joined = timeout(Duration::from_secs(4), follow(cluster.place(1), &mine)).await;
    joined.expect("not delayed").expect("joins");
    leading.await.expect("no panic").expect("leads");
}

#[tokio::test]
async fn a_stranger_gets_no_word() {
    let cluster = Cluster::of(2);
    let (place, address) = (cluster.place(0), cluster.address(0));
    let leading = tokio::spawn(async move { Lead::assemble(place).await.map(drop) });
    let mut stream = TcpStream::connect(address).await.expect("accepts");
    stream.write_all(b"SSH-2.0-x\r\n").await.expect("written");
    let mut answer = Vec::new();
    let read = timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
    // Closed, in order or not.
    let _ = read.expect("closed at once");
    assert_eq!(answer, b"");
    leading.abort();
}

/// One whose task stands still, so that its connection lives and it does not.
#[tokio::test(flavor = "multi_thread")]
async fn silence_and_an_end_are_noticed_by_both_sides() {
    for silent in [true, false] {
        let mut cluster = Cluster::of(2);
        cluster.peer_timeout = Duration::from_millis(500);
        let ours = ledger();
        let place = cluster.place(0);
        let shared = ours.clone();
        let leading = tokio::spawn(async move { lead_control(place, &shared).await });
        let lobby = assemble::Lobby::open(cluster.place(1))
            .await
            .expect("listens");
        let purpose = handshake::Purpose::Control;
        let stream = lobby.dial(0, purpose, None).await.expect("fits");
        let lead = leading.await.expect("no panic").expect("leads");
        let kept = silent.then_some(stream);
        until("word of the loss", || ours.stopped()).await;
        let failure = ours.take_failure().expect("failed");
        assert_eq!(failure.kind(), ErrorKind::PeerLost);
        let report = failure.report();
        // What it had not read breaks the connection when it closes it.
        let whys = match silent {
            true => ["no sign of life for 500ms"; 2],
            false => ["it closed the connection", "the connection broke"],
        };
        let says = whys.iter().any(|why| report.contains(why));
        assert!(report.starts_with("process 1 at") && says, "{report}");
        assert!(
            !lead.end(Duration::from_millis(10)).await,
            "it never said that it has ended"
        );
        drop(kept);
    }
}

async fn lead_control(place: Place, ledger: &Ledger) -> Result<Lead> {
    let lead = Lead::assemble(place).await?;
    lead.begin(Generation(1), ledger.fence(), &json!(null));
    lead.attach(ledger);
    Ok(lead)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_fails_ends_the_run_and_one_that_may_not_begin_learns_why() {
    let cluster = Cluster::of(2);
    let (ours, theirs) = (ledger(), ledger());
    let (leading, following) = tokio::join!(
        lead(cluster.place(0), &ours),
        follow(cluster.place(1), &theirs)
    );
    let (_lead, (_follow, ..)) = (leading.expect("leads"), following.expect("joins"));
    theirs.fail(Error::new(ErrorKind::Data, "a wrong row"));
    until("word of it", || ours.stopped()).await;
    let report = ours.take_failure().expect("failed").report();
    assert!(report.contains("has failed: a wrong row"), "{report}");

    let cluster = Cluster::of(2);
    let (leading, following) = tokio::join!(
        Lead::assemble(cluster.place(0)),
        Follow::join(cluster.place(1))
    );
    let mut follow = following.expect("joins");
    let fenced = Error::new(ErrorKind::Fenced, "another run lives");
    leading.expect("leads").refuse(&fenced).await;
    let error = follow.begun().await.err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert!(error.report().contains("another run lives"));
}

/// I7: a member's fence is never open when that of process 0 has closed, and is open as long as that is renewed.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_may_write_as_long_as_the_lease_is_known_to_last_and_no_longer() {
    let cluster = Cluster::of(2);
    let lasts = Duration::from_millis(400);
    let fence = Fence::until(Renewal::begin(), lasts);
    let ours = Ledger::fenced(Epoch(0), Epoch(0), fence.clone());
    let theirs = ledger();
    let (mut leading_place, mut place) = (cluster.place(0), cluster.place(1));
    (leading_place.lease, place.lease) = (lasts, lasts);
    let (leading, following) = tokio::join!(lead(leading_place, &ours), follow(place, &theirs));
    let (_lead, (_follow, _, begun)) = (leading.expect("leads"), following.expect("joins"));
    let began = tokio::time::Instant::now();
    while began.elapsed() < 3 * lasts {
        let renewal = Renewal::begin();
        // The machine may have stood still for too long; then there is nothing to see here.
        if fence.extend(renewal, lasts).is_err() {
            return;
        }
        tokio::time::sleep(lasts / 20).await;
    }
    assert!(begun.fence.check().is_ok(), "it was renewed all the time");
    until("the end", || {
        let ours = fence.check();
        let theirs = begun.fence.check();
        assert!(theirs.is_err() || ours.is_ok());
        theirs.is_err()
    })
    .await;
}

#[test]
fn whom_a_process_waits_for_is_known_until_it_comes() {
    let awaited = super::Awaited::default();
    awaited.wait_for(1, "process 1 at a:1", None);
    awaited.wait_for(2, "process 2 at b:1", Some("refused".to_owned()));
    // What was the matter before is better than nothing.
    awaited.wait_for(2, "process 2 at b:1", None);
    let facts = awaited.facts();
    let known = facts.iter().map(|one| (one.process, one.why.as_deref()));
    assert_eq!(known.collect::<Vec<_>>(), [(1, None), (2, Some("refused"))]);
    awaited.came(2);
    awaited.came(1);
    assert_eq!(awaited.facts(), []);
}
