//! In the steady state nothing is allocated: by no insertion, no draw, no write-back, with any sampler.

use allocation_counter::measure;
use rand::{RngExt, SeedableRng};
use rl_replay::{
    Batch, Combined, Drawn, Dtype, NStep, Prioritized, Proportional, RankBased, Recent, RecentSettings,
    Replay, Rng, Row, Sampler, Schema, Step, Uniform, WeightNorm, WithoutReplacement, importance_weights,
    row,
};

const CAPACITY: usize = 5_000;
const BATCH: usize = 128;

row! {
    #[derive(Clone, Copy)]
    struct Transition {
        obs: [f32; 4],
        action: i64,
        reward: f32,
        discount: f32,
        next_obs: [f32; 4],
    }
}

fn build(sampler: impl Sampler + 'static) -> Replay {
    let schema = Transition::schema().clone();
    Replay::builder(schema).capacity(CAPACITY).sampler(Box::new(sampler)).build().unwrap()
}

/// Runs `step` some times to warm up, then some times more, of which none may allocate or free.
fn steady(what: &str, rounds: usize, mut step: impl FnMut()) {
    (0..rounds).for_each(|_| step());
    let info = measure(|| (0..rounds).for_each(|_| step()));
    assert_eq!((info.count_total, info.bytes_total), (0, 0), "{what} allocates in the steady state");
}

fn filled(sampler: impl Sampler + 'static) -> Replay {
    let replay = build(sampler);
    let mut writer = replay.writer();
    for i in 0..2 * CAPACITY {
        let x = i as f32;
        writer
            .push_row(&Transition { obs: [x; 4], action: 1, reward: x, discount: 0.9, next_obs: [x; 4] })
            .unwrap();
    }
    replay
}

/// All that a learner and an actor do, call by call, so that a failure names the call.
fn check(name: &str, replay: &Replay, rounds: usize) {
    let (mut reader, mut writer) = (replay.sampler(), replay.writer());
    let mut rng = Rng::seed_from_u64(1);
    let (mut batch, mut drawn) = (Batch::new(replay.schema(), BATCH), Drawn::default());
    let mut weights = vec![0f32; BATCH];
    steady(&format!("{name}: sample_into"), rounds, || {
        reader.sample_into(&mut rng, BATCH, &mut batch.view_mut(), &mut drawn).unwrap();
    });
    for norm in [WeightNorm::BatchMax, WeightNorm::PopulationMax, WeightNorm::None] {
        steady(&format!("{name}: importance_weights"), 50, || {
            importance_weights(&drawn, 0.5, norm, &mut weights);
        });
    }

    let plain = [0u8; 16];
    let row: [&[u8]; 5] = [&plain, &plain[..8], &plain[..4], &plain[..4], &plain];
    steady(&format!("{name}: push"), rounds, || {
        writer.push(&row).unwrap();
    });
    let columns = vec![0u8; 16 * 100];
    let rows: [&[u8]; 5] = [&columns, &columns[..800], &columns[..400], &columns[..400], &columns];
    steady(&format!("{name}: push_rows"), 50, || writer.push_rows(100, &rows).unwrap());
    let typed = Transition { obs: [1.0; 4], action: 1, reward: 1.0, discount: 0.9, next_obs: [1.0; 4] };
    steady(&format!("{name}: push_row"), rounds, || {
        writer.push_row(&typed).unwrap();
    });
    let mut n_step = NStep::new(3, 0.99, replay.schema()).unwrap();
    let mut time = 0;
    steady(&format!("{name}: NStep::push"), rounds, || {
        time += 1;
        let (terminated, truncated) = (time % 10 == 0, time % 17 == 0);
        let step =
            Step { obs: &plain, action: &plain[..8], reward: 1.0, next_obs: &plain, terminated, truncated };
        n_step.push(step, &mut writer).unwrap();
    });

    // Together, with priorities where there are any: rows come and go between draws, some priorities come too late.
    let mut magnitudes = vec![0f32; BATCH];
    let mut random = Rng::seed_from_u64(2);
    let prioritized = reader.update_priorities(&[], &[]).is_ok();
    steady(&format!("{name}: all together"), rounds, || {
        reader.sample_into(&mut rng, BATCH, &mut batch.view_mut(), &mut drawn).unwrap();
        writer.push_rows(40, &rows.map(|column| &column[..column.len() * 2 / 5])).unwrap();
        magnitudes.fill_with(|| random.random::<f32>() * 10.0);
        if prioritized {
            reader.update_priorities(&drawn.rows, &magnitudes).unwrap();
        }
    });
    assert!(!prioritized || replay.stale_priorities() > 0);
}

#[test]
fn uniform() {
    let schema: &Schema = Transition::schema();
    let replay = Replay::builder(schema.clone()).capacity(CAPACITY).uniform().build().unwrap();
    replay.writer().push_rows(1, &[&[0; 16], &[0; 8], &[0; 4], &[0; 4], &[0; 16]]).unwrap();
    check("uniform", &replay, 300);
    check("uniform by a sampler", &filled(Uniform), 300);
}

/// Values are converted in memory that a thread has once and for all.
#[test]
fn rounded_columns() {
    let builder = Replay::builder(Transition::schema().clone()).capacity(CAPACITY);
    let replay = builder.store("obs", Dtype::F16).store("next_obs", Dtype::Bf16).build().unwrap();
    replay.writer().push_rows(1, &[&[0; 16], &[0; 8], &[0; 4], &[0; 4], &[0; 16]]).unwrap();
    check("rounded", &replay, 300);
}

#[test]
fn draws_counted() {
    let settings = Prioritized::default();
    let builder = || Replay::builder(Transition::schema().clone()).capacity(CAPACITY).count_draws();
    for replay in [builder().build().unwrap(), builder().prioritized(settings).build().unwrap()] {
        replay.writer().push_rows(1, &[&[0; 16], &[0; 8], &[0; 4], &[0; 4], &[0; 16]]).unwrap();
        check("with draws counted", &replay, 300);
        assert!(replay.statistics().sampled > 0);
    }
}

#[test]
fn without_replacement() {
    check("without replacement", &filled(WithoutReplacement::new()), 300);
}

#[test]
fn proportional() {
    let sampler = || Proportional::new(CAPACITY as u64, Prioritized::default()).unwrap();
    check("proportional", &filled(sampler()), 300);
    check("proportional, independent", &filled(sampler().independent()), 300);
}

/// Its blocks of ranks split and join, and once as many as are ever needed are there, they are used again.
#[test]
fn rank_based() {
    check("rank-based", &filled(RankBased::new(CAPACITY as u64, 0.7).unwrap()), 2_000);
}

#[test]
fn combined() {
    check("combined", &filled(Combined::new(Box::new(Uniform), 3).unwrap()), 300);
    let inner = Proportional::new(CAPACITY as u64, Prioritized::default()).unwrap();
    check("combined, prioritized", &filled(Combined::new(Box::new(inner), 1).unwrap()), 300);
}

#[test]
fn recent() {
    let settings = RecentSettings { min_rows: 100, anneal_draws: 200, ..RecentSettings::default() };
    check("recent", &filled(Recent::new(settings).unwrap()), 300);
}

/// Counting works: the first draw makes its lists, and is seen.
#[test]
fn an_allocation_is_counted() {
    let replay = filled(Uniform);
    let (mut batch, mut drawn) = (Batch::new(replay.schema(), BATCH), Drawn::default());
    let (mut reader, mut rng) = (replay.sampler(), Rng::seed_from_u64(1));
    let info = measure(|| reader.sample_into(&mut rng, BATCH, &mut batch.view_mut(), &mut drawn).unwrap());
    assert!(info.count_total >= 2 && info.bytes_total >= 16 * BATCH as u64);
}
