//! Random numbers on the device, from a counter.

use rl_minibatch::{StateError, StateVisitor, scalar};
use tch::{Device, Kind, Tensor, no_grad};

/// The increment and the two multipliers of SplitMix64 (Steele, Lea and Flood, *Fast splittable pseudorandom number generators*, OOPSLA 2014; the
/// constants are Vigna's), as the signed numbers that tensors have.
const GOLDEN: i64 = 0x9E37_79B9_7F4A_7C15_u64 as i64;
const FIRST: i64 = 0xBF58_476D_1CE4_E5B9_u64 as i64;
const SECOND: i64 = 0x94D0_49BB_1331_11EB_u64 as i64;

/// The largest f64 below 1.
pub(super) const BELOW_ONE: f64 = 1.0 - f64::EPSILON / 2.0;

/// Numbers in [0, 1) for one batch after the other: number i of the stream is SplitMix64's i-th output from the seed, its upper 53 bits over 2⁵³.
///
/// As number i depends on the seed and i alone, the same stream comes out of every device and of every resumption. A generation is a dozen small kernels,
/// so those of many batches are made at once, between updates; within an update a batch is one look-up at a position that lies on the
/// device and is moved on there. That is all that a captured update does, and its replays go on by themselves.
#[derive(Debug)]
pub(super) struct Random {
    seed: u64,
    /// Batches taken.
    taken: u64,
    /// `[M, B]`, f64: the numbers of this block of M batches.
    table: Tensor,
    /// Which block the table holds; `None` before the first.
    block: Option<u64>,
    /// `[1]`, i64: the row of the table that is taken next.
    position: Tensor,
    stratified: bool,
}

impl Random {
    /// Batches of `rows` numbers. With `stratified` number i of a batch lies in the i-th of `rows` equal parts of [0, 1).
    pub(super) fn new(seed: u64, rows: usize, stratified: bool, device: Device) -> Self {
        let batches = ((1 << 20) / rows).clamp(1, 256) as i64;
        Self {
            seed,
            taken: 0,
            table: Tensor::zeros([batches, rows as i64], (Kind::Double, device)),
            block: None,
            position: Tensor::zeros([1], (Kind::Int64, device)),
            stratified,
        }
    }

    /// The host's half: makes the numbers of the next batches if none are left, and counts one batch.
    pub(super) fn begin(&mut self) {
        let batches = self.table.size()[0] as u64;
        let block = self.taken / batches;
        if self.block != Some(block) {
            let first = block.wrapping_mul(self.table.numel() as u64);
            no_grad(|| {
                self.table.copy_(&numbers(
                    self.seed,
                    first,
                    &self.table.size(),
                    self.stratified,
                    self.table.device(),
                ));
                let _ = self.position.fill_((self.taken % batches) as i64);
            });
            self.block = Some(block);
        }
        self.taken += 1;
    }

    /// The device's half: the next batch, `[B]`.
    pub(super) fn next(&self) -> Tensor {
        let shares = self.table.index_select(0, &self.position).view([-1]);
        let _ = self.position.shallow_clone().g_add_scalar_(1);
        shares
    }

    pub(super) fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        scalar(visitor, "seed", &mut self.seed)?;
        scalar(visitor, "taken", &mut self.taken)?;
        if visitor.loading() {
            self.block = None;
        }
        Ok(())
    }
}

/// Numbers `first` and on of the stream.
fn numbers(seed: u64, first: u64, shape: &[i64], stratified: bool, device: Device) -> Tensor {
    let count: i64 = shape.iter().product();
    // The state of output i is seed + (i + 1)·GOLDEN; integers of tensors wrap around.
    let start = seed.wrapping_add(first.wrapping_add(1).wrapping_mul(GOLDEN as u64)) as i64;
    let state = Tensor::arange(count, (Kind::Int64, device)).g_mul_scalar(GOLDEN).g_add_scalar(start);
    // x ^ (x >>> by): the shift of signed numbers brings copies of the sign, which are cut off.
    let fold = |x: &Tensor, by: i64| x.bitwise_xor_tensor(&logical_shift(x, by));
    let z = fold(&state, 30).g_mul_scalar(FIRST);
    let z = fold(&z, 27).g_mul_scalar(SECOND);
    let z = fold(&z, 31);
    let unit = logical_shift(&z, 11).to_kind(Kind::Double).g_mul_scalar((-53f64).exp2()).view(shape);
    if !stratified {
        return unit;
    }
    let rows = shape[1];
    let strata = Tensor::arange(rows, (Kind::Double, device));
    // Rounding could give 1.
    ((unit + strata) / rows as f64).clamp_max(BELOW_ONE)
}

fn logical_shift(x: &Tensor, by: i64) -> Tensor {
    x.bitwise_right_shift_tensor_scalar(by).bitwise_and((1i64 << (64 - by)) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference algorithm in plain integers.
    fn reference(seed: u64, index: u64) -> f64 {
        let mut z = seed.wrapping_add((index + 1).wrapping_mul(GOLDEN as u64));
        z = (z ^ (z >> 30)).wrapping_mul(FIRST as u64);
        z = (z ^ (z >> 27)).wrapping_mul(SECOND as u64);
        ((z ^ (z >> 31)) >> 11) as f64 * (-53f64).exp2()
    }

    #[test]
    fn the_stream_is_splitmix64() {
        // The first outputs for seed 1234567, as published with the reference code.
        let known = [6457827717110365317u64, 3203168211198807973, 9817491932198370423];
        for (i, output) in known.into_iter().enumerate() {
            assert_eq!(reference(1234567, i as u64), (output >> 11) as f64 * (-53f64).exp2());
        }
        for seed in [0, 1234567, u64::MAX] {
            let mut random = Random::new(seed, 3, false, Device::Cpu);
            for batch in 0..600u64 {
                random.begin();
                let numbers = Vec::<f64>::try_from(random.next()).unwrap();
                let expected: Vec<f64> = (0..3).map(|i| reference(seed, 3 * batch + i)).collect();
                assert_eq!(numbers, expected, "seed {seed}, batch {batch}");
            }
        }
    }

    #[test]
    fn a_resumed_stream_goes_on() {
        use rl_minibatch::MemoryState;
        let take = |random: &mut Random| {
            random.begin();
            Vec::<f64>::try_from(random.next()).unwrap()
        };
        let mut whole = Random::new(5, 4, true, Device::Cpu);
        (0..300).for_each(|_| drop(take(&mut whole)));
        let saved = MemoryState::save(|v| whole.visit(v)).unwrap();
        let mut resumed = Random::new(9, 4, true, Device::Cpu);
        take(&mut resumed);
        saved.load(|v| resumed.visit(v)).unwrap();
        for _ in 0..300 {
            let shares = take(&mut whole);
            assert_eq!(shares, take(&mut resumed));
            assert!(
                shares.iter().enumerate().all(|(i, s)| (i as f64 / 4.0..(i + 1) as f64 / 4.0).contains(s))
            );
        }
    }
}
