//! The last observations together.

use super::{inner, pass_on, refused};
use crate::episode::{decode, encode};
use crate::rows::{Rows, SavedRows};
use crate::{Action, Env, EnvError, EnvSpec, Obs, ObsMut, Outcome, Space};

/// What stands for the observations before an episode's first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Padding {
    /// The first one itself, repeated. Gymnasium's default.
    First,
    /// Zeros, or the bound nearest to zero where zero is outside.
    Zero,
}

/// The last `k` observations as one, `[k, …]`, the oldest first: velocities can be seen in them.
///
/// As Gymnasium's `FrameStackObservation`. The frames are kept once, in a ring, and written out in order with each step. A
/// replay buffer of such stacks would hold every frame `2k` times: give the frames themselves to `rl_replay::FrameReplay`,
/// which stores each once and draws stacks of them.
#[derive(Debug)]
pub struct FrameStack<E> {
    env: E,
    spec: EnvSpec,
    padding: Padding,
    count: usize,
    /// `[k, …]`, where frame `next` is the oldest.
    ring: Rows,
    next: usize,
    /// Elements of one frame.
    elements: usize,
    /// What a frame before the episode is when it is not the first one.
    zero: Vec<f32>,
}

impl<E: Env> FrameStack<E> {
    /// `env` with observations of the last `count` frames.
    ///
    /// # Errors
    /// [`EnvError::Wrapper`] when `count` is 0, or observations are not boxes.
    pub fn new(env: E, count: usize, padding: Padding) -> Result<Self, EnvError> {
        if count == 0 {
            return Err(refused("FrameStack", env.spec(), "a stack has at least 1 frame; 0 were given"));
        }
        let Space::Box { dtype, low, high, shape } = &env.spec().observation else {
            let why = format!("it stacks boxes, not {}", env.spec().observation);
            return Err(refused("FrameStack", env.spec(), why));
        };
        let stacked = Space::Box {
            dtype: *dtype,
            low: low.repeat(count),
            high: high.repeat(count),
            shape: std::iter::once(count).chain(shape.iter().copied()).collect(),
        };
        let zero = low.iter().zip(high).map(|(low, high)| 0f32.max(*low).min(*high)).collect();
        let (elements, ring) = (low.len(), Rows::new(*dtype, count * low.len()));
        let spec = EnvSpec { observation: stacked, ..env.spec().clone() };
        Ok(Self { env, spec, padding, count, ring, next: 0, elements, zero })
    }

    inner!(
        "The environment inside, whose observations are single frames.",
        "The environment inside, to be changed."
    );

    /// That `obs` is memory for a stack.
    fn check<'a>(&self, obs: ObsMut<'a>) -> Result<ObsMut<'a>, EnvError> {
        match self.ring.view() {
            Obs::F32(_) => obs.f32(&self.spec).map(ObsMut::F32),
            Obs::U8(_) => obs.u8(&self.spec).map(ObsMut::U8),
        }
    }

    /// Fills all frames but the one at `self.next`, which was just written.
    fn pad(&mut self) {
        fn fill<T: Copy>(ring: &mut [T], elements: usize, first: usize, zero: Option<impl Fn(usize) -> T>) {
            for frame in (0..ring.len() / elements).filter(|frame| *frame != first) {
                match &zero {
                    None => ring.copy_within(first * elements..(first + 1) * elements, frame * elements),
                    Some(zero) => (0..elements).for_each(|i| ring[frame * elements + i] = zero(i)),
                }
            }
        }
        let zeros = self.padding == Padding::Zero;
        let zero = &self.zero;
        match self.ring.view_mut() {
            ObsMut::F32(ring) => fill(ring, self.elements, self.next, zeros.then_some(|i: usize| zero[i])),
            ObsMut::U8(ring) => {
                fill(ring, self.elements, self.next, zeros.then_some(|i: usize| zero[i] as u8));
            }
        }
    }

    /// The frame at `self.next` was written and is the newest: writes out all, the oldest first.
    fn advance(&mut self, obs: ObsMut<'_>) {
        self.next = (self.next + 1) % self.count;
        let cut = self.next * self.elements;
        fn copy<T: Copy>(ring: &[T], cut: usize, out: &mut [T]) {
            let (new, old) = ring.split_at(cut);
            out[..old.len()].copy_from_slice(old);
            out[old.len()..].copy_from_slice(new);
        }
        match (self.ring.view(), obs) {
            (Obs::F32(ring), ObsMut::F32(out)) => copy(ring, cut, out),
            (Obs::U8(ring), ObsMut::U8(out)) => copy(ring, cut, out),
            _ => unreachable!("the memory was checked"),
        }
    }
}

impl<E: Env> Env for FrameStack<E> {
    pass_on!(scene);

    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError> {
        let obs = self.check(obs)?;
        // Over the oldest frame.
        let frame = self.ring.row_mut(self.next, self.elements);
        self.env.reset(seed, frame)?;
        self.pad();
        self.advance(obs);
        Ok(())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        let obs = self.check(obs)?;
        // Over the oldest frame.
        let frame = self.ring.row_mut(self.next, self.elements);
        let outcome = self.env.step(action, frame)?;
        self.advance(obs);
        Ok(outcome)
    }

    fn save(&self) -> Vec<u8> {
        encode(&self.spec, &(SavedRows::from(self.ring.view()), self.next as u64, self.env.save()))
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        let (ring, next, inner): (SavedRows, u64, Vec<u8>) = decode(&self.spec, bytes)?;
        if !ring.fits(self.ring.view()) || next >= self.count as u64 {
            let why = format!("they are not of a stack of {} frames", self.count);
            return Err(EnvError::Saved { env: self.spec.id.clone(), len: bytes.len(), why });
        }
        self.env.load(&inner)?;
        ring.copy_to(self.ring.view_mut());
        self.next = next as usize;
        Ok(())
    }
}
