//! A buffer that is saved and loaded goes on as the one that was saved.

use rand::{RngExt, SeedableRng};
use rl_replay::{Batch, Drawn, Dtype, MemoryState, NStep, Prioritized, Replay, Rng, Schema, Step, Updated};

fn schema() -> Schema {
    Schema::transition((Dtype::F32, &[40]), (Dtype::F32, &[2])).unwrap()
}

fn build() -> Replay {
    // Large enough for several blocks of rows.
    Replay::builder(schema()).capacity(30_000).prioritized(Prioritized::default()).build().unwrap()
}

/// One actor and one learner in step; returns all that can be told apart from outside.
fn go_on(
    replay: &Replay,
    n_step: &mut NStep,
    rng: &mut Rng,
    rounds: usize,
) -> Vec<(Drawn, Vec<u8>, Updated)> {
    let (mut writer, mut sampler) = (replay.writer(), replay.sampler());
    let mut batch = Batch::new(&schema(), 8);
    (0..rounds)
        .map(|_| {
            let [obs, next_obs]: [[f32; 40]; 2] = [(); 2].map(|()| [(); 40].map(|()| rng.random()));
            let action = [0.5, rng.random::<f32>()];
            let step = Step {
                obs: bytemuck::cast_slice(&obs),
                action: bytemuck::cast_slice(&action),
                reward: rng.random(),
                next_obs: bytemuck::cast_slice(&next_obs),
                terminated: rng.random_bool(0.01),
                truncated: rng.random_bool(0.01),
            };
            n_step.push(step, &mut writer).unwrap();
            let mut drawn = Drawn::default();
            if replay.is_empty() {
                return (drawn, Vec::new(), Updated::default());
            }
            sampler.sample_into(rng, 8, &mut batch.view_mut(), &mut drawn).unwrap();
            let magnitudes: Vec<f32> = drawn.rows.iter().map(|_| rng.random::<f32>() * 3.0).collect();
            let updated = sampler.update_priorities(&drawn.rows, &magnitudes).unwrap();
            (drawn, (0..5).flat_map(|position| batch.column(position).to_vec()).collect(), updated)
        })
        .collect()
}

#[test]
fn the_next_draws_are_the_same() {
    let replay = build();
    let mut n_step = NStep::new(3, 0.99, &schema()).unwrap();
    let mut rng = Rng::seed_from_u64(9);
    go_on(&replay, &mut n_step, &mut rng, 40_000);
    assert_eq!(replay.len(), 30_000, "the ring has wrapped");

    let saved = MemoryState::save(|v| replay.visit(v)).unwrap();
    let saved_steps = MemoryState::save(|v| n_step.visit(v)).unwrap();
    assert!(saved.pieces().any(|(path, _)| path == "rows.2.obs"), "several blocks");

    // Into a buffer that is empty, and into one that is not.
    for rounds in [0, 500] {
        let other = build();
        let mut other_steps = NStep::new(3, 0.99, &schema()).unwrap();
        go_on(&other, &mut other_steps, &mut Rng::seed_from_u64(1), rounds);
        saved.load(|v| other.visit(v)).unwrap();
        saved_steps.load(|v| other_steps.visit(v)).unwrap();
        assert_eq!(MemoryState::save(|v| other.visit(v)).unwrap().differences(&saved), [""; 0]);

        let original = build();
        saved.load(|v| original.visit(v)).unwrap();
        let mut original_steps = n_step.clone();
        let future = go_on(&original, &mut original_steps, &mut rng.clone(), 300);
        let same = go_on(&other, &mut other_steps, &mut rng.clone(), 300);
        for (round, (a, b)) in future.iter().zip(&same).enumerate() {
            assert_eq!(a.0.rows, b.0.rows, "round {round}");
            assert_eq!(a.0.probabilities, b.0.probabilities, "round {round}");
            assert_eq!((&a.1, a.2), (&b.1, b.2), "round {round}");
        }
    }

    // A state that breaks off in its last block does no harm to rows that are there.
    let mut damaged = saved.clone();
    damaged.remove("rows.2.next_obs");
    let other = build();
    go_on(&other, &mut NStep::new(3, 0.99, &schema()).unwrap(), &mut Rng::seed_from_u64(1), 500);
    let before = MemoryState::save(|v| other.visit(v)).unwrap();
    assert!(damaged.load(|v| other.visit(v)).is_err());
    assert_eq!(MemoryState::save(|v| other.visit(v)).unwrap().differences(&before), [""; 0]);

    // And the saved one itself goes on in the same way.
    let other = build();
    let mut other_steps = NStep::new(3, 0.99, &schema()).unwrap();
    saved.load(|v| other.visit(v)).unwrap();
    saved_steps.load(|v| other_steps.visit(v)).unwrap();
    let same = go_on(&other, &mut other_steps, &mut rng.clone(), 300);
    let future = go_on(&replay, &mut n_step, &mut rng, 300);
    for (a, b) in future.iter().zip(&same) {
        assert_eq!((&a.0.rows, &a.0.probabilities, &a.1, a.2), (&b.0.rows, &b.0.probabilities, &b.1, b.2));
    }
}
