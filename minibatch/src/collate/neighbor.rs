//! Mini-batches on one large graph by sampling neighbours (Hamilton, Ying, Leskovec 2017, "Inductive Representation Learning
//! on Large Graphs", GraphSAGE).

use super::{Csr, GraphError, Subgraph};
use crate::{Drawn, Rng, Sampler, WithoutReplacement};
use rand::RngExt;
use std::ops::Range;

/// Up to this fanout a chosen neighbour is looked for among those chosen before by going through them.
const SMALL_FANOUT: usize = 32;

/// Which nodes a hop finds neighbours of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expand {
    /// Those that the hop before brought in, so each node's neighbours are drawn once, and every layer that needs the node
    /// uses them: PyTorch Geometric's `NeighborLoader` with `trim_to_layer`. Fewer edges.
    #[default]
    New,
    /// All so far, with a fresh draw: GraphSAGE's Algorithm 2, and the blocks of DGL. The neighbours of a node are drawn for
    /// each layer by itself, with that layer's fanout, so the layers' errors are independent.
    All,
}

/// Draws, for a few seed nodes of a large graph, the part of the graph that a network of L layers needs to compute them, with
/// at most `fanouts[h]` neighbours of each node in hop h. Hop 0 starts at the seeds and feeds the network's *last* layer.
///
/// * Without replacement, a node of degree d gets min(d, fanout) of its incoming edges, every subset equally likely, in no
///   particular order. With replacement it gets `fanout` independent draws, if d > 0. Fanout −1 takes all edges, each once.
/// * Choices are among edges: of parallel edges each is a choice of its own.
/// * The mean over sampled neighbours has the expectation of the mean over all; for a sum, scale by d / drawn.
///
/// Everything random comes from the generator passed in, so the same seeds and the same generator give the same subgraph.
/// There is no state that outlives a batch. Weighted, temporal and heterogeneous sampling are not here.
///
/// Cost: O(edges sampled) a batch, whatever the size of the graph and the degrees of its nodes. Memory: 8 bytes a node of the
/// graph, for a table from its numbers to local ones, which is never cleared: entries carry the number of their batch.
///
/// ```
/// use rand::SeedableRng;
/// use rl_minibatch::{Batch, Csr, Dtype, Field, NeighborSampler, Rng, Schema, Subgraph, Table};
/// // A star: nodes 1, 2, 3 and 4 send to 0, which sends to 1.
/// let graph = Csr::incoming(5, &[1, 2, 3, 4, 0, 0, 0, 0, 0, 1])?;
/// let mut sampler = NeighborSampler::new(&[2, -1])?;
/// let (mut rng, mut part) = (Rng::seed_from_u64(0), Subgraph::new());
/// sampler.sample(&mut rng, &graph, &[0], &mut part)?;
/// assert_eq!(part.nodes()[0], 0);
/// assert_eq!(part.block(1).targets, [0, 0]);
///
/// // Features of the nodes, then the mean over neighbours, layer by layer.
/// let schema = Schema::new(vec![Field::new("x", Dtype::F32, [])])?;
/// let table = Table::new(&schema, 5, &[bytemuck::cast_slice(&[0.0f32, 1.0, 2.0, 3.0, 4.0])])?;
/// let mut features = Batch::new(&schema, part.nodes().len());
/// table.gather_into(part.nodes(), &mut features.view_mut())?;
/// let mut values = features.typed::<f32>("x")?.to_vec();
/// for block in part.blocks() {
///     let (mut sums, mut counts) = (vec![0.0; block.target_nodes], vec![0.0f32; block.target_nodes]);
///     for (source, target) in block.sources.iter().zip(block.targets) {
///         sums[*target as usize] += values[*source as usize];
///         counts[*target as usize] += 1.0;
///     }
///     values = sums.iter().zip(&counts).map(|(sum, count)| sum / count.max(1.0)).collect();
/// }
/// assert_eq!(values.len(), 1); // the seed's, after two layers
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct NeighborSampler {
    /// Neighbours of a node in each hop; `None` for all.
    fanouts: Vec<Option<usize>>,
    replace: bool,
    expand: Expand,
    locals: Locals,
    /// Where the neighbours of each node of a hop lie.
    spans: Vec<Range<usize>>,
    chosen: Vec<usize>,
    many: WithoutReplacement,
    drawn: Drawn,
}

impl NeighborSampler {
    /// A sampler with a fanout for each hop, from the seeds outwards; −1 takes all neighbours. Without replacement, expanding
    /// new nodes.
    ///
    /// # Errors
    /// [`GraphError::NoFanouts`], and [`GraphError::Fanout`] for one below −1.
    pub fn new(fanouts: &[i64]) -> Result<Self, GraphError> {
        if fanouts.is_empty() {
            return Err(GraphError::NoFanouts);
        }
        if let Some(hop) = fanouts.iter().position(|fanout| *fanout < -1) {
            return Err(GraphError::Fanout { hop, got: fanouts[hop] });
        }
        Ok(Self {
            fanouts: fanouts.iter().map(|fanout| usize::try_from(*fanout).ok()).collect(),
            replace: false,
            expand: Expand::New,
            locals: Locals::default(),
            spans: Vec::new(),
            chosen: Vec::new(),
            many: WithoutReplacement::new(),
            drawn: Drawn::default(),
        })
    }

    /// Whether neighbours are drawn with replacement.
    pub fn replace(mut self, replace: bool) -> Self {
        self.replace = replace;
        self
    }

    /// Which nodes a hop finds neighbours of.
    pub fn expand(mut self, expand: Expand) -> Self {
        self.expand = expand;
        self
    }

    /// Draws the neighbourhood of `seeds` in `graph` into `out`, replacing what it held. A seed that comes twice is one node; see
    /// [`Subgraph::seeds`]. Allocates only when a batch is larger than all before it, and for a larger graph.
    ///
    /// # Errors
    /// [`GraphError::Seed`] for one that is not in the graph; `out` and `rng` are then untouched.
    pub fn sample(
        &mut self,
        rng: &mut Rng,
        graph: &Csr,
        seeds: &[u64],
        out: &mut Subgraph,
    ) -> Result<(), GraphError> {
        if let Some(position) = seeds.iter().position(|seed| *seed >= graph.nodes() as u64) {
            return Err(GraphError::Seed { position, node: seeds[position], nodes: graph.nodes() });
        }
        out.expand = self.expand;
        for list in [&mut out.sources, &mut out.targets, &mut out.seeds] {
            list.clear();
        }
        out.edges.clear();
        out.nodes.clear();
        out.hop_nodes.clear();
        out.hop_edges.clear();
        self.locals.begin(graph.nodes());
        for seed in seeds {
            out.seeds.push(i64::from(self.locals.number(*seed as u32, &mut out.nodes)));
        }
        out.hop_nodes.push(out.nodes.len());
        out.hop_edges.push(0);
        let mut expanded = 0;
        for hop in 0..self.fanouts.len() {
            let from = match self.expand {
                Expand::New => expanded,
                Expand::All => 0,
            };
            expanded = out.nodes.len();
            // One pass over the hop for each table that is looked into at random places: the look-ups of a pass do not wait for
            // each other, so the processor has many of them under way at once.
            self.spans.clear();
            self.spans.extend(out.nodes[from..].iter().map(|node| graph.slots(*node as usize)));
            let first = out.edges.len();
            for place in 0..self.spans.len() {
                let slots = self.spans[place].clone();
                self.choose(rng, slots.len(), self.fanouts[hop]);
                out.edges.extend(self.chosen.iter().map(|chosen| (slots.start + chosen) as u64));
                out.targets.resize(out.edges.len(), (from + place) as i64);
            }
            let slots = &mut out.edges[first..];
            out.sources.extend(slots.iter().map(|slot| i64::from(graph.neighbor(*slot as usize))));
            for source in &mut out.sources[first..] {
                *source = i64::from(self.locals.number(*source as u32, &mut out.nodes));
            }
            for slot in slots {
                *slot = graph.edge_number(*slot as usize);
            }
            out.hop_nodes.push(out.nodes.len());
            out.hop_edges.push(out.edges.len());
        }
        Ok(())
    }

    /// Puts places 0..`degree` into `chosen`, `fanout` of them.
    fn choose(&mut self, rng: &mut Rng, degree: usize, fanout: Option<usize>) {
        let chosen = &mut self.chosen;
        chosen.clear();
        match fanout {
            _ if degree == 0 => {}
            None => chosen.extend(0..degree),
            Some(fanout) if self.replace => chosen.extend((0..fanout).map(|_| rng.random_range(0..degree))),
            Some(fanout) if fanout >= degree => chosen.extend(0..degree),
            Some(fanout) if fanout <= SMALL_FANOUT => {
                // Floyd's sample (Bentley and Floyd 1987, "A Sample of Brilliance"): every subset is equally likely, with as
                // many random numbers as members. When a place is taken already, the newest place cannot be.
                for newest in degree - fanout..degree {
                    let place = rng.random_range(0..=newest);
                    chosen.push(if chosen.contains(&place) { newest } else { place });
                }
            }
            Some(fanout) => {
                // It fails only for an empty population or too small a one, and the degree is above the fanout.
                if self.many.draw(rng, 0..degree as u64, fanout, &mut self.drawn).is_ok() {
                    chosen.extend(self.drawn.rows.iter().map(|place| *place as usize));
                }
            }
        }
    }
}

/// From a node's number in the large graph to its local one. An entry is valid in the batch whose number it carries, so
/// beginning a batch costs nothing.
#[derive(Clone, Debug, Default)]
struct Locals {
    batch: u32,
    /// (batch, local number) of each node: side by side, since both are looked at together.
    entries: Vec<(u32, u32)>,
}

impl Locals {
    fn begin(&mut self, nodes: usize) {
        if self.entries.len() < nodes {
            self.entries.resize(nodes, (0, 0));
        }
        self.batch = self.batch.wrapping_add(1);
        if self.batch == 0 {
            // Every 2³² batches the numbers begin again, and what is left of the first ones must not look new.
            self.entries.fill((0, 0));
            self.batch = 1;
        }
    }

    /// The local number of `node`, which is appended to `nodes` if this is its first coming.
    #[inline]
    fn number(&mut self, node: u32, nodes: &mut Vec<u64>) -> u32 {
        let (batch, local) = &mut self.entries[node as usize];
        if *batch != self.batch {
            (*batch, *local) = (self.batch, nodes.len() as u32);
            nodes.push(u64::from(node));
        }
        *local
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn batch_numbers_that_begin_again_are_not_mistaken_for_old_ones() {
        let graph = Csr::incoming(4, &[1, 2, 3, 0, 0, 0]).unwrap();
        let (mut rng, mut out) = (Rng::seed_from_u64(0), Subgraph::new());
        let mut sampler = NeighborSampler::new(&[-1]).unwrap();
        sampler.sample(&mut rng, &graph, &[3, 2], &mut out).unwrap();
        sampler.locals.batch = u32::MAX;
        for _ in 0..3 {
            sampler.sample(&mut rng, &graph, &[0], &mut out).unwrap();
            assert_eq!((out.nodes(), out.all().sources), (&[0, 1, 2, 3][..], &[1, 2, 3][..]));
        }
    }
}
