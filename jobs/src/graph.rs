//! The graph of a job's dataflow, and a fingerprint of what each sink depends on.
//!
//! timely logs every operator and channel as a dataflow is built. The *cone* of a sink is its operator and everything
//! upstream of it; its fingerprint is a hash over the cone's operator names and edges. So it changes when an operator
//! is added, removed, renamed or connected in another way above the sink, and it does not depend on the number of workers, on
//! the order in which independent parts are built, or on anything that the sink does not read.
//!
//! 1. Operators are told apart by name and by what they read, never by number or address. The label of an operator is refined
//!    as often as the cone has operators, each time by the labels of what feeds it, by port: as in colour refinement. So
//!    cycles, which iteration makes, need no rule of their own, and the number of operators counts as well.
//! 2. A scope has a place for each stream that enters or leaves it, so an edge never jumps over the edge of a scope.
//! 3. A source is named after its section in the configuration, a table after its name and the hash of its rows.
//!
//! Limits: what a closure computes does not show. A filter with another threshold is the same graph; that its view differs is
//! found by comparing the rebuilt view with the hash in the commit (I8). And a new version of timely or differential may
//! name or connect its operators in another way, which then counts as a change.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use timely::logging::{TimelyEvent, TimelyEventBuilder};
use timely::worker::Worker;
use xxhash_rust::xxh3::Xxh3Default;

/// The name of the operator that stands for a source while a job is planned.
pub(crate) fn source_name(source: &str) -> String {
    format!("ChangeFeed: {source}")
}

/// The name of the operator that stands for a table, with the hash of its rows.
pub(crate) fn table_name(table: &str, hash: &str) -> String {
    format!("Table: {table}, {hash}")
}

/// The name of the operator that stands for a sink.
pub(crate) fn sink_name(sink: &str) -> String {
    format!("Sink: {sink}")
}

/// An operator or a scope, by its place among the scopes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operator {
    pub(crate) address: Vec<usize>,
    pub(crate) name: String,
}

/// A channel within a scope, from an operator's output port to another's input port. Operator 0 is the scope's own edge:
/// its outputs are what enters the scope, its inputs what leaves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Channel {
    pub(crate) scope: Vec<usize>,
    pub(crate) source: (usize, usize),
    pub(crate) target: (usize, usize),
}

/// Operators and channels, in any order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    pub(crate) operators: Vec<Operator>,
    pub(crate) channels: Vec<Channel>,
}

/// Where an edge begins or ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Operator(Vec<usize>),
    Enter(Vec<usize>, usize),
    Leave(Vec<usize>, usize),
}

impl Place {
    fn address(&self) -> &[usize] {
        match self {
            Place::Operator(address) | Place::Enter(address, _) | Place::Leave(address, _) => {
                address
            }
        }
    }
}

/// An edge that ends in a place: input port, output port, and where it begins.
type Edge = (usize, usize, Place);

impl Graph {
    /// Records what is built on this worker from now on. Read it after [`flush`].
    pub(crate) fn record(worker: &Worker) -> Rc<RefCell<Graph>> {
        let graph = Rc::new(RefCell::new(Graph::default()));
        let recorded = Rc::clone(&graph);
        if let Some(mut log) = worker.log_register() {
            log.insert::<TimelyEventBuilder, _>("timely", move |_time, events| {
                let mut graph = recorded.borrow_mut();
                for (_, event) in events.iter_mut().flat_map(|events| events.drain(..)) {
                    graph.note(event);
                }
            });
        }
        graph
    }

    fn note(&mut self, event: TimelyEvent) {
        match event {
            TimelyEvent::Operates(operator) => self.operators.push(Operator {
                address: operator.addr,
                name: operator.name,
            }),
            TimelyEvent::Channels(channel) => self.channels.push(Channel {
                scope: channel.scope_addr,
                source: channel.source,
                target: channel.target,
            }),
            _ => {}
        }
    }

    /// The names of the operators and scopes that are in no other scope, in the order in which they were made.
    pub(crate) fn outermost(&self) -> Vec<String> {
        let outermost = self.operators.iter().filter(|one| one.address.len() == 2);
        let by_number: BTreeMap<_, _> = outermost.map(|one| (&one.address, &one.name)).collect();
        by_number.into_values().cloned().collect()
    }

    /// The fingerprint of the cone of the operator with this name; `None` if there is none, or more than one.
    pub(crate) fn fingerprint(&self, name: &str) -> Option<String> {
        let mut named = self.operators.iter().filter(|known| known.name == name);
        let (Some(end), None) = (named.next(), named.next()) else {
            return None;
        };
        let end = Place::Operator(end.address.clone());
        let cone = self.cone(&end);
        let names: BTreeMap<&[usize], &str> = self
            .operators
            .iter()
            .map(|known| (known.address.as_slice(), known.name.as_str()))
            .collect();
        let mut labels: BTreeMap<&Place, u128> = cone
            .keys()
            .map(|place| (place, first_label(place, &names)))
            .collect();
        for _ in 0..cone.len() {
            labels = cone
                .iter()
                .map(|(place, edges)| (place, next_label(labels[place], edges, &labels)))
                .collect();
        }
        labels.get(&end).map(|label| format!("{label:032x}"))
    }

    /// Every place that `end` is reached from, itself included, with the edges that end there.
    fn cone(&self, end: &Place) -> BTreeMap<Place, Vec<Edge>> {
        let scopes: BTreeSet<&[usize]> = self
            .channels
            .iter()
            .map(|channel| channel.scope.as_slice())
            .collect();
        let mut edges: BTreeMap<Place, Vec<Edge>> = BTreeMap::new();
        for channel in &self.channels {
            let at =
                |end, of_scope, of_child| place(&scopes, &channel.scope, end, of_scope, of_child);
            let (source, output) = at(channel.source, Place::Enter, Place::Leave);
            let (target, input) = at(channel.target, Place::Leave, Place::Enter);
            edges
                .entry(target)
                .or_default()
                .push((input, output, source));
        }
        let mut cone = BTreeMap::new();
        let mut open = vec![end.clone()];
        while let Some(place) = open.pop() {
            if cone.contains_key(&place) {
                continue;
            }
            let into = edges.remove(&place).unwrap_or_default();
            open.extend(into.iter().map(|(.., source)| source.clone()));
            cone.insert(place, into);
        }
        cone
    }
}

/// Hands on what is recorded so far.
pub(crate) fn flush(worker: &Worker) {
    if let Some(mut log) = worker.log_register() {
        log.flush();
    }
}

/// Where a channel begins or ends. Node 0 of a scope is its own edge, which `of_scope` makes a place of; `of_child` does so
/// with the edge of a scope within it. Those ports are places of their own, so they have no number.
fn place(
    scopes: &BTreeSet<&[usize]>,
    scope: &[usize],
    (node, port): (usize, usize),
    of_scope: fn(Vec<usize>, usize) -> Place,
    of_child: fn(Vec<usize>, usize) -> Place,
) -> (Place, usize) {
    if node == 0 {
        return (of_scope(scope.to_vec(), port), 0);
    }
    let address = [scope, &[node]].concat();
    match scopes.contains(address.as_slice()) {
        true => (of_child(address, port), 0),
        false => (Place::Operator(address), port),
    }
}

fn first_label(place: &Place, names: &BTreeMap<&[usize], &str>) -> u128 {
    let kind = match place {
        Place::Operator(_) => "operator ",
        Place::Enter(..) => "enter ",
        Place::Leave(..) => "leave ",
    };
    let name = names.get(place.address()).copied().unwrap_or_default();
    let mut hasher = Xxh3Default::new();
    hasher.update(kind.as_bytes());
    hasher.update(name.as_bytes());
    hasher.digest128()
}

fn next_label(label: u128, edges: &[Edge], labels: &BTreeMap<&Place, u128>) -> u128 {
    let mut into: Vec<_> = edges
        .iter()
        .map(|(input, output, source)| (*input, *output, labels[source]))
        .collect();
    into.sort_unstable();
    let mut hasher = Xxh3Default::new();
    hasher.update(&label.to_le_bytes());
    for (input, output, source) in into {
        hasher.update(&(input as u64).to_le_bytes());
        hasher.update(&(output as u64).to_le_bytes());
        hasher.update(&source.to_le_bytes());
    }
    hasher.digest128()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A graph in one scope: for each operator its name and what feeds its ports, in order; the last one is the end.
    fn graph(operators: &[(&str, &[usize])]) -> Graph {
        let mut graph = Graph::default();
        for (index, (name, inputs)) in operators.iter().enumerate() {
            graph.operators.push(Operator {
                address: vec![0, index + 1],
                name: (*name).to_owned(),
            });
            graph
                .channels
                .extend(inputs.iter().enumerate().map(|(port, from)| Channel {
                    scope: vec![0],
                    source: (from + 1, 0),
                    target: (index + 1, port),
                }));
        }
        graph
    }

    fn of(operators: &[(&str, &[usize])]) -> String {
        graph(operators).fingerprint("end").expect("one end")
    }

    #[test]
    fn what_is_upstream_counts_and_nothing_else() {
        let plain: &[(&str, &[usize])] =
            &[("a", &[]), ("b", &[]), ("join", &[0, 1]), ("end", &[2])];
        let fingerprint = of(plain);
        // Built in another order, with another view beside it.
        assert_eq!(
            of(&[
                ("b", &[]),
                ("filter", &[0]),
                ("other", &[1]),
                ("a", &[]),
                ("join", &[3, 0]),
                ("end", &[4]),
            ]),
            fingerprint
        );
        for (what, changed) in [
            (
                "a filter",
                of(&[
                    ("a", &[]),
                    ("b", &[]),
                    ("join", &[0, 1]),
                    ("filter", &[2]),
                    ("end", &[3]),
                ]),
            ),
            (
                "a name",
                of(&[("c", &[]), ("b", &[]), ("join", &[0, 1]), ("end", &[2])]),
            ),
            (
                "the sides",
                of(&[("a", &[]), ("b", &[]), ("join", &[1, 0]), ("end", &[2])]),
            ),
            (
                "an edge",
                of(&[("a", &[]), ("b", &[]), ("join", &[0, 0]), ("end", &[2])]),
            ),
        ] {
            assert_ne!(changed, fingerprint, "{what}");
        }
        assert_eq!(graph(plain).fingerprint("nothing"), None);
        assert_eq!(
            graph(&[("end", &[]), ("end", &[])]).fingerprint("end"),
            None
        );
    }

    #[test]
    fn the_edges_of_scopes_are_followed_and_cycles_end() {
        // input -> scope { enter -> concat -> step -> feedback -> concat; step -> leave } -> end
        let nested = |step: &str, loops: bool| {
            let operator = |address: &[usize], name: &str| Operator {
                address: address.to_vec(),
                name: name.to_owned(),
            };
            let channel = |scope: &[usize], source, target| Channel {
                scope: scope.to_vec(),
                source,
                target,
            };
            let mut graph = Graph {
                operators: vec![
                    operator(&[0, 1], "input"),
                    operator(&[0, 2], "scope"),
                    operator(&[0, 3], "end"),
                    operator(&[0, 2, 1], "concat"),
                    operator(&[0, 2, 2], step),
                    operator(&[0, 2, 3], "feedback"),
                ],
                channels: vec![
                    channel(&[0], (1, 0), (2, 0)),
                    channel(&[0, 2], (0, 0), (1, 0)),
                    channel(&[0, 2], (1, 0), (2, 0)),
                    channel(&[0, 2], (2, 0), (0, 0)),
                    channel(&[0], (2, 0), (3, 0)),
                ],
            };
            if loops {
                graph.channels.push(channel(&[0, 2], (2, 0), (3, 0)));
                graph.channels.push(channel(&[0, 2], (3, 0), (1, 1)));
            }
            graph.fingerprint("end").expect("one end")
        };
        assert_eq!(nested("step", true), nested("step", true));
        assert_ne!(nested("step", true), nested("other", true));
        assert_ne!(nested("step", true), nested("step", false));
    }

    /// The slow way for a graph without cycles: the whole expression, written out.
    fn expression(operators: &[(String, Vec<usize>)], at: usize) -> String {
        let (name, inputs) = &operators[at];
        let inputs: Vec<_> = inputs
            .iter()
            .map(|from| expression(operators, *from))
            .collect();
        format!("{name}({})", inputs.join(","))
    }

    /// Operators that `at` is reached from, itself included. One that is used twice is another graph than two of a kind.
    fn reached(operators: &[(String, Vec<usize>)], at: usize) -> BTreeSet<usize> {
        let inputs = operators[at].1.iter();
        let upstream = inputs.flat_map(|from| reached(operators, *from));
        upstream.chain([at]).collect()
    }

    #[test]
    fn fingerprints_are_equal_when_the_expressions_are() {
        let mut random = fastrand::Rng::with_seed(11);
        let mut by_expression: BTreeMap<String, String> = BTreeMap::new();
        for _ in 0..3_000 {
            let count = random.usize(1..6);
            let mut operators: Vec<(String, Vec<usize>)> = Vec::new();
            for index in 0..count {
                let inputs = (0..random.usize(0..3).min(index))
                    .map(|_| random.usize(0..index))
                    .collect();
                operators.push((random.choice(["x", "y"]).expect("two").to_owned(), inputs));
            }
            operators.push(("end".to_owned(), vec![count - 1]));
            let borrowed: Vec<(&str, &[usize])> = operators
                .iter()
                .map(|(name, inputs)| (name.as_str(), inputs.as_slice()))
                .collect();
            let size = reached(&operators, count).len();
            let expression = format!("{} of {size}", expression(&operators, count));
            let fingerprint = of(&borrowed);
            let known = by_expression
                .entry(expression)
                .or_insert_with(|| fingerprint.clone());
            assert_eq!(*known, fingerprint);
        }
        let distinct: BTreeSet<_> = by_expression.values().collect();
        assert_eq!(
            distinct.len(),
            by_expression.len(),
            "two expressions look alike"
        );
        assert!(distinct.len() > 100, "{}", distinct.len());
    }
}
