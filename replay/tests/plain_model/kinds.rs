//! The samplers, and by plain loops what each of them is to draw.

use super::Model;
use proptest::prelude::*;
use rl_replay::{
    Combined, Phases, Prioritized, Proportional, RankBased, Recent, RecentSettings, SampleError, Sampler,
    Uniform, WithoutReplacement,
};
use std::ops::Range;

#[derive(Clone, Debug)]
pub enum Kind {
    /// The builder's own, which takes no lock, or the same as a sampler of one's own.
    Uniform {
        own: bool,
    },
    WithoutReplacement,
    /// In strata by the builder or on its own, or independent.
    Proportional {
        settings: Prioritized,
        stratified: bool,
        own: bool,
    },
    RankBased {
        alpha: f64,
        stratified: bool,
        own: bool,
    },
    Recent(RecentSettings),
    Combined {
        inner: Box<Kind>,
        newest: u64,
    },
}

pub fn kinds() -> impl Strategy<Value = Kind> {
    let alpha = || prop_oneof![Just(0.0), Just(1.0), 0.0..1.0f64];
    let proportional = (alpha(), prop_oneof![Just(0.0), Just(0.01)], any::<bool>(), any::<bool>());
    let eta = || prop_oneof![Just(1.0), 0.95..1.0f64, 0.999..1.0f64];
    let recent = (eta(), eta(), 0u64..20, 1u64..30, 1u64..20);
    let leaf = prop_oneof![
        1 => any::<bool>().prop_map(|own| Kind::Uniform { own }),
        1 => Just(Kind::WithoutReplacement),
        4 => proportional.prop_map(|(alpha, epsilon, stratified, own)| Kind::Proportional {
            settings: Prioritized { alpha, epsilon }, stratified, own
        }),
        3 => (alpha(), any::<bool>(), any::<bool>())
            .prop_map(|(alpha, stratified, own)| Kind::RankBased { alpha, stratified, own }),
        2 => recent.prop_map(|(eta, eta_end, anneal_draws, updates, min_rows)| {
            Kind::Recent(RecentSettings { eta, eta_end, anneal_draws, updates, min_rows })
        }),
    ];
    leaf.prop_recursive(2, 3, 1, |inner| {
        (inner, 1u64..5).prop_map(|(inner, newest)| Kind::Combined { inner: Box::new(inner), newest })
    })
}

impl Kind {
    pub fn leaf(&self) -> &Kind {
        if let Kind::Combined { inner, .. } = self { inner.leaf() } else { self }
    }

    /// The sampler for a ring of `capacity` rows, and what begins its phases.
    pub fn sampler(&self, capacity: u64) -> (Box<dyn Sampler>, Option<Phases>) {
        match self {
            Kind::Uniform { .. } => (Box::new(Uniform), None),
            Kind::WithoutReplacement => (Box::new(WithoutReplacement::new()), None),
            Kind::Proportional { settings, stratified, .. } => {
                let sampler = Proportional::new(capacity, *settings).unwrap();
                (Box::new(if *stratified { sampler } else { sampler.independent() }), None)
            }
            Kind::RankBased { alpha, stratified, .. } => {
                let sampler = RankBased::new(capacity, *alpha).unwrap();
                (Box::new(if *stratified { sampler } else { sampler.independent() }), None)
            }
            Kind::Recent(settings) => {
                let sampler = Recent::new(*settings).unwrap();
                let phases = sampler.phases();
                (Box::new(sampler), Some(phases))
            }
            Kind::Combined { inner, newest } => {
                let (inner, phases) = inner.sampler(capacity);
                (Box::new(Combined::new(inner, *newest as usize).unwrap()), phases)
            }
        }
    }
}

/// What a batch is to be.
#[derive(Clone, Debug, Default)]
pub struct Law {
    /// The first row that it tells of.
    pub start: u64,
    /// From there on the stated probability of each; 0 for a row that cannot be drawn.
    pub probabilities: Vec<f64>,
    pub population: u64,
    pub lowest: Option<f64>,
    /// The rows in the batch's last places.
    pub last: Vec<u64>,
    /// The rows in its other places differ.
    pub distinct: bool,
    /// The batch is drawn in strata: from where to where in the probability 0..1 each row lies.
    pub strata: Option<Vec<Range<f64>>>,
}

/// What drawing `count` of the rows `live` is to give. The model's sampler goes on as by a draw.
pub fn law(model: &mut Model, kind: &Kind, live: Range<u64>, count: usize) -> Result<Law, SampleError> {
    if live.is_empty() {
        return Err(SampleError::Empty);
    }
    let rows = live.end - live.start;
    let start = live.start;
    let even = |law: Law| {
        let share = 1.0 / rows as f64;
        let probabilities = vec![share; rows as usize];
        Law { start, probabilities, population: rows, lowest: Some(share), ..law }
    };
    match kind {
        Kind::Uniform { .. } => Ok(even(Law::default())),
        Kind::WithoutReplacement if count as u64 > rows => Err(SampleError::TooFew { asked: count, rows }),
        Kind::WithoutReplacement => Ok(even(Law { distinct: true, ..Law::default() })),
        Kind::Proportional { stratified, .. } => {
            let priority = |key: u64| model.priorities[key as usize];
            let total: f64 = live.clone().map(priority).sum();
            if total == 0.0 {
                return Err(SampleError::NoMass);
            }
            let probabilities: Vec<f64> = live.clone().map(|key| priority(key) / total).collect();
            // Strata lie over the slots of the ring.
            let mut slots: Vec<u64> = live.clone().collect();
            slots.sort_by_key(|key| key % model.capacity);
            let mut strata = vec![0.0..0.0; rows as usize];
            let mut mass = 0.0;
            for key in slots {
                let next = mass + priority(key) / total;
                strata[(key - start) as usize] = mass..next;
                mass = next;
            }
            let strata = (*stratified && live == model.live()).then_some(strata);
            Ok(Law { start, probabilities, population: rows, strata, ..Law::default() })
        }
        Kind::RankBased { alpha, stratified, .. } => {
            // Ranks are those among all rows; what is left out gives its part to the others.
            let known = model.live();
            let magnitude = |key: u64| model.magnitudes[key as usize];
            let power = |rank: usize| (rank as f64).powf(-alpha);
            let all: f64 = (1..=known.clone().count()).map(power).sum();
            let of = |key: u64| {
                let larger = known.clone().filter(|other| magnitude(*other) > magnitude(key)).count();
                let equal = known.clone().filter(|other| magnitude(*other) == magnitude(key)).count();
                let before: f64 = (1..=larger).map(power).sum();
                let mass: f64 = (larger + 1..=larger + equal).map(power).sum();
                (mass / equal as f64 / all, before / all..(before + mass) / all)
            };
            let inside: f64 = live.clone().map(|key| of(key).0).sum();
            let probabilities: Vec<f64> = live.clone().map(|key| of(key).0 / inside).collect();
            let lowest = probabilities.iter().copied().reduce(f64::min);
            let strata: Vec<Range<f64>> = live.clone().map(|key| of(key).1).collect();
            let strata = (*stratified && live == known).then_some(strata);
            Ok(Law { start, probabilities, population: rows, lowest, strata, ..Law::default() })
        }
        Kind::Recent(settings) => {
            // c_k = max(N·η^(1000·k/K), c_min), η on a straight line.
            let RecentSettings { eta, eta_end, anneal_draws, min_rows, .. } = *settings;
            let way = if anneal_draws == 0 { 0.0 } else { model.draws as f64 / anneal_draws as f64 };
            let eta = eta + (eta_end - eta) * way.min(1.0);
            let (k, updates) = (model.done + 1, model.updates);
            let newest = rows as f64 * eta.powf(1000.0 * k as f64 / updates as f64);
            let newest = (newest.floor() as u64).max(min_rows).min(rows);
            model.draws += 1;
            model.done = k % updates;
            let share = 1.0 / newest as f64;
            let mut probabilities = vec![0.0; (rows - newest) as usize];
            probabilities.resize(rows as usize, share);
            Ok(Law { start, probabilities, population: newest, lowest: Some(share), ..Law::default() })
        }
        Kind::Combined { inner, newest } => {
            let newest = (*newest).min(count as u64);
            let others = live.end - newest.min(rows);
            if newest > 0 && (newest == count as u64 || others == start) {
                return Ok(in_turn(live, others, count));
            }
            let mut law = law(model, inner, start..others, count - newest as usize)?;
            law.population += newest;
            if newest > 0 {
                let (of_others, of_one) = ((count as u64 - newest) as f64 / count as f64, 1.0 / count as f64);
                law.probabilities.iter_mut().for_each(|p| *p *= of_others);
                law.probabilities.resize(rows as usize, of_one);
                law.last.extend(others..live.end);
                law.lowest = law.lowest.map(|lowest| (lowest * of_others).min(of_one));
            }
            Ok(law)
        }
    }
}

/// A batch of the newest rows alone, again and again, so that the newest is the last.
fn in_turn(live: Range<u64>, from: u64, count: usize) -> Law {
    let mut last = Vec::new();
    while last.len() < count {
        last.extend((from..live.end).rev());
    }
    last.truncate(count);
    last.reverse();
    let share = |key: u64| last.iter().filter(|row| **row == key).count() as f64 / count as f64;
    let probabilities: Vec<f64> = live.clone().map(share).collect();
    let lowest = probabilities[(from - live.start) as usize..].iter().copied().reduce(f64::min);
    Law { start: live.start, probabilities, population: live.end - from, lowest, last, ..Law::default() }
}
