//! What single samplers promise beyond the contract of all.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rl_minibatch::{
    ClassBalanced, Drawn, LengthBucketed, Rng, Sampler, SamplerError, Sequential, Shuffled, Stratified,
    Weighted, WeightedWithoutReplacement,
};

/// The batches of `batch` rows of the next epoch.
fn epoch(sampler: &mut dyn Sampler, rng: &mut Rng, rows: u64, batch: usize) -> Vec<Vec<u64>> {
    let mut batches = Vec::new();
    loop {
        let mut drawn = Drawn::default();
        sampler.draw(rng, 0..rows, batch, &mut drawn).unwrap();
        batches.push(drawn.rows);
        let epoch = sampler.epoch().unwrap();
        if epoch.drawn == epoch.rows {
            return batches;
        }
    }
}

#[test]
fn sequential_goes_in_order() {
    let (mut sampler, mut rng) = (Sequential::new(5).unwrap(), Rng::seed_from_u64(1));
    let before = rng.clone();
    for _ in 0..3 {
        assert_eq!(epoch(&mut sampler, &mut rng, 5, 2), [vec![0, 1], vec![2, 3], vec![4]]);
    }
    assert_eq!(rng, before);
}

proptest! {
    /// Off by less than one row a class, in each batch and up to each batch's end.
    #[test]
    fn stratified_batches_have_the_ratio_of_the_classes(
        labels in prop::collection::vec(prop_oneof![4 => Just(0u32), 2 => 1u32..4, 1 => 4u32..30], 1..400),
        batch in 1usize..100,
        seed in any::<u64>(),
    ) {
        let (rows, mut rng) = (labels.len(), Rng::seed_from_u64(seed));
        let mut sampler = Stratified::new(&labels, 30).unwrap();
        let of = |class: u32| labels.iter().filter(|label| **label == class).count();
        for _ in 0..2 {
            let (mut so_far, mut drawn) = ([0usize; 30], 0);
            for batch in epoch(&mut sampler, &mut rng, rows as u64, batch) {
                drawn += batch.len();
                for class in 0..30 {
                    let got = batch.iter().filter(|row| labels[**row as usize] == class).count();
                    so_far[class as usize] += got;
                    let off = (got * rows).abs_diff(batch.len() * of(class));
                    prop_assert!(off < rows, "{got} of class {class} in a batch of {}", batch.len());
                    let off = (so_far[class as usize] * rows).abs_diff(drawn * of(class));
                    prop_assert!(off < rows, "{} of class {class} in the first {drawn}", so_far[class as usize]);
                }
            }
        }
    }

    /// Classes come in rounds, and in a class no row comes twice before all have come.
    #[test]
    fn class_balanced_has_each_class_equally_often(
        mut labels in prop::collection::vec(0u32..6, 0..100),
        counts in prop::collection::vec(1usize..40, 1..20),
        seed in any::<u64>(),
    ) {
        labels.extend(0..6);
        let mut sampler = ClassBalanced::new(&labels, 6).unwrap();
        let (mut rng, mut drawn, mut all) = (Rng::seed_from_u64(seed), Drawn::default(), Vec::new());
        for count in counts {
            sampler.draw(&mut rng, 0..labels.len() as u64, count, &mut drawn).unwrap();
            all.extend(&drawn.rows);
        }
        let class = |row: &u64| labels[*row as usize];
        for round in all.chunks_exact(6) {
            let mut classes: Vec<u32> = round.iter().map(class).collect();
            classes.sort_unstable();
            prop_assert_eq!(classes, Vec::from_iter(0..6));
        }
        for of in 0..6 {
            let size = labels.iter().filter(|label| **label == of).count();
            let rows: Vec<u64> = all.iter().copied().filter(|row| class(row) == of).collect();
            for pass in rows.chunks(size) {
                let mut once = pass.to_vec();
                once.sort_unstable();
                once.dedup();
                prop_assert_eq!(once.len(), pass.len());
            }
        }
    }
}

/// Which of classes of one size a batch leaves out is not the same in each epoch.
#[test]
fn no_class_is_always_in_the_first_batch() {
    let labels: Vec<u32> = (0..100).map(|row| row / 2).collect();
    let (mut sampler, mut rng) = (Stratified::new(&labels, 50).unwrap(), Rng::seed_from_u64(2));
    let mut counts = [0u32; 50];
    for _ in 0..1_000 {
        for row in &epoch(&mut sampler, &mut rng, 100, 10)[0] {
            counts[labels[*row as usize] as usize] += 1;
        }
    }
    // 200 each expected, binomial with p = 1/5: five standard deviations are 63.
    assert!(counts.iter().all(|count| (137..264).contains(count)), "{counts:?}");
}

/// Steps that are padding, of all steps of the batches.
fn padding(lengths: &[u32], batches: &[Vec<u64>]) -> f64 {
    let (mut padded, mut all) = (0u64, 0u64);
    for batch in batches {
        let longest = batch.iter().map(|row| lengths[*row as usize]).max().unwrap();
        all += u64::from(longest) * batch.len() as u64;
        padded += batch.iter().map(|row| u64::from(longest - lengths[*row as usize])).sum::<u64>();
    }
    padded as f64 / all as f64
}

/// Sentences: lengths of a log-normal distribution, from 1 to a few hundred.
fn lengths(rows: usize) -> Vec<u32> {
    let mut rng = Rng::seed_from_u64(6);
    let mut normal = || (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
    (0..rows).map(|_| (3.0 + 0.8 * normal()).exp().ceil() as u32).collect()
}

#[test]
fn length_buckets_save_padding() {
    let (rows, batch) = (10_000, 32);
    let lengths = lengths(rows as usize);
    let mut rng = Rng::seed_from_u64(7);
    let mut waste = |sampler: &mut dyn Sampler| padding(&lengths, &epoch(sampler, &mut rng, rows, batch));
    let plain = waste(&mut Shuffled::new(rows).unwrap());
    let mut bucketed = |pool| waste(&mut LengthBucketed::new(&lengths, batch, pool).unwrap());
    let (one, fifty, all) = (bucketed(batch), bucketed(50 * batch), bucketed(usize::MAX));
    println!("padding: shuffled {plain:.4}, pools of 1, 50, all batches {one:.4}, {fifty:.4}, {all:.4}");
    assert!(plain > 0.7, "{plain}");
    assert!((one - plain).abs() < 0.02, "{one}: a pool of one batch is plain shuffling");
    // Of the steps that shuffling pads, buckets pad a fifth and a twentieth.
    assert!(fifty < 0.15, "{fifty}");
    assert!(all < 0.0375, "{all}");
}

#[test]
fn length_buckets_are_cut_and_ordered_at_random() {
    let (rows, batch) = (1_000u64, 32);
    let lengths: Vec<u32> = (0..rows as u32).map(|row| row / 4).collect();
    let mut sampler = LengthBucketed::new(&lengths, batch, 320).unwrap();
    let mut rng = Rng::seed_from_u64(8);
    let (mut first, mut last) = (Vec::new(), Vec::new());
    let mut company = std::collections::HashSet::new();
    for _ in 0..200 {
        let batches = epoch(&mut sampler, &mut rng, rows, batch);
        assert_eq!(batches.len(), 32);
        let spread = |batch: &Vec<u64>| {
            let of = |row: &u64| lengths[*row as usize];
            batch.iter().map(of).max().unwrap() - batch.iter().map(of).min().unwrap()
        };
        // A pool of 320 rows has all lengths up to 250, so a batch a tenth of them, more or less.
        assert!(batches.iter().all(|batch| spread(batch) < 70));
        let mean = |batch: &Vec<u64>| batch.iter().sum::<u64>() as f64 / batch.len() as f64;
        first.push(mean(&batches[0]));
        assert_eq!(batches[31].len(), 8);
        last.push(mean(&batches[31]));
        company.extend(batches[0].windows(2).map(|pair| (pair[0].min(pair[1]), pair[0].max(pair[1]))));
    }
    // Neither the first batch nor the last, which may be dropped, has rows of one kind of length: their means are even over
    // 0..1000, so that five standard errors are 5 · 289 / √200 = 102.
    for means in [&first, &last] {
        let mean = means.iter().sum::<f64>() / 200.0;
        assert!((mean - 499.5).abs() < 102.0, "{mean}");
        assert!(means.iter().any(|mean| *mean < 200.0) && means.iter().any(|mean| *mean > 800.0));
    }
    assert!(company.len() > 5_000, "{} pairs of 6,200 are different", company.len());
}

#[test]
fn what_no_sampler_can_be_made_of() {
    fn check<T: std::fmt::Debug>(made: Result<T, SamplerError>, message: &str) {
        assert_eq!(made.unwrap_err().to_string(), message);
    }
    let empty = "a sampler needs at least one row; the data set is empty";
    check(Sequential::new(0), empty);
    check(Shuffled::new(0), empty);
    check(Weighted::new(&[]), empty);
    check(WeightedWithoutReplacement::new(&[], 1), empty);
    check(Stratified::new(&[], 3), empty);
    check(ClassBalanced::new(&[], 3), empty);
    check(LengthBucketed::new(&[], 3, 3), empty);
    let many = "4611686018427387905 rows are more than this sampler can number, which is 4611686018427387904; split the data set";
    check(Shuffled::new((1 << 62) + 1), many);
    for (bad, shown) in [(-0.5, "-0.5"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let message = format!("the weight of row 2 is {shown}; it must be finite and at least 0");
        check(Weighted::new(&[1.0, 0.0, bad, bad]), &message);
        check(WeightedWithoutReplacement::new(&[1.0, 0.0, bad, bad], 1), &message);
    }
    let none = "all 2 weights are 0, so no row can be drawn; give at least one a weight above 0";
    check(Weighted::new(&[0.0, -0.0]), none);
    check(WeightedWithoutReplacement::new(&[0.0, 0.0], 1), none);
    let few = "3 different rows an epoch were asked for, and 2 have a weight above 0; ask for fewer";
    check(WeightedWithoutReplacement::new(&[1.0, 0.0, 2.0], 3), few);
    check(WeightedWithoutReplacement::new(&[1.0], 0), "rows_per_epoch is 0; it must be at least 1");
    let label = "the label of row 1 is 3; with 3 classes it must be below 3";
    check(Stratified::new(&[0, 3, 4], 3), label);
    check(ClassBalanced::new(&[0, 3, 4], 3), label);
    let class =
        "class 1 has no row, so it cannot be drawn as often as the others; number the classes without it";
    check(ClassBalanced::new(&[0, 2, 2], 3), class);
    check(LengthBucketed::new(&[1], 0, 3), "batch is 0; it must be at least 1");
    let pool = "a pool of 7 rows is smaller than a batch of 8; 50 to 100 batches are usual";
    check(LengthBucketed::new(&[1], 8, 7), pool);
}
