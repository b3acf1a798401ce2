//! The most that anybody could have served: work may be cut and moved between accounts at will, all
//! of it warm, with the whole week known beforehand. A flow of work from slices of time through the
//! windows of five hours and of a week; its maximum is a bound that no scheduler can pass.

use crate::world::{SLICE, START, WEEK, World};

/// Millionths of a unit, so that the sums are exact.
const MICRO: f64 = 1e6;

/// In units of an average warm turn.
pub(crate) fn most(world: &World) -> f64 {
    let slices = usize::try_from(WEEK / SLICE).expect("a few hundred");
    let mut graph = Graph::default();
    let (source, sink) = (graph.node(), graph.node());
    let times: Vec<usize> = (0..slices).map(|_| graph.node()).collect();
    let mut demand = vec![0_i64; slices];
    for turn in &world.turns {
        demand[slice_of(turn.at)] += micro(turn.least());
    }
    for (slice, demand) in demand.iter().enumerate() {
        graph.edge(source, times[slice], *demand);
    }
    for account in &world.accounts {
        let [short, long] = account.windows;
        let mut weeks = Windows::new(long);
        let mut hours = Windows::new(short);
        for (slice, time) in times.iter().enumerate() {
            let at = START + i64::try_from(slice).expect("a few hundred") * SLICE;
            let week = weeks.at(at, &mut graph, sink);
            let window = hours.at(at, &mut graph, week);
            if !account.is_out(at) {
                graph.edge(*time, window, i64::MAX / 4);
            }
        }
    }
    graph.max_flow(source, sink) as f64 / MICRO
}

fn slice_of(at: i64) -> usize {
    usize::try_from((at - START) / SLICE).expect("within the week")
}

fn micro(units: f64) -> i64 {
    (units * MICRO).round() as i64
}

/// The windows of one length of one account, one after the other.
struct Windows {
    window: crate::world::Window,
    /// The node of the window that is on, and the node that it flows into.
    current: Option<(usize, usize)>,
}

impl Windows {
    fn new(window: crate::world::Window) -> Self {
        Self { window, current: None }
    }

    /// The node of the window at that time. A window that reaches over the end of the longer one it
    /// flows into is counted twice with its whole capacity: that only raises the bound.
    fn at(&mut self, at: i64, graph: &mut Graph, into: usize) -> usize {
        let rolls = self.window.resets_at <= at;
        self.window.roll(at);
        if let Some((node, flows_into)) = self.current
            && !rolls
            && flows_into == into
        {
            return node;
        }
        let node = graph.node();
        graph.edge(node, into, micro((self.window.capacity - self.window.used).max(0.0)));
        self.current = Some((node, into));
        node
    }
}

/// Dinic's algorithm.
#[derive(Default)]
struct Graph {
    /// To, and what is left; the way back is the edge beside it.
    edges: Vec<(usize, i64)>,
    out: Vec<Vec<usize>>,
}

impl Graph {
    fn node(&mut self) -> usize {
        self.out.push(Vec::new());
        self.out.len() - 1
    }

    fn edge(&mut self, from: usize, to: usize, capacity: i64) {
        self.out[from].push(self.edges.len());
        self.edges.push((to, capacity));
        self.out[to].push(self.edges.len());
        self.edges.push((from, 0));
    }

    fn max_flow(&mut self, source: usize, sink: usize) -> i64 {
        let mut flow = 0;
        while let Some(levels) = self.levels(source, sink) {
            let mut next = vec![0; self.out.len()];
            loop {
                let pushed = self.push(source, sink, i64::MAX / 4, &levels, &mut next);
                if pushed == 0 {
                    break;
                }
                flow += pushed;
            }
        }
        flow
    }

    fn levels(&self, source: usize, sink: usize) -> Option<Vec<usize>> {
        let mut levels = vec![usize::MAX; self.out.len()];
        levels[source] = 0;
        let mut queue = std::collections::VecDeque::from([source]);
        while let Some(node) = queue.pop_front() {
            for &edge in &self.out[node] {
                let (to, left) = self.edges[edge];
                if left > 0 && levels[to] == usize::MAX {
                    levels[to] = levels[node] + 1;
                    queue.push_back(to);
                }
            }
        }
        (levels[sink] != usize::MAX).then_some(levels)
    }

    fn push(&mut self, node: usize, sink: usize, most: i64, levels: &[usize], next: &mut [usize]) -> i64 {
        if node == sink {
            return most;
        }
        while next[node] < self.out[node].len() {
            let edge = self.out[node][next[node]];
            let (to, left) = self.edges[edge];
            if left > 0 && levels[to] == levels[node] + 1 {
                let pushed = self.push(to, sink, most.min(left), levels, next);
                if pushed > 0 {
                    self.edges[edge].1 -= pushed;
                    self.edges[edge ^ 1].1 += pushed;
                    return pushed;
                }
            }
            next[node] += 1;
        }
        0
    }
}
