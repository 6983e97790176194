//! MinAtar's games as environments. What happens in them is compared with the original in src/minatar/golden.rs.

use proptest::prelude::*;
use rl_envs::minatar::{ActionSet, Asterix, Breakout, Button, Freeway, MinAtar, SIDE, Seaquest};
use rl_envs::{
    Action, Env, EnvError, EnvSpec, Obs, ObsMut, Outcome, Rgb, Shape, Space, TimeLimit, VecEnv, make, specs,
};

/// The ten of them.
fn games() -> impl Iterator<Item = EnvSpec> {
    specs().filter(|spec| spec.id.starts_with("MinAtar/"))
}

fn actions(spec: &EnvSpec) -> usize {
    let Space::Discrete { n } = spec.action else { panic!("{} has {}", spec.id, spec.action) };
    n
}

/// Numbers below `n` that look random: multiples of the golden ratio, `salt` telling one row of them from another.
fn choices(n: usize, salt: u64) -> impl Iterator<Item = usize> {
    (1u64..).map(move |i| {
        let mixed = (i ^ salt << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed >> 32) as usize * n) >> 32
    })
}

fn reset(env: &mut dyn Env, seed: Option<u64>) -> Vec<u8> {
    let mut obs = vec![9; env.spec().observation.elements()];
    env.reset(seed, ObsMut::U8(&mut obs)).unwrap();
    obs
}

fn step(env: &mut dyn Env, action: usize) -> (Vec<u8>, Outcome) {
    let mut obs = vec![9; env.spec().observation.elements()];
    let outcome = env.step(Action::Discrete(action), ObsMut::U8(&mut obs)).unwrap();
    (obs, outcome)
}

/// `count` steps, with a reset after each episode's end; every observation and outcome.
fn run(env: &mut dyn Env, count: usize, salt: u64) -> Vec<(Vec<u8>, Outcome)> {
    let mut steps = Vec::new();
    for action in choices(actions(env.spec()), salt).take(count) {
        let (obs, outcome) = step(env, action);
        steps.push((obs, outcome));
        if outcome.ended() {
            steps.push((reset(env, None), Outcome::default()));
        }
    }
    steps
}

/// The column of the one cell that is on in `channel` of `row`.
fn column(obs: &[u8], channels: usize, row: usize, channel: usize) -> usize {
    (0..SIDE).find(|x| obs[(row * SIDE + x) * channels + channel] == 1).unwrap()
}

#[test]
fn there_are_five_games_with_two_action_sets_each() {
    let ids: Vec<String> = games().map(|spec| spec.id).collect();
    let names = ["Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders"];
    let expected: Vec<String> =
        names.iter().flat_map(|name| [0, 1].map(|v| format!("MinAtar/{name}-v{v}"))).collect();
    assert_eq!(ids, expected);
    for spec in games() {
        assert_eq!((spec.max_episode_steps, spec.reward_threshold), (None, None), "{}", spec.id);
        let text = spec.observation.to_string();
        assert!(text.starts_with("Box(0, 1, (10, 10, ") && text.ends_with("), uint8)"), "{text}");
    }
}

#[test]
fn a_hundred_thousand_random_steps_stay_in_the_space() {
    for spec in games() {
        let mut env = make(&spec.id).unwrap();
        let mut obs = reset(&mut *env, Some(1));
        let (mut rewards, mut ends) = (0, 0);
        for action in choices(actions(&spec), 1).take(100_000) {
            assert!(spec.observation.contains_obs(Obs::U8(&obs)), "{}", spec.id);
            let outcome = env.step(Action::Discrete(action), ObsMut::U8(&mut obs)).unwrap();
            assert!(outcome.reward >= 0.0 && outcome.reward.fract() == 0.0 && !outcome.truncated);
            rewards += usize::from(outcome.reward > 0.0);
            if outcome.terminated {
                let late = env.step(Action::Discrete(0), ObsMut::U8(&mut obs));
                assert_eq!(late, Err(EnvError::Ended { env: spec.id.clone() }));
                env.reset(None, ObsMut::U8(&mut obs)).unwrap();
                ends += 1;
            }
        }
        // Of random actions only Freeway's full set is too idle to be sure of a point.
        assert!(
            ends >= 39 && (rewards > 0 || spec.id == "MinAtar/Freeway-v0"),
            "{}: {rewards}, {ends}",
            spec.id
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn observations_stay_in_their_space(
        seed: u64,
        which in 0..10usize,
        shares in prop::collection::vec(0.0..1.0f64, 1..400),
    ) {
        let spec = games().nth(which).unwrap();
        let mut env = make(&spec.id).unwrap();
        let first = reset(&mut *env, Some(seed));
        prop_assert!(spec.observation.contains_obs(Obs::U8(&first)));
        for share in shares {
            let (obs, outcome) = step(&mut *env, (share * actions(&spec) as f64) as usize);
            prop_assert!(spec.observation.contains_obs(Obs::U8(&obs)), "{}", spec.id);
            if outcome.ended() {
                break;
            }
        }
    }

    /// Saved bytes with one changed are refused, or are a state to go on from: never a panic.
    #[test]
    fn no_saved_bytes_bring_a_game_down(which in 0..10usize, steps in 0..300usize, place: usize, byte: u8) {
        let spec = games().nth(which).unwrap();
        let mut env = make(&spec.id).unwrap();
        reset(&mut *env, Some(place as u64));
        run(&mut *env, steps, 3);
        let mut bytes = env.save();
        let place = place % bytes.len();
        bytes[place] = byte;
        let before = env.save();
        match env.load(&bytes) {
            Err(error) => {
                prop_assert!(matches!(error, EnvError::Saved { .. }), "{error}");
                prop_assert_eq!(env.save(), before);
            }
            Ok(()) => {
                reset_if_over(&mut *env);
                for (obs, _) in run(&mut *env, 50, 4) {
                    prop_assert!(spec.observation.contains_obs(Obs::U8(&obs)));
                }
            }
        }
    }
}

/// Resets an environment that was saved before its start or after its end.
fn reset_if_over(env: &mut dyn Env) {
    let mut obs = vec![0; env.spec().observation.elements()];
    if env.step(Action::Discrete(0), ObsMut::U8(&mut obs)).map_or(true, |outcome| outcome.ended()) {
        reset(env, None);
    }
}

#[test]
fn a_seed_is_an_episode_and_its_successors() {
    for spec in games() {
        let (mut a, mut b) = (make(&spec.id).unwrap(), make(&spec.id).unwrap());
        // What was pressed before the seed must not stick to the first action after it.
        reset(&mut *b, Some(1));
        run(&mut *b, 40, 9);
        assert_eq!(reset(&mut *a, Some(11)), reset(&mut *b, Some(11)), "{}", spec.id);
        let steps = run(&mut *a, 3000, 5);
        assert!(steps.iter().any(|(_, outcome)| outcome.terminated), "{}", spec.id);
        assert!(steps == run(&mut *b, 3000, 5), "{}", spec.id);

        reset(&mut *a, Some(12));
        assert!(steps != run(&mut *a, 3000, 5), "{}: another seed", spec.id);
        let unseeded = || {
            let mut env = make(&spec.id).unwrap();
            reset(&mut *env, None);
            run(&mut *env, 3000, 5)
        };
        assert!(unseeded() != unseeded(), "{}: without a seed, not twice the same", spec.id);
    }
}

#[test]
fn a_saved_state_goes_on_exactly() {
    for spec in games() {
        let mut env = make(&spec.id).unwrap();
        let fresh = env.save();
        reset(&mut *env, Some(3));
        for part in 0..20 {
            run(&mut *env, 37, part);
            let saved = env.save();
            let mut other = make(&spec.id).unwrap();
            other.load(&saved).unwrap();
            assert_eq!(other.save(), saved, "{}", spec.id);
            assert_eq!(other.scene(), env.scene(), "{}", spec.id);
            let expected = run(&mut *env, 400, part);
            assert!(run(&mut *other, 400, part) == expected, "{}, part {part}", spec.id);
            env.load(&saved).unwrap();
        }
        let mut obs = vec![0; spec.observation.elements()];
        env.load(&fresh).unwrap();
        let early = env.step(Action::Discrete(0), ObsMut::U8(&mut obs));
        assert_eq!(early, Err(EnvError::NotReset { env: spec.id.clone() }));
        let other = games().find(|other| other.id != spec.id).unwrap();
        for bytes in [&make(&other.id).unwrap().save()[..], &fresh[..fresh.len() - 1], b""] {
            assert!(matches!(env.load(bytes), Err(EnvError::Saved { .. })), "{}", spec.id);
            assert_eq!(env.save(), fresh);
        }
    }
}

#[test]
fn settings_are_saved_with_the_game() {
    let still = || {
        MinAtar::<Asterix>::new(ActionSet::Full).sticky_action_prob(1.0).unwrap().difficulty_ramping(false)
    };
    let mut env = MinAtar::<Asterix>::new(ActionSet::Full);
    env.load(&still().save()).unwrap();
    reset(&mut env, Some(1));
    let mut other = still();
    reset(&mut other, Some(1));
    assert!(run(&mut env, 500, 2) == run(&mut other, 500, 2));
    assert_eq!(env.save(), other.save());
}

#[test]
fn mistakes_move_nothing() {
    for spec in games() {
        let n = actions(&spec);
        let mut env = make(&spec.id).unwrap();
        let mut obs = reset(&mut *env, Some(1));
        let before = env.save();
        let text = env.step(Action::Discrete(n), ObsMut::U8(&mut obs)).unwrap_err().to_string();
        assert!(text.contains(&format!("0 to {}", n - 1)) && text.contains(&spec.id), "{text}");
        let boxed = env.step(Action::Box(&[0.0]), ObsMut::U8(&mut obs));
        assert!(matches!(boxed, Err(EnvError::Action { .. })), "{boxed:?}");
        let mut floats = vec![0.0; obs.len()];
        for result in [
            env.reset(None, ObsMut::F32(&mut floats)),
            env.reset(None, ObsMut::U8(&mut obs[1..])),
            env.step(Action::Discrete(0), ObsMut::F32(&mut floats)).map(drop),
            env.step(Action::Discrete(0), ObsMut::U8(&mut obs[1..])).map(drop),
        ] {
            assert!(matches!(result, Err(EnvError::Buffer { .. })), "{result:?}");
        }
        assert_eq!(env.save(), before, "{}", spec.id);
    }
    for prob in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        let error = MinAtar::<Breakout>::new(ActionSet::Minimal).sticky_action_prob(prob).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, EnvError::Setting { .. }), "{text}");
        assert!(text.starts_with("MinAtar/Breakout-v1 cannot have the sticky action probability"), "{text}");
    }
}

/// How often of 20 000 steps the player of Asterix goes where it went before and not where it is told to.
fn stuck(prob: Option<f64>) -> f64 {
    const STEPS: usize = 20_000;
    let mut env = MinAtar::<Asterix>::new(ActionSet::Full);
    if let Some(prob) = prob {
        env = env.sticky_action_prob(prob).unwrap();
    }
    assert_eq!(env.buttons()[1..4], [Button::Left, Button::Up, Button::Right]);
    let player = |obs: &[u8]| obs.iter().step_by(4).position(|on| *on == 1).unwrap() % SIDE;
    let mut x = player(&reset(&mut env, Some(1)));
    let (mut stuck, mut counted) = (0, 0);
    let mut last = 0;
    for _ in 0..STEPS {
        // To and fro about the middle, so that neither edge is in the way.
        let action = if x >= 5 { 1 } else { 3 };
        let (obs, outcome) = step(&mut env, action);
        let now = player(&obs);
        if last != action {
            counted += 1;
            stuck += usize::from((now < x) != (action == 1));
        }
        // What was pressed, whether it stuck or not.
        last = if now < x { 1 } else { 3 };
        x = now;
        if outcome.ended() {
            x = player(&reset(&mut env, None));
        }
    }
    stuck as f64 / counted as f64
}

#[test]
fn actions_stick_as_often_as_they_should() {
    assert_eq!(stuck(Some(0.0)), 0.0);
    // Ten deviations of the mean of 18 000 draws.
    assert!((stuck(None) - 0.1).abs() < 0.023, "{}", stuck(None));
    assert!((stuck(Some(0.5)) - 0.5).abs() < 0.05, "{}", stuck(Some(0.5)));

    let mut env = MinAtar::<Breakout>::new(ActionSet::Full).sticky_action_prob(1.0).unwrap();
    let mut obs = reset(&mut env, Some(1));
    for _ in 0..6 {
        assert_eq!(column(&obs, 4, SIDE - 1, 0), 4, "noop was pressed before anything else, and sticks");
        obs = step(&mut env, 1).0;
    }
}

#[test]
fn the_last_action_sticks_into_the_next_episode_and_a_seed_forgets_it() {
    let mut env = MinAtar::<Breakout>::new(ActionSet::Full).sticky_action_prob(0.0).unwrap();
    reset(&mut env, Some(1));
    step(&mut env, 1);
    // The same state with actions that always stick: its bytes differ in the probability alone.
    let (never, always) = (0f64.to_le_bytes(), 1f64.to_le_bytes());
    let mut bytes = env.save();
    let place = bytes.windows(8).rposition(|window| window == never).unwrap();
    bytes[place..place + 8].copy_from_slice(&always);
    env.load(&bytes).unwrap();
    reset(&mut env, None);
    assert_eq!(column(&step(&mut env, 3).0, 4, SIDE - 1, 0), 3, "left, as before the reset");
    reset(&mut env, Some(1));
    assert_eq!(column(&step(&mut env, 3).0, 4, SIDE - 1, 0), 4, "nothing");
}

/// An episode of Asterix, at rest in the middle, that goes on for at least `steps`.
fn calm(ramping: bool, steps: usize) -> MinAtar<Asterix> {
    let new = || {
        MinAtar::<Asterix>::new(ActionSet::Full).sticky_action_prob(0.0).unwrap().difficulty_ramping(ramping)
    };
    let survives = |seed: &u64| {
        let mut env = new();
        reset(&mut env, Some(*seed));
        (0..steps).all(|_| !step(&mut env, 0).1.terminated)
    };
    let seed = (0..10_000).find(survives).expect("an episode without an enemy in the middle row");
    let mut env = new();
    reset(&mut env, Some(seed));
    env
}

#[test]
fn asterix_gets_harder_every_102_frames() {
    let mut env = calm(true, 210);
    for frame in 1..=210 {
        step(&mut env, 0);
        assert_eq!(env.difficulty_ramp(), Some(frame / 102), "frame {frame}");
    }
    reset(&mut env, None);
    assert_eq!(env.difficulty_ramp(), Some(0));

    let mut env = calm(false, 210);
    for _ in 0..210 {
        step(&mut env, 0);
    }
    assert_eq!(env.difficulty_ramp(), Some(0));
    assert_eq!(MinAtar::<Breakout>::new(ActionSet::Full).difficulty_ramp(), None);
    assert_eq!(MinAtar::<Freeway>::new(ActionSet::Full).difficulty_ramp(), None);
    assert_eq!(MinAtar::<Seaquest>::new(ActionSet::Full).difficulty_ramp(), Some(0));
}

#[test]
fn freeway_terminates_with_frame_2501() {
    let mut env = make("MinAtar/Freeway-v0").unwrap();
    reset(&mut *env, Some(1));
    for frame in 1..=2501 {
        assert_eq!(step(&mut *env, 0).1.terminated, frame == 2501, "frame {frame}");
    }
}

#[test]
fn cars_and_balls_have_the_distributions_of_the_original() {
    const N: usize = 40_000;
    let mut env = make("MinAtar/Freeway-v0").unwrap();
    let (mut speeds, mut to_the_right) = ([[0usize; 5]; 8], [0usize; 8]);
    for i in 0..N {
        let obs = reset(&mut *env, (i == 0).then_some(5));
        for car in 0..8 {
            let cell = |x: usize| &obs[((car + 1) * SIDE + x) * 7..][..7];
            assert_eq!(cell(0)[1], 1, "a car starts at the left edge");
            // What is behind it is at the other edge, or beside it.
            let (trail, right) = if cell(9)[2..].contains(&1) { (cell(9), true) } else { (cell(1), false) };
            speeds[car][trail[2..].iter().position(|on| *on == 1).unwrap()] += 1;
            to_the_right[car] += usize::from(right);
        }
    }
    // Six deviations either way.
    let expect = |what: &str, count: usize, share: f64| {
        let bound = 6.0 * (share * (1.0 - share) / N as f64).sqrt();
        assert!((count as f64 / N as f64 - share).abs() < bound, "{what}: {count} of {N}");
    };
    for car in 0..8 {
        expect(&format!("car {car} to the right"), to_the_right[car], 0.5);
        speeds[car].iter().for_each(|count| expect(&format!("a speed of car {car}"), *count, 0.2));
    }

    let mut env = make("MinAtar/Breakout-v0").unwrap();
    let left = (0..N).filter(|i| column(&reset(&mut *env, (*i == 0).then_some(5)), 4, 3, 1) == 0).count();
    expect("the ball at the left", left, 0.5);

    // Things in Asterix: the first comes in frame 11, into one of eight rows from either side, one in three gold.
    let mut env = make("MinAtar/Asterix-v0").unwrap();
    let (mut gold, mut from_left, mut rows) = (0, 0, [0usize; 8]);
    for i in 0..N {
        reset(&mut *env, (i == 0).then_some(5));
        (0..10).for_each(|_| drop(step(&mut *env, 0)));
        let obs = step(&mut *env, 0).0;
        let cell = obs.chunks(4).position(|cell| cell[1] + cell[3] == 1).unwrap();
        gold += usize::from(obs[cell * 4 + 3]);
        from_left += usize::from(cell % SIDE < 5);
        rows[cell / SIDE - 1] += 1;
    }
    expect("gold", gold, 1.0 / 3.0);
    expect("from the left", from_left, 0.5);
    rows.iter().for_each(|count| expect("a row", *count, 1.0 / 8.0));
}

#[test]
fn a_drawing_has_a_square_for_each_cell_that_shows_something() {
    for spec in games() {
        let channels = spec.observation.elements() / (SIDE * SIDE);
        let mut env = make(&spec.id).unwrap();
        let mut obs = reset(&mut *env, Some(1));
        let first = env.scene().unwrap();
        assert_eq!((first.width, first.height, first.background), (400.0, 400.0, Rgb(0, 0, 0)));
        let mut scenes = vec![first];
        for action in choices(actions(&spec), 1).take(30) {
            let scene = env.scene().unwrap();
            // The lower left corner of each square, and back from there to its cell.
            let mut drawn = [false; SIDE * SIDE];
            for shape in &scene.shapes {
                let Shape::Polygon { points, color } = shape else { panic!("{shape:?}") };
                assert_ne!(*color, scene.background);
                let [x, y] = points[0];
                assert_eq!(points[2], [x + 40.0, y + 40.0]);
                drawn[(9 - (y / 40.0) as usize) * SIDE + (x / 40.0) as usize] = true;
            }
            for (cell, drawn) in obs.chunks(channels).zip(drawn) {
                assert_eq!(cell.contains(&1), drawn, "{}", spec.id);
            }
            scenes.push(scene);
            let (next, outcome) = step(&mut *env, action);
            obs = if outcome.ended() { reset(&mut *env, None) } else { next };
        }
        scenes.dedup();
        assert!(scenes.len() > 5, "{}: the drawing follows the state", spec.id);
    }
}

#[test]
fn games_take_wrappers_and_go_together_like_the_rest() {
    let mut env = TimeLimit::new(make("MinAtar/Freeway-v1").unwrap(), 5);
    reset(&mut env, Some(1));
    let truncated: Vec<bool> = (0..5).map(|_| step(&mut env, 1).1.truncated).collect();
    assert_eq!(truncated, [false, false, false, false, true]);

    let mut envs = VecEnv::make("MinAtar/SpaceInvaders-v1", 3).unwrap();
    envs.reset(1).unwrap();
    let Obs::U8(rows) = envs.observations() else { panic!("bytes were expected") };
    assert_eq!(rows.len(), 3 * SIDE * SIDE * 6);
}
