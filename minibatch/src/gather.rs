//! Copying rows out of a column: loops made for the size of a row, fetching ahead.

use prefetch_index::prefetch_index;

/// Bytes of a cache line.
const LINE: usize = 64;
/// Rows that are on their way to the cache while one is copied.
const ROWS_AHEAD: usize = 16;
/// From this size on the processor fetches the rest of a row by itself, once it sees the run.
const LONG_BYTES: usize = 1024;

/// Copies the row at each of `rows` from `column`, whose rows have `bytes` bytes, on to `cells`, one after the other.
///
/// # Panics
/// When a row is past the column's end.
pub(crate) fn gather_column(column: &[u8], rows: &[u64], bytes: usize, cells: &mut [u8]) {
    match bytes {
        1 => fixed::<1>(column, rows, cells),
        2 => fixed::<2>(column, rows, cells),
        4 => fixed::<4>(column, rows, cells),
        8 => fixed::<8>(column, rows, cells),
        12 => fixed::<12>(column, rows, cells),
        16 => fixed::<16>(column, rows, cells),
        24 => fixed::<24>(column, rows, cells),
        32 => fixed::<32>(column, rows, cells),
        64 => fixed::<64>(column, rows, cells),
        128 => fixed::<128>(column, rows, cells),
        256 => fixed::<256>(column, rows, cells),
        _ => {
            for (place, (cell, &row)) in cells.chunks_exact_mut(bytes).zip(rows).enumerate() {
                fetch_ahead(column, rows, place, bytes);
                cell.copy_from_slice(&column[row as usize * bytes..][..bytes]);
            }
        }
    }
}

#[inline(always)]
fn fixed<const N: usize>(column: &[u8], rows: &[u64], cells: &mut [u8]) {
    let column_rows = column.as_chunks::<N>().0;
    for (place, (cell, &row)) in cells.as_chunks_mut::<N>().0.iter_mut().zip(rows).enumerate() {
        fetch_ahead(column, rows, place, N);
        *cell = column_rows[row as usize];
    }
}

/// Begins to bring the row that comes some places later into the cache. It is a hint: nothing is read.
#[inline(always)]
fn fetch_ahead(column: &[u8], rows: &[u64], place: usize, bytes: usize) {
    if bytes < LONG_BYTES
        && let Some(&row) = rows.get(place + ROWS_AHEAD)
    {
        for line in 0..bytes.div_ceil(LINE) {
            prefetch_index(column, (row as usize).wrapping_mul(bytes).wrapping_add(line * LINE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_every_size_are_copied_whole() {
        for bytes in (1..70).chain([127, 128, 129, 255, 256, 257, 1023, 1024, 5000]) {
            let column: Vec<u8> = (0..50 * bytes).map(|i| (i * 31 % 251) as u8).collect();
            let rows: Vec<u64> = (0..40).map(|i| i * 37 % 50).collect();
            let mut cells = vec![0; rows.len() * bytes];
            gather_column(&column, &rows, bytes, &mut cells);
            for (cell, row) in cells.chunks(bytes).zip(rows) {
                assert_eq!(cell, &column[row as usize * bytes..][..bytes], "{bytes} bytes");
            }
        }
    }
}
