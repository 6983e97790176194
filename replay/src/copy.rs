//! Copying cells between columns and slots: loops made for the size of a cell.

use crate::half_float::{FLOAT_BYTES, HALF_BYTES, HalfFloat, pieces};

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;
/// A row's lines that are prefetched; of longer rows the processor fetches the rest by itself once it sees the run.
const LINES_AHEAD: usize = 8;
/// From this size on a cell is handed to the system's own copy.
const LONG_BYTES: usize = 512;

/// Begins to bring the first of `bytes` bytes at `address` into the cache. It is a hint: nothing is read, nothing can
/// fail.
#[inline(always)]
pub(crate) fn prefetch(address: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..bytes.div_ceil(LINE_BYTES).min(LINES_AHEAD) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let address = address.wrapping_add(line * LINE_BYTES);
        // SAFETY: a prefetch of any address is allowed; it never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (address, bytes);
}

/// Copies the cell at each of `offsets` from `from` on to `cells`, one after the other; each has `bytes` bytes.
///
/// # Safety
/// From `from` + each offset on `bytes` bytes are readable, initialised and not written by anybody, and no part of
/// `cells`.
#[inline(always)]
pub(crate) unsafe fn gather_column(from: *const u8, offsets: &[usize], bytes: usize, cells: &mut [u8]) {
    #[inline(always)]
    unsafe fn fixed<const N: usize>(from: *const u8, offsets: &[usize], cells: &mut [u8]) {
        let (cells, _) = cells.as_chunks_mut::<N>();
        for (cell, offset) in cells.iter_mut().zip(offsets) {
            // SAFETY: the caller's promise; an array of bytes needs no alignment.
            *cell = unsafe { from.add(*offset).cast::<[u8; N]>().read() };
        }
    }
    assert_eq!(cells.len(), offsets.len() * bytes);
    // SAFETY: the caller's promise, for each of the calls.
    unsafe {
        match bytes {
            1 => fixed::<1>(from, offsets, cells),
            2 => fixed::<2>(from, offsets, cells),
            4 => fixed::<4>(from, offsets, cells),
            8 => fixed::<8>(from, offsets, cells),
            12 => fixed::<12>(from, offsets, cells),
            16 => fixed::<16>(from, offsets, cells),
            24 => fixed::<24>(from, offsets, cells),
            32 => fixed::<32>(from, offsets, cells),
            64 => fixed::<64>(from, offsets, cells),
            _ => {
                for (cell, offset) in cells.chunks_exact_mut(bytes).zip(offsets) {
                    copy_cell(from.add(*offset), cell.as_mut_ptr(), bytes);
                }
            }
        }
    }
}

/// Copies `cells`, each of `bytes` bytes, to `to`, `to + stride` and so on.
///
/// # Safety
/// As many cells as there are can be written from `to` on, `stride` apart, which nobody else touches and which are no
/// part of `cells`.
#[inline(always)]
pub(crate) unsafe fn scatter_column(cells: &[u8], bytes: usize, to: *mut u8, stride: usize) {
    #[inline(always)]
    unsafe fn fixed<const N: usize>(cells: &[u8], to: *mut u8, stride: usize) {
        for (row, cell) in cells.as_chunks::<N>().0.iter().enumerate() {
            // SAFETY: the caller's promise; an array of bytes needs no alignment.
            unsafe { to.add(row * stride).cast::<[u8; N]>().write(*cell) };
        }
    }
    // SAFETY: the caller's promise, for each of the calls.
    unsafe {
        match bytes {
            1 => fixed::<1>(cells, to, stride),
            2 => fixed::<2>(cells, to, stride),
            4 => fixed::<4>(cells, to, stride),
            8 => fixed::<8>(cells, to, stride),
            12 => fixed::<12>(cells, to, stride),
            16 => fixed::<16>(cells, to, stride),
            24 => fixed::<24>(cells, to, stride),
            32 => fixed::<32>(cells, to, stride),
            64 => fixed::<64>(cells, to, stride),
            _ => {
                for (row, cell) in cells.chunks_exact(bytes).enumerate() {
                    copy_cell(cell.as_ptr(), to.add(row * stride), bytes);
                }
            }
        }
    }
}

/// As [`gather_column`], for cells of 16-bit floats, which are f32 in `cells`.
///
/// # Safety
/// That of [`gather_column`], `bytes` being those of a cell in its slot.
#[inline(never)]
pub(crate) unsafe fn gather_halves(
    half: HalfFloat,
    from: *const u8,
    offsets: &[usize],
    bytes: usize,
    cells: &mut [u8],
) {
    const WIDER: usize = FLOAT_BYTES / HALF_BYTES;
    assert_eq!(cells.len(), offsets.len() * bytes * WIDER);
    let (rows, part) = pieces(bytes);
    for (offsets, cells) in offsets.chunks(rows).zip(cells.chunks_mut(rows * bytes * WIDER)) {
        for begin in (0..bytes).step_by(part) {
            let part = part.min(bytes - begin);
            let floats = &mut cells[begin * WIDER..][..offsets.len() * part * WIDER];
            half.widen(floats, |halves| {
                // SAFETY: these bytes are a part of each cell, so it is the caller's promise; `halves` is scratch.
                unsafe { gather_column(from.add(begin), offsets, part, halves) }
            });
        }
    }
}

/// As [`scatter_column`], for f32 in `cells`, which are 16-bit floats in their slots.
///
/// # Safety
/// That of [`scatter_column`], `bytes` being those of a cell in its slot.
#[inline(never)]
pub(crate) unsafe fn scatter_halves(half: HalfFloat, cells: &[u8], bytes: usize, to: *mut u8, stride: usize) {
    const WIDER: usize = FLOAT_BYTES / HALF_BYTES;
    let (rows, part) = pieces(bytes);
    for (piece, cells) in cells.chunks(rows * bytes * WIDER).enumerate() {
        let rows_here = cells.len() / (bytes * WIDER);
        for begin in (0..bytes).step_by(part) {
            let part = part.min(bytes - begin);
            half.round(&cells[begin * WIDER..][..rows_here * part * WIDER], |halves| {
                // SAFETY: these bytes are a part of each cell, so it is the caller's promise; `halves` is scratch.
                unsafe { scatter_column(halves, part, to.add(piece * rows * stride + begin), stride) }
            });
        }
    }
}

/// Copies `bytes` bytes: short cells in pieces of a register's size, the last of which overlaps the one before it.
///
/// # Safety
/// `from` is readable and `to` writable for `bytes` bytes, and they do not overlap.
#[inline(always)]
unsafe fn copy_cell(from: *const u8, to: *mut u8, bytes: usize) {
    type Piece = [u8; 16];
    const PIECE: usize = size_of::<Piece>();
    // SAFETY: the caller's promise; every piece begins at most `bytes − PIECE` bytes in.
    unsafe {
        if !(PIECE..LONG_BYTES).contains(&bytes) {
            return std::ptr::copy_nonoverlapping(from, to, bytes);
        }
        let last = bytes - PIECE;
        let mut at = 0;
        while at < last {
            to.add(at).cast::<Piece>().write(from.add(at).cast::<Piece>().read());
            at += PIECE;
        }
        to.add(last).cast::<Piece>().write(from.add(last).cast::<Piece>().read());
    }
}
