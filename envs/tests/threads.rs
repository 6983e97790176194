//! Environments shared out to threads: the same numbers with any number of them, and a clean end when one fails.

use rl_envs::{
    Action, Actions, CartPole, Env, EnvError, EnvSpec, Listing, Obs, ObsMut, Outcome, Scene, Space, VecEnv,
    listings,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts what the whole process allocates, whichever thread does.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Tests that count allocations or threads of the process take turns.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Actions of step `t`.
enum Chosen {
    Discrete(Vec<i64>),
    Values(Vec<f32>),
}

impl Chosen {
    fn new(spec: &EnvSpec, envs: usize, t: usize) -> Self {
        let share = |i: usize| ((t * 7919 + i * 104_729) as f64 * 0.618_033_988_749_895).fract();
        match &spec.action {
            Space::Discrete { n } => {
                Chosen::Discrete((0..envs).map(|i| (share(i) * *n as f64) as i64).collect())
            }
            Space::Box { low, high, .. } => {
                let width = low.len();
                let value = |i: usize| low[i % width] + (high[i % width] - low[i % width]) * share(i) as f32;
                Chosen::Values((0..envs * width).map(value).collect())
            }
            Space::MultiBinary { .. } => unreachable!("no environment here has switches"),
        }
    }

    fn actions(&self) -> Actions<'_> {
        match self {
            Chosen::Discrete(actions) => Actions::Discrete(actions),
            Chosen::Values(values) => Actions::Box(values),
        }
    }
}

fn bits(obs: Obs<'_>) -> Vec<u32> {
    match obs {
        Obs::F32(values) => values.iter().map(|value| value.to_bits()).collect(),
        Obs::U8(values) => values.iter().map(|value| u32::from(*value)).collect(),
    }
}

/// Everything that 300 steps of 7 environments show, to the last bit, and what is saved after them.
fn trace(id: &str, threads: usize) -> (Vec<Vec<u32>>, Vec<Outcome>, Vec<u8>) {
    const E: usize = 7;
    let mut envs = VecEnv::make(id, E).unwrap().with_threads(threads).unwrap();
    assert_eq!(envs.threads(), threads.min(E));
    envs.reset(3).unwrap();
    let (mut seen, mut outcomes) = (vec![bits(envs.observations())], Vec::new());
    for t in 0..300 {
        envs.step(Chosen::new(envs.spec(), E, t).actions()).unwrap();
        seen.push(bits(envs.observations()));
        seen.extend((0..E).map(|i| bits(envs.next_observation(i))));
        outcomes.extend_from_slice(envs.outcomes());
    }
    (seen, outcomes, envs.save())
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let _alone = alone();
    // Those of features take longer and have tests of their own.
    for spec in listings().into_iter().filter(|listing| listing.feature.is_none()).map(|listing| listing.spec)
    {
        let alone = trace(&spec.id, 1);
        for threads in [2, 3, 5, 64] {
            assert!(trace(&spec.id, threads) == alone, "{} on {threads} threads", spec.id);
        }
    }
}

#[test]
fn a_saved_state_goes_on_with_another_number_of_threads() {
    let _alone = alone();
    let mut one = VecEnv::make(CartPole::ID, 5).unwrap();
    one.reset(1).unwrap();
    let chosen = |t| Chosen::new(&CartPole::spec(), 5, t);
    for t in 0..40 {
        one.step(chosen(t).actions()).unwrap();
    }
    let mut four = VecEnv::make(CartPole::ID, 5).unwrap().with_threads(4).unwrap();
    four.load(&one.save()).unwrap();
    assert_eq!(four.obs(), one.obs());
    for t in 40..80 {
        one.step(chosen(t).actions()).unwrap();
        four.step(chosen(t).actions()).unwrap();
    }
    assert_eq!(four.save(), one.save());
    // Shared out anew with everything under way.
    let mut four = four.with_threads(2).unwrap();
    assert_eq!((four.threads(), four.save()), (2, one.save()));
    one.step(chosen(80).actions()).unwrap();
    four.step(chosen(80).actions()).unwrap();
    assert_eq!(four.with_threads(1).unwrap().save(), one.save());
}

#[test]
fn a_step_allocates_nothing() {
    let _alone = alone();
    // A lunar lander's next episode is a new world of Box2D.
    let brought = |listing: &Listing| listing.built_in && listing.feature != Some("box2d");
    for listing in listings().into_iter().filter(brought) {
        let spec = listing.spec;
        let steps = if listing.feature.is_none() { 600 } else { 60 };
        for threads in [1, 3] {
            let mut envs = VecEnv::make(&spec.id, 8).unwrap().with_threads(threads).unwrap();
            envs.reset(5).unwrap();
            let chosen: Vec<Chosen> = (0..steps).map(|t| Chosen::new(&spec, 8, t)).collect();
            envs.step(chosen[0].actions()).unwrap();
            // Another thread of the test runner may allocate meanwhile: then the next time is quiet.
            let quiet = (0..20).any(|_| {
                let before = ALLOCATIONS.load(Ordering::Relaxed);
                for chosen in &chosen {
                    envs.step(chosen.actions()).unwrap();
                }
                ALLOCATIONS.load(Ordering::Relaxed) == before
            });
            assert!(quiet, "{} on {threads} threads", spec.id);
        }
    }
}

/// Takes time and keeps count, and in a chosen step fails as it is told.
#[derive(Clone)]
struct Faulty {
    spec: EnvSpec,
    steps: u8,
    fault: Option<(u8, Fault)>,
}

#[derive(Clone, Copy)]
enum Fault {
    Error,
    Panic,
    Payload,
    Reset,
}

/// A payload of a panic that panics itself when it is dropped.
struct Nasty;

impl Drop for Nasty {
    fn drop(&mut self) {
        panic!("a second panic");
    }
}

impl Faulty {
    /// `count` environments, of which those with a fault are given by position.
    fn envs(count: usize, faults: &[(usize, u8, Fault)]) -> Vec<Faulty> {
        let spec = EnvSpec {
            id: "Faulty-v0".to_string(),
            observation: Space::vector([0.0], [255.0]),
            action: Space::Discrete { n: 2 },
            max_episode_steps: None,
            reward_threshold: None,
        };
        let fault = |i: usize| faults.iter().find(|fault| fault.0 == i).map(|fault| (fault.1, fault.2));
        (0..count).map(|i| Faulty { spec: spec.clone(), steps: 0, fault: fault(i) }).collect()
    }
}

impl Env for Faulty {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: Option<u64>, obs: ObsMut<'_>) -> Result<(), EnvError> {
        if let (Some((_, Fault::Reset)), None) = (self.fault, seed) {
            panic!("no second episode\nthis line is too much");
        }
        self.steps = 0;
        obs.f32(&self.spec)?[0] = 0.0;
        Ok(())
    }

    fn step(&mut self, _action: Action<'_>, obs: ObsMut<'_>) -> Result<Outcome, EnvError> {
        self.steps += 1;
        let now = self.fault.filter(|(step, _)| *step == self.steps).map(|(_, fault)| fault);
        match now {
            Some(Fault::Error) => {
                let expected = "less trouble".to_string();
                return Err(EnvError::State {
                    env: self.spec.id.clone(),
                    got: "trouble".to_string(),
                    expected,
                });
            }
            Some(Fault::Panic) => panic!("the roof is on fire"),
            Some(Fault::Payload) => std::panic::panic_any(Nasty),
            Some(Fault::Reset) | None => {}
        }
        obs.f32(&self.spec)?[0] = f32::from(self.steps);
        let terminated = matches!(now, Some(Fault::Reset)) || self.steps == 200;
        Ok(Outcome { reward: 1.0, terminated, truncated: false })
    }

    fn save(&self) -> Vec<u8> {
        vec![self.steps]
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), EnvError> {
        self.steps = bytes[0];
        Ok(())
    }

    fn scene(&self) -> Option<Scene> {
        None
    }
}

/// Threads of this process that step environments.
fn workers() -> usize {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return 0 };
    let names = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("envs-")).count()
}

#[test]
fn what_fails_is_named_and_the_others_finish_their_step() {
    let _alone = alone();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    for threads in [1, 2, 5] {
        for (fault, text) in [
            (
                Fault::Error,
                "environment 3: Faulty-v0 cannot be put into the state trouble; give less trouble",
            ),
            (Fault::Panic, "environment 3: Faulty-v0 panicked: the roof is on fire"),
            (Fault::Payload, "environment 3: Faulty-v0 panicked: it does not say why"),
            (Fault::Reset, "environment 3: Faulty-v0 panicked: no second episode; that"),
        ] {
            // Environment 4 fails in the same step: the first one is named, on however many threads they are.
            let envs = Faulty::envs(6, &[(3, 2, fault), (4, 2, Fault::Error)]);
            let mut envs = VecEnv::new(envs).unwrap().with_threads(threads).unwrap();
            envs.reset(0).unwrap();
            envs.step(Actions::Discrete(&[0; 6])).unwrap();
            let error = envs.step(Actions::Discrete(&[0; 6])).unwrap_err();
            assert!(error.to_string().starts_with(text) && !error.to_string().contains('\n'), "{error}");
            for others in [0, 1, 2, 5] {
                assert_eq!(envs.next_obs(others), [2.0], "environment {others} on {threads} threads");
            }
            // It says the same until it is reset, and after a panic even then.
            assert_eq!(envs.step(Actions::Discrete(&[0; 6])).unwrap_err(), error);
            assert_eq!(envs.next_obs(0), [2.0]);
            let again = envs.reset(0);
            match fault {
                Fault::Error => assert_eq!(again, Ok(())),
                _ => assert_eq!(again, Err(error.clone())),
            }
            if let Fault::Error = fault {
                envs.step(Actions::Discrete(&[0; 6])).unwrap();
                assert_eq!(envs.obs(), [1.0; 6]);
            }
            drop(envs);
            assert_eq!(workers(), 0, "threads are left over");
        }
    }
    std::panic::set_hook(hook);
}

#[test]
fn threads_live_as_long_as_their_environments() {
    let _alone = alone();
    for _ in 0..50 {
        let mut envs = VecEnv::make(CartPole::ID, 9).unwrap().with_threads(4).unwrap();
        envs.reset(0).unwrap();
        // By now each has given itself its name.
        if cfg!(target_os = "linux") {
            assert_eq!(workers(), 3);
        }
        // Handed to another thread, which then is the one to be woken.
        let envs = std::thread::spawn(move || {
            envs.step(Actions::Discrete(&[1; 9])).unwrap();
            envs
        });
        let mut envs = envs.join().unwrap();
        std::thread::sleep(std::time::Duration::from_micros(200));
        envs.step(Actions::Discrete(&[1; 9])).unwrap();
        drop(envs);
        assert_eq!(workers(), 0);
    }
}

#[test]
fn zero_threads_are_as_many_as_cores() {
    let _alone = alone();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    assert_eq!(VecEnv::make(CartPole::ID, 1000).unwrap().with_threads(0).unwrap().threads(), cores);
    assert_eq!(VecEnv::make(CartPole::ID, 2).unwrap().with_threads(7).unwrap().threads(), 2);
}
