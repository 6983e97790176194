//! MinAtar: five Atari games made small, on a board of 10 × 10 cells.
//!
//! Reference: Young and Tian, *MinAtar: An Atari-Inspired Testbed for Thorough and Reproducible Reinforcement Learning
//! Experiments* (2019), <https://arxiv.org/abs/1903.03176>, and version 1.0.15 of their PyPI package `minatar`. The games
//! are the package's to the cell, its quirks included; episodes recorded from it are replayed by the tests. Only the random
//! stream is our own (Xoshiro256++), drawn from the same distributions.
//!
//! Ids, spaces and limits are those that the package registers with Gymnasium: `MinAtar/Breakout-v0` takes all six
//! [buttons](Button), `MinAtar/Breakout-v1` only those that do something in the game. Neither has a time limit or a reward
//! threshold; a [`TimeLimit`](crate::TimeLimit) may be put around either.
//!
//! ```
//! use rl_envs::minatar::{ActionSet, Breakout, Button, MinAtar};
//! use rl_envs::{Action, Env, ObsMut};
//!
//! let mut game = MinAtar::<Breakout>::new(ActionSet::Minimal).sticky_action_prob(0.0)?;
//! assert_eq!(game.buttons(), [Button::Noop, Button::Left, Button::Right]);
//! let mut obs = [0u8; 10 * 10 * 4];
//! game.reset(Some(1), ObsMut::U8(&mut obs))?;
//! let outcome = game.step(Action::Discrete(1), ObsMut::U8(&mut obs))?;
//! assert_eq!((outcome.reward, outcome.terminated), (0.0, false));
//! # Ok::<(), rl_envs::EnvError>(())
//! ```

mod asterix;
mod breakout;
mod freeway;
#[cfg(test)]
mod golden;
mod rules;
mod seaquest;
mod space_invaders;

pub use asterix::Asterix;
pub use breakout::Breakout;
pub use freeway::Freeway;
pub use seaquest::Seaquest;
pub use space_invaders::SpaceInvaders;

use crate::episode::{Episode, decode, encode};
use crate::{Action, Dtype, Env, EnvError, EnvSpec, ObsMut, Outcome, Rgb, Scene, Shape, Space};
use rules::{Board, Played, Random, Rules};
use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;

/// Cells along either side of the board.
pub const SIDE: usize = 10;

/// How often the last button is pressed in place of the one chosen, unless told otherwise.
const STICKY: f64 = 0.1;

/// What an agent can press. In the order of the full action set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Button {
    /// Nothing.
    Noop,
    /// One cell to the left.
    Left,
    /// One cell up.
    Up,
    /// One cell to the right.
    Right,
    /// One cell down.
    Down,
    /// Shoots, in the games with a weapon.
    Fire,
}

impl Button {
    /// All of them: the actions of [`ActionSet::Full`].
    pub const ALL: [Button; 6] =
        [Button::Noop, Button::Left, Button::Up, Button::Right, Button::Down, Button::Fire];
}

/// Which buttons the actions of an environment are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActionSet {
    /// All six, whether or not the game knows them: the ids that end in `-v0`, and what Young and Tian's figures are of.
    Full,
    /// Those that do something in the game: the ids that end in `-v1`.
    Minimal,
}

/// One of the five games. Nothing else can be: what a game has to do is not public.
pub trait Game: Rules {}

impl<G: Rules> Game for G {}

/// An environment that plays the game `G`.
///
/// Observation, u8 `[10, 10, C]`, row-major with the channels last: 1 where the thing that channel c stands for is in row y
/// (from the top) and column x, else 0; each game says what its channels are. The package has the same array of booleans.
/// (A convolution that wants `[C, 10, 10]` in f32 has to turn it.) Action: one of the [buttons](MinAtar::buttons). Reward,
/// end and randomness are the game's.
///
/// With sticky actions (Machado et al., 2018), which are on with a probability of 0.1, a step now and then presses the
/// button of the step before and not the one it is given. The first step of an episode may so press the last one of the
/// episode before, as in the package; a reset with a seed, however, forgets it, so that nothing but the seed decides.
/// With difficulty ramping, which is on, three of the games get faster with time or success; see
/// [`difficulty_ramp`](MinAtar::difficulty_ramp).
///
/// A step allocates nothing, but for the lists of [`Seaquest`], which grow to the most things there have been at once.
#[derive(Clone, Debug)]
pub struct MinAtar<G> {
    spec: EnvSpec,
    buttons: &'static [Button],
    episode: Episode,
    play: Play<G>,
}

/// A game with its settings and what was pressed last.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Play<G> {
    game: G,
    pressed: Button,
    /// The probability of a sticky action.
    sticky: f64,
    ramping: bool,
}

impl<G: Rules> Play<G> {
    /// One frame, in which `button` is pressed unless the last one sticks.
    fn act(&mut self, button: Button, random: &mut impl Random) -> Played {
        // Drawn whatever the probability, as in the package, so that the settings do not shift the draws that follow.
        if random.unit() >= self.sticky {
            self.pressed = button;
        }
        self.game.act(self.pressed, self.ramping, random)
    }

    /// Writes the observation.
    fn observe(&self, obs: &mut [u8]) {
        obs.fill(0);
        self.game.draw(&mut Board::new(obs, G::CHANNELS));
    }
}

impl<G: Game> MinAtar<G> {
    /// The game with these actions and the package's settings: sticky actions with a probability of 0.1, and difficulty
    /// ramping. It waits for its first reset.
    pub fn new(actions: ActionSet) -> Self {
        let mut episode = Episode::new();
        let mut game = G::default();
        game.reset(&mut episode);
        let play = Play { game, pressed: Button::Noop, sticky: STICKY, ramping: true };
        Self { spec: Self::spec(actions), buttons: buttons::<G>(actions), episode, play }
    }

    /// The same with sticky actions of probability `prob`; 0 turns them off.
    ///
    /// # Errors
    /// [`EnvError::Setting`] unless it is a number from 0 to 1.
    pub fn sticky_action_prob(mut self, prob: f64) -> Result<Self, EnvError> {
        if !(0.0..=1.0).contains(&prob) {
            return Err(EnvError::Setting {
                env: self.spec.id,
                setting: "sticky action probability",
                got: prob.to_string(),
                allowed: "a number from 0 to 1",
            });
        }
        self.play.sticky = prob;
        Ok(self)
    }

    /// The same with difficulty ramping on or off. It changes nothing in [`Breakout`] and [`Freeway`], which have none.
    pub fn difficulty_ramping(mut self, on: bool) -> Self {
        self.play.ramping = on;
        self
    }

    /// The id of the game with these actions, as the package registers it with Gymnasium.
    pub const fn id(actions: ActionSet) -> &'static str {
        match actions {
            ActionSet::Full => G::IDS[0],
            ActionSet::Minimal => G::IDS[1],
        }
    }

    /// What is known of it.
    pub fn spec(actions: ActionSet) -> EnvSpec {
        let elements = SIDE * SIDE * G::CHANNELS;
        EnvSpec {
            id: Self::id(actions).to_string(),
            observation: Space::Box {
                dtype: Dtype::U8,
                low: vec![0.0; elements],
                high: vec![1.0; elements],
                shape: vec![SIDE, SIDE, G::CHANNELS],
            },
            action: Space::Discrete { n: buttons::<G>(actions).len() },
            max_episode_steps: None,
            reward_threshold: None,
        }
    }

    /// What each action presses, action 0 first.
    pub fn buttons(&self) -> &'static [Button] {
        self.buttons
    }

    /// How many times the game has become harder in this episode: more time in [`Asterix`], each surfacing in [`Seaquest`],
    /// each wave that is shot down in [`SpaceInvaders`]. `None` in the two games whose difficulty stays.
    ///
    /// It is no part of the observation; an agent may be given it beside that.
    pub fn difficulty_ramp(&self) -> Option<u32> {
        self.play.game.difficulty_ramp()
    }
}

fn buttons<G: Rules>(actions: ActionSet) -> &'static [Button] {
    match actions {
        ActionSet::Full => &Button::ALL,
        ActionSet::Minimal => G::MINIMAL,
    }
}

impl<G: Game> Env for MinAtar<G> {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError> {
        let obs = obs.u8(&self.spec)?;
        self.episode.begin(seed);
        if seed.is_some() {
            self.play.pressed = Button::Noop;
        }
        self.play.game.reset(&mut self.episode);
        self.play.observe(obs);
        Ok(())
    }

    fn step(&mut self, action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        self.episode.check(&self.spec)?;
        let button = self.buttons[action.discrete(&self.spec)?];
        let obs = obs.u8(&self.spec)?;

        let Played { reward, terminated } = self.play.act(button, &mut self.episode);
        self.episode.advance(terminated);
        self.play.observe(obs);
        Ok(Outcome { reward: f64::from(reward), terminated, truncated: false })
    }

    /// With the settings, sticky actions and ramping, so that it goes on the same wherever it is loaded.
    fn save(&self) -> Vec<u8> {
        encode(&self.spec, &(&self.episode, &self.play))
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        let (episode, play): (Episode, Play<G>) = decode(&self.spec, bytes)?;
        if !(play.game.is_valid() && (0.0..=1.0).contains(&play.sticky)) {
            let why =
                "something lies off the board or has a time or speed that the game never gives".to_string();
            return Err(EnvError::Saved { env: self.spec.id.clone(), len: bytes.len(), why });
        }
        (self.episode, self.play) = (episode, play);
        Ok(())
    }

    /// The board in the package's colors: a square a cell, in the color of the highest channel that is on there.
    fn scene(&self) -> Option<Scene> {
        /// The side of a cell.
        const CELL: f32 = 40.0;
        let mut obs = vec![0; SIDE * SIDE * G::CHANNELS];
        self.play.observe(&mut obs);
        let shapes = obs.chunks(G::CHANNELS).enumerate().filter_map(|(cell, channels)| {
            let channel = channels.iter().rposition(|on| *on != 0)?;
            // Rows count downwards, scenes upwards.
            let (x, y) = (cell % SIDE, SIDE - 1 - cell / SIDE);
            let start = [x as f32 * CELL, (y as f32 + 0.5) * CELL];
            Some(Shape::bar(start, 0.0, 0.0, CELL, CELL / 2.0, color(channel, G::CHANNELS)))
        });
        let side = SIDE as f32 * CELL;
        Some(Scene { width: side, height: side, background: Rgb(0, 0, 0), shapes: shapes.collect() })
    }
}

/// The color of one of `channels`: seaborn's palette "cubehelix", which the package draws with.
///
/// That is matplotlib's map of this name, of 256 shades after Green (2011), <https://arxiv.org/abs/1108.5083>, looked up at
/// equal distances from each other and from black and white.
fn color(channel: usize, channels: usize) -> Rgb {
    const SHADES: usize = 256;
    let shade = (channel + 1) * SHADES / (channels + 1);
    let light = shade as f64 / (SHADES - 1) as f64;
    // A start of 0.5 of the three colors and 1.5 turns backwards on the way from black to white.
    let (sin, cos) = (TAU * (0.5 / 3.0 - 1.5 * light)).sin_cos();
    let away = light * (1.0 - light) / 2.0;
    let [red, green, blue] = [[-0.14861, 1.78277], [-0.29227, -0.90649], [1.97294, 0.0]]
        .map(|[c, s]| ((light + away * (c * cos + s * sin)).clamp(0.0, 1.0) * 255.0).round() as u8);
    Rgb(red, green, blue)
}
