//! Emphasizing recent experience: Wang and Ross, *Boosting Soft Actor-Critic: Emphasizing Recent Experience without
//! Forgetting the Past*, 2019 (arXiv 1906.04009).

use crate::ReplayError;
use parking_lot::Mutex;
use rand::RngExt;
use rl_minibatch::{Drawn, Priorities, Rng, SampleError, Sampler, StateError, StateVisitor, scalar};
use std::ops::Range;
use std::sync::Arc;

/// Settings of [`Recent`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RecentSettings {
    /// η at first: the smaller, the more recent the rows. In (0, 1]; the paper uses 0.996, and 1 draws uniformly.
    pub eta: f64,
    /// η at the end of the annealing, in (0, 1]; 1 in the paper.
    pub eta_end: f64,
    /// Draws over which η goes from `eta` to `eta_end` in a straight line; 0 keeps it at `eta`. In the paper as many as
    /// the run has steps, with one update a step.
    pub anneal_draws: u64,
    /// K, the updates of a phase, at least 1. [`Phases::begin`] sets it anew for each phase.
    pub updates: u64,
    /// c_min, the fewest rows that are drawn from, at least 1; 5,000 in the paper.
    pub min_rows: u64,
}

impl Default for RecentSettings {
    /// η = 0.996 without annealing, 1,000 updates a phase, at least 5,000 rows.
    fn default() -> Self {
        Self { eta: 0.996, eta_end: 1.0, anneal_draws: 0, updates: 1000, min_rows: 5000 }
    }
}

/// Draws uniformly, with replacement, from the newest rows, of which there are fewer from update to update of a phase: for
/// update k of K from the `c_k = max(N·η^(k·1000/K), c_min)` newest of the N live rows, c_k rounded down and at most N. So
/// a phase begins with nearly all rows and ends with the recent ones.
///
/// A draw is an update. A phase has K of them, and then the next begins by itself; where phases differ in length, as in the
/// paper, where an episode of K steps is followed by K updates, [`Phases::begin`] begins one. η is annealed as in the paper:
/// `η_t = η_0 + (η_T − η_0)·t/T` at draw t of T, and η_T after that.
///
/// Probability and population are those among the c_k rows, so importance weights are 1: no weight makes up for older rows
/// that could not be drawn. It keeps no priorities; a sum tree cannot be cut to its newest rows, so the paper's variant
/// with priorities is not offered.
///
/// Cost: O(1) a row.
#[derive(Debug)]
pub struct Recent {
    settings: RecentSettings,
    phase: Arc<Mutex<Phase>>,
    /// Draws since the sampler was made.
    draws: u64,
}

#[derive(Clone, Copy, Debug)]
struct Phase {
    updates: u64,
    /// Draws made in this phase, less than `updates`.
    done: u64,
}

/// Begins the phases of a [`Recent`] sampler from outside, while a buffer owns it. Cloning gives another handle to the same
/// sampler.
#[derive(Clone, Debug)]
pub struct Phases {
    phase: Arc<Mutex<Phase>>,
}

impl Phases {
    /// Begins a phase of `updates` updates with the next draw, whatever is left of the one before.
    ///
    /// # Errors
    /// [`ReplayError::Setting`] when `updates` is 0; the phase then goes on.
    pub fn begin(&self, updates: u64) -> Result<(), ReplayError> {
        at_least_one("updates", updates)?;
        *self.phase.lock() = Phase { updates, done: 0 };
        Ok(())
    }
}

impl Recent {
    /// A sampler at the beginning of a phase.
    ///
    /// # Errors
    /// [`ReplayError::Setting`] for a setting out of its range.
    pub fn new(settings: RecentSettings) -> Result<Self, ReplayError> {
        let RecentSettings { eta, eta_end, updates, min_rows, .. } = settings;
        for (name, value) in [("eta", eta), ("eta_end", eta_end)] {
            if !(value > 0.0 && value <= 1.0) {
                return Err(ReplayError::Setting { name, value, expected: "above 0 and at most 1" });
            }
        }
        at_least_one("updates", updates)?;
        at_least_one("min_rows", min_rows)?;
        Ok(Self { settings, phase: Arc::new(Mutex::new(Phase { updates, done: 0 })), draws: 0 })
    }

    /// A handle to begin phases with, to be taken before the sampler is given to a buffer.
    ///
    /// ```
    /// use rl_replay::{Dtype, Recent, RecentSettings, Replay, Schema};
    /// let recent = Recent::new(RecentSettings::default())?;
    /// let phases = recent.phases();
    /// let schema = Schema::transition((Dtype::F32, &[4]), (Dtype::I64, &[]))?;
    /// let replay = Replay::builder(schema).capacity(100_000).sampler(Box::new(recent)).build()?;
    /// // After an episode of 230 steps, before as many updates:
    /// phases.begin(230)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn phases(&self) -> Phases {
        Phases { phase: self.phase.clone() }
    }

    /// η for the next draw.
    pub fn eta(&self) -> f64 {
        let RecentSettings { eta, eta_end, anneal_draws, .. } = self.settings;
        match anneal_draws {
            0 => eta,
            all if self.draws >= all => eta_end,
            all => eta + (eta_end - eta) * (self.draws as f64 / all as f64),
        }
    }

    /// c_k for the next draw from a ring of `rows` rows, at least 1.
    pub fn newest(&self, rows: u64) -> u64 {
        self.newest_in(*self.phase.lock(), rows)
    }

    fn newest_in(&self, Phase { updates, done }: Phase, rows: u64) -> u64 {
        let exponent = (done + 1) as f64 * (1000.0 / updates as f64);
        let newest = (rows as f64 * self.eta().powf(exponent)) as u64;
        // Rounding makes more of very many rows than there are.
        newest.max(self.settings.min_rows).min(rows)
    }
}

fn at_least_one(name: &'static str, value: u64) -> Result<(), ReplayError> {
    if value == 0 {
        return Err(ReplayError::Setting { name, value: 0.0, expected: "at least 1" });
    }
    Ok(())
}

impl Sampler for Recent {
    fn draw(
        &mut self,
        rng: &mut Rng,
        live: Range<u64>,
        count: usize,
        drawn: &mut Drawn,
    ) -> Result<(), SampleError> {
        if live.is_empty() {
            return Err(SampleError::Empty);
        }
        // Held to the end: a phase that begins meanwhile begins with the draw after this one.
        let mut phase = self.phase.lock();
        let newest = self.newest_in(*phase, live.end - live.start);
        let rows = live.end - newest..live.end;
        drawn.rows.clear();
        drawn.rows.extend((0..count).map(|_| rng.random_range(rows.clone())));
        drawn.probabilities.clear();
        drawn.probabilities.resize(count, 1.0 / newest as f64);
        drawn.population = newest;
        drawn.lowest = Some(1.0 / newest as f64);
        self.draws = self.draws.saturating_add(1);
        phase.done = (phase.done + 1) % phase.updates;
        Ok(())
    }

    fn priorities(&mut self) -> Option<&mut dyn Priorities> {
        None
    }

    /// Where the phase and the annealing are. The settings are not part of it.
    fn visit(&mut self, _live: Range<u64>, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        let mut phase = *self.phase.lock();
        let mut draws = self.draws;
        scalar(visitor, "updates", &mut phase.updates)?;
        scalar(visitor, "done", &mut phase.done)?;
        scalar(visitor, "draws", &mut draws)?;
        if visitor.loading() {
            let Phase { updates, done } = phase;
            if done >= updates {
                let why = format!("{done} updates cannot have been made in a phase of {updates}");
                return Err(StateError::Invalid { path: "done".into(), why });
            }
            *self.phase.lock() = phase;
            self.draws = draws;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    /// The populations of the next draws from 100,000 rows.
    fn populations(recent: &mut Recent, draws: usize) -> Vec<u64> {
        let (mut rng, mut drawn) = (Rng::seed_from_u64(1), Drawn::default());
        let mut draw = || {
            recent.draw(&mut rng, 7..100_007, 20, &mut drawn).unwrap();
            assert!(drawn.rows.iter().all(|row| (100_007 - drawn.population..100_007).contains(row)));
            assert!(drawn.probabilities.iter().all(|p| *p == 1.0 / drawn.population as f64));
            drawn.population
        };
        (0..draws).map(|_| draw()).collect()
    }

    #[test]
    fn fewer_and_fewer_rows_until_the_next_phase() {
        let settings = RecentSettings { updates: 4, ..RecentSettings::default() };
        let mut recent = Recent::new(settings).unwrap();
        // 100000·0.996^250 = 36714.4, ·0.996^500 = 13479.5, ·0.996^750 = 4948.9; not below 5000.
        let phase = [36714, 13479, 5000, 5000];
        assert_eq!(populations(&mut recent, 9), [&phase[..], &phase, &phase[..1]].concat());
        let phases = recent.phases();
        phases.begin(2).unwrap();
        assert_eq!(populations(&mut recent, 3), [13479, 5000, 13479]);
        let message = phases.begin(0).unwrap_err().to_string();
        assert_eq!(message, "updates is 0; it must be at least 1");
        assert_eq!(populations(&mut recent, 1), [5000], "the phase goes on");
        assert_eq!(recent.newest(3), 3);
    }

    #[test]
    fn eta_goes_to_its_end_in_a_straight_line() {
        let settings =
            RecentSettings { eta: 0.99, eta_end: 1.0, anneal_draws: 4, updates: 1000, min_rows: 1 };
        let mut recent = Recent::new(settings).unwrap();
        let etas = [0.99, 0.9925, 0.995, 0.9975, 1.0, 1.0];
        for eta in etas {
            assert!((recent.eta() - eta).abs() < 1e-15);
            populations(&mut recent, 1);
        }
        assert_eq!(populations(&mut recent, 1), [100_000]);
    }

    #[test]
    fn settings_out_of_range() {
        let default = RecentSettings::default();
        for (settings, name) in [
            (RecentSettings { eta: 0.0, ..default }, "eta is 0;"),
            (RecentSettings { eta: f64::NAN, ..default }, "eta is NaN;"),
            (RecentSettings { eta_end: 1.1, ..default }, "eta_end is 1.1;"),
            (RecentSettings { updates: 0, ..default }, "updates is 0;"),
            (RecentSettings { min_rows: 0, ..default }, "min_rows is 0;"),
        ] {
            assert!(Recent::new(settings).unwrap_err().to_string().starts_with(name));
        }
    }
}
