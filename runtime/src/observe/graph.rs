//! The operators and channels that a worker has built, and which operator each channel comes from and goes to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use timely::logging::{ChannelsEvent, OperatesEvent};

/// Node and port: node 0 of a scope is its own edge, whose outputs are what enters it and whose inputs what leaves it.
type End = (usize, usize);

/// An operator or a scope, by its place among the scopes.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) id: usize,
    pub(super) address: Arc<[usize]>,
    pub(super) name: Arc<str>,
    /// Where the scope is that it is in, among all nodes.
    pub(super) scope: Option<usize>,
    pub(super) is_scope: bool,
}

/// A channel that ends at an operator, and where it comes from over the edges of all scopes between.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    /// Of the channel. Operators are by their place among the nodes.
    pub(super) id: usize,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) to_port: usize,
}

/// A channel as timely tells of it: within one scope.
#[derive(Clone, Debug)]
struct Channel {
    id: usize,
    scope: Vec<usize>,
    source: End,
    target: End,
}

/// What timely has told of so far.
#[derive(Debug, Default)]
pub(super) struct Built {
    operators: BTreeMap<Vec<usize>, (usize, String)>,
    channels: Vec<Channel>,
}

/// The nodes in the order of their addresses, so a scope comes before what is in it, and what flows between them.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) edges: Vec<Edge>,
    /// Channels, with the operator or scope at which each ends.
    pub(super) inputs: Vec<(usize, usize)>,
}

impl Built {
    pub(super) fn operator(&mut self, event: &OperatesEvent) {
        let known = (event.id, event.name.clone());
        self.operators.insert(event.addr.clone(), known);
    }

    pub(super) fn channel(&mut self, event: &ChannelsEvent) {
        self.channels.push(Channel {
            id: event.id,
            scope: event.scope_addr.clone(),
            source: event.source,
            target: event.target,
        });
    }

    /// A channel of which an end is not known is left out.
    pub(super) fn graph(&self) -> Graph {
        let places: BTreeMap<&[usize], usize> =
            self.operators.keys().map(Vec::as_slice).zip(0..).collect();
        let mut nodes: Vec<_> = self
            .operators
            .iter()
            .map(|(address, (id, name))| Node {
                id: *id,
                address: address.as_slice().into(),
                name: name.as_str().into(),
                scope: address
                    .split_last()
                    .and_then(|(_, scope)| places.get(scope))
                    .copied(),
                is_scope: false,
            })
            .collect();
        // A scope that hands on what enters it has channels only.
        let scopes: BTreeSet<usize> = nodes
            .iter()
            .filter_map(|node| node.scope)
            .chain(
                self.channels
                    .iter()
                    .filter_map(|one| places.get(one.scope.as_slice()).copied()),
            )
            .collect();
        scopes.iter().for_each(|at| nodes[*at].is_scope = true);
        let to = |channel: &Channel| {
            let to = address(&channel.scope, channel.target.0)?;
            places.get(to.as_slice()).copied()
        };
        let inputs = self
            .channels
            .iter()
            .filter_map(|channel| Some((channel.id, to(channel)?)))
            .collect();
        let ends = Ends::new(&self.channels);
        let edge = |channel: &Channel| {
            let to = to(channel)?;
            let from = *places.get(ends.source(channel, &places, &nodes)?.as_slice())?;
            let ends_here = !nodes[to].is_scope;
            ends_here.then_some(Edge {
                id: channel.id,
                from,
                to,
                to_port: channel.target.1,
            })
        };
        let edges = self.channels.iter().filter_map(edge).collect();
        Graph {
            nodes,
            edges,
            inputs,
        }
    }
}

/// Channels by where they end.
struct Ends<'a>(BTreeMap<(&'a [usize], End), &'a Channel>);

impl<'a> Ends<'a> {
    fn new(channels: &'a [Channel]) -> Self {
        let by_end = |channel: &'a Channel| ((channel.scope.as_slice(), channel.target), channel);
        Ends(channels.iter().map(by_end).collect())
    }

    /// The operator that a channel comes from: what enters a scope comes from outside, and what a scope puts out from inside. One
    /// channel leads to each port of a scope's edge.
    fn source(
        &self,
        channel: &'a Channel,
        places: &BTreeMap<&[usize], usize>,
        nodes: &[Node],
    ) -> Option<Vec<usize>> {
        let mut channel = channel;
        // Each turn goes over one edge of a scope: a way over more edges than there are is none.
        for _ in 0..=2 * nodes.len() {
            let (node, port) = channel.source;
            let Some(from) = address(&channel.scope, node) else {
                let (at, outside) = channel.scope.split_last()?;
                channel = self.0.get(&(outside, (*at, port))).copied()?;
                continue;
            };
            let place = *places.get(from.as_slice())?;
            if !nodes[place].is_scope {
                return Some(from);
            }
            let inside = nodes[place].address.as_ref();
            channel = self.of_scope(inside, port)?;
        }
        None
    }

    /// The channel that leaves a scope at a port.
    fn of_scope(&self, scope: &[usize], port: usize) -> Option<&'a Channel> {
        let mut from = self.0.range((scope, (0, port))..);
        let (_, channel) = from.next()?;
        (channel.scope == scope && channel.target == (0, port)).then_some(*channel)
    }
}

/// The address of a node in a scope; none of the scope's own edge.
fn address(scope: &[usize], node: usize) -> Option<Vec<usize>> {
    (node != 0).then(|| [scope, &[node]].concat())
}
