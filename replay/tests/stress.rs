//! Four writers, two samplers, priority updates, and a snapshot to a file every second: no row is torn, none is lost, no
//! priority goes to another row than the one it was made for, and memory stays flat.
//!
//! Some seconds of it belong to the tests; `scripts/stress 600` goes on for ten minutes.

use rand::SeedableRng;
use rl_replay::{Batch, Drawn, MemoryState, Piece, Prioritized, Replay, Rng, Row, row};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

const WRITERS: usize = 4;
const SAMPLERS: usize = 2;
const CAPACITY: usize = 1 << 16;
const BATCH: usize = 64;
const WORDS: usize = 12;
/// Rows that one call of `push_rows` inserts.
const TOGETHER: usize = 8;
/// Batches that the second sampler keeps back before it sends their priorities, so that many rows have gone by then.
const KEPT_BACK: usize = 2_000;
/// The magnitude of a row that is new; others stay below. One less is a prime, so that rows of one slot differ in theirs.
const NEW: u64 = 8_192;

row! {
    #[derive(Clone, Copy, PartialEq)]
    struct Numbered {
        writer: i64,
        number: i64,
        words: [i64; WORDS],
        sum: i64,
    }
}

impl Numbered {
    fn new(writer: i64, number: i64) -> Self {
        let words = std::array::from_fn(|place| mix((writer << 56) ^ (number << 8) ^ place as i64));
        let sum = words.iter().fold(mix(writer ^ number), |sum, word| mix(sum ^ word));
        Self { writer, number, words, sum }
    }

    fn is_whole(&self) -> bool {
        let whole =
            (0..WRITERS as i64).contains(&self.writer) && *self == Self::new(self.writer, self.number);
        if !whole {
            eprintln!(
                "torn: writer {}, number {}, {:?}, sum {}",
                self.writer, self.number, self.words, self.sum
            );
        }
        whole
    }
}

/// The finaliser of splitmix64.
fn mix(x: i64) -> i64 {
    let mut x = x as u64;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) as i64
}

/// The magnitude of a row, by which its priority can be told from that of any other: a whole number in 1..NEW. With α = 1
/// and ε = 0 it is the priority.
fn magnitude(key: u64) -> f32 {
    (key % (NEW - 1) + 1) as f32
}

fn build() -> Replay {
    let settings = Prioritized { alpha: 1.0, epsilon: 0.0 };
    Replay::builder(Numbered::schema().clone()).capacity(CAPACITY).prioritized(settings).build().unwrap()
}

/// What went wrong, and how much was looked at.
#[derive(Default)]
struct Counts {
    torn: AtomicU64,
    lost: AtomicU64,
    wrong_priorities: AtomicU64,
    drawn: AtomicU64,
    priorities: AtomicU64,
    snapshots: AtomicU64,
    rows_of_snapshots: AtomicU64,
}

/// What a writer was told: how many rows it inserted, and the key of the newest that it knows the key of.
#[derive(Default)]
struct Acknowledged {
    rows: AtomicU64,
    /// The key + 1, and the row's number.
    newest: Mutex<(u64, u64)>,
}

fn write(replay: &Replay, writer: usize, told: &Acknowledged, stop: &AtomicBool) {
    let (mut handle, mut number) = (replay.writer(), 0);
    let mut last_key = None;
    while !stop.load(SeqCst) {
        if number % 97 == 0 {
            let rows: [Numbered; TOGETHER] =
                std::array::from_fn(|ahead| Numbered::new(writer as i64, number + ahead as i64));
            let column = |of: fn(&Numbered) -> i64| rows.map(|row| of(&row));
            let (writers, numbers, sums) = (column(|r| r.writer), column(|r| r.number), column(|r| r.sum));
            let words = rows.map(|row| row.words);
            let columns = [&writers, &numbers, words.as_flattened(), &sums];
            handle.push_rows(TOGETHER, &columns.map(|column: &[i64]| bytemuck::cast_slice(column))).unwrap();
            number += TOGETHER as i64;
        } else {
            let key = handle.push_row(&Numbered::new(writer as i64, number)).unwrap();
            assert!(last_key.is_none_or(|last| last < key), "keys ascend");
            last_key = Some(key);
            *told.newest.lock().unwrap() = (key + 1, number as u64);
            number += 1;
        }
        told.rows.store(number as u64, SeqCst);
    }
}

fn sample(replay: &Replay, sampler: usize, counts: &Counts, stop: &AtomicBool) {
    let (mut handle, mut rng) = (replay.sampler(), Rng::seed_from_u64(sampler as u64));
    let (mut batch, mut drawn) = (Batch::new(replay.schema(), BATCH), Drawn::default());
    let mut kept_back = VecDeque::with_capacity(KEPT_BACK + 1);
    // The rows seen under the newest keys, for a key never gets another row.
    let mut seen = vec![(u64::MAX, 0, 0); CAPACITY];
    let mut magnitudes = Vec::with_capacity(BATCH);
    while !stop.load(SeqCst) {
        handle.sample_into(&mut rng, BATCH, &mut batch.view_mut(), &mut drawn).unwrap();
        let columns = Numbered::columns(&batch).unwrap();
        for (place, &key) in drawn.rows.iter().enumerate() {
            let row = Numbered::get(&columns, place);
            let known = &mut seen[key as usize % CAPACITY];
            let changed = known.0 == key && (known.1, known.2) != (row.writer, row.number);
            *known = (key, row.writer, row.number);
            if !row.is_whole() || changed {
                counts.torn.fetch_add(1, SeqCst);
            }
        }
        counts.drawn.fetch_add(BATCH as u64, SeqCst);
        // A list is used again, so that memory can be seen to be flat.
        let mut keys = if kept_back.len() < KEPT_BACK {
            Vec::with_capacity(BATCH)
        } else {
            kept_back.pop_front().unwrap()
        };
        if sampler == 0 || !keys.is_empty() {
            let keys: &[u64] = if sampler == 0 { &drawn.rows } else { &keys };
            magnitudes.clear();
            magnitudes.extend(keys.iter().map(|key| magnitude(*key)));
            handle.update_priorities(keys, &magnitudes).unwrap();
            counts.priorities.fetch_add(BATCH as u64, SeqCst);
        }
        if sampler > 0 {
            keys.clear();
            keys.extend_from_slice(&drawn.rows);
            kept_back.push_back(keys);
        }
    }
}

/// Looks at every row and priority of a buffer, as the writers were told: `told` was read before it was saved.
fn check_all(saved: &Replay, told: &[(u64, u64)], counts: &Counts) -> [Option<i64>; WRITERS] {
    let live = saved.live();
    let mut newest = [None; WRITERS];
    let mut reader = saved.sampler();
    let pinned = reader.pin().unwrap();
    let mut batch = Batch::new(saved.schema(), 1_024);
    let keys: Vec<u64> = live.clone().collect();
    for keys in keys.chunks(batch.rows()) {
        pinned.gather(keys, &mut batch.view_mut()).unwrap();
        let columns = Numbered::columns(&batch).unwrap();
        for (place, &key) in keys.iter().enumerate() {
            let row = Numbered::get(&columns, place);
            if !row.is_whole() {
                counts.torn.fetch_add(1, SeqCst);
                continue;
            }
            // A writer's rows are numbered in the order of their keys, so a gap is a loss.
            let of_writer = &mut newest[row.writer as usize];
            let gap = of_writer.is_some_and(|before| row.number != before + 1);
            if gap && counts.lost.fetch_add(1, SeqCst) < 10 {
                eprintln!("lost: after {of_writer:?} of writer {} comes {}", row.writer, row.number);
            }
            *of_writer = Some(row.number);
            // The newest row that this writer had been told of, if it is live, is where it was told to be.
            let (told_key, told_number) = told[row.writer as usize];
            if told_key == key + 1 && told_number != row.number as u64 {
                counts.lost.fetch_add(1, SeqCst);
            }
        }
    }
    for (writer, (told_key, told_number)) in told.iter().enumerate() {
        let is_live = *told_key > 0 && live.contains(&(told_key - 1));
        if is_live && newest[writer].is_none_or(|newest| (newest as u64) < *told_number) {
            eprintln!("lost: number {told_number} of writer {writer}, key {}", told_key - 1);
            counts.lost.fetch_add(1, SeqCst);
        }
    }
    drop(pinned);
    let state = MemoryState::save(|v| saved.visit(v)).unwrap();
    let Some(Piece::Array { bytes, .. }) = state.get("sampler.priorities") else { panic!("no priorities") };
    let priorities: Vec<f64> = bytemuck::pod_collect_to_vec(bytes);
    assert_eq!(priorities.len() as u64, live.end - live.start);
    for (key, priority) in live.zip(priorities) {
        // Powers are right to 1e-12 of themselves.
        let is = |expected: f64| (priority - expected).abs() < 1e-6;
        let wrong = !is(NEW as f64) && !is(magnitude(key).into());
        if wrong && counts.wrong_priorities.fetch_add(1, SeqCst) < 10 {
            eprintln!("key {key} has priority {priority}, which is another row's");
        }
    }
    newest
}

/// Resident bytes of this process, where the system tells.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
}

fn stress(for_how_long: Duration, between_snapshots: Duration) {
    let replay = build();
    // From here on a new row has the priority NEW, whatever magnitudes come.
    let first = replay.writer().push_row(&Numbered::new(0, -1)).unwrap();
    replay.sampler().update_priorities(&[first], &[NEW as f32]).unwrap();
    let (counts, stop) = (Counts::default(), AtomicBool::new(false));
    let told: [Acknowledged; WRITERS] = Default::default();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stress.snapshot");
    let newest_told = || told.iter().map(|told| *told.newest.lock().unwrap()).collect::<Vec<(u64, u64)>>();
    let begin = Instant::now();
    let (mut memory, mut slowest) = (Vec::new(), Duration::ZERO);
    std::thread::scope(|scope| {
        let (replay, counts, stop) = (&replay, &counts, &stop);
        for (writer, told) in told.iter().enumerate() {
            scope.spawn(move || write(replay, writer, told, stop));
        }
        for sampler in 0..SAMPLERS {
            scope.spawn(move || sample(replay, sampler, counts, stop));
        }
        // What panics here must not leave the others running for ever.
        let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while begin.elapsed() < for_how_long {
                std::thread::sleep(between_snapshots);
                let told = newest_told();
                let saving = Instant::now();
                replay.save(&path).unwrap();
                slowest = slowest.max(saving.elapsed());
                let saved = build();
                saved.load(&path).unwrap();
                check_all(&saved, &told, counts);
                counts.snapshots.fetch_add(1, SeqCst);
                counts.rows_of_snapshots.fetch_add(saved.len() as u64, SeqCst);
                drop(saved);
                memory.push(resident());
            }
        }));
        stop.store(true, SeqCst);
        if let Err(panic) = looked {
            std::panic::resume_unwind(panic);
        }
    });

    // Everything acknowledged was counted, and the newest are there.
    let rows: u64 = told.iter().map(|told| told.rows.load(SeqCst)).sum();
    let newest = check_all(&replay, &newest_told(), &counts);
    let lost = counts.lost.load(SeqCst);
    assert_eq!(replay.inserted(), rows + 1, "each acknowledged row once, and the first");
    assert_eq!(replay.live(), rows + 1 - CAPACITY as u64..rows + 1, "the newest");
    for (newest, told) in newest.iter().zip(&told) {
        assert!(newest.is_none_or(|newest| newest as u64 + 1 == told.rows.load(SeqCst)));
    }
    let [first, second] = {
        let (first, second) = memory.split_at(memory.len() / 2);
        [first, second].map(|part| *part.iter().max().unwrap_or(&0))
    };
    let count = |counter: &AtomicU64| counter.load(SeqCst);
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{seconds:.0} s: {rows} rows inserted, {} drawn and looked at, {} priorities sent of which {} came too late, \
         {} snapshots (the slowest saved in {slowest:.1?}) with {} rows looked at; torn {}, lost {lost}, priorities of other rows {}; at most {:.1} MiB \
         resident in the first half, {:.1} in the second",
        count(&counts.drawn),
        count(&counts.priorities),
        replay.stale_priorities(),
        count(&counts.snapshots),
        count(&counts.rows_of_snapshots),
        count(&counts.torn),
        count(&counts.wrong_priorities),
        first as f64 / f64::from(1 << 20),
        second as f64 / f64::from(1 << 20),
    );
    assert_eq!([count(&counts.torn), lost, count(&counts.wrong_priorities)], [0; 3], "torn, lost, wrong");
    assert!(replay.stale_priorities() > 0, "no priority came too late, so nothing was tried");
    assert!(rows > 10 * CAPACITY as u64, "the ring was meant to go around many times");
    assert!(second < first + (16 << 20), "memory grows from {first} to {second} bytes");
}

#[test]
fn five_seconds_of_everything_at_once() {
    stress(Duration::from_secs(5), Duration::from_millis(300));
}

/// As long as RL_STRESS_SECONDS says, or ten minutes.
#[test]
#[ignore = "takes minutes; scripts/stress runs it"]
fn minutes_of_everything_at_once() {
    let seconds =
        std::env::var("RL_STRESS_SECONDS").map_or(600, |text| text.parse().expect("a number of seconds"));
    stress(Duration::from_secs(seconds), Duration::from_secs(1));
}
