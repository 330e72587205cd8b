//! The network between the nodes: links with latency that keep the order of cells, partitions,
//! links that break.

use std::collections::{BTreeMap, BTreeSet};

use umbel_proto::link::LinkId;
use umbel_proto::time::{Duration, Instant};

/// A node of the world: a relay or a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Node {
    /// The relay with this number.
    Relay(usize),
    /// The client with this number.
    Client(usize),
}

/// One end of a link: where it is, and which end is opposite. Its node names the link by this end's
/// id, which no other end in the world has.
#[derive(Debug, Clone, Copy)]
pub struct End {
    /// Whose end it is.
    pub node: Node,
    /// The other end.
    pub opposite: LinkId,
    /// When the last cell sent from this end arrives: cells never overtake each other.
    pub last_arrival: Instant,
}

/// How long a cell takes at a gigabit a second.
const GIGABIT_CELL_TIME: Duration = Duration::from_micros(16);

/// All links, and what is wrong with them.
#[derive(Debug)]
pub struct Network {
    ends: BTreeMap<LinkId, End>,
    next_end: u64,
    /// One way, each link.
    pub latency: Duration,
    /// How long a link takes to carry a cell away from a relay.
    pub cell_time: Duration,
    /// Pairs of nodes that can't reach each other now.
    cut: BTreeSet<(Node, Node)>,
    /// Pairs between which everything is lost silently.
    silent: BTreeSet<(Node, Node)>,
}

impl Network {
    /// A network without links.
    pub fn new(latency: Duration) -> Self {
        Self {
            ends: BTreeMap::new(),
            next_end: 1,
            latency,
            cell_time: GIGABIT_CELL_TIME,
            cut: BTreeSet::new(),
            silent: BTreeSet::new(),
        }
    }

    /// A new link from `a` (who dialled) to `b`: both ends.
    pub fn connect(&mut self, a: Node, b: Node, now: Instant) -> (LinkId, LinkId) {
        let (end_a, end_b) = (LinkId(self.next_end), LinkId(self.next_end + 1));
        self.next_end += 2;
        self.ends.insert(
            end_a,
            End {
                node: a,
                opposite: end_b,
                last_arrival: now,
            },
        );
        self.ends.insert(
            end_b,
            End {
                node: b,
                opposite: end_a,
                last_arrival: now,
            },
        );
        (end_a, end_b)
    }

    /// This end, if its link is up.
    pub fn end(&self, id: LinkId) -> Option<End> {
        self.ends.get(&id).copied()
    }

    /// When a cell sent from this end now will arrive.
    pub fn arrival(&mut self, from: LinkId, now: Instant, jitter: Duration) -> Option<Instant> {
        let latency = self.latency;
        let end = self.ends.get_mut(&from)?;
        end.last_arrival = end.last_arrival.max(now + latency + jitter);
        Some(end.last_arrival)
    }

    /// Breaks a link. Returns the nodes that must learn of it, and at which end.
    pub fn disconnect(&mut self, id: LinkId) -> Vec<(Node, LinkId)> {
        let Some(end) = self.ends.remove(&id) else {
            return Vec::new();
        };
        let opposite = self
            .ends
            .remove(&end.opposite)
            .map(|other| (other.node, end.opposite));
        [Some((end.node, id)), opposite]
            .into_iter()
            .flatten()
            .collect()
    }

    /// All ends at a node.
    pub fn ends_at(&self, node: Node) -> Vec<LinkId> {
        self.ends
            .iter()
            .filter(|(_, end)| end.node == node)
            .map(|(&id, _)| id)
            .collect()
    }

    /// From now on these two can't reach each other. Returns the ends that break.
    pub fn cut(&mut self, a: Node, b: Node) -> Vec<LinkId> {
        self.cut.insert((a.min(b), a.max(b)));
        let is_between = |end: &End| {
            let other = self.ends.get(&end.opposite).map(|opposite| opposite.node);
            (end.node == a && other == Some(b)) || (end.node == b && other == Some(a))
        };
        self.ends
            .iter()
            .filter(|(_, end)| is_between(end))
            .map(|(&id, _)| id)
            .collect()
    }

    /// From now on everything between these two is lost, links and dials included, without an end
    /// to any.
    pub fn silence(&mut self, a: Node, b: Node) {
        self.silent.insert((a.min(b), a.max(b)));
    }

    /// Whether everything between these two is lost.
    pub fn is_silent(&self, a: Node, b: Node) -> bool {
        self.silent.contains(&(a.min(b), a.max(b)))
    }

    /// Whether everything sent from this end is lost.
    pub fn swallows(&self, from: LinkId) -> bool {
        let Some(end) = self.ends.get(&from) else {
            return false;
        };
        self.ends
            .get(&end.opposite)
            .is_some_and(|other| self.is_silent(end.node, other.node))
    }

    /// All partitions end.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.silent.clear();
    }

    /// Whether these two can't reach each other.
    pub fn is_cut(&self, a: Node, b: Node) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    /// How many links are up.
    pub fn link_count(&self) -> usize {
        self.ends.len() / 2
    }
}
