//! A replay buffer in plain words: a `Vec` of everything ever inserted, and loops.
#![allow(dead_code, reason = "each test uses a part of it")]

pub mod kinds;
pub mod ops;
pub mod pair;
pub mod rows;
pub mod run;

use kinds::Kind;
use rl_replay::{Prioritized, Replay, SampleError, Schema};
use std::ops::Range;

#[derive(Clone, Debug)]
pub struct Model {
    pub schema: Schema,
    pub kind: Kind,
    pub capacity: u64,
    pub reserve: u64,
    /// Nothing before it is there: where a loaded buffer begins.
    pub floor: u64,
    /// By key: what follows the row's bytes, its priority, its magnitude.
    pub contents: Vec<u64>,
    pub priorities: Vec<f64>,
    pub magnitudes: Vec<f32>,
    pub largest_priority: f64,
    pub largest_magnitude: f32,
    pub stale: u64,
    /// Of emphasis on the recent: updates of a phase, those done, and draws in all.
    pub updates: u64,
    pub done: u64,
    pub draws: u64,
}

impl Model {
    pub fn new(schema: &Schema, kind: &Kind, capacity: u64, reserve: u64) -> Self {
        let updates = if let Kind::Recent(settings) = kind.leaf() { settings.updates } else { 1 };
        Self {
            schema: schema.clone(),
            kind: kind.clone(),
            capacity,
            reserve,
            floor: 0,
            contents: Vec::new(),
            priorities: Vec::new(),
            magnitudes: Vec::new(),
            largest_priority: 1.0,
            largest_magnitude: 1.0,
            stale: 0,
            updates,
            done: 0,
            draws: 0,
        }
    }

    pub fn inserted(&self) -> u64 {
        self.contents.len() as u64
    }

    pub fn live(&self) -> Range<u64> {
        self.floor.max(self.inserted().saturating_sub(self.capacity))..self.inserted()
    }

    pub fn insert(&mut self, contents: &[u64]) {
        self.contents.extend(contents);
        self.priorities.resize(self.contents.len(), self.largest_priority);
        self.magnitudes.resize(self.contents.len(), self.largest_magnitude);
    }

    /// How many were applied and how many stale; `None` where there are no priorities.
    pub fn update(&mut self, keys: &[u64], magnitudes: &[f32]) -> Result<(usize, usize), SampleError> {
        let (alpha, epsilon) = match self.kind.leaf() {
            Kind::Proportional { settings: Prioritized { alpha, epsilon }, .. } => (*alpha, *epsilon),
            Kind::RankBased { .. } => (1.0, 0.0),
            _ => return Err(SampleError::NoPriorities),
        };
        if keys.len() != magnitudes.len() {
            return Err(SampleError::Lengths { rows: keys.len(), magnitudes: magnitudes.len() });
        }
        for (position, (&row, &value)) in keys.iter().zip(magnitudes).enumerate() {
            if value.is_nan() || value.is_infinite() || value < 0.0 {
                return Err(SampleError::Priority { row, position, value });
            }
        }
        let mut applied = 0;
        for (&key, &magnitude) in keys.iter().zip(magnitudes) {
            if !self.live().contains(&key) {
                continue;
            }
            applied += 1;
            let priority = (f64::from(magnitude) + epsilon).powf(alpha);
            self.priorities[key as usize] = priority;
            self.magnitudes[key as usize] = magnitude.abs();
            self.largest_priority = self.largest_priority.max(priority);
            self.largest_magnitude = self.largest_magnitude.max(magnitude);
        }
        self.stale += (keys.len() - applied) as u64;
        Ok((applied, keys.len() - applied))
    }

    pub fn law(&mut self, live: Range<u64>, count: usize) -> Result<kinds::Law, SampleError> {
        kinds::law(self, &self.kind.clone(), live, count)
    }

    /// As after being loaded into a ring of this size.
    pub fn loaded(mut self, capacity: u64, reserve: u64) -> Self {
        self.floor = self.live().start;
        (self.capacity, self.reserve) = (capacity, reserve);
        self
    }

    /// Everything that a buffer tells of itself.
    pub fn agrees(&self, replay: &Replay) {
        let live = self.live();
        assert_eq!(replay.live(), live);
        assert_eq!(replay.len() as u64, live.end - live.start);
        assert_eq!(replay.is_empty(), live.is_empty());
        assert_eq!(replay.inserted(), self.inserted());
        assert_eq!(replay.stale_priorities(), self.stale);
        assert_eq!(replay.capacity() as u64, self.capacity);
        assert_eq!(replay.reserve() as u64, self.reserve);
        // A row takes the next power of two up to a line of 64 bytes, and whole lines beyond.
        let row: usize =
            self.schema.fields().iter().map(|f| f.shape.iter().product::<usize>() * size(f)).sum();
        let stride = if row <= 64 { row.next_power_of_two() } else { row.div_ceil(64) * 64 };
        assert_eq!(replay.memory_bytes(), (self.capacity + 2 * self.reserve) as usize * stride);
    }
}

fn size(field: &rl_replay::Field) -> usize {
    match field.dtype.to_string().as_str() {
        "bool" | "u8" => 1,
        "f16" | "bf16" => 2,
        "i32" | "f32" => 4,
        _ => 8,
    }
}

/// Equal but for rounding.
pub fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}
