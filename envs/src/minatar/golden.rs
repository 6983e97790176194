//! Episodes recorded from the `minatar` package, replayed: tests/golden/minatar_games.py of the workspace wrote them.
//!
//! Inside the crate because chance comes from NumPy's generator here, which no environment is otherwise given.

use super::rules::{Random, Rules};
use super::*;
use serde_json::Value;

/// NumPy's legacy `RandomState`: MT19937 (Matsumoto and Nishimura, 1998), and what it makes of its outputs.
#[derive(Clone)]
struct RandomState {
    words: [u32; 624],
    next: usize,
}

impl RandomState {
    fn new(seed: u32) -> Self {
        let mut words = [seed; 624];
        for i in 1..624 {
            let last: u32 = words[i - 1];
            words[i] = 1_812_433_253u32.wrapping_mul(last ^ last >> 30).wrapping_add(i as u32);
        }
        Self { words, next: 624 }
    }

    fn word(&mut self) -> u32 {
        if self.next == 624 {
            for i in 0..624 {
                let joined = self.words[i] & 0x8000_0000 | self.words[(i + 1) % 624] & 0x7fff_ffff;
                let twist = if joined % 2 == 1 { 0x9908_b0df } else { 0 };
                self.words[i] = self.words[(i + 397) % 624] ^ joined >> 1 ^ twist;
            }
            self.next = 0;
        }
        let mut word = self.words[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= word << 7 & 0x9d2c_5680;
        word ^= word << 15 & 0xefc6_0000;
        word ^ word >> 18
    }
}

impl Random for RandomState {
    fn unit(&mut self) -> f64 {
        let (high, low) = (self.word() >> 5, self.word() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }

    /// As `randint` does it: bits that are masked until they fit, and none when there is nothing to choose.
    fn below(&mut self, n: u32) -> u32 {
        let most = n - 1;
        if most == 0 {
            return 0;
        }
        let mask = u32::MAX >> most.leading_zeros();
        loop {
            let drawn = self.word() & mask;
            if drawn <= most {
                return drawn;
            }
        }
    }
}

#[test]
fn random_state_is_numpys() {
    // numpy.random.RandomState(42): randint(6), rand(), randint(1), randint(1, 6, 4), rand().
    let mut random = RandomState::new(42);
    assert_eq!(random.below(6), 3);
    assert_eq!(random.unit(), 0.9507143064099162);
    assert_eq!(random.below(1), 0);
    assert_eq!([(); 4].map(|()| 1 + random.below(5)), [3, 5, 5, 2]);
    assert_eq!(random.unit(), 0.15599452033620265);
}

/// The CRC-32 of zlib.
fn crc32(bytes: &[u8], before: u32) -> u32 {
    !bytes.iter().fold(!before, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}

/// Eight cells a byte, the first one highest.
fn packed(obs: &[u8]) -> Vec<u8> {
    assert!(obs.iter().all(|cell| *cell <= 1));
    obs.chunks(8)
        .map(|cells| cells.iter().enumerate().fold(0, |byte, (i, cell)| byte | cell << (7 - i)))
        .collect()
}

/// The board as text, a digit a cell: its highest channel that is on.
fn text(obs: &[u8], channels: usize) -> String {
    let cell = |cell: &[u8]| cell.iter().rposition(|on| *on == 1).map_or(".".into(), |on| on.to_string());
    let row = |row: &[u8]| {
        "\n".chars().chain(row.chunks(channels).flat_map(|c| cell(c).chars().collect::<Vec<_>>())).collect()
    };
    obs.chunks(SIDE * channels).map(|cells| -> String { row(cells) }).collect()
}

fn fixture<G: Rules>() -> Value {
    let name = G::IDS[0].trim_start_matches("MinAtar/").trim_end_matches("-v0");
    let path = format!("{}/tests/golden/MinAtar-{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn number(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

fn new_play<G: Rules>(sticky: f64, ramping: bool) -> Play<G> {
    Play { game: G::default(), pressed: Button::Noop, sticky, ramping }
}

/// Replays every run of a game's recording. The most that a step and an episode brought.
fn replay<G: Game>() -> [u32; 2] {
    let fixture = fixture::<G>();
    let mut obs = vec![0; SIDE * SIDE * G::CHANNELS];
    let mut random_episodes = 0;
    let (mut terminated, mut rewards, mut ramps, mut most) = (0, 0, 0, [0; 2]);
    for (r, run) in list(&fixture["runs"]).iter().enumerate() {
        let actions = if run["actions"] == "v0" { ActionSet::Full } else { ActionSet::Minimal };
        let buttons = buttons::<G>(actions);
        let mut play = new_play::<G>(run["sticky"].as_f64().unwrap(), run["ramping"].as_bool().unwrap());
        let mut random = RandomState::new(number(&run["seed"]) as u32);
        for (e, episode) in list(&run["episodes"]).iter().enumerate() {
            let at = |step: usize| format!("{}, run {r}, episode {e}, step {step}", G::IDS[0]);
            let sums = episode["observations"].as_str().unwrap();
            let sum = |i: usize| u32::from_str_radix(&sums[4 * i..4 * i + 4], 16).unwrap();
            let steps = episode["actions"].as_str().unwrap().as_bytes();
            let (mut rewarded, mut ramped, mut total) = (Vec::new(), Vec::new(), 0);

            play.game.reset(&mut random);
            play.observe(&mut obs);
            let mut crc = crc32(&packed(&obs), 0);
            assert_eq!(crc & 0xffff, sum(0), "{}, reset{}", at(0), text(&obs, G::CHANNELS));
            for (t, action) in steps.iter().enumerate() {
                let ramp = play.game.difficulty_ramp();
                let played = play.act(buttons[usize::from(action - b'0')], &mut random);
                play.observe(&mut obs);
                crc = crc32(&packed(&obs), crc);
                assert_eq!(crc & 0xffff, sum(t + 1), "{}{}", at(t), text(&obs, G::CHANNELS));
                total += played.reward;
                most = [most[0].max(played.reward), most[1].max(total)];
                if played.reward > 0 {
                    rewarded.push(serde_json::json!([t, played.reward]));
                }
                if play.game.difficulty_ramp() != ramp {
                    ramped.push(Value::from(t));
                }
                let ends = t + 1 == steps.len() && episode["terminated"].as_bool().unwrap();
                assert_eq!(played.terminated, ends, "{}", at(t));
                terminated += usize::from(ends);
                assert!(play.game.is_valid(), "{}: {:?}", at(t), play.game);
            }
            assert_eq!(u64::from(crc), episode["crc"].as_u64().unwrap(), "{}", at(steps.len()));
            assert_eq!(rewarded, list(&episode["rewards"]), "{}", at(steps.len()));
            assert_eq!(ramped, list(&episode["ramps"]), "{}", at(steps.len()));
            rewards += rewarded.len();
            ramps += ramped.len();
            random_episodes += usize::from(run["rule"] == "randomly");
        }
    }
    // The recording is only worth something if it has all that in it.
    assert!(random_episodes >= 20 && terminated >= 2 && rewards >= 20);
    assert_eq!(ramps >= 5, G::default().difficulty_ramp().is_some(), "{ramps} ramps");

    for long in list(&fixture["long"]) {
        replay_long::<G>(long);
    }
    most
}

/// Replays a run of which only a checksum is known. One with a cut goes on beyond the end of its episodes.
fn replay_long<G: Game>(long: &Value) {
    let mut obs = vec![0; SIDE * SIDE * G::CHANNELS];
    let mut play = new_play::<G>(STICKY, true);
    let mut random = RandomState::new(number(&long["seed"]) as u32);
    let mut actions = RandomState::new(number(&long["action_seed"]) as u32);
    let cut = long["cut"].as_u64();
    play.game.reset(&mut random);
    let (mut crc, mut ends, mut total, mut length) = (0, 0, 0, 0);
    for _ in 0..number(&long["steps"]) {
        let played = play.act(Button::ALL[actions.below(6) as usize], &mut random);
        total += if played.terminated { 0 } else { played.reward as usize };
        ends += usize::from(played.terminated);
        length += 1;
        play.observe(&mut obs);
        crc = crc32(&packed(&obs), crc);
        if cut.map_or(played.terminated, |cut| length == cut) {
            length = 0;
            play.game.reset(&mut random);
            play.observe(&mut obs);
            crc = crc32(&packed(&obs), crc);
        }
    }
    let expected = ["crc", "ends", "reward"].map(|key| number(&long[key]));
    assert_eq!([crc as usize, ends, total], expected, "{}, cut {cut:?}", G::IDS[0]);
}

/// Ids, spaces, buttons, settings and colors.
fn compare_specs<G: Game>() {
    let fixture = fixture::<G>();
    for (actions, expected) in [ActionSet::Full, ActionSet::Minimal].into_iter().zip(list(&fixture["specs"]))
    {
        let env = MinAtar::<G>::new(actions);
        let spec = env.spec();
        assert_eq!(spec.id, expected["id"]);
        assert_eq!(expected["dtype"], "bool", "bytes of 0 and 1 here");
        let Space::Box { dtype: Dtype::U8, low, high, shape } = &spec.observation else {
            panic!("{} has {}", spec.id, spec.observation)
        };
        assert!(low.iter().all(|v| *v == 0.0) && high.iter().all(|v| *v == 1.0));
        assert_eq!(shape.iter().map(|side| Value::from(*side)).collect::<Vec<_>>(), list(&expected["shape"]));
        assert_eq!(spec.action, Space::Discrete { n: number(&expected["n"]) });
        let buttons: Vec<_> = list(&expected["buttons"]).iter().map(|i| Button::ALL[number(i)]).collect();
        assert_eq!(env.buttons(), buttons);
        assert_eq!(spec.max_episode_steps.map(u64::from), expected["max_episode_steps"].as_u64());
        assert_eq!(spec.reward_threshold, expected["reward_threshold"].as_f64());
        assert_eq!(Some(env.play.sticky), expected["sticky"].as_f64());
    }
    for (channel, expected) in list(&fixture["palette"]).iter().enumerate() {
        let Rgb(red, green, blue) = color(channel, G::CHANNELS);
        assert_eq!([red, green, blue].map(Value::from), list(expected), "channel {channel}");
    }
}

#[test]
fn asterix() {
    replay::<Asterix>();
    compare_specs::<Asterix>();
}

#[test]
fn breakout() {
    let [_, episode] = replay::<Breakout>();
    assert!(episode > 30, "no wall was broken down");
    compare_specs::<Breakout>();
}

#[test]
fn freeway() {
    replay::<Freeway>();
    compare_specs::<Freeway>();
}

#[test]
fn seaquest() {
    let [step, _] = replay::<Seaquest>();
    assert!(step > 1, "six divers were never delivered");
    compare_specs::<Seaquest>();
}

#[test]
fn space_invaders() {
    let [_, episode] = replay::<SpaceInvaders>();
    assert!(episode > 24, "no wave was shot down");
    compare_specs::<SpaceInvaders>();
}
