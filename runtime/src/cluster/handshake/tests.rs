use super::*;

fn secret(text: &str) -> Secret {
    Secret::new(&format!("{text}, long enough for one")).expect("long enough")
}

fn claims(from: u32, to: u32) -> Claims {
    Claims {
        purpose: Purpose::Control,
        from,
        to,
        job: "shop".to_owned(),
        processes: 3,
        workers: 2,
        graph: "abc".to_owned(),
        generation: None,
    }
}

fn opening(number: u8) -> Opening {
    Opening {
        nonce: [number; NONCE_BYTES],
        tls: false,
    }
}

/// A whole handshake. What either side makes of it.
fn shake(
    secrets: (&Secret, &Secret),
    dialer: &Claims,
    acceptor: &Claims,
    mut wire: impl FnMut(usize, &mut Vec<u8>),
) -> (Result<(), Refusal>, Result<Claims, Refusal>) {
    let (ours, theirs) = (opening(1), opening(2));
    let mut pass = |step, bytes: Vec<u8>| {
        let mut bytes = bytes;
        wire(step, &mut bytes);
        bytes
    };
    let as_greeting = |bytes: Vec<u8>| Greeting::try_from(bytes).map_err(|_| Refusal::Stranger);
    let one = pass(1, ours.greeting().to_vec());
    let accepting =
        match as_greeting(one).and_then(|greeted| Accepting::new(secrets.1, &theirs, &greeted)) {
            Ok(accepting) => accepting,
            Err(refusal) => return (Err(Refusal::Stranger), Err(refusal)),
        };
    let two = pass(2, theirs.greeting().to_vec());
    let said = as_greeting(two).and_then(|greeted| hello(secrets.0, &ours, &greeted, dialer));
    let (three, dialed) = match said {
        Ok(said) => said,
        Err(refusal) => return (Err(refusal), Err(Refusal::Stranger)),
    };
    let three = pass(3, three);
    let (four, accepted) = match accepting.claims(&three) {
        Ok(proven) => {
            let compared = compare(acceptor, &proven.claims);
            let told = compared.clone().map_err(|(_, theirs)| theirs);
            let answer = accepting.answer(&proven, told);
            let accepted = match compared {
                Ok(()) => Ok(proven.claims),
                Err((ours, _)) => Err(Refusal::Differs(ours)),
            };
            (answer, accepted)
        }
        Err(refusal) => (answer_unproven(), Err(refusal)),
    };
    let four = pass(4, four);
    (dialed.answered(&four), accepted)
}

#[test]
fn two_of_one_cluster_find_each_other() {
    let secret = secret("s");
    let (one, other) = (claims(2, 0), claims(0, 2));
    let (dialer, acceptor) = shake((&secret, &secret), &one, &other, |_, _| {});
    assert_eq!((dialer, acceptor), (Ok(()), Ok(one)));
}

#[test]
fn another_secret_is_refused_by_both() {
    let (ours, theirs) = (secret("ours"), secret("theirs"));
    let refused = shake((&theirs, &ours), &claims(1, 0), &claims(0, 1), |_, _| {});
    assert_eq!(refused, (Err(Refusal::Secret), Err(Refusal::Secret)));
}

#[test]
fn what_differs_is_said_on_both_sides() {
    let secret = secret("s");
    type Case = (fn(&mut Claims), &'static str, &'static str);
    let cases: [Case; 7] = [
        (
            |c| c.workers = 4,
            "process: 2 there, 4 here",
            "process: 4 there, 2 here",
        ),
        (
            |c| c.processes = 5,
            "processes: 3 there, 5 here",
            "processes: 5 there, 3 here",
        ),
        (
            |c| c.job = "x".into(),
            "job: shop there, x here",
            "job: x there, shop here",
        ),
        (
            |c| c.graph = "x".into(),
            "sinks: abc there, x here",
            "sinks: x there, abc here",
        ),
        (
            |c| c.generation = Some(3),
            "none there, 3 here",
            "3 there, none here",
        ),
        (
            |c| c.to = 2,
            "looked for process 2 where process 0 is",
            "looked for process 2",
        ),
        (
            |c| c.from = 0,
            "two processes say that they are process 0",
            "process 0",
        ),
    ];
    for (change, at_dialer, at_acceptor) in cases {
        let mut dialer = claims(1, 0);
        change(&mut dialer);
        let (dialed, accepted) = shake((&secret, &secret), &dialer, &claims(0, 1), |_, _| {});
        let (dialed, accepted) = (dialed.expect_err("refused"), accepted.expect_err("refused"));
        assert!(accepted.to_string().contains(at_acceptor), "{accepted}");
        assert!(dialed.to_string().contains(at_dialer), "{dialed}");
    }
}

#[test]
fn another_version_is_named_and_garbage_is_a_stranger() {
    let secret = secret("s");
    let newer = |step: usize, bytes: &mut Vec<u8>| {
        if step == 1 {
            bytes[11] = 9;
        }
    };
    let (_, refused) = shake((&secret, &secret), &claims(1, 0), &claims(0, 1), newer);
    let version = Refusal::Version { here: 1, there: 9 };
    assert_eq!(refused, Err(version));
    let http = |step: usize, bytes: &mut Vec<u8>| {
        if step == 1 {
            bytes[..4].copy_from_slice(b"GET ");
        }
    };
    let (_, refused) = shake((&secret, &secret), &claims(1, 0), &claims(0, 1), http);
    assert_eq!(refused, Err(Refusal::Stranger));
    assert!(may_be_greeting(b"tide") && !may_be_greeting(b"GET /"));
}

/// Whatever is changed on the way, whoever meant nothing bad is never taken for another, and nobody panics.
#[test]
fn what_is_changed_on_the_way_joins_nobody() {
    let secret = secret("s");
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..3000 {
        let (at_step, kind) = (random.usize(1..5), random.u8(0..4));
        let mut changed = false;
        let (dialed, accepted) = shake(
            (&secret, &secret),
            &claims(1, 0),
            &claims(0, 1),
            |step, bytes| {
                if step == at_step {
                    let before = bytes.clone();
                    mangle(bytes, kind, &mut random);
                    changed = *bytes != before;
                }
            },
        );
        if changed {
            assert!(dialed.is_err(), "seed {seed}: step {at_step}");
            // The acceptor's answer is the last, so it cannot know that it was changed.
            assert!(
                accepted.is_err() || at_step == 4,
                "seed {seed}: step {at_step}"
            );
        }
    }
}

fn mangle(bytes: &mut Vec<u8>, kind: u8, random: &mut fastrand::Rng) {
    match kind {
        0 => {
            let at = random.usize(..bytes.len());
            bytes[at] ^= 1 << random.u8(0..8);
        }
        1 => bytes.truncate(random.usize(..bytes.len())),
        2 => bytes.iter_mut().for_each(|byte| *byte = random.u8(..)),
        // Not white space, which may follow JSON.
        _ => bytes.extend((0..random.usize(1..50)).map(|_| random.u8(b'a'..=b'z'))),
    }
}

/// A proof that was heard is of no use to whoever heard it: neither again nor in the other direction.
#[test]
fn proofs_are_of_one_connection_and_one_side() {
    let secret = secret("s");
    let (said, _) =
        hello(&secret, &opening(1), &opening(2).greeting(), &claims(1, 0)).expect("greeted");
    let again = Accepting::new(&secret, &opening(3), &opening(1).greeting());
    assert_eq!(
        again.expect("greeted").claims(&said).err(),
        Some(Refusal::Secret)
    );
    // A member that is dialled by whoever it dials gets its own words back.
    let (own, dialed) =
        hello(&secret, &opening(1), &opening(2).greeting(), &claims(1, 0)).expect("greeted");
    let reflected: Hello = serde_json::from_slice(&own).expect("a hello");
    let answer = to_json(&Answer {
        verdict: text_of(&Verdict::Welcome),
        proof: reflected.proof,
    });
    assert_eq!(dialed.answered(&answer), Err(Refusal::Secret));
}

/// An end that is to use TLS goes on with no other, and both know why.
#[test]
fn an_end_without_tls_and_one_with_it_learn_that_of_each_other() {
    let secret = secret("s");
    for here in [false, true] {
        let ours = Opening {
            tls: here,
            ..opening(1)
        };
        let theirs = Opening {
            tls: !here,
            ..opening(2)
        };
        let said = hello(&secret, &ours, &theirs.greeting(), &claims(1, 0));
        assert_eq!(said.err(), Some(Refusal::Tls { here }));
        let heard = Accepting::new(&secret, &theirs, &ours.greeting());
        assert_eq!(heard.err(), Some(Refusal::Tls { here: !here }));
    }
    let here = Refusal::Tls { here: true }.to_string();
    assert!(
        here.starts_with("this process uses TLS and it does not"),
        "{here}"
    );
}
