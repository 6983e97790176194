//! Where the episodes of Atari games start and end.

use crate::script::{Playing, Script, boxed};
use rl_envs::{Action, Dtype, Env, EnvError, EpisodicLife, FireReset, NoopReset, ObsMut, Outcome, Space};

fn lives(rewards: &[f64], lives: &[u32]) -> Playing {
    let observations = (0..=rewards.len()).map(|t| vec![t as f64]).collect();
    Playing { observations, rewards: rewards.to_vec(), terminates: true, lives: lives.to_vec() }
}

fn game(episodes: Vec<Playing>) -> Script {
    Script::new(boxed(Dtype::F32, &[1]), Space::Discrete { n: 3 }, episodes)
}

fn step(env: &mut dyn Env) -> (f32, Outcome) {
    let mut obs = [f32::NAN];
    let outcome = env.step(Action::Discrete(0), ObsMut::F32(&mut obs)).unwrap();
    (obs[0], outcome)
}

fn reset(env: &mut dyn Env, seed: Option<u64>) -> f32 {
    let mut obs = [f32::NAN];
    env.reset(seed, ObsMut::F32(&mut obs)).unwrap();
    obs[0]
}

#[test]
fn a_lost_life_ends_the_episode_and_not_the_game() {
    let mut env = EpisodicLife::new(game(vec![lives(&[1.0; 6], &[3, 2, 2, 2, 0, 0])]));
    assert_eq!(reset(&mut env, None), 0.0);
    assert!(!step(&mut env).1.ended());
    assert_eq!(step(&mut env), (2.0, Outcome { reward: 1.0, terminated: true, truncated: false }));
    let late = env.step(Action::Discrete(0), ObsMut::F32(&mut [0.0]));
    assert_eq!(late, Err(EnvError::Ended { env: "Script-v0".into() }));
    // One frame of nothing, and on it goes.
    assert_eq!((reset(&mut env, None), env.inner().resets), (3.0, 1));
    assert!(!step(&mut env).1.ended());
    // The last life: some games count it lost frames before they end, which is no end of an episode of its own.
    assert!(!step(&mut env).1.ended());
    assert!(step(&mut env).1.terminated);
    assert_eq!((reset(&mut env, None), env.inner().resets), (0.0, 2));
    // With a seed it is always a new game.
    step(&mut env);
    assert!(step(&mut env).1.terminated);
    assert_eq!((reset(&mut env, Some(1)), env.inner().resets), (0.0, 3));
    // The frame of nothing ends the game.
    let mut env = EpisodicLife::new(game(vec![lives(&[1.0; 2], &[2, 2])]));
    reset(&mut env, None);
    assert!(step(&mut env).1.terminated);
    assert_eq!((reset(&mut env, None), env.inner().resets), (0.0, 2));
}

#[test]
fn fire_is_pressed_and_the_button_after_it() {
    let mut env = FireReset::new(game(vec![lives(&[1.0; 9], &[])])).unwrap();
    assert_eq!(reset(&mut env, None), 2.0);
    assert_eq!(env.inner().actions, [[1.0], [2.0]]);
    // An episode that ends with FIRE: the other button follows the reset.
    let mut env = FireReset::new(game(vec![lives(&[1.0], &[]), lives(&[1.0; 9], &[])])).unwrap();
    assert_eq!((reset(&mut env, None), env.inner().resets), (1.0, 2));
    let mut still = game(vec![lives(&[1.0], &[])]);
    still.meanings = vec!["NOOP", "UP", "FIRE"];
    let error = FireReset::new(still).unwrap_err().to_string();
    assert!(error.contains("action 1 must be FIRE") && error.contains("NOOP, UP, FIRE"), "{error}");
}

#[test]
fn starts_are_put_off_by_every_number_of_frames_alike() {
    const MAX: u32 = 5;
    let mut env = NoopReset::new(game(vec![lives(&[1.0; 9], &[])]), MAX).unwrap();
    let first = reset(&mut env, Some(4));
    let after: Vec<f32> = (0..20).map(|_| reset(&mut env, None)).collect();
    assert_eq!(reset(&mut env, Some(4)), first);
    assert_eq!((0..20).map(|_| reset(&mut env, None)).collect::<Vec<_>>(), after);
    let mut counts = [0; MAX as usize];
    for _ in 0..5000 {
        counts[reset(&mut env, None) as usize - 1] += 1;
    }
    // Six deviations of a binomial count.
    assert!(counts.iter().all(|count| (1000 - 170..1000 + 170).contains(count)), "{counts:?}");
    // Episodes shorter than that are reset on the way.
    let mut short = NoopReset::new(game(vec![lives(&[1.0; 2], &[])]), 30).unwrap();
    assert!((0..50).all(|_| reset(&mut short, None) < 2.0));
    assert!(NoopReset::new(game(vec![]), 0).is_err());
}
