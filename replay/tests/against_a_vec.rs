//! Two buffers and plain models of them, driven by the same random operations: all samplers, rows of all kinds and sizes,
//! saved and loaded on the way, and mixed.

mod plain_model;

use plain_model::kinds::kinds;
use plain_model::ops::ops;
use plain_model::pair::Pair;
use plain_model::rows::schemas;
use plain_model::run::{Run, Saved};
use proptest::prelude::*;
use rand::SeedableRng;
use rl_replay::{Batch, Drawn, Dtype, Field, Mixed, Replay, ReplayError, Rng, SampleError, Schema};

/// The most rows of a batch.
const BATCH: usize = 20;

/// Ratios of the two buffers of a mixture, in sixteenths.
const RATIOS: [[i64; 2]; 4] = [[8, 8], [4, 12], [9, 7], [15, 1]];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_buffers_do_what_the_models_do(
        schema in schemas(),
        kinds in [kinds(), kinds()],
        sizes in [(1u64..50, 1u64..8), (1u64..50, 1u64..8)],
        ratios in prop::sample::select(RATIOS.to_vec()),
        ops in ops(),
        seed: u64,
    ) {
        let pair = |side: usize| Pair::new(&schema, &kinds[side], sizes[side].0, sizes[side].1);
        let mut run = Run {
            pairs: [pair(0), pair(1)],
            folder: tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap(),
            saved: vec![],
            bases: [vec![], vec![]],
            ratios,
            owed: [0; 2],
            mixed: Mixed::default(),
            mixture_state: None,
            content: 1,
            rng: Rng::seed_from_u64(seed),
        };
        let mut batch = Batch::new(&schema, BATCH);
        for (side, op) in ops {
            run.step(usize::from(side), op, &mut batch);
        }
        run.pairs.iter_mut().for_each(Pair::agrees_in_full);
        // Each file gives what was saved, whatever came after it.
        for Saved { side, path, model, .. } in &run.saved {
            let mut other = run.pairs[*side].another(model.capacity, model.reserve);
            other.replay.load(path).unwrap();
            other.model = model.clone().loaded(model.capacity, model.reserve);
            other.agrees_in_full();
        }
    }
}

#[test]
fn an_empty_buffer_draws_nothing() {
    let schema = Schema::new(vec![Field::new("x", Dtype::F32, [2])]).unwrap();
    let replay = Replay::builder(schema.clone()).capacity(3).build().unwrap();
    let mut batch = Batch::new(&schema, 1);
    let error = replay
        .sampler()
        .sample_into(&mut Rng::seed_from_u64(0), 1, &mut batch.view_mut(), &mut Drawn::default())
        .unwrap_err();
    assert!(matches!(error, ReplayError::Sample(SampleError::Empty)), "{error}");
}
