//! Sampled neighbourhoods: what always holds, on any graph; that nothing is lost with all neighbours; how often each comes.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rl_minibatch::{Csr, Expand, GraphError, NeighborSampler, Rng, Subgraph};
use std::collections::{BTreeSet, HashMap};

type Edges = Vec<(i64, i64)>;

fn csr(nodes: usize, edges: &Edges) -> Csr {
    let index: Vec<i64> = edges.iter().map(|e| e.0).chain(edges.iter().map(|e| e.1)).collect();
    Csr::incoming(nodes, &index).unwrap()
}

fn any_graph() -> impl Strategy<Value = (usize, Edges)> {
    (1usize..30).prop_flat_map(|nodes| {
        let node = 0..nodes as i64;
        (Just(nodes), prop::collection::vec((node.clone(), node), 0..150))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Several batches with one sampler and one output, so that nothing of one is left in the next.
    #[test]
    fn what_always_holds(
        (nodes, edges) in any_graph(),
        batches in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..6), 1..4),
        fanouts in prop::collection::vec(-1i64..5, 1..4),
        replace in any::<bool>(), all in any::<bool>(), seed in any::<u64>(),
    ) {
        let graph = csr(nodes, &edges);
        let expand = if all { Expand::All } else { Expand::New };
        let make = || NeighborSampler::new(&fanouts).unwrap().replace(replace).expand(expand);
        let (mut sampler, mut rng, mut part) = (make(), Rng::seed_from_u64(seed), Subgraph::new());
        for seeds in &batches {
            let seeds: Vec<u64> = seeds.iter().map(|seed| seed.index(nodes) as u64).collect();
            let before = rng.clone();
            sampler.sample(&mut rng, &graph, &seeds, &mut part).unwrap();

            // A sampler that has drawn nothing yet draws the same from the same generator.
            let mut fresh = Subgraph::new();
            make().sample(&mut before.clone(), &graph, &seeds, &mut fresh).unwrap();
            prop_assert_eq!(format!("{fresh:?}"), format!("{part:?}"));

            // Nodes come once, seeds first and in order.
            let distinct: BTreeSet<u64> = part.nodes().iter().copied().collect();
            prop_assert_eq!(distinct.len(), part.nodes().len());
            let back: Vec<u64> = part.seeds().iter().map(|local| part.nodes()[*local as usize]).collect();
            prop_assert_eq!(&back, &seeds);
            prop_assert_eq!(part.seed_nodes(), seeds.iter().collect::<BTreeSet<_>>().len());
            prop_assert!(part.seeds().iter().all(|local| (*local as usize) < part.seed_nodes()));

            // Blocks fit together, from all nodes to the seeds.
            prop_assert_eq!(part.layers(), fanouts.len());
            let blocks: Vec<_> = part.blocks().collect();
            prop_assert_eq!(blocks[0].source_nodes, part.nodes().len());
            prop_assert_eq!(blocks.last().unwrap().target_nodes, part.seed_nodes());
            prop_assert!(blocks.windows(2).all(|pair| pair[0].target_nodes == pair[1].source_nodes));
            let hop_of = |target: i64| blocks.iter().rev().position(|b| target < b.target_nodes as i64).unwrap();
            for (layer, block) in blocks.iter().enumerate() {
                let hop = fanouts.len() - 1 - layer;
                prop_assert!(block.sources.len() == block.targets.len() && block.edges.len() == block.targets.len());
                prop_assert!(block.targets.is_sorted());
                let mut of_target: HashMap<i64, Vec<u64>> = HashMap::new();
                for ((source, target), edge) in block.sources.iter().zip(block.targets).zip(block.edges) {
                    prop_assert!((*source as usize) < block.source_nodes);
                    prop_assert!((*target as usize) < block.target_nodes);
                    // The edge exists, and is the one that its number says.
                    let ends = (part.nodes()[*source as usize] as i64, part.nodes()[*target as usize] as i64);
                    prop_assert_eq!(edges[*edge as usize], ends);
                    of_target.entry(*target).or_default().push(*edge);
                }
                for target in 0..block.target_nodes as i64 {
                    // The fanout of the hop that found the node's neighbours: with `New` the one after it came in.
                    let fanout = fanouts[if all { hop } else { hop_of(target) }];
                    let degree = graph.degree(part.nodes()[target as usize] as usize);
                    let found = of_target.remove(&target).unwrap_or_default();
                    let expected = match fanout {
                        _ if degree == 0 => 0,
                        -1 => degree,
                        fanout if replace => fanout as usize,
                        fanout => degree.min(fanout as usize),
                    };
                    prop_assert_eq!(found.len(), expected);
                    if !replace || fanout == -1 {
                        prop_assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), expected, "an edge twice");
                    }
                }
            }
            // No node without a reason: each one that is no seed is the source of an edge.
            let used: BTreeSet<i64> = part.all().sources.iter().copied().collect();
            prop_assert!((part.seed_nodes()..part.nodes().len()).all(|node| used.contains(&(node as i64))));
            prop_assert_eq!(part.all().source_nodes, blocks[0].source_nodes);
            prop_assert_eq!(part.all().target_nodes, blocks[0].target_nodes);
        }
    }

    /// With all neighbours the blocks compute for the seeds what the whole graph does: L rounds of v ← 3v + Σ of the
    /// neighbours' values (mod 2⁶⁴), exactly.
    #[test]
    fn with_all_neighbours_the_seeds_come_out_as_on_the_whole_graph(
        (nodes, edges) in any_graph(), layers in 1usize..4, all in any::<bool>(),
        seeds in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
    ) {
        let graph = csr(nodes, &edges);
        let mut whole: Vec<u64> = (0..nodes as u64).map(|node| node.wrapping_mul(0x9e37_79b9)).collect();
        let features = whole.clone();
        for _ in 0..layers {
            let own = whole.iter().map(|value| value.wrapping_mul(3));
            let next: Vec<u64> = own.enumerate().map(|(node, own)| {
                graph.neighbors(node).iter().fold(own, |sum, source| sum.wrapping_add(whole[*source as usize]))
            }).collect();
            whole = next;
        }
        let seeds: Vec<u64> = seeds.iter().map(|seed| seed.index(nodes) as u64).collect();
        let expand = if all { Expand::All } else { Expand::New };
        let mut sampler = NeighborSampler::new(&vec![-1; layers]).unwrap().expand(expand);
        let mut part = Subgraph::new();
        sampler.sample(&mut Rng::seed_from_u64(0), &graph, &seeds, &mut part).unwrap();
        let mut values: Vec<u64> = part.nodes().iter().map(|node| features[*node as usize]).collect();
        for block in part.blocks() {
            prop_assert_eq!(values.len(), block.source_nodes);
            let mut next: Vec<u64> = values[..block.target_nodes].iter().map(|v| v.wrapping_mul(3)).collect();
            for (source, target) in block.sources.iter().zip(block.targets) {
                let sum = &mut next[*target as usize];
                *sum = sum.wrapping_add(values[*source as usize]);
            }
            values = next;
        }
        let found: Vec<u64> = part.seeds().iter().map(|local| values[*local as usize]).collect();
        let expected: Vec<u64> = seeds.iter().map(|seed| whole[*seed as usize]).collect();
        prop_assert_eq!(found, expected);
    }
}

/// Node 0 with the neighbours 1 to `degree`.
fn star(degree: usize) -> Csr {
    csr(degree + 1, &(1..=degree as i64).map(|source| (source, 0)).collect())
}

fn chi_squared(counts: impl IntoIterator<Item = u64>, expected: f64) -> f64 {
    counts.into_iter().map(|count| (count as f64 - expected).powi(2) / expected).sum()
}

/// All 20 subsets of 3 neighbours out of 6: that each neighbour is equally likely follows, and more.
#[test]
fn every_subset_of_neighbours_comes_equally_often() {
    let graph = star(6);
    let (mut sampler, mut rng) = (NeighborSampler::new(&[3]).unwrap(), Rng::seed_from_u64(1));
    let (mut part, mut counts) = (Subgraph::new(), HashMap::<Vec<u64>, u64>::new());
    let draws = 100_000;
    for _ in 0..draws {
        sampler.sample(&mut rng, &graph, &[0], &mut part).unwrap();
        let mut subset = part.nodes()[1..].to_vec();
        subset.sort_unstable();
        *counts.entry(subset).or_default() += 1;
    }
    assert_eq!(counts.len(), 20);
    let chi2 = chi_squared(counts.into_values(), f64::from(draws) / 20.0);
    // 19 degrees of freedom: exceeded by a correct sampler with probability 1e-6 (the seed is fixed, so once and for all).
    assert!(chi2 < 63.7, "χ² = {chi2}");
}

/// Both ways of drawing without replacement (few and many neighbours), and drawing with it.
#[test]
fn every_neighbour_comes_equally_often() {
    let mut rng = Rng::seed_from_u64(2);
    for (degree, fanout, replace) in [(50, 10, false), (50, 40, false), (50, 10, true), (50, 90, true)] {
        let graph = star(degree);
        let mut sampler = NeighborSampler::new(&[fanout]).unwrap().replace(replace);
        let (mut part, mut counts) = (Subgraph::new(), vec![0u64; degree]);
        let draws = 20_000;
        for _ in 0..draws {
            sampler.sample(&mut rng, &graph, &[0], &mut part).unwrap();
            assert_eq!(part.all().edges.len(), fanout as usize);
            part.all().edges.iter().for_each(|edge| counts[*edge as usize] += 1);
        }
        let (share, cells) = (fanout as f64 / degree as f64, degree as f64);
        let mut chi2 = chi_squared(counts, f64::from(draws) * share);
        if !replace {
            // The counts of one draw are those of a hypergeometric draw, whose covariance is (n − k)/(n − 1) of the multinomial's.
            chi2 /= (cells - fanout as f64) / (cells - 1.0);
        }
        // 49 degrees of freedom: exceeded by a correct sampler with probability 1e-6 in each of the four cases.
        assert!(chi2 < 111.2, "{fanout} of {degree}, replace {replace}: χ² = {chi2}");
    }
}

/// With fresh draws in each hop a seed's neighbours in one layer say nothing of those in the next.
#[test]
fn fresh_draws_are_independent_of_each_other() {
    let graph = star(4);
    let mut sampler = NeighborSampler::new(&[1, 1]).unwrap().expand(Expand::All);
    let (mut rng, mut part, mut counts) = (Rng::seed_from_u64(3), Subgraph::new(), [0u64; 16]);
    let draws = 100_000;
    for _ in 0..draws {
        sampler.sample(&mut rng, &graph, &[0], &mut part).unwrap();
        counts[(part.block(1).edges[0] * 4 + part.block(0).edges[0]) as usize] += 1;
    }
    let chi2 = chi_squared(counts, f64::from(draws) / 16.0);
    // 15 degrees of freedom: exceeded by a correct sampler with probability 1e-6.
    assert!(chi2 < 56.5, "χ² = {chi2}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    assert_eq!(NeighborSampler::new(&[]).unwrap_err(), GraphError::NoFanouts);
    assert_eq!(NeighborSampler::new(&[5, -2]).unwrap_err(), GraphError::Fanout { hop: 1, got: -2 });
    let (mut sampler, mut rng) = (NeighborSampler::new(&[2]).unwrap(), Rng::seed_from_u64(4));
    let (mut part, before) = (Subgraph::new(), rng.clone());
    assert_eq!((part.layers(), part.seed_nodes(), part.blocks().len()), (0, 0, 0));
    sampler.sample(&mut rng.clone(), &star(5), &[0], &mut part).unwrap();
    let error = sampler.sample(&mut rng, &star(5), &[0, 6], &mut part);
    assert_eq!(error, Err(GraphError::Seed { position: 1, node: 6, nodes: 6 }));
    assert_eq!((part.nodes().len(), rng), (3, before));
}

/// A sampler may go from a large graph to a small one and back.
#[test]
fn graphs_of_other_sizes_do_not_confuse_it() {
    let (mut sampler, mut rng) = (NeighborSampler::new(&[-1]).unwrap(), Rng::seed_from_u64(5));
    let mut part = Subgraph::new();
    for _ in 0..20 {
        let degree = rng.random_range(1..40usize);
        sampler.sample(&mut rng, &star(degree), &[0], &mut part).unwrap();
        assert_eq!(part.nodes(), (0..=degree as u64).collect::<Vec<_>>());
    }
}
