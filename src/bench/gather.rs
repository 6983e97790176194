//! The limit that memory sets for drawing rows: the shortest loop that copies rows from random places.
//!
//! Whole rows lie one after the other on huge pages, each on cache lines of its own. Their numbers are drawn first; then
//! each row is copied to an output that is used again and again, while the row 16 further on is fetched ahead. No lock,
//! no fields, no check of anything: what a buffer with rows of this size reaches is a share of this.

use memmap2::MmapMut;
use prefetch_index::prefetch_index;
use rand::{RngExt, SeedableRng};
use rl_replay::Rng;
use std::hint::black_box;
use std::io;
use std::time::{Duration, Instant};

/// A cache line.
type Line = [u8; 64];

/// How far ahead rows are fetched. Fewer do not cover a miss; more only push each other out.
const AHEAD: usize = 16;
/// Lines fetched ahead of a row; the processor itself sees how a longer one goes on.
const LINES_AHEAD: usize = 4;
/// The table is no larger than this: beyond every cache, and no burden where rows are 56 KB.
const TABLE_BYTES: usize = 1 << 30;
/// Batches between two looks at the clock.
const BATCHES_AT_ONCE: usize = 8;

/// A table of rows, to be gathered from.
pub(super) struct GatherLimit {
    table: MmapMut,
    lines_per_row: usize,
    rows: usize,
    picked: Vec<usize>,
    out: Vec<Line>,
    rng: Rng,
}

impl GatherLimit {
    /// A table of `rows` rows (or of as many as fit into 1 GiB) with `row_bytes` bytes, rounded up to whole lines, and an
    /// output of `batch` rows.
    ///
    /// # Errors
    /// When there is no such memory.
    pub(super) fn new(row_bytes: usize, rows: usize, batch: usize) -> io::Result<Self> {
        let lines_per_row = row_bytes.div_ceil(size_of::<Line>()).max(1);
        let bytes_per_row = lines_per_row * size_of::<Line>();
        let rows = rows.min(TABLE_BYTES / bytes_per_row).max(1);
        let mut table = MmapMut::map_anon(rows * bytes_per_row)?;
        // Where the kernel has none the loop is slower, and so is every buffer.
        #[cfg(target_os = "linux")]
        let _ = table.advise(memmap2::Advice::HugePage);
        // Pages that nobody has written are all the same one.
        table.fill(1);
        let out = vec![[0; 64]; batch * lines_per_row];
        Ok(Self { table, lines_per_row, rows, picked: vec![0; batch], out, rng: Rng::seed_from_u64(2) })
    }

    /// Bytes of a row, in whole lines.
    pub(super) fn row_bytes(&self) -> usize {
        self.lines_per_row * size_of::<Line>()
    }

    /// Rows a second that one thread gathers during `window`.
    pub(super) fn rows_per_s(&mut self, window: Duration) -> f64 {
        let (mut gathered, begin) = (0, Instant::now());
        while begin.elapsed() < window {
            for _ in 0..BATCHES_AT_ONCE {
                self.gather();
            }
            gathered += BATCHES_AT_ONCE * self.picked.len();
        }
        gathered as f64 / begin.elapsed().as_secs_f64()
    }

    fn gather(&mut self) {
        for row in &mut self.picked {
            *row = self.rng.random_range(0..self.rows as u32) as usize;
        }
        let (lines, _) = self.table.as_chunks();
        // A copy whose length is known is a few instructions, and a call of memcpy otherwise.
        match self.lines_per_row {
            1 => gather_rows::<1>(lines, &self.picked, &mut self.out),
            2 => gather_rows::<2>(lines, &self.picked, &mut self.out),
            3 => gather_rows::<3>(lines, &self.picked, &mut self.out),
            4 => gather_rows::<4>(lines, &self.picked, &mut self.out),
            many => gather_long_rows(lines, many, &self.picked, &mut self.out),
        }
        black_box(&self.out);
    }
}

/// Rows of `LINES` lines.
fn gather_rows<const LINES: usize>(lines: &[Line], picked: &[usize], out: &mut [Line]) {
    let (table, _) = lines.as_chunks::<LINES>();
    let (out, _) = out.as_chunks_mut::<LINES>();
    for (position, (&row, out)) in picked.iter().zip(out).enumerate() {
        if let Some(&ahead) = picked.get(position + AHEAD) {
            (0..LINES).for_each(|line| prefetch_index(lines, ahead * LINES + line));
        }
        *out = table[row];
    }
}

/// Rows of more lines than are worth a loop of their own.
fn gather_long_rows(lines: &[Line], lines_per_row: usize, picked: &[usize], out: &mut [Line]) {
    for (position, (&row, out)) in picked.iter().zip(out.chunks_exact_mut(lines_per_row)).enumerate() {
        if let Some(&ahead) = picked.get(position + AHEAD) {
            (0..LINES_AHEAD).for_each(|line| prefetch_index(lines, ahead * lines_per_row + line));
        }
        out.copy_from_slice(&lines[row * lines_per_row..][..lines_per_row]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_copied_whole() {
        for lines_per_row in 1..=6 {
            let mut limit = GatherLimit::new(lines_per_row * 64 - 7, 500, 40).unwrap();
            assert_eq!(limit.row_bytes(), lines_per_row * 64);
            let (lines, _) = limit.table.as_chunks_mut::<64>();
            for (number, line) in lines.iter_mut().enumerate() {
                line[..8].copy_from_slice(&number.to_le_bytes());
            }
            limit.gather();
            for (position, row) in limit.picked.iter().enumerate() {
                for line in 0..lines_per_row {
                    let number = (row * lines_per_row + line).to_le_bytes();
                    assert_eq!(limit.out[position * lines_per_row + line][..8], number);
                }
            }
            assert!(limit.picked.iter().any(|row| *row > 250), "all over the table");
        }
    }

    #[test]
    fn large_rows_get_a_table_that_is_no_burden() {
        let limit = GatherLimit::new(100 << 20, 50_000, 1).unwrap();
        assert_eq!(limit.rows, 10);
        assert_eq!(GatherLimit::new(48, 3, 1).unwrap().rows, 3);
    }
}
