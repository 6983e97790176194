//! Acting and learning at once: the ratio of drawing to inserting, the account of steps, and how it ends.

mod numbered;

use numbered::{Trouble, parts, steps_in};
use rl_learn::{Device, MemoryState, Piece, StateError};
use rl_replay::{RateLimiter, Replay};
use rl_train::async_trainer::AsyncTrainer;
use rl_train::config::{Config, Layers, resolve};
use rl_train::error::CommandError;
use rl_train::replay::rate_limiter;
use rl_train::training::Training;
use std::time::{Duration, Instant};

/// A small DQN on CartPole-v1 (or what looks like it), with two actors.
fn config(settings: &[&str]) -> Config {
    let small = [
        "algo='dqn'",
        "env='CartPole-v1'",
        "device='cpu'",
        "agent.hidden=[16]",
        "train.mode='async'",
        "train.actors=2",
        "train.num_envs=2",
    ];
    let set = small.iter().chain(settings).map(|setting| setting.to_string()).collect::<Vec<_>>();
    resolve(&Layers { file: None, set: &set, flags: Vec::new() }).unwrap()
}

fn new(config: &Config) -> AsyncTrainer {
    AsyncTrainer::new(config.clone(), Device::Cpu).unwrap()
}

/// Inserts and draws as the buffer has counted them have to be what the counters say, and their ratio within the stated error.
fn check_ratio(trainer: &AsyncTrainer, config: &Config) {
    let (limiter, statistics) = (rate_limiter(config), trainer.replay().statistics());
    assert_eq!(statistics.sampled, trainer.updates() * config.train.batch_size as u64);
    assert_eq!(trainer.env_steps(), statistics.inserted + trainer.open_steps());
    let due = statistics.inserted.saturating_sub(limiter.min_size as u64) as f64 * limiter.samples_per_insert;
    let error = (due - statistics.sampled as f64).abs();
    assert!(error <= limiter.error_buffer, "{error} off, at most {} allowed", limiter.error_buffer);
}

/// The buffer, whose observations are small.
fn stored(trainer: &AsyncTrainer) -> &Replay {
    trainer.replay().as_stored().unwrap()
}

/// Until `env_steps` were made, with the threads at rest then.
fn until(trainer: &mut AsyncTrainer, env_steps: u64) {
    while trainer.env_steps() < env_steps {
        trainer.step().unwrap();
    }
    trainer.hold().unwrap();
}

#[test]
fn samples_per_insert_are_what_was_set_over_100k_inserts() {
    let settings = [
        "env_steps=100000",
        "train.random_steps=64",
        "train.batch_size=32",
        "train.train_every=8",
        "train.updates_per_train=1",
        "replay.capacity=20000",
        "replay.n_step=3",
    ];
    let config = config(&settings);
    let mut trainer = new(&config);
    for part in 1..=10 {
        until(&mut trainer, part * 10_000);
        check_ratio(&trainer, &config);
        trainer.release();
    }
    trainer.finish().unwrap();
    check_ratio(&trainer, &config);
    let statistics = trainer.replay().statistics();
    assert!(statistics.inserted >= 99_990, "{statistics}");
    let ratio = statistics.sampled as f64 / statistics.inserted as f64;
    assert!((ratio / 4.0 - 1.0).abs() < 0.02, "{ratio} drawn for each insert, and 4 were asked for");
    println!("{ratio} drawn for each insert; 4 were asked for");
    let metrics = trainer.metrics();
    let value = |name: &str| metrics.iter().find(|(n, _)| n == name).unwrap().1;
    assert!((value("async/samples_per_insert") / 4.0 - 1.0).abs() < 0.02);
    let (mean, most) = (value("async/staleness"), value("async/staleness_max"));
    // Weights are published every 10 updates, and copied within a step of the environment.
    assert!(mean > 0.0 && mean <= most && most < 10_000.0, "{mean} {most}");
    println!("staleness {mean}, at most {most}");
    // Updates that were still due at the end have been made.
    let limiter = rate_limiter(&config);
    let due = (statistics.inserted - limiter.min_size as u64) as f64 * limiter.samples_per_insert;
    assert!(due - (statistics.sampled as f64) < config.train.batch_size as f64);
    assert!(trainer.episodes() > 100 && trainer.recent().is_some());
}

/// Every step of every environment is in the buffer exactly once or in an open window, at any moment that it is held, also across a
/// stop and a resumption from the last checkpoint.
#[test]
fn no_step_is_lost_and_none_is_there_twice() {
    let settings = [
        "env_steps=30000",
        "train.actors=3",
        "train.num_envs=6",
        "train.random_steps=100",
        "train.batch_size=16",
        "train.train_every=16",
        "train.updates_per_train=1",
        "train.ratio_error=1",
        "train.publish_every=3",
        "replay.capacity=40000",
        "replay.n_step=3",
        "replay.prioritized=true",
    ];
    let config = config(&settings);
    let shares = [3, 2, 1];
    let new = || AsyncTrainer::with_envs(config.clone(), parts(&shares, None), Device::Cpu).unwrap();
    let mut trainer = new();
    let mut checkpoint: Option<(u64, MemoryState)> = None;
    let (mut held, mut resumed) = (0, 0);
    while trainer.env_steps() < config.env_steps {
        let next = trainer.env_steps() + 37 + held * 13 % 400;
        until(&mut trainer, next.min(config.env_steps));
        held += 1;
        let in_buffer: u64 = steps_in(stored(&trainer), 6).iter().sum();
        assert_eq!(in_buffer, trainer.replay().inserted());
        assert_eq!(in_buffer + trainer.open_steps(), trainer.env_steps());
        if held % 5 == 0 {
            let env_steps = trainer.env_steps();
            checkpoint = Some((env_steps, MemoryState::save(|v| trainer.visit(v)).unwrap()));
        }
        // Some go on from where they rest, others from the checkpoint, as if the process had been killed.
        if held % 7 == 0
            && let Some((env_steps, state)) = &checkpoint
            && resumed < 10
        {
            resumed += 1;
            trainer = new();
            state.load(|v| trainer.visit(v)).unwrap();
            assert_eq!(trainer.env_steps(), *env_steps);
        }
        trainer.release();
    }
    trainer.finish().unwrap();
    let steps = steps_in(stored(&trainer), 6);
    assert_eq!(steps.iter().sum::<u64>() + trainer.open_steps(), trainer.env_steps());
    // The last one to begin may have taken its three environments over the end.
    assert!((30_000..30_003).contains(&trainer.env_steps()));
    assert!(steps.iter().all(|steps| *steps > 100), "an environment stood still: {steps:?}");
    assert!(held > 50 && resumed == 10, "{held} {resumed}");
    // The draws of all processes together are those that the ratio asks for.
    let limiter = rate_limiter(&config);
    let due = (trainer.replay().inserted() as f64 - 100.0) * limiter.samples_per_insert;
    assert!((due - trainer.updates() as f64 * 16.0).abs() <= limiter.error_buffer);
}

#[test]
fn the_limiter_is_what_the_settings_say() {
    let settings = [
        "train.random_steps=500",
        "train.batch_size=32",
        "train.train_every=8",
        "train.updates_per_train=3",
        "train.ratio_error=2",
        "replay.n_step=3",
    ];
    let limiter = rate_limiter(&config(&settings));
    // 3 batches of 32 every 8 steps; 2 batches, and the 3 rows that an episode's end inserts at once.
    let expected =
        RateLimiter { min_size: 500, samples_per_insert: 12.0, error_buffer: 2.0 * 32.0 + 3.0 * 12.0 };
    assert_eq!(limiter, expected);
}

/// Rows of the random phase ask for no draws; and who goes on acts with the weights that were saved, and not with those of the beginning.
#[test]
fn what_is_told_of_a_run_counts_from_where_learning_began() {
    let settings = [
        "env_steps=100000",
        "train.random_steps=1000",
        "train.batch_size=16",
        "train.train_every=4",
        "train.updates_per_train=1",
        "train.publish_every=1000000",
    ];
    let config = config(&settings);
    let mut trainer = new(&config);
    until(&mut trainer, 3_000);
    let value = |trainer: &mut AsyncTrainer, name: &str| {
        trainer.metrics().iter().find(|(n, _)| n == name).map(|(_, value)| *value).unwrap()
    };
    let ratio = value(&mut trainer, "async/samples_per_insert");
    assert!((ratio / 4.0 - 1.0).abs() < 0.1, "{ratio} drawn for each insert; 4 were asked for");
    let state = MemoryState::save(|v| trainer.visit(v)).unwrap();
    let mut resumed = new(&config);
    state.load(|v| resumed.visit(v)).unwrap();
    let (before, env_steps) = (resumed.updates(), resumed.env_steps());
    until(&mut resumed, env_steps + 200);
    let stale = value(&mut resumed, "async/staleness_max");
    assert!(before > 300 && stale < before as f64, "{stale} updates behind, of which {before} were saved");
}

/// The same account where frames are stored once, in stacks of actors with several environments each.
#[test]
fn stacks_of_frames_keep_the_account() {
    let settings = [
        "env='MinAtar/Breakout-v1'",
        "frame_stack=2",
        "env_steps=3000",
        "train.num_envs=3",
        "train.random_steps=100",
        "train.batch_size=8",
        "train.train_every=16",
        "replay.capacity=1000",
        "replay.n_step=3",
        "replay.prioritized=true",
    ];
    let config = config(&settings);
    let mut trainer = new(&config);
    assert!(trainer.replay().as_derived().is_some());
    for part in 1..=3 {
        until(&mut trainer, part * 900);
        // As `check_ratio`, by the trainer's own count of updates: statistics begin anew with a loaded buffer.
        let (limiter, inserted) = (rate_limiter(&config), trainer.replay().inserted());
        assert_eq!(trainer.env_steps(), inserted + trainer.open_steps());
        let due = inserted.saturating_sub(limiter.min_size as u64) as f64 * limiter.samples_per_insert;
        assert!((due - trainer.updates() as f64 * 8.0).abs() <= limiter.error_buffer);
        let state = MemoryState::save(|v| trainer.visit(v)).unwrap();
        trainer = new(&config);
        state.load(|v| trainer.visit(v)).unwrap();
        assert_eq!(
            state.differences(&MemoryState::save(|v| trainer.visit(v)).unwrap()),
            Vec::<String>::new()
        );
    }
    until(&mut trainer, 3_000);
    trainer.finish().unwrap();
    assert_eq!(trainer.env_steps(), trainer.replay().inserted() + trainer.open_steps());
}

/// A saved state gives back what was saved, bit for bit, and only while nobody acts.
#[test]
fn a_state_is_whole() {
    let config =
        config(&["env_steps=5000", "train.random_steps=64", "replay.capacity=500", "replay.n_step=5"]);
    let mut trainer = new(&config);
    until(&mut trainer, 2_000);
    let state = MemoryState::save(|v| trainer.visit(v)).unwrap();
    let mut other = new(&config);
    state.load(|v| other.visit(v)).unwrap();
    let again = MemoryState::save(|v| other.visit(v)).unwrap();
    assert!(state.pieces().eq(again.pieces()));
    let names: Vec<&str> = state.pieces().map(|(name, _)| name).collect();
    for name in [
        "actor.1.envs",
        "actor.0.policy.rng",
        "actor.1.stream.0.stored.n_step.open",
        "replay.stored.limiter.sampled",
    ] {
        assert!(names.contains(&name), "no {name} in {names:?}");
    }
    trainer.release();
    trainer.step().unwrap();
    let acting = MemoryState::save(|v| trainer.visit(v));
    assert!(matches!(acting, Err(StateError::Invalid { .. })), "it was saved while actors acted");
    // Actors explore apart from each other.
    let begun = MemoryState::save(|v| new(&config).visit(v)).unwrap();
    assert_ne!(begun.get("actor.0.policy.rng"), begun.get("actor.1.policy.rng"));
    // One step more than there are rows and open steps.
    let mut tampered = state.clone();
    match tampered.get_mut("trainer.env_steps") {
        Some(Piece::Array { bytes, .. } | Piece::Bytes(bytes)) => bytes[0] ^= 1,
        None => panic!("env_steps are a part of the state"),
    }
    let error = tampered.load(|v| new(&config).visit(v)).unwrap_err().to_string();
    assert!(error.contains("rows inserted"), "{error}");
    // The state of a buffer that lacks rows is refused.
    let mut short = config.clone();
    short.train.actors = 1;
    assert!(state.load(|v| new(&short).visit(v)).is_err());
}

/// Runs until something fails; fails itself when that takes long, and sees all threads joined.
fn failure(config: &Config, trouble: Option<(u32, Trouble)>) -> CommandError {
    let mut trainer = AsyncTrainer::with_envs(config.clone(), parts(&[1, 1], trouble), Device::Cpu).unwrap();
    let began = Instant::now();
    let error = loop {
        if let Err(error) = trainer.step() {
            break error;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "nothing failed");
        assert!(trainer.env_steps() < config.env_steps, "it came to its end");
    };
    // Joins: actors may be waiting for the learner, which is not coming back.
    drop(trainer);
    error
}

#[test]
fn an_actors_failure_ends_the_run() {
    std::panic::set_hook(Box::new(|_| {}));
    let config = config(&["env_steps=1000000", "train.random_steps=64", "train.batch_size=16"]);
    for (at, trouble) in [(0, Trouble::Error), (500, Trouble::Error), (500, Trouble::Panic)] {
        let error = failure(&config, Some((at, trouble))).to_string();
        assert!(error.starts_with("actor 1: ") && error.contains("the broken one"), "{error}");
        assert!(!error.contains('\n') && !error.contains("backtrace"), "{error}");
    }
}

#[test]
fn a_learner_that_diverges_ends_the_run() {
    let settings = [
        "env_steps=1000000",
        "train.random_steps=64",
        "train.batch_size=16",
        "train.ratio_error=1",
        "replay.prioritized=true",
        "agent.learning_rate=1e30",
        "agent.max_grad_norm=0",
    ];
    let error = failure(&config(&settings), None).to_string();
    assert!(error.contains("training has diverged"), "{error}");
}

/// Dropped at any moment, whether actors act, wait to insert, or rest, all threads are joined.
#[test]
fn a_run_can_be_dropped_at_any_moment() {
    let config = config(&["env_steps=1000000", "train.random_steps=16", "train.batch_size=16"]);
    for moment in 0..40 {
        let mut trainer = new(&config);
        for _ in 0..moment * 5 {
            trainer.step().unwrap();
        }
        match moment % 4 {
            0 => trainer.hold().unwrap(),
            1 => {
                trainer.hold().unwrap();
                trainer.release();
            }
            // Long enough for every actor to stand before a buffer that takes no more.
            2 => std::thread::sleep(Duration::from_millis(5)),
            _ => {}
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let refused = |settings: &[&str], expected: &str| {
        let set: Vec<String> = ["algo='dqn'", "env='CartPole-v1'", "train.mode='async'"]
            .iter()
            .chain(settings)
            .map(|setting| setting.to_string())
            .collect();
        let error = resolve(&Layers { file: None, set: &set, flags: Vec::new() }).map(drop).unwrap_err();
        assert!(matches!(error, CommandError::Usage(_)) && error.to_string().contains(expected), "{error}");
    };
    refused(&["train.actors=2", "train.num_envs=1"], "train.num_envs is 1");
    refused(&["train.actors=0"], "train.actors is 0");
    refused(&["train.publish_every=0"], "train.publish_every is 0");
    refused(&["train.ratio_error=0"], "train.ratio_error is 0");
    refused(&["train.updates_per_train=0"], "train.updates_per_train is 0");
    refused(&["train.random_steps=200", "replay.capacity=100"], "at most replay.capacity");
    refused(&["train.mode='both'"], "in_step");
}
