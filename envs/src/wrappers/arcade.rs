//! What the wrappers for Atari games need to know of a game.

use super::{EpisodicLife, FireReset, Grayscale, MaxAndSkip, NoopReset, Resize};
use crate::{Env, TimeLimit};

/// A game with lives and named buttons, as those of the Arcade Learning Environment.
pub trait Arcade: Env {
    /// Lives left; 0 for games without lives, and when the last one is lost.
    fn lives(&self) -> u32;

    /// The names of its actions, in order, as ALE writes them: `NOOP`, `FIRE`, `UP`, `RIGHTFIRE`.
    fn action_meanings(&self) -> &[&str];
}

impl<E: Arcade + ?Sized> Arcade for Box<E> {
    fn lives(&self) -> u32 {
        (**self).lives()
    }

    fn action_meanings(&self) -> &[&str] {
        (**self).action_meanings()
    }
}

/// Wrappers around a game are games: its lives and buttons are theirs.
macro_rules! games {
    ($($wrapper:ident),+) => {
        $(
            impl<E: Arcade> Arcade for $wrapper<E> {
                fn lives(&self) -> u32 {
                    self.inner().lives()
                }

                fn action_meanings(&self) -> &[&str] {
                    self.inner().action_meanings()
                }
            }
        )+
    };
}

games!(EpisodicLife, FireReset, Grayscale, MaxAndSkip, NoopReset, Resize, TimeLimit);
