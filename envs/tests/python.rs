//! Environments of Python's Gymnasium, compared with what they give in Python. `make test-features` runs these.
#![cfg(feature = "python")]

use rl_envs::{
    Action, Actions, Dtype, Env, EnvError, Obs, ObsMut, Outcome, Rgb, Shape, Space, VecEnv, check, make,
    make_drawn,
};
use std::path::Path;
use std::process::Command;
use std::sync::Once;

/// Where the test environments are, told to Python before it starts.
fn python() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python");
        // SAFETY: each test calls this first, and before that no thread of these tests reads or writes the environment but
        // through Rust's own functions.
        unsafe { std::env::set_var("PYTHONPATH", folder) };
    });
}

fn test_env(query: &str) -> String {
    python();
    format!("gym:rl_test_envs:Test/{query}")
}

fn counting(mode: &str) -> String {
    python();
    format!("gym-vec:rl_test_envs:Test/Counting-v0?mode={mode}")
}

/// The Python that the bridge uses, for a process of its own.
fn plain_python() -> Command {
    python();
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv-python/bin/python");
    let named = std::env::var_os("RL_PYTHON").or_else(|| {
        std::env::var_os("VIRTUAL_ENV").map(|venv| Path::new(&venv).join("bin/python").into_os_string())
    });
    Command::new(named.unwrap_or(venv.into_os_string()))
}

fn refused(id: &str) -> String {
    let Err(error) = make(id) else { panic!("{id} should be refused") };
    let said = error.to_string();
    assert!(said.starts_with(&format!("{id}: ")) && !said.contains('\n'), "{said}");
    said
}

fn floats(env: &mut dyn Env, seed: Option<u64>) -> Vec<f32> {
    let mut obs = vec![0f32; env.spec().observation.elements()];
    env.reset(seed, ObsMut::F32(&mut obs)).unwrap();
    obs
}

#[test]
fn trajectories_are_gymnasiums_own() {
    python();
    for (id, seed, actions) in [
        ("CartPole-v1", 3, ["0", "1"]),
        ("CartPole-v1", 2_000_000_011, ["1", "0"]),
        ("MountainCarContinuous-v0", 5, ["0.5", "-1"]),
        ("Pendulum-v1", 7, ["1.25", "-2"]),
    ] {
        let actions: Vec<&str> = (0..300).map(|t| actions[usize::from(t * 7 % 10 < 4)]).collect();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/trajectory.py");
        let output =
            plain_python().arg(script).args([id, &seed.to_string()]).args(&actions).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut env = make(&format!("gym:{id}")).unwrap();
        let mut obs = floats(&mut *env, Some(seed));
        let mut outcome = Outcome::default();
        let lines = String::from_utf8(output.stdout).unwrap();
        for (t, line) in lines.lines().enumerate() {
            if t > 0 {
                let values = [actions[t - 1].parse::<f32>().unwrap()];
                let action = match &env.spec().action {
                    Space::Discrete { .. } => Action::Discrete(values[0] as usize),
                    _ => Action::Box(&values),
                };
                outcome = env.step(action, ObsMut::F32(&mut obs)).unwrap();
            }
            let (expected, reward, terminated, truncated): (Vec<f64>, f64, bool, bool) =
                serde_json::from_str(line).unwrap();
            let expected: Vec<f32> = expected.iter().map(|value| *value as f32).collect();
            assert_eq!((&obs, outcome), (&expected, Outcome { reward, terminated, truncated }), "{id}, {t}");
        }
        assert!(lines.lines().count() > 5);
    }
}

#[test]
fn the_rules_are_kept() {
    python();
    for id in [
        "gym:CartPole-v1".to_string(),
        "gym:Pendulum-v1".to_string(),
        test_env("Random-v0"),
        test_env("Any-v0?obs=uint8"),
        test_env("Any-v0?obs=discrete&action=box"),
    ] {
        check(&mut *make(&id).unwrap(), 1500, 1).unwrap_or_else(|e| panic!("{id}: {e}"));
    }
}

#[test]
fn spaces_and_limits_are_pythons() {
    let of = |query: &str| make(&test_env(query)).unwrap().spec().clone();
    let spec = of("Random-v0");
    assert_eq!((spec.max_episode_steps, spec.reward_threshold), (Some(200), Some(9.5)));
    assert_eq!(spec.action, Space::Discrete { n: 2 });
    assert_eq!(spec.id, test_env("Random-v0"));
    let spec = of("Any-v0?obs=float64&action=box");
    let Space::Box { dtype, low, high, shape } = spec.observation else { panic!("{}", spec.observation) };
    assert_eq!((dtype, shape, low[0], high[3]), (Dtype::F32, vec![2, 2], f32::NEG_INFINITY, f32::INFINITY));
    assert_eq!(spec.action.to_string(), "Box(-2.0, 2.0, (2, 1), float32)");
    assert_eq!(of("Any-v0?obs=uint8").observation.to_string(), "Box(0, 255, (2, 3, 1), uint8)");
    assert_eq!(of("Any-v0?obs=int16").observation.to_string(), "Box(-5.0, 5.0, (2,), float32)");
    assert_eq!(of("Any-v0?obs=discrete").observation, Space::Discrete { n: 5 });
    // Wrappers by name, with arguments, and of any module.
    let spec = of("Any-v0?obs=dict&wrappers=[\"FlattenObservation\"]");
    assert_eq!(spec.observation.elements(), 4);
    let stacked = of(
        "Any-v0?wrappers=[[\"FrameStackObservation\",{\"stack_size\":3}],\"gymnasium.wrappers:FlattenObservation\"]",
    );
    assert_eq!(stacked.observation.elements(), 9);
}

#[test]
fn observations_actions_and_rewards_come_over() {
    let mut env = make(&test_env("Any-v0?obs=float64&action=box&strided=true")).unwrap();
    let mut obs = floats(&mut *env, Some(1));
    assert_eq!(obs, [0.0, 0.1, 0.2, 0.3], "row after row, also of a transposed array");
    let outcome = env.step(Action::Box(&[1.5, -0.25]), ObsMut::F32(&mut obs)).unwrap();
    assert_eq!((outcome.reward, obs[3]), (1.25, 0.4));
    // A discrete space begins at its start.
    let mut env = make(&test_env("Any-v0?obs=discrete")).unwrap();
    let mut obs = floats(&mut *env, None);
    assert_eq!(obs, [0.0]);
    assert_eq!(env.step(Action::Discrete(2), ObsMut::F32(&mut obs)).unwrap().reward, 9.0);
    assert_eq!(obs, [1.0]);
    let mut env = make(&test_env("Any-v0?obs=uint8&length=2")).unwrap();
    let mut obs = [0u8; 6];
    env.reset(None, ObsMut::U8(&mut obs)).unwrap();
    assert!(!env.step(Action::Discrete(0), ObsMut::U8(&mut obs)).unwrap().ended());
    let outcome = env.step(Action::Discrete(0), ObsMut::U8(&mut obs)).unwrap();
    assert_eq!((outcome.terminated, outcome.truncated, obs), (true, false, [2, 3, 4, 5, 6, 7]));
    assert!(matches!(env.step(Action::Discrete(0), ObsMut::U8(&mut obs)), Err(EnvError::Ended { .. })));
}

#[test]
fn arguments_are_json() {
    let short = make(&test_env("Any-v0?length=1&obs=\"int16\"")).unwrap();
    let object = make(&test_env("Any-v0?{\"length\": 1, \"obs\": \"int16\"}")).unwrap();
    assert_eq!(short.spec().observation, object.spec().observation);
    assert_eq!(make("gym:CartPole-v1?max_episode_steps=7").unwrap().spec().max_episode_steps, Some(7));
    let said = refused("gym:CartPole-v1?gravity");
    assert!(said.contains("KEY=VALUE"), "{said}");
    let said = refused("gym:CartPole-v1?{\"a\"");
    assert!(said.contains("JSON"), "{said}");
    let said = refused("gym:CartPole-v1?nonsense=1");
    assert!(said.contains("unexpected keyword argument 'nonsense'"), "{said}");
}

#[test]
fn what_goes_wrong_is_one_line() {
    python();
    let said = refused("gym:CartPol-v1");
    assert!(said.contains("doesn't exist") && said.contains("CartPole"), "{said}");
    let said = refused("gym:rl_no_such_module:Some-v0");
    assert!(
        said.contains("ModuleNotFoundError") && said.contains("-m pip install rl_no_such_module"),
        "{said}"
    );
    let said = refused(&test_env("Any-v0?fails=init"));
    assert!(
        said.contains("ValueError: no such thing (") && said.contains("rl_test_envs.py, line "),
        "{said}"
    );
    for (space, word) in [
        ("obs=multibinary", "FlattenObservation"),
        ("action=multidiscrete", "ActionWrapper"),
        ("action=integers", "ActionWrapper"),
    ] {
        let said = refused(&test_env(&format!("Any-v0?{space}")));
        assert!(said.contains(word) && said.contains("space is"), "{said}");
    }
    let said = refused(&test_env("Any-v0?wrappers=[\"FlatenObservation\"]"));
    assert!(said.contains("no wrapper FlatenObservation"), "{said}");
    let said = refused("gym:");
    assert!(said.contains("which environment"), "{said}");
    for (fails, words) in [
        ("step", "RuntimeError: the second step ("),
        ("exit", "KeyboardInterrupt"),
        ("shape", "7 elements, where its space has 3"),
        ("tuple", "terminated, truncated"),
    ] {
        let id = test_env(&format!("Any-v0?disable_env_checker=true&fails={fails}"));
        let mut envs = VecEnv::make(&id, 2).unwrap();
        envs.reset(0).unwrap();
        let mut steps = (0..2).map(|_| envs.step(Actions::Discrete(&[0, 0])));
        let error = steps.find_map(Result::err).unwrap();
        let said = error.to_string();
        assert!(said.contains(words) && said.starts_with("environment 0: gym:rl_test_envs:"), "{said}");
        assert!(!said.contains('\n'), "{said}");
        // Until it is reset.
        assert_eq!(envs.step(Actions::Discrete(&[0, 0])), Err(error));
        envs.reset(0).unwrap();
    }
}

#[test]
fn seeds_and_threads_give_the_same() {
    let id = test_env("Random-v0");
    let run = |threads: usize| {
        let mut envs = VecEnv::make(&id, 5).unwrap().with_threads(threads).unwrap();
        envs.reset(11).unwrap();
        let mut seen = vec![envs.obs().to_vec()];
        for t in 0..200 {
            let actions: Vec<i64> = (0..5).map(|i| (t + i) % 2).collect();
            envs.step(Actions::Discrete(&actions)).unwrap();
            seen.push((0..5).flat_map(|i| envs.next_obs(i).to_vec()).chain(envs.obs().to_vec()).collect());
        }
        (seen, envs.save())
    };
    let once = run(1);
    assert!(once == run(1) && once == run(3));
}

#[test]
fn several_threads_have_environments_of_their_own() {
    let id = test_env("Random-v0");
    let lengths = |seed: u64| {
        let mut envs = VecEnv::make(&id, 2).unwrap();
        envs.reset(seed).unwrap();
        let step = |_| {
            envs.step(Actions::Discrete(&[0, 1])).unwrap();
            envs.outcomes().to_vec()
        };
        (0..300).flat_map(step).collect::<Vec<Outcome>>()
    };
    let expected: Vec<_> = (0..4).map(lengths).collect();
    let found: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|seed| scope.spawn(move || lengths(seed))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(found, expected);
}

/// 50 steps, saved, and 50 more: twice.
#[test]
fn what_is_saved_goes_on_bit_for_bit() {
    for (id, n) in
        [("gym:CartPole-v1".to_string(), 3), (test_env("Random-v0"), 3), (test_env("Any-v0?obs=uint8"), 2)]
    {
        let go = |envs: &mut VecEnv, from: i64| -> Vec<(Vec<u32>, Vec<Outcome>)> {
            let step = |t| {
                let actions: Vec<i64> = (0..n as i64).map(|i| (t * 3 + i) % 7 % 2).collect();
                envs.step(Actions::Discrete(&actions)).unwrap();
                (bits(envs.observations()), envs.outcomes().to_vec())
            };
            (from..from + 50).map(step).collect()
        };
        let mut envs = VecEnv::make(&id, n).unwrap();
        envs.reset(4).unwrap();
        go(&mut envs, 0);
        let saved = envs.save();
        let straight = go(&mut envs, 50);
        let mut other = VecEnv::make(&id, n).unwrap();
        other.load(&saved).unwrap();
        assert!(!other.restarted().contains(&true), "{id}");
        assert_eq!(other.save(), saved);
        assert_eq!(go(&mut other, 50), straight, "{id}");
    }
}

fn bits(obs: Obs<'_>) -> Vec<u32> {
    match obs {
        Obs::F32(values) => values.iter().map(|value| value.to_bits()).collect(),
        Obs::U8(values) => values.iter().map(|value| u32::from(*value)).collect(),
    }
}

#[test]
fn what_cannot_be_gone_on_with_starts_anew() {
    let id = test_env("Random-v0?seeded=false");
    let mut envs = VecEnv::make(&id, 2).unwrap();
    envs.reset(4).unwrap();
    envs.step(Actions::Discrete(&[0, 1])).unwrap();
    let saved = envs.save();
    let before = envs.obs().to_vec();
    envs.load(&saved).unwrap();
    assert_eq!(envs.restarted(), [true, true]);
    assert!(envs.obs() != before && envs.outcomes() == [Outcome::default(); 2]);
    // What is saved now goes on or starts anew as any.
    let again = envs.save();
    envs.load(&again).unwrap();
    assert_eq!(envs.restarted(), [true, true]);
    envs.step(Actions::Discrete(&[0, 1])).unwrap();
    // A vector environment never goes on.
    let mut envs = VecEnv::make(&counting("SameStep"), 3).unwrap();
    envs.reset(1).unwrap();
    envs.step(Actions::Discrete(&[1, 1, 1])).unwrap();
    let saved = envs.save();
    assert_eq!(envs.restarted(), [false; 3]);
    envs.load(&saved).unwrap();
    assert_eq!((envs.restarted(), envs.obs()), (&[true; 3][..], &[0.0; 6][..]));
    assert!(envs.load(b"nothing").is_err());
}

/// What reaches a replay buffer of environment `env`: (obs acted on, reward, next obs, terminated, truncated).
type Row = (Vec<f32>, f64, Vec<f32>, bool, bool);

fn rows(mode: &str, steps: usize) -> Vec<Vec<Row>> {
    const E: usize = 3;
    let mut envs = VecEnv::make(&counting(mode), E).unwrap().with_threads(2).unwrap();
    assert_eq!(envs.threads(), 1, "one call steps them all");
    envs.reset(1).unwrap();
    let mut rows = vec![Vec::new(); E];
    for _ in 0..steps {
        let acted_on = envs.obs().to_vec();
        envs.step(Actions::Discrete(&[1; E])).unwrap();
        for (env, rows) in rows.iter_mut().enumerate() {
            let Outcome { reward, terminated, truncated } = envs.outcomes()[env];
            if envs.skipped(env) {
                assert_eq!(envs.outcomes()[env], Outcome::default());
                continue;
            }
            let obs = acted_on[env * 2..][..2].to_vec();
            rows.push((obs, reward, envs.next_obs(env).to_vec(), terminated, truncated));
        }
    }
    rows
}

#[test]
fn every_way_of_autoreset_gives_the_same_transitions() {
    let same = rows("SameStep", 40);
    for (env, rows) in same.iter().enumerate() {
        let last = env as f32 + 2.0;
        for (i, (obs, reward, next, terminated, truncated)) in rows.iter().enumerate() {
            let (episode, count) = ((i / (env + 2)) as f32, (i % (env + 2)) as f32);
            assert_eq!((obs, next), (&vec![episode, count], &vec![episode, count + 1.0]));
            assert_eq!(*reward, f64::from(10.0 * (count + 1.0) + 1.0));
            let ends = count + 1.0 == last;
            assert_eq!((*terminated, *truncated), (ends && env % 2 == 0, ends && env % 2 == 1));
        }
        assert_eq!(rows.len(), 40);
    }
    assert_eq!(rows("Disabled", 40), same);
    let next = rows("NextStep", 40);
    for (env, (next, same)) in next.iter().zip(&same).enumerate() {
        // One step in each episode was none.
        assert_eq!(next.len(), 40 - 40 / (env + 3));
        assert_eq!(next[..], same[..next.len()]);
    }
}

#[test]
fn a_vector_environment_of_one_is_an_environment() {
    for mode in ["SameStep", "NextStep", "Disabled"] {
        let mut env = make(&counting(mode)).unwrap();
        let mut obs = floats(&mut *env, Some(1));
        for episode in 0..3 {
            assert_eq!(obs, [episode as f32, 0.0], "{mode}");
            assert!(!env.step(Action::Discrete(0), ObsMut::F32(&mut obs)).unwrap().ended());
            assert!(env.step(Action::Discrete(0), ObsMut::F32(&mut obs)).unwrap().terminated);
            assert_eq!(obs, [episode as f32, 2.0], "{mode}");
            assert!(matches!(
                env.step(Action::Discrete(0), (&mut obs[..]).into()),
                Err(EnvError::Ended { .. })
            ));
            env.reset(None, ObsMut::F32(&mut obs)).unwrap();
        }
    }
}

#[test]
fn sync_vectors_are_the_single_environments() {
    let mut single = VecEnv::make("gym:CartPole-v1", 3).unwrap();
    for id in ["gym-vec:CartPole-v1?vectorization_mode=sync", "gym-vec:CartPole-v1"] {
        let mut vector = VecEnv::make(id, 3).unwrap();
        single.reset(6).unwrap();
        vector.reset(6).unwrap();
        if id.ends_with("sync") {
            assert_eq!(single.obs(), vector.obs(), "the same seeds");
        }
        for t in 0..200 {
            vector.step(Actions::Discrete(&[t % 2, 1, 0])).unwrap();
            if id.ends_with("sync") && t < 8 {
                single.step(Actions::Discrete(&[t % 2, 1, 0])).unwrap();
                assert_eq!((single.obs(), single.outcomes()), (vector.obs(), vector.outcomes()));
            }
        }
    }
}

#[test]
fn pictures() {
    let mut env = make_drawn(&test_env("Any-v0")).unwrap();
    floats(&mut *env, None);
    let scene = env.draw().unwrap();
    assert_eq!((scene.width, scene.height, scene.background), (6.0, 4.0, Rgb(200, 200, 200)));
    let [Shape::Picture { width, height, rgb }] = &scene.shapes[..] else { panic!("{scene:?}") };
    assert_eq!((*width, *height, &rgb[(6 + 2) * 3..][..3]), (6, 4, &[255, 0, 9][..]));
    let why = |id: &str| {
        let mut env = make_drawn(id).unwrap();
        floats(&mut *env, None);
        env.draw().unwrap_err().to_string()
    };
    let said = why(&test_env("Any-v0?fails=render"));
    assert!(said.contains("OSError: no screen"), "{said}");
    let said = why(&test_env("Random-v0"));
    assert!(said.contains("renders no picture"), "{said}");
    // Environments of this crate are drawn as ever.
    assert!(!make_drawn("CartPole-v1").unwrap().draw().unwrap().shapes.is_empty());
    // And those that train render nothing.
    assert!(make(&test_env("Any-v0")).unwrap().scene().is_none());
}

#[test]
fn ctrl_c_stays_the_programs() {
    const CHILD: &str = "RL_ENVS_TEST_CTRL_C";
    if std::env::var_os(CHILD).is_some() {
        python();
        let mut env = make("gym:CartPole-v1").unwrap();
        floats(&mut *env, Some(1));
        let me = std::process::id().to_string();
        Command::new("kill").args(["-INT", &me]).status().unwrap();
        std::thread::sleep(std::time::Duration::from_secs(5));
        return;
    }
    use std::os::unix::process::ExitStatusExt;
    // What runs in the background of a script ignores the signal from its birth.
    let output = Command::new("env")
        .arg("--default-signal=INT")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "ctrl_c_stays_the_programs"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert_eq!(output.status.signal(), Some(2), "{output:?}");
}

#[test]
fn atari() {
    python();
    let spec = make("gym:ALE/Pong-v5").unwrap().spec().clone();
    assert_eq!(spec.observation.to_string(), "Box(0, 255, (1, 84, 84), uint8)");
    let raw = make("gym:ALE/Pong-v5?preprocessing=false").unwrap().spec().clone();
    assert_eq!(raw.observation.to_string(), "Box(0, 255, (210, 160, 3), uint8)");
    let mut envs = VecEnv::make("atari:Breakout?num_threads=1&noop_max=1", 4).unwrap();
    assert_eq!(envs.spec().observation.to_string(), "Box(0, 255, (1, 84, 84), uint8)");
    assert_eq!(envs.spec().action, Space::Discrete { n: 4 });
    let reset = |envs: &mut VecEnv| {
        envs.reset(3).unwrap();
        bits(envs.observations())
    };
    assert_eq!(reset(&mut envs), reset(&mut envs), "a seed gives the same frames");
    let mut ends = 0;
    for t in 0..400 {
        envs.step(Actions::Discrete(&[1 + t % 3, 2, 3, t % 4])).unwrap();
        for env in 0..4 {
            assert!(!envs.skipped(env));
            if envs.outcomes()[env].ended() {
                ends += 1;
                let first = &bits(envs.observations())[env * 7056..][..7056];
                assert_ne!(
                    bits(envs.next_observation(env)),
                    first,
                    "the last frame, and not the next first one"
                );
            }
        }
    }
    assert!(ends > 2);
    assert!(envs.draw(0).unwrap().width == 84.0);
    assert_eq!(
        VecEnv::make("atari:ms_pacman?stack_num=4", 1).unwrap().spec().observation.elements(),
        4 * 84 * 84
    );
    let said = refused("atari:NoGame");
    assert!(said.contains("no game 'NoGame'") && said.contains("breakout"), "{said}");
    // The same from one as from many.
    let mut one = make("atari:Breakout").unwrap();
    let mut obs = vec![0u8; 7056];
    one.reset(Some(1), ObsMut::U8(&mut obs)).unwrap();
    one.step(Action::Discrete(1), ObsMut::U8(&mut obs)).unwrap();
}
