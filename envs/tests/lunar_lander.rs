//! What is the lunar lander's own: settings, saving by replaying, drawing, threads. That its flights are Gymnasium's is shown in
//! `src/lunar_lander/golden.rs`, that it keeps to the rules in `conformance.rs`.
#![cfg(feature = "box2d")]

use rl_envs::{
    Action, Actions, Env, EnvError, LunarLander, Obs, ObsMut, Outcome, Rgb, Scene, Shape, VecEnv, check,
};

/// Steps `env` under actions that depend on the step alone, and gives every bit that comes of it.
fn fly(env: &mut LunarLander, steps: usize) -> Vec<([u32; 8], Outcome)> {
    let mut seen = Vec::new();
    for t in 0..steps {
        let mut obs = [0.0; 8];
        let outcome = env.step(Action::Discrete([2, 0, 1, 0, 3, 2][t % 6]), ObsMut::F32(&mut obs)).unwrap();
        seen.push((obs.map(f32::to_bits), outcome));
        if outcome.ended() {
            break;
        }
    }
    seen
}

fn reset(env: &mut LunarLander, seed: u64) {
    env.reset(Some(seed), ObsMut::F32(&mut [0.0; 8])).unwrap();
}

#[test]
fn a_saved_flight_goes_on_with_its_settings_wherever_it_is_loaded() {
    let windy = || LunarLander::new().with_gravity(-4.0).unwrap().with_wind(15.0, 1.5).unwrap();
    let mut env = windy();
    reset(&mut env, 3);
    fly(&mut env, 40);
    let saved = env.save();
    let expected = fly(&mut env, 60);
    assert!(expected.len() > 20);

    let mut other = LunarLander::new();
    other.load(&saved).unwrap();
    assert_eq!(other.save(), saved);
    assert_eq!(fly(&mut other, 60), expected);
    // The generator goes on as well.
    for env in [&mut env, &mut other] {
        env.reset(None, ObsMut::F32(&mut [0.0; 8])).unwrap();
    }
    assert_eq!(fly(&mut env, 30), fly(&mut other, 30));

    let calm = |mut env: LunarLander| {
        reset(&mut env, 3);
        fly(&mut env, 30)
    };
    assert_ne!(calm(windy()), calm(LunarLander::new().with_gravity(-4.0).unwrap()), "wind does nothing");
    assert_ne!(calm(LunarLander::new()), calm(LunarLander::new().with_gravity(-4.0).unwrap()));
}

#[test]
fn one_that_was_never_reset_is_saved_too() {
    let mut env = LunarLander::continuous();
    let saved = env.save();
    reset(&mut env, 1);
    env.load(&saved).unwrap();
    let step = env.step(Action::Box(&[0.0; 2]), ObsMut::F32(&mut [0.0; 8]));
    assert_eq!(step, Err(EnvError::NotReset { env: "LunarLanderContinuous-v3".into() }));
}

#[test]
fn bytes_that_no_flight_gave_are_refused() {
    let mut env = LunarLander::new();
    reset(&mut env, 5);
    fly(&mut env, 3);
    let saved = env.save();
    let mut other = LunarLander::continuous();
    assert!(other.load(&saved).unwrap_err().to_string().contains("LunarLander-v3"));
    // The last action is 1 of 0 to 3.
    let mut wrong = saved.clone();
    assert_eq!(wrong.pop(), Some(1));
    wrong.push(4);
    let error = env.load(&wrong).unwrap_err().to_string();
    assert!(error.contains("an action in it cannot be taken") && !error.contains('\n'), "{error}");
    assert_eq!(env.save(), saved);

    // More actions than the flight has steps.
    let flown = fly(&mut env, 1000);
    assert!(flown.last().unwrap().1.terminated);
    let over = env.save();
    env.load(&over).unwrap();
    let step = env.step(Action::Discrete(0), ObsMut::F32(&mut [0.0; 8]));
    assert_eq!(step, Err(EnvError::Ended { env: "LunarLander-v3".into() }));
}

#[test]
fn settings_have_bounds() {
    for gravity in [0.0, -12.0, 3.0, f64::NAN, f64::NEG_INFINITY] {
        let error = LunarLander::new().with_gravity(gravity).unwrap_err().to_string();
        assert!(error.contains("gravity") && error.contains("between -12 and 0"), "{error}");
    }
    assert!(LunarLander::new().with_wind(f64::NAN, 1.0).unwrap_err().to_string().contains("wind NaN"));
    assert!(LunarLander::new().with_wind(1.0, f64::INFINITY).unwrap_err().to_string().contains("wind inf"));
}

#[test]
fn throttles_are_clipped_and_have_a_dead_zone() {
    let after = |values: [f32; 2]| {
        let mut env = LunarLander::continuous();
        reset(&mut env, 9);
        let mut obs = [0.0; 8];
        let outcome = env.step(Action::Box(&values), ObsMut::F32(&mut obs)).unwrap();
        (obs.map(f32::to_bits), outcome.reward.to_bits())
    };
    assert_eq!(after([0.0, 0.0]), after([-1.0, 0.5]));
    assert_eq!(after([1.0, -1.0]), after([7.0, -3.0]));
    assert_ne!(after([0.0, 0.0]), after([0.01, 0.0]));
    assert_ne!(after([0.0, 0.0]), after([0.0, 0.51]));
    assert_ne!(after([0.0, -0.51]), after([0.0, 0.51]));
}

#[test]
fn flights_are_the_same_on_any_number_of_threads() {
    let run = |threads: usize| {
        let mut envs = VecEnv::make("LunarLander-v3", 6).unwrap().with_threads(threads).unwrap();
        envs.reset(11).unwrap();
        let mut seen = Vec::new();
        for t in 0..300 {
            let actions: Vec<i64> = (0..6).map(|i| (t * 7 + i * 3) % 4).collect();
            envs.step(Actions::Discrete(&actions)).unwrap();
            let Obs::F32(obs) = envs.observations() else { panic!("f32") };
            seen.extend(obs.iter().map(|value| value.to_bits()));
        }
        seen
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn the_drawing_shows_moon_flags_craft_and_flames() {
    const FLAG: Rgb = Rgb(204, 204, 0);
    const FLAME: Rgb = Rgb(242, 127, 51);
    let mut env = LunarLander::new();
    assert_eq!(env.scene().unwrap().shapes, []);
    reset(&mut env, 2);
    let polygons = |scene: &Scene, of: Rgb| {
        scene.shapes.iter().filter(|s| matches!(s, Shape::Polygon { color, .. } if *color == of)).count()
    };
    let scene = env.scene().unwrap();
    assert_eq!((scene.width, scene.height), (600.0, 400.0));
    let counts = [Rgb(255, 255, 255), FLAG, Rgb(128, 102, 230), FLAME].map(|color| polygons(&scene, color));
    assert_eq!(counts, [1, 2, 3, 0]);
    for (action, flames) in [(0, 0), (1, 1), (2, 1), (3, 1)] {
        env.step(Action::Discrete(action), ObsMut::F32(&mut [0.0; 8])).unwrap();
        assert_eq!(polygons(&env.scene().unwrap(), FLAME), flames, "action {action}");
    }
}

#[test]
fn wind_keeps_to_the_rules_too() {
    let mut env = rl_envs::TimeLimit::new(LunarLander::continuous().with_wind(20.0, 2.0).unwrap(), 1000);
    check(&mut env, 3_000, 4).unwrap_or_else(|e| panic!("{e}"));
}
