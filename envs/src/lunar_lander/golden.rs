//! Episodes recorded from Gymnasium, replayed: tests/golden/lunar_lander.py of the workspace wrote them.
//!
//! Inside the crate because chance comes from NumPy's generator here, which no environment is otherwise given.

use super::flight::{Chance, Flight, Seen, Settings};
use super::{Control, LunarLander, engines::Order, wind::WindPower};
use crate::{Action, Env, ObsMut, TimeLimit};
use serde_json::Value;

/// How far an observation may be from the recorded one once it has touched the ground. Box2D 2.3.1 rounds otherwise than the
/// 2.3.0 of pybox2d when it looks for the moment of an impact (`b2Sweep::Advance`), and a contact makes more of a last bit.
const TOLERANCE: f32 = 1e-4;

/// NumPy's default generator: PCG64 (O'Neill 2014, XSL-RR), and what it makes of its outputs.
struct Pcg64 {
    state: u128,
    increment: u128,
    /// The upper half of an output of which only the lower one was used.
    half: Option<u32>,
}

impl Pcg64 {
    fn new(words: &Value) -> Self {
        let word = |i: usize| u128::from_str_radix(words[i].as_str().unwrap(), 16).unwrap();
        Self { state: word(0), increment: word(1), half: None }
    }

    fn next_u64(&mut self) -> u64 {
        const MULTIPLIER: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    fn next_u32(&mut self) -> u32 {
        self.half.take().unwrap_or_else(|| {
            let word = self.next_u64();
            self.half = Some((word >> 32) as u32);
            word as u32
        })
    }
}

impl Chance for Pcg64 {
    fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * ((self.next_u64() >> 11) as f64 / (1u64 << 53) as f64)
    }

    /// As `integers` does it (Lemire 2019).
    fn whole(&mut self, low: i64, high: i64) -> i64 {
        let count = (high - low) as u32;
        let threshold = (u32::MAX - (count - 1)) % count;
        loop {
            let product = u64::from(self.next_u32()) * u64::from(count);
            if product as u32 >= threshold {
                return low + (product >> 32) as i64;
            }
        }
    }
}

#[test]
fn pcg64_is_numpys() {
    // numpy.random.default_rng(7): its state, then random(), integers(-9999, 9999) three times, and random().
    let state = serde_json::json!(STATE_OF_7);
    let mut generator = Pcg64::new(&state);
    assert_eq!(generator.uniform(0.0, 1.0), DRAWS_OF_7.0);
    assert_eq!([(); 3].map(|()| generator.whole(-9999, 9999)), DRAWS_OF_7.1);
    assert_eq!(generator.uniform(0.0, 1.0), DRAWS_OF_7.2);
}

const STATE_OF_7: [&str; 2] = ["9d0aecc4e7b188919ae2415a6b292038", "c4751896ce8acebf66887f5ac070d959"];
const DRAWS_OF_7: (f64, [i64; 3], f64) = (0.625095466604667, [3683, 7943, 1565], 0.22520718999059186);

/// The controller that Gymnasium lands with, in f32 as NumPy computes it: the craft is to lean towards the pad and to keep a height
/// that grows with the distance from it; with a leg on the ground it only slows down.
fn heuristic(control: Control, seen: &[f32]) -> Order {
    let [x, y, vx, vy, angle, spin, left, right] = *seen else { panic!("{seen:?}") };
    let lean = (x * 0.5 + vx).clamp(-0.4, 0.4);
    let mut turn = (lean - angle) * 0.5 - spin;
    let mut lift = (0.55 * x.abs() - y) * 0.5 - vy * 0.5;
    if left != 0.0 || right != 0.0 {
        (turn, lift) = (0.0, -vy * 0.5);
    }
    match control {
        Control::Continuous => {
            Order::Throttles([lift * 20.0 - 1.0, -turn * 20.0].map(|v| v.clamp(-1.0, 1.0)))
        }
        Control::Discrete if lift > turn.abs() && lift > 0.05 => Order::Engine(2),
        Control::Discrete if turn < -0.05 => Order::Engine(3),
        Control::Discrete if turn > 0.05 => Order::Engine(1),
        Control::Discrete => Order::Engine(0),
    }
}

fn order(rule: &str, control: Control, seen: &[f32], chance: Option<&mut Pcg64>) -> Order {
    match (rule, chance) {
        ("heuristic", _) => heuristic(control, seen),
        ("idle", _) => Order::nothing(control),
        ("random", Some(chance)) => match control {
            Control::Discrete => Order::Engine(chance.whole(0, 4) as u8),
            Control::Continuous => {
                Order::Throttles([(); 2].map(|()| (1.5 * chance.uniform(-1.0, 1.0)) as f32))
            }
        },
        other => panic!("no such rule: {}", other.0),
    }
}

fn fixture(control: Control) -> Value {
    let path = format!("{}/tests/golden/{}.json", env!("CARGO_MANIFEST_DIR"), control.id());
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn settings(control: Control, arguments: &Value) -> Settings {
    let number = |key: &str| arguments[key].as_f64();
    let wind = arguments["enable_wind"].as_bool().unwrap_or(false).then(|| WindPower {
        wind: number("wind_power").unwrap(),
        turbulence: number("turbulence_power").unwrap(),
    });
    Settings { wind, gravity: number("gravity").unwrap_or(-10.0), ..Settings::new(control) }
}

fn rounded(seen: &Seen) -> [f32; 8] {
    seen.map(|value| value as f32)
}

/// The CRC-32 of zlib.
fn crc32(bytes: impl IntoIterator<Item = u8>, before: u32) -> u32 {
    !bytes.into_iter().fold(!before, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}

/// What a replayed episode came to.
#[derive(Debug, Default)]
struct Replayed {
    /// The first step whose observation is not the recorded one to the bit, if the steps are written down.
    differs: Option<usize>,
    /// The greatest distance from a recorded observation.
    distance: f32,
    /// Whether all observations and rewards have the recorded checksum.
    same: bool,
    /// Whether it ended in the step in which the recorded one did.
    ends_alike: bool,
}

/// Replays an episode, which must be the recorded one to the bit until something touches the ground.
fn replay_one(control: Control, at: &str, episode: &Value) -> Replayed {
    let rule = episode["rule"].as_str().unwrap();
    let number = |key: &str| episode[key].as_u64().unwrap() as usize;
    let mut chance = Pcg64::new(&episode["generator"]);
    let mut actions = episode.get("actions").map(Pcg64::new);
    let (mut flight, seen) = Flight::start(&settings(control, &episode["arguments"]), &mut chance);
    let (mut obs, mut crc, mut replayed) = (rounded(&seen), 0, Replayed::default());
    let (steps, air) = (number("steps"), number("air"));
    for t in 0..steps {
        let (seen, outcome) = flight.step(order(rule, control, &obs, actions.as_mut()), &mut chance);
        obs = rounded(&seen);
        if t == air {
            assert_eq!(crc as usize, number("air_crc"), "{at}: not the same before it touches the ground");
        }
        crc = crc32(obs.into_iter().flat_map(f32::to_le_bytes).chain(outcome.reward.to_le_bytes()), crc);
        if let Some(observations) = episode.get("observations") {
            let expected: [f32; 8] = std::array::from_fn(|i| observations[t + 1][i].as_f64().unwrap() as f32);
            if obs.map(f32::to_bits) != expected.map(f32::to_bits) {
                replayed.differs.get_or_insert(t);
            }
            let distances = obs.iter().zip(&expected).map(|(got, expected)| (got - expected).abs());
            replayed.distance = distances.fold(replayed.distance, f32::max);
        }
        let ends = t + 1 == steps && episode["end"] == "t";
        if outcome.terminated != ends {
            return replayed;
        }
    }
    replayed.ends_alike = true;
    replayed.same = crc as usize == number("crc");
    replayed
}

/// Replays every episode of a recording, and prints where those that are written down first differ.
fn replay(control: Control) {
    let fixture = fixture(control);
    let episodes = fixture["episodes"].as_array().unwrap();
    let (mut same, mut alike, mut random, mut written) = (0, 0, 0, 0);
    for (number, episode) in episodes.iter().enumerate() {
        let at = format!("{}, episode {number} ({})", control.id(), episode["rule"].as_str().unwrap());
        let replayed = replay_one(control, &at, episode);
        same += usize::from(replayed.same);
        alike += usize::from(replayed.ends_alike);
        random += usize::from(episode["rule"] == "random");
        if episode.get("observations").is_some() {
            written += 1;
            println!(
                "{at}: {} steps, touches ground in step {}, {replayed:?}",
                episode["steps"], episode["air"]
            );
            assert_eq!(replayed.same, replayed.differs.is_none(), "{at}");
            assert!(replayed.ends_alike && replayed.distance <= TOLERANCE, "{at}: {replayed:?}");
        }
    }
    let all = episodes.len();
    println!("{}: {same} of {all} episodes are the same to the bit, {alike} end alike", control.id());
    assert!(random >= 20 && written >= 20);
    // A craft that has landed may fall asleep a step earlier or later.
    assert!(same * 4 > all && alike * 50 >= all * 49);
}

#[test]
fn discrete() {
    replay(Control::Discrete);
}

#[test]
fn continuous() {
    replay(Control::Continuous);
}

/// The heuristic's returns in our environment, chance and all, beside those in Gymnasium.
fn lands_as_well(control: Control, new: fn() -> LunarLander) {
    let (recorded, episodes) = (&fixture(control)["heuristic"], 200);
    assert_eq!(recorded["episodes"], episodes);
    let mut env = TimeLimit::new(new(), 1000);
    let mut obs = [0.0; 8];
    let returns: Vec<f64> = (0..episodes)
        .map(|seed| {
            env.reset(Some(seed), ObsMut::F32(&mut obs)).unwrap();
            let (mut total, mut over) = (0.0, false);
            while !over {
                let outcome = match heuristic(control, &obs) {
                    Order::Engine(engine) => env.step(Action::Discrete(engine.into()), ObsMut::F32(&mut obs)),
                    Order::Throttles(values) => env.step(Action::Box(&values), ObsMut::F32(&mut obs)),
                };
                let outcome = outcome.unwrap();
                total += outcome.reward;
                over = outcome.ended();
            }
            total
        })
        .collect();
    let n = episodes as f64;
    let mean = returns.iter().sum::<f64>() / n;
    let variance = returns.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let [expected, deviation] = ["mean", "sd"].map(|key| recorded[key].as_f64().unwrap());
    // Of the difference of two means.
    let error = ((variance + deviation * deviation) / n).sqrt();
    println!(
        "{}: {mean:.1} (sd {:.1}) and Gymnasium's {expected:.1} (sd {deviation:.1}), standard error {error:.1}",
        control.id(),
        variance.sqrt()
    );
    assert!((mean - expected).abs() <= error, "{mean} and not {expected} ± {error}");
}

#[test]
fn the_heuristic_lands_as_well() {
    lands_as_well(Control::Discrete, LunarLander::new);
}

#[test]
fn the_heuristic_lands_as_well_with_throttles() {
    lands_as_well(Control::Continuous, LunarLander::continuous);
}
