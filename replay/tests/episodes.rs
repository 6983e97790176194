//! Whole episodes and windows against a plain list of the episodes that were stored.

use proptest::prelude::*;
use rand::SeedableRng;
use rl_replay::{
    Batch, DrawnEpisodes, Dtype, EpisodeReader, EpisodeWriter, Field, MemoryState, Piece, Replay,
    ReplayError, Rng, Schema,
};
use std::ops::Range;

const MAX_STEPS: usize = 12;

fn step_schema() -> Schema {
    Schema::new(vec![Field::new("obs", Dtype::F32, [3]), Field::new("flag", Dtype::U8, [])]).unwrap()
}

/// A step that says where it is from, and is never zero.
fn step(environment: usize, serial: usize) -> [Vec<u8>; 2] {
    let obs = [environment as f32 + 1.0, serial as f32 + 1.0, 0.5];
    [obs.iter().flat_map(|x| x.to_ne_bytes()).collect(), vec![serial as u8 | 1]]
}

fn build(capacity: usize, reserve: usize) -> Replay {
    let rows = EpisodeWriter::schema(&step_schema()).unwrap();
    Replay::builder(rows).capacity(capacity).reserve(reserve).build().unwrap()
}

/// What is stored: of each episode its environment, and the serial of each step there.
#[derive(Clone, Default)]
struct Model {
    episodes: Vec<(usize, Vec<usize>)>,
    /// Of each environment, the steps not stored yet, and the next step's serial.
    open: Vec<(Vec<usize>, usize)>,
}

impl Model {
    fn inserted(&self) -> u64 {
        self.episodes.iter().map(|(_, steps)| steps.len() as u64).sum()
    }

    /// Key of the first row of each episode, and the episode.
    fn with_keys(&self) -> impl Iterator<Item = (u64, &(usize, Vec<usize>))> {
        self.episodes.iter().scan(0, |key, episode| {
            let start = *key;
            *key += episode.1.len() as u64;
            Some((start, episode))
        })
    }

    fn oldest(&self, capacity: usize) -> u64 {
        self.inserted().saturating_sub(capacity as u64)
    }

    /// Where a window of `length` may begin, and its episode's rows from there.
    fn windows(&self, capacity: usize, length: usize) -> Vec<(u64, usize, &[usize])> {
        let oldest = self.oldest(capacity);
        let mut windows = Vec::new();
        for (start, (environment, steps)) in self.with_keys() {
            for (at, window) in steps.windows(length).enumerate() {
                if start + at as u64 >= oldest {
                    windows.push((start + at as u64, *environment, window));
                }
            }
        }
        windows
    }

    fn whole(&self, capacity: usize) -> Vec<(u64, usize, &[usize])> {
        let oldest = self.oldest(capacity);
        let live = self.with_keys().filter(|(start, _)| *start >= oldest);
        live.map(|(start, (environment, steps))| (start, *environment, steps.as_slice())).collect()
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// So many steps of an environment, the last of which ends its episode or not.
    Steps(usize, usize, bool),
    Finish(usize),
    Clear(usize),
    Episodes(usize),
    Windows(usize, usize),
    /// Keeps the state, or goes back to the one kept, under the same readers.
    Save,
    Load,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        10 => (0usize..3, 1usize..20, any::<bool>()).prop_map(|(e, steps, ends)| Op::Steps(e, steps, ends)),
        1 => (0usize..3).prop_map(Op::Finish),
        1 => (0usize..3).prop_map(Op::Clear),
        4 => (0usize..6).prop_map(Op::Episodes),
        4 => (0usize..6, 1usize..MAX_STEPS + 3).prop_map(|(count, length)| Op::Windows(count, length)),
        1 => Just(Op::Save),
        1 => Just(Op::Load),
    ];
    prop::collection::vec(op, 1..80)
}

/// Checks the rows at `place` of a batch `[B, length]` against steps of an environment, padding included.
fn check(batch: &Batch, place: usize, length: usize, environment: usize, steps: &[usize]) {
    for t in 0..length {
        let row = place * length + t;
        let cells = [0, 1].map(|position| {
            let bytes = step_schema().fields()[position].row_bytes();
            batch.column(position)[row * bytes..][..bytes].to_vec()
        });
        match steps.get(t) {
            Some(&serial) => assert_eq!(cells, step(environment, serial)),
            None => {
                assert_eq!(cells, [vec![0; 12], vec![0; 1]]);
                assert_eq!(batch.typed::<i32>("episode_step").unwrap()[row], 0);
                assert_eq!(batch.typed::<i32>("episode_left").unwrap()[row], 0);
            }
        }
    }
}

/// Draws by a reader that has been there all along and by one made just now; both must draw the same.
fn draw(
    replay: &Replay,
    old: &mut EpisodeReader,
    rng: &mut Rng,
    rows: usize,
    draw: impl Fn(&mut EpisodeReader, &mut Rng, &mut Batch, &mut DrawnEpisodes) -> Result<(), ReplayError>,
) -> Result<(Batch, DrawnEpisodes), ReplayError> {
    let mut fresh = EpisodeReader::new(replay).unwrap();
    let mut same = rng.clone();
    let go = |reader: &mut EpisodeReader, rng: &mut Rng| {
        let (mut batch, mut drawn) = (Batch::new(replay.schema(), rows), DrawnEpisodes::default());
        (0..batch.schema().fields().len()).for_each(|position| batch.column_mut(position).fill(9));
        draw(reader, rng, &mut batch, &mut drawn).map(|()| (batch, drawn))
    };
    let (result, other) = (go(old, rng), go(&mut fresh, &mut same));
    if let (Ok((_, a)), Ok((_, b))) = (&result, &other) {
        assert_eq!((&a.starts.rows, &a.lengths, &a.mask), (&b.starts.rows, &b.lengths, &b.mask));
    }
    assert_eq!(result.is_ok(), other.is_ok());
    result
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn what_is_drawn_is_what_was_stored(
        capacity in MAX_STEPS..70,
        max_steps in 1..=MAX_STEPS,
        ops in ops(),
        seed: u64,
    ) {
        let replay = build(capacity, MAX_STEPS);
        let new_writers = || -> Vec<EpisodeWriter> {
            (0..3).map(|_| EpisodeWriter::new(&replay, max_steps).unwrap()).collect()
        };
        let mut writers = new_writers();
        let mut reader = EpisodeReader::new(&replay).unwrap();
        let mut model = Model { open: vec![(vec![], 0); 3], ..Model::default() };
        let mut rng = Rng::seed_from_u64(seed);
        let mut kept: Option<(MemoryState, Vec<MemoryState>, Model)> = None;
        for op in ops {
            match op {
                Op::Steps(environment, steps, ends) => for t in 0..steps {
                    let (open, serial) = &mut model.open[environment];
                    let ended = ends && t + 1 == steps;
                    let cells = step(environment, *serial);
                    let stored = writers[environment]
                        .push(&cells.each_ref().map(Vec::as_slice), ended).unwrap();
                    open.push(*serial);
                    *serial += 1;
                    if ended || open.len() == max_steps {
                        prop_assert_eq!(stored, open.len());
                        model.episodes.push((environment, std::mem::take(open)));
                    } else {
                        prop_assert_eq!(stored, 0);
                    }
                    prop_assert_eq!(writers[environment].open_steps(), model.open[environment].0.len());
                },
                Op::Finish(environment) => {
                    let open = std::mem::take(&mut model.open[environment].0);
                    prop_assert_eq!(writers[environment].finish().unwrap(), open.len());
                    if !open.is_empty() {
                        model.episodes.push((environment, open));
                    }
                }
                Op::Clear(environment) => {
                    writers[environment].clear();
                    model.open[environment].0.clear();
                }
                Op::Episodes(count) => {
                    let whole = model.whole(capacity);
                    prop_assert_eq!(reader.episodes().unwrap(), whole.len());
                    let length = MAX_STEPS + 1;
                    let result = draw(&replay, &mut reader, &mut rng, count * length, |reader, rng, batch, drawn| {
                        reader.sample_episodes(rng, count, length, &mut batch.view_mut(), drawn)
                    });
                    if whole.is_empty() {
                        prop_assert!(result.is_err());
                        continue;
                    }
                    let (batch, drawn) = result.unwrap();
                    prop_assert_eq!(drawn.starts.rows.len(), count);
                    prop_assert_eq!(drawn.starts.population, whole.len() as u64);
                    prop_assert_eq!(&drawn.starts.probabilities, &vec![1.0 / whole.len() as f64; count]);
                    for (place, start) in drawn.starts.rows.iter().enumerate() {
                        let (_, environment, steps) = whole.iter().find(|(key, ..)| key == start).unwrap();
                        check(&batch, place, length, *environment, steps);
                        prop_assert_eq!(drawn.lengths[place], steps.len());
                        let mask = &drawn.mask[place * length..][..length];
                        prop_assert!(mask.iter().enumerate().all(|(t, m)| *m == f32::from(t < steps.len())));
                    }
                }
                Op::Windows(count, length) => {
                    let windows = model.windows(capacity, length);
                    let result = draw(&replay, &mut reader, &mut rng, count * length, |reader, rng, batch, drawn| {
                        reader.sample_windows(rng, count, length, &mut batch.view_mut(), drawn)
                    });
                    if windows.is_empty() {
                        prop_assert!(result.is_err());
                        continue;
                    }
                    let (batch, drawn) = result.unwrap();
                    prop_assert_eq!(drawn.starts.rows.len(), count);
                    prop_assert_eq!(drawn.starts.population, windows.len() as u64);
                    prop_assert_eq!(&drawn.starts.probabilities, &vec![1.0 / windows.len() as f64; count]);
                    for (place, start) in drawn.starts.rows.iter().enumerate() {
                        let (_, environment, steps) = windows.iter().find(|(key, ..)| key == start).unwrap();
                        check(&batch, place, length, *environment, steps);
                        prop_assert_eq!(drawn.lengths[place], length);
                    }
                    prop_assert!(drawn.mask.len() == count * length && drawn.mask.iter().all(|m| *m == 1.0));
                }
                Op::Save => {
                    let of_writers = writers.iter_mut().map(|w| MemoryState::save(|v| w.visit(v)).unwrap());
                    let of_writers = of_writers.collect();
                    kept = Some((MemoryState::save(|v| replay.visit(v)).unwrap(), of_writers, model.clone()));
                }
                Op::Load => if let Some((of_replay, of_writers, then)) = &kept {
                    of_replay.load(|v| replay.visit(v)).unwrap();
                    writers = new_writers();
                    for (writer, saved) in writers.iter_mut().zip(of_writers) {
                        saved.load(|v| writer.visit(v)).unwrap();
                    }
                    model = then.clone();
                },
            }
            prop_assert_eq!(replay.inserted(), model.inserted());
        }
    }
}

/// The value that χ² of this many degrees of freedom exceeds with probability 1e-6 (Wilson and Hilferty 1931).
fn chi2_limit(degrees: f64) -> f64 {
    let (z, spread) = (4.753_424, 2.0 / (9.0 * degrees));
    degrees * (1.0 - spread + z * spread.sqrt()).powi(3)
}

/// Draws `batches` times and wants every start in `expected` to come up equally often.
fn uniform_over(
    expected: &[u64],
    batches: usize,
    mut draw: impl FnMut(&mut Rng, &mut DrawnEpisodes) -> Result<(), ReplayError>,
) {
    let (mut rng, mut drawn) = (Rng::seed_from_u64(31), DrawnEpisodes::default());
    let mut counts = vec![0u64; expected.len()];
    for _ in 0..batches {
        draw(&mut rng, &mut drawn).unwrap();
        for start in &drawn.starts.rows {
            counts[expected.binary_search(start).expect("only these can be drawn")] += 1;
        }
    }
    let mean = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
    // One start left out of very many would hardly show in χ².
    assert!(mean > 50.0 && counts.iter().all(|count| *count > 0), "some were never drawn");
    let chi2: f64 = counts.iter().map(|count| (*count as f64 - mean).powi(2) / mean).sum();
    let limit = chi2_limit(counts.len() as f64 - 1.0);
    assert!(chi2 < limit, "χ² = {chi2}, limit {limit}, {} cells", counts.len());
}

/// A full ring, whose first episode is partly overwritten, of episodes as long as `lengths` says again and again.
fn filled(capacity: usize, lengths: impl Iterator<Item = usize>) -> (Replay, Vec<Range<u64>>) {
    let replay = build(capacity, 64);
    let mut writer = EpisodeWriter::new(&replay, 64).unwrap();
    let mut episodes = Vec::new();
    for steps in lengths {
        let start = replay.inserted();
        for t in 0..steps {
            let cells = step(0, t);
            writer.push(&cells.each_ref().map(Vec::as_slice), t + 1 == steps).unwrap();
        }
        episodes.push(start..start + steps as u64);
    }
    (replay, episodes)
}

#[test]
fn episodes_come_equally_often_whatever_their_length() {
    let (replay, episodes) = filled(1_000, (0..200).map(|i| 1 + (i * 7) % 23));
    let oldest = replay.live().start;
    let whole: Vec<u64> = episodes.iter().map(|e| e.start).filter(|start| *start >= oldest).collect();
    assert!(episodes.iter().any(|e| e.start < oldest && e.end > oldest), "one is partly overwritten");
    let mut reader = EpisodeReader::new(&replay).unwrap();
    let mut batch = Batch::new(replay.schema(), 50 * 23);
    uniform_over(&whole, 4_000, |rng, drawn| {
        reader.sample_episodes(rng, 50, 23, &mut batch.view_mut(), drawn)
    });
}

#[test]
fn windows_come_equally_often_wherever_they_begin() {
    // Where many rows begin a window, and where so few do that they are counted through.
    let lengths: [Box<dyn Fn(usize) -> usize>; 2] =
        [Box::new(|i| 1 + (i * 7) % 23), Box::new(|i| if i % 200 == 0 { 12 } else { 1 + i % 4 })];
    for of in lengths {
        let (replay, episodes) = filled(1_500, (0..1_405).map(of));
        let oldest = replay.live().start;
        for length in [1, 8] {
            let starts: Vec<u64> = episodes
                .iter()
                .flat_map(|episode| {
                    episode.start..(episode.end + 1).saturating_sub(length as u64).max(episode.start)
                })
                .filter(|start| *start >= oldest)
                .collect();
            let mut reader = EpisodeReader::new(&replay).unwrap();
            let mut batch = Batch::new(replay.schema(), 50 * length);
            uniform_over(&starts, 4_000, |rng, drawn| {
                reader.sample_windows(rng, 50, length, &mut batch.view_mut(), drawn)
            });
        }
    }
}

#[test]
fn the_rows_of_an_episode_that_is_partly_overwritten_still_make_windows() {
    let (replay, episodes) = filled(64, [40, 30, 20].into_iter());
    let oldest = replay.live().start;
    assert_eq!((oldest, &episodes[0]), (26, &(0..40)));
    let starts: Vec<u64> = (26..=36).chain(40..=66).chain(70..=86).collect();
    let mut reader = EpisodeReader::new(&replay).unwrap();
    let mut batch = Batch::new(replay.schema(), 20 * 4);
    uniform_over(&starts, 2_000, |rng, drawn| {
        reader.sample_windows(rng, 20, 4, &mut batch.view_mut(), drawn)
    });
    assert_eq!(reader.episodes().unwrap(), 2);
}

#[test]
fn what_does_not_fit_is_refused_with_the_remedy() {
    let rows = EpisodeWriter::schema(&step_schema()).unwrap();
    let text = |error: ReplayError| error.to_string();
    let writer = |replay: &Replay, max_steps| text(EpisodeWriter::new(replay, max_steps).unwrap_err());
    assert!(writer(&build(100, 10), 11).contains("takes 10 rows at once; build it with a `reserve`"));
    assert!(writer(&build(9, 10), 10).contains("takes 9 rows at once"));
    assert!(writer(&build(9, 10), 0).contains("max_steps is 0"));
    assert!(writer(&build(9, 10), usize::MAX).contains("max_steps is"));
    let plain = Replay::builder(step_schema()).capacity(10).build().unwrap();
    assert!(writer(&plain, 5).contains("no 'episode_step' that is one i32"));
    assert!(text(EpisodeReader::new(&plain).unwrap_err()).contains("EpisodeWriter::schema"));
    let mut fields = rows.fields().to_vec();
    fields.rotate_right(1);
    let rotated = Replay::builder(Schema::new(fields).unwrap()).capacity(10).build().unwrap();
    assert!(writer(&rotated, 5).contains("the last two fields"));
    let twice = EpisodeWriter::schema(&rows).unwrap_err();
    assert!(text(twice).contains("two fields are called 'episode_step'"));

    let replay = build(100, 20);
    let mut reader = EpisodeReader::new(&replay).unwrap();
    let (mut rng, mut drawn) = (Rng::seed_from_u64(1), DrawnEpisodes::default());
    let mut batch = Batch::new(&rows, 30);
    assert_eq!(reader.episodes().unwrap(), 0);
    let mut episodes = |reader: &mut EpisodeReader, count, length| {
        text(reader.sample_episodes(&mut rng, count, length, &mut batch.view_mut(), &mut drawn).unwrap_err())
    };
    assert!(episodes(&mut reader, 1, 5).contains("no row to draw from"));
    let mut writer = EpisodeWriter::new(&replay, 20).unwrap();
    for t in 0..7 {
        let cells = step(0, t);
        writer.push(&cells.each_ref().map(Vec::as_slice), t == 6).unwrap();
    }
    assert!(episodes(&mut reader, 1, 6).contains("the episode at row 0 has 7 steps, and the batch has 6"));
    assert!(episodes(&mut reader, 5, 7).contains("35 rows do not fit into a batch of 30"));
    assert!(episodes(&mut reader, usize::MAX, 7).contains("do not fit"));
    assert!(episodes(&mut reader, 1, 0).contains("length is 0"));
    let long = reader.sample_windows(&mut rng, 1, 8, &mut batch.view_mut(), &mut drawn).unwrap_err();
    assert!(text(long).contains("no episode is live over 8 consecutive steps"));
    assert!(drawn.lengths.is_empty() && batch.column(0).iter().all(|byte| *byte == 0));

    // Of an episode whose first rows are gone none is drawn.
    let small = build(20, 20);
    let mut of_small = EpisodeReader::new(&small).unwrap();
    let mut writer_of_small = EpisodeWriter::new(&small, 20).unwrap();
    for t in 0..20 {
        let cells = step(0, t);
        writer_of_small.push(&cells.each_ref().map(Vec::as_slice), t == 19).unwrap();
    }
    small.writer().push(&[&[0; 12], &[0], &[0xff; 4], &[0xff; 4]]).unwrap();
    let none = of_small.sample_episodes(&mut rng, 1, 20, &mut batch.view_mut(), &mut drawn).unwrap_err();
    assert!(text(none).contains("no episode is live as a whole"));

    // Rows in the middle of nothing belong to no episode, and do no harm.
    for _ in 0..3 {
        replay.writer().push(&[&[1; 12], &[1], &2i32.to_ne_bytes(), &0i32.to_ne_bytes()]).unwrap();
    }
    for _ in 0..50 {
        reader.sample_windows(&mut rng, 4, 2, &mut batch.view_mut(), &mut drawn).unwrap();
        assert_eq!((drawn.starts.population, reader.episodes().unwrap()), (6, 1));
        assert!(drawn.starts.rows.iter().all(|start| *start < 6));
    }

    // Rows that no episode writer wrote: a head whose episode is not there, and what makes no sense at all.
    for position in [0i32, -1] {
        let (obs, flag) = ([1u8; 12], [1u8]);
        replay.writer().push(&[&obs, &flag, &position.to_ne_bytes(), &2i32.to_ne_bytes()]).unwrap();
    }
    for t in 0..3 {
        let cells = step(0, t);
        writer.push(&cells.each_ref().map(Vec::as_slice), t == 2).unwrap();
    }
    let mut refused = 0;
    for _ in 0..50 {
        match reader.sample_episodes(&mut rng, 1, 7, &mut batch.view_mut(), &mut drawn) {
            Ok(()) => {}
            Err(error) => {
                assert!(text(error).contains("rows 10 to 12 are not those of an episode"));
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
}

#[test]
fn a_refused_step_changes_nothing_and_states_are_checked() {
    let replay = build(100, 20);
    let mut writer = EpisodeWriter::new(&replay, 5).unwrap();
    let [obs, flag] = step(0, 0);
    writer.push(&[&obs, &flag], false).unwrap();
    let before = MemoryState::save(|v| writer.visit(v)).unwrap();
    let nan: Vec<u8> = [1.0, f32::NAN, 1.0].iter().flat_map(|x| x.to_ne_bytes()).collect();
    for (bad, part) in [([&nan[..], &flag], "'obs'"), ([&obs[..4], &flag], "'obs'"), ([&obs, &[]], "'flag'")]
    {
        let message = writer.push(&bad, true).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
        assert_eq!(MemoryState::save(|v| writer.visit(v)).unwrap(), before);
    }
    assert!(replay.is_empty());
    let mut damaged = before.clone();
    let Some(Piece::Array { bytes, .. }) = damaged.get_mut("open") else { panic!() };
    bytes[0] = 5;
    assert!(damaged.load(|v| writer.visit(v)).unwrap_err().to_string().contains("5 open steps"));
    let mut damaged = before.clone();
    damaged.remove("flag");
    assert!(damaged.load(|v| writer.visit(v)).is_err());
    assert_eq!(MemoryState::save(|v| writer.visit(v)).unwrap(), before);
    assert_eq!(writer.push(&[&obs, &flag], true).unwrap(), 2);
}

/// Writers on threads of their own, a ring that goes around many times, and a reader meanwhile.
#[test]
fn episodes_stay_whole_under_threads() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let replay = build(500, 40);
    let stop = AtomicBool::new(false);
    let draws = std::thread::scope(|scope| {
        for environment in 0..3usize {
            let (replay, stop) = (&replay, &stop);
            scope.spawn(move || {
                let mut writer = EpisodeWriter::new(replay, 30).unwrap();
                let mut episode = 0;
                while !stop.load(Ordering::Relaxed) {
                    let steps = 1 + (episode * 11 + environment) % 30;
                    for t in 0..steps {
                        let obs = [environment as f32, (episode % 10_000) as f32, t as f32];
                        let flag = [steps as u8];
                        writer.push(&[bytemuck::cast_slice(&obs), &flag], t + 1 == steps).unwrap();
                    }
                    episode += 1;
                }
            });
        }
        let mut reader = EpisodeReader::new(&replay).unwrap();
        let (mut rng, mut drawn) = (Rng::seed_from_u64(2), DrawnEpisodes::default());
        let mut batch = Batch::new(replay.schema(), 8 * 30);
        let mut draws = 0;
        // As long as it takes on a busy machine, but not for ever.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while (draws < 1_000 || replay.inserted() < 50_000) && std::time::Instant::now() < end {
            let result = reader.sample_episodes(&mut rng, 8, 30, &mut batch.view_mut(), &mut drawn);
            let whole = result.is_ok();
            if !whole && reader.sample_windows(&mut rng, 8, 30, &mut batch.view_mut(), &mut drawn).is_err() {
                continue; // nothing there yet
            }
            let (obs, flag) = (batch.typed::<f32>("obs").unwrap(), batch.typed::<u8>("flag").unwrap());
            for (place, &steps) in drawn.lengths.iter().enumerate() {
                let row = place * 30;
                assert_eq!(flag[row] as usize, steps);
                for t in 0..steps {
                    let now = &obs[(row + t) * 3..][..3];
                    assert_eq!((now[0], now[1], now[2]), (obs[row * 3], obs[row * 3 + 1], t as f32));
                }
            }
            draws += 1;
        }
        stop.store(true, Ordering::Relaxed);
        draws
    });
    assert!(draws >= 1_000 && replay.inserted() >= 50_000, "{draws} draws, {} rows", replay.inserted());
}
