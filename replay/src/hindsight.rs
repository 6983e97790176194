//! Hindsight relabelling: a transition is replayed as if the goal had been one that its episode went on to achieve
//! (Andrychowicz et al., *Hindsight Experience Replay*, NeurIPS 2017, Algorithm 1 and §4.5).
//!
//! Goals are exchanged when a batch is drawn, so the rows in the buffer stay as they are, and each draw of a row may
//! bring another goal.
//!
//! ```
//! use rand::SeedableRng;
//! use rl_replay::{
//!     Batch, Drawn, Dtype, EpisodeWriter, Field, Hindsight, HindsightSpec, HindsightStrategy, Replay, Rng, Schema,
//! };
//!
//! // A walk on a line: the goal is a place, and what is achieved is where one is.
//! let f32s = |name: &str| Field::new(name, Dtype::F32, [1]);
//! let step = Schema::new(vec![
//!     f32s("obs"),
//!     Field::new("action", Dtype::I64, []),
//!     Field::new("reward", Dtype::F32, []),
//!     Field::new("discount", Dtype::F32, []),
//!     f32s("next_obs"),
//!     f32s("next_achieved_goal"),
//!     f32s("desired_goal"),
//! ])?;
//! let rows = EpisodeWriter::schema(&step)?;
//! let replay = Replay::builder(rows.clone()).capacity(1_000).reserve(50).build()?;
//! let mut writer = EpisodeWriter::new(&replay, 50)?;
//! let one = |x: f32| x.to_ne_bytes();
//! for t in 0..50 {
//!     let (here, there) = (one(t as f32), one(t as f32 + 1.0));
//!     // 100 is never reached, so every reward is −1.
//!     let row: [&[u8]; 7] =
//!         [&here, &1i64.to_ne_bytes(), &one(-1.0), &one(0.98), &there, &there, &one(100.0)];
//!     writer.push(&row, t == 49)?;
//! }
//!
//! // Four in five get the goal that was achieved at a later time of their episode.
//! let spec = HindsightSpec { strategy: HindsightStrategy::Future, k: 4.0 };
//! let reward = |achieved: &[f32], desired: &[f32]| if achieved == desired { 0.0 } else { -1.0 };
//! let mut hindsight = Hindsight::new(spec, &rows, reward)?;
//! let (mut reader, mut rng) = (replay.sampler(), Rng::seed_from_u64(0));
//! let (mut batch, mut drawn) = (Batch::new(&rows, 256), Drawn::default());
//! hindsight.sample_into(&mut reader, &mut rng, 256, &mut batch.view_mut(), &mut drawn)?;
//! assert!(batch.typed::<f32>("reward")?.contains(&0.0)); // now there is something to learn from
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::episode::positions;
use crate::{Key, Reader, ReplayError};
use rand::RngExt;
use rl_minibatch::{Batch, BatchMut, Drawn, Dtype, Rng, Schema};
use std::ops::Range;

/// Whose achieved goal a row gets. The row is at step t of an episode of T steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HindsightStrategy {
    /// Of a step t' in t..T, each with the same probability: a goal that was achieved after the row's action. The
    /// paper's best, with k of 4 or 8.
    #[default]
    Future,
    /// Of the last step, T − 1.
    Final,
    /// Of any step of the episode that is still live, each with the same probability.
    Episode,
}

/// How goals are relabelled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HindsightSpec {
    /// Whose achieved goal a row gets.
    pub strategy: HindsightStrategy,
    /// Relabelled rows for each that keeps its goal, on average: a row is relabelled with probability k / (1 + k).
    /// Finite and at least 0.
    pub k: f64,
}

impl Default for HindsightSpec {
    /// The strategy `future` with k = 4, as the paper's main experiments use it.
    fn default() -> Self {
        Self { strategy: HindsightStrategy::Future, k: 4.0 }
    }
}

/// The names of the fields that relabelling deals with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goals {
    /// The goal that the transition was made for; f32, exchanged.
    pub desired: String,
    /// The goal that the transition's outcome achieved, that of next_obs; f32 and of the same size, only read.
    pub next_achieved: String,
    /// One f32, computed anew.
    pub reward: String,
    /// One f32, computed anew if a function was given for it.
    pub discount: String,
}

impl Default for Goals {
    /// `desired_goal`, `next_achieved_goal`, `reward` and `discount`.
    fn default() -> Self {
        Self {
            desired: "desired_goal".into(),
            next_achieved: "next_achieved_goal".into(),
            reward: "reward".into(),
            discount: "discount".into(),
        }
    }
}

/// Of rows, their achieved goals and their desired ones, `[N, G]` each; to be written, `[N]`.
type RewardFn = Box<dyn FnMut(&[f32], &[f32], &mut [f32]) + Send>;
type TerminatedFn = Box<dyn FnMut(&[f32], &[f32]) -> bool + Send>;

/// Draws transitions by a buffer's own sampler, uniform or prioritized, and exchanges the goals of some.
///
/// Rows must have been inserted by [`EpisodeWriter`](crate::EpisodeWriter)s. Of a relabelled row the desired goal becomes
/// `next_achieved_goal` of the step chosen, so under [`Future`](HindsightStrategy::Future) with t' = t it is the one that
/// the row itself has just achieved. Its reward is computed anew from `next_achieved_goal` and the new goal, both in
/// rows of one step, so with n-step returns this is not to be used. Observations are not changed: keep the goal out of
/// them and put it there in the learner.
///
/// It has no state but its scratch memory, so there is nothing to save.
pub struct Hindsight {
    schema: Schema,
    probability: f64,
    strategy: HindsightStrategy,
    reward: RewardFn,
    terminated: Option<(f32, TerminatedFn)>,
    fields: Fields,
    /// For each row of the last batch, the row that it has its goal from.
    sources: Vec<Option<Key>>,
    /// Scratch: the rows to be relabelled, where their goals come from, and those rows themselves.
    relabelled: Vec<usize>,
    keys: Vec<Key>,
    others: Batch,
    achieved: Vec<f32>,
    desired: Vec<f32>,
    rewards: Vec<f32>,
}

/// Positions in the schema.
struct Fields {
    step: usize,
    left: usize,
    desired: usize,
    next_achieved: usize,
    reward: usize,
    discount: Option<usize>,
    goal_elements: usize,
}

impl Hindsight {
    /// Relabelling of rows of `schema` whose fields have their [usual names](Goals::default). `reward` gives the reward of
    /// a transition that achieved its first argument where its second was desired, each a goal's elements.
    ///
    /// # Errors
    /// [`ReplayError::Setting`] when k is negative or not finite; [`ReplayError::NotEpisodes`] when rows do not tell where
    /// in their episode they are; [`ReplayError::Hindsight`] when a field is missing or not of its type.
    pub fn new(
        spec: HindsightSpec,
        schema: &Schema,
        mut reward: impl FnMut(&[f32], &[f32]) -> f32 + Send + 'static,
    ) -> Result<Self, ReplayError> {
        Self::batched(spec, schema, &Goals::default(), move |achieved, desired, rewards| {
            let goal = achieved.len() / rewards.len().max(1);
            for (row, out) in rewards.iter_mut().enumerate() {
                let of_row = row * goal..(row + 1) * goal;
                *out = reward(&achieved[of_row.clone()], &desired[of_row]);
            }
        })
    }

    /// As [`new`](Self::new), with names of your own, and a reward function that is called once for a batch: with the
    /// achieved goals and the desired goals of all relabelled rows, `[N, G]` each, and the rewards to write, `[N]`. It is
    /// not called when there are none.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn batched(
        spec: HindsightSpec,
        schema: &Schema,
        goals: &Goals,
        reward: impl FnMut(&[f32], &[f32], &mut [f32]) + Send + 'static,
    ) -> Result<Self, ReplayError> {
        if !(spec.k.is_finite() && spec.k >= 0.0) {
            return Err(ReplayError::Setting { name: "k", value: spec.k, expected: "finite and at least 0" });
        }
        Ok(Self {
            probability: spec.k / (1.0 + spec.k),
            strategy: spec.strategy,
            reward: Box::new(reward),
            terminated: None,
            fields: Fields::find(schema, goals)?,
            sources: Vec::new(),
            relabelled: Vec::new(),
            keys: Vec::new(),
            others: Batch::new(schema, 0),
            schema: schema.clone(),
            achieved: Vec::new(),
            desired: Vec::new(),
            rewards: Vec::new(),
        })
    }

    /// Has the discount of relabelled rows computed anew too: γ, or 0 where `terminated` says of the achieved goal and the
    /// desired one that an episode would be over. Without this, discounts are kept, as is right where reaching a goal
    /// does not end an episode.
    ///
    /// # Errors
    /// [`ReplayError::Setting`] when γ is outside 0..=1; [`ReplayError::Hindsight`] when rows have no discount.
    pub fn terminated(
        mut self,
        gamma: f64,
        terminated: impl FnMut(&[f32], &[f32]) -> bool + Send + 'static,
    ) -> Result<Self, ReplayError> {
        if !(0.0..=1.0).contains(&gamma) {
            return Err(ReplayError::Setting { name: "gamma", value: gamma, expected: "in 0..=1" });
        }
        if self.fields.discount.is_none() {
            let why =
                "there is no discount of one f32 in a row, which `terminated` is to compute".to_string();
            return Err(ReplayError::Hindsight { why });
        }
        self.terminated = Some((gamma as f32, Box::new(terminated)));
        Ok(self)
    }

    /// Draws `count` rows by the buffer's sampler into `batch`, as [`Reader::sample_into`] does, and relabels some of
    /// them. Priorities go back through `reader` as ever. Returns how many rows were relabelled.
    ///
    /// Cost: as `sample_into`, and one more row copy for each relabelled row. Nothing is pinned or locked while the reward
    /// function runs. Allocates nothing in the steady state for rows of up to eight fields; see [`Batch::view_mut`].
    ///
    /// # Errors
    /// Those of [`Reader::sample_into`], with the batch untouched; [`ReplayError::Hindsight`] when the buffer has another
    /// schema, or when the reward function gives what is not finite; [`ReplayError::NotEpisodes`] when rows were inserted
    /// by anything but an [`EpisodeWriter`](crate::EpisodeWriter).
    pub fn sample_into(
        &mut self,
        reader: &mut Reader,
        rng: &mut Rng,
        count: usize,
        batch: &mut BatchMut<'_>,
        drawn: &mut Drawn,
    ) -> Result<usize, ReplayError> {
        if *reader.schema() != self.schema {
            let why = "the reader's buffer has another schema than this was made for".to_string();
            return Err(ReplayError::Hindsight { why });
        }
        batch.check(&self.schema, count)?;
        let mut pinned = reader.pin_for(count)?;
        pinned.draw(rng, count, drawn)?;
        pinned.gather(&drawn.rows, batch)?;
        self.choose(rng, &drawn.rows, pinned.live(), batch);
        if self.others.rows() < self.keys.len() {
            // All of the batch may be relabelled some time.
            self.others = Batch::new(&self.schema, count);
        }
        pinned.gather(&self.keys, &mut self.others.view_mut())?;
        drop(pinned);
        self.verify(&drawn.rows, batch)?;
        self.relabel(batch)?;
        Ok(self.relabelled.len())
    }

    /// For each row of the last batch the key of the row that it has its goal from, or `None` where it has its own.
    pub fn sources(&self) -> &[Option<Key>] {
        &self.sources
    }

    /// Decides which rows get a goal of which others.
    fn choose(&mut self, rng: &mut Rng, rows: &[Key], live: Range<Key>, batch: &mut BatchMut<'_>) {
        self.sources.clear();
        self.relabelled.clear();
        self.keys.clear();
        for (row, &key) in rows.iter().enumerate() {
            let source = if rng.random_bool(self.probability) {
                let [step, left] = self.fields.place(batch, row);
                // How far the episode goes back and on, as far as its rows are live. That the rows there are the
                // episode's is checked when they have come.
                let [back, on] = [step, left].map(|steps| u64::try_from(steps).unwrap_or(0));
                let first = key.saturating_sub(back).max(live.start);
                let last = (key + on).min(live.end - 1);
                Some(match self.strategy {
                    HindsightStrategy::Future => rng.random_range(key..=last),
                    HindsightStrategy::Final => last,
                    HindsightStrategy::Episode => rng.random_range(first..=last),
                })
            } else {
                None
            };
            self.sources.push(source);
            if let Some(source) = source {
                self.relabelled.push(row);
                self.keys.push(source);
            }
        }
    }

    /// Checks that the rows whose goals are taken are of the same episodes as those that get them.
    fn verify(&mut self, rows: &[Key], batch: &mut BatchMut<'_>) -> Result<(), ReplayError> {
        for (place, (&row, source)) in self.relabelled.iter().zip(&self.keys).enumerate() {
            let (key, on) = (rows[row], *source as i64 - rows[row] as i64);
            let [step, left] = self.fields.place(batch, row).map(i64::from);
            let other = [self.fields.step, self.fields.left].map(|position| {
                let cell = &self.others.column(position)[4 * place..][..4];
                i64::from(i32::from_ne_bytes(cell.try_into().expect("an i32 has four bytes")))
            });
            if step < 0 || left < 0 || other != [step + on, left - on] {
                let why = format!(
                    "row {source} should be of the same episode as row {key}, which is said to be its step {step} and \
                     {left} before its last; insert by `EpisodeWriter` alone"
                );
                return Err(ReplayError::NotEpisodes { why });
            }
        }
        Ok(())
    }

    /// Writes goals, rewards and discounts of the rows that were chosen.
    fn relabel(&mut self, batch: &mut BatchMut<'_>) -> Result<(), ReplayError> {
        if self.relabelled.is_empty() {
            return Ok(());
        }
        let fields = &self.fields;
        let (goal, count) = (fields.goal_elements, self.relabelled.len());
        for scratch in [&mut self.achieved, &mut self.desired] {
            scratch.resize(count * goal, 0.0);
        }
        self.rewards.clear();
        self.rewards.resize(count, 0.0);
        // The goals chosen are the achieved ones of the other rows.
        let goals: &mut [u8] = bytemuck::cast_slice_mut(&mut self.desired);
        goals.copy_from_slice(&self.others.column(fields.next_achieved)[..count * goal * 4]);
        // A batch's memory is the caller's and need not be aligned, so goals are copied as bytes.
        for (&row, achieved) in self.relabelled.iter().zip(self.achieved.chunks_exact_mut(goal)) {
            bytemuck::cast_slice_mut(achieved).copy_from_slice(batch.cell_mut(fields.next_achieved, row));
        }
        (self.reward)(&self.achieved, &self.desired, &mut self.rewards);
        if let Some(bad) = self.rewards.iter().position(|reward| !reward.is_finite()) {
            let (reward, row) = (self.rewards[bad], self.relabelled[bad]);
            let why = format!(
                "the reward function gave {reward} for row {row} of the batch; rewards must be finite"
            );
            return Err(ReplayError::Hindsight { why });
        }
        let of_goals = self.achieved.chunks_exact(goal).zip(self.desired.chunks_exact(goal));
        for ((&row, reward), (achieved, desired)) in self.relabelled.iter().zip(&self.rewards).zip(of_goals) {
            batch.cell_mut(fields.desired, row).copy_from_slice(bytemuck::cast_slice(desired));
            batch.cell_mut(fields.reward, row).copy_from_slice(&reward.to_ne_bytes());
            if let (Some(position), Some((gamma, terminated))) = (fields.discount, &mut self.terminated) {
                let discount = if terminated(achieved, desired) { 0.0 } else { *gamma };
                batch.cell_mut(position, row).copy_from_slice(&discount.to_ne_bytes());
            }
        }
        Ok(())
    }
}

impl Fields {
    /// The `episode_step` and `episode_left` of a row.
    fn place(&self, batch: &mut BatchMut<'_>, row: usize) -> [i32; 2] {
        [self.step, self.left].map(|position| {
            let cell = batch.cell_mut(position, row);
            i32::from_ne_bytes(cell.try_into().expect("an i32 has four bytes"))
        })
    }

    fn find(schema: &Schema, goals: &Goals) -> Result<Self, ReplayError> {
        let [step, left] = positions(schema)?;
        let refuse = |why: String| ReplayError::Hindsight { why };
        let find = |name: &str, one: bool| {
            let position = schema.position(name).ok_or_else(|| {
                let names: Vec<&str> = schema.fields().iter().map(|field| field.name.as_str()).collect();
                refuse(format!("there is no '{name}' among the fields {names:?}; name it in `Goals`"))
            })?;
            let field = &schema.fields()[position];
            if field.dtype != Dtype::F32 || (one && field.elements() != 1) {
                let wanted = if one { "one f32" } else { "f32" };
                let is = format!("'{name}' is {} {:?}", field.dtype, field.shape);
                return Err(refuse(format!("{is} and not {wanted}")));
            }
            Ok(position)
        };
        let (desired, next_achieved) = (find(&goals.desired, false)?, find(&goals.next_achieved, false)?);
        let [of_desired, of_achieved] = [desired, next_achieved].map(|at| schema.fields()[at].elements());
        if of_desired != of_achieved {
            let (desired, achieved) = (&goals.desired, &goals.next_achieved);
            return Err(refuse(format!(
                "'{desired}' has {of_desired} element(s) and '{achieved}' {of_achieved}; goals must be of one size"
            )));
        }
        Ok(Self {
            step,
            left,
            desired,
            next_achieved,
            reward: find(&goals.reward, true)?,
            discount: find(&goals.discount, true).ok(),
            goal_elements: of_desired,
        })
    }
}

impl std::fmt::Debug for Hindsight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hindsight")
            .field("strategy", &self.strategy)
            .field("probability", &self.probability)
            .finish_non_exhaustive()
    }
}
