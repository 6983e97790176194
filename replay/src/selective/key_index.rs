//! Where the row with a key is.

/// A hash table from keys to slots with linear probing. It holds slots only, for the keys are in the slots; every call is
/// told how to look there. At most half of the cells are taken, and none is marked as deleted: a removal moves later ones
/// up, so that a search never grows longer than the present rows make it. It never allocates after it was made.
#[derive(Debug)]
pub(super) struct KeyIndex {
    /// The slot + 1, or 0 where there is none; as many as a power of two.
    cells: Box<[u32]>,
}

impl KeyIndex {
    /// For so many slots; `None` when there is no memory for it. It is taken when cells are first written.
    pub(super) fn new(slots: usize) -> Option<Self> {
        let cells = usize::try_from(Self::cells_for(slots as u64)).ok()?;
        Some(Self { cells: bytemuck::allocation::try_zeroed_slice_box(cells).ok()? })
    }

    /// Bytes of an index for so many slots.
    pub(super) fn bytes_for(slots: u64) -> u64 {
        Self::cells_for(slots).saturating_mul(size_of::<u32>() as u64)
    }

    fn cells_for(slots: u64) -> u64 {
        slots.saturating_mul(2).checked_next_power_of_two().unwrap_or(u64::MAX).max(2)
    }

    /// Where the search for a key begins. Keys are serials: a multiplication spreads them evenly (Knuth's multiplicative
    /// hashing, with 2⁶⁴ divided by the golden ratio).
    fn home(&self, key: u64) -> usize {
        let bits = self.cells.len().trailing_zeros();
        (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - bits)) as usize
    }

    fn next(&self, cell: usize) -> usize {
        (cell + 1) & (self.cells.len() - 1)
    }

    /// The cell of `key`, or the empty one where it would be.
    fn cell(&self, key: u64, key_of: impl Fn(u32) -> u64) -> usize {
        let mut cell = self.home(key);
        while let Some(slot) = self.cells[cell].checked_sub(1)
            && key_of(slot) != key
        {
            cell = self.next(cell);
        }
        cell
    }

    /// The slot of `key`.
    pub(super) fn get(&self, key: u64, key_of: impl Fn(u32) -> u64) -> Option<u32> {
        self.cells[self.cell(key, key_of)].checked_sub(1)
    }

    /// Notes that `key` is in `slot`, be it new or moved there. `key_of` must know the slots as they were noted.
    pub(super) fn set(&mut self, key: u64, slot: u32, key_of: impl Fn(u32) -> u64) {
        let cell = self.cell(key, key_of);
        self.cells[cell] = slot + 1;
    }

    /// Forgets `key`, which must be there.
    pub(super) fn remove(&mut self, key: u64, key_of: impl Fn(u32) -> u64) {
        let mut hole = self.cell(key, &key_of);
        let mut cell = self.next(hole);
        while let Some(slot) = self.cells[cell].checked_sub(1) {
            // It may move up to the hole unless its search begins behind that.
            let from_home = cell.wrapping_sub(self.home(key_of(slot))) & (self.cells.len() - 1);
            let from_hole = cell.wrapping_sub(hole) & (self.cells.len() - 1);
            if from_home >= from_hole {
                self.cells[hole] = slot + 1;
                hole = cell;
            }
            cell = self.next(cell);
        }
        self.cells[hole] = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Few cells and keys far apart, so that searches run into each other.
        #[test]
        fn finds_what_a_loop_finds(
            ops in prop::collection::vec((0u64..40, any::<prop::sample::Index>()), 1..300),
            stride in prop::sample::select(vec![1u64, 16, 1 << 32, u64::MAX / 40]),
        ) {
            const SLOTS: usize = 20;
            let mut index = KeyIndex::new(SLOTS).unwrap();
            let mut keys: Vec<u64> = Vec::new();
            for (key, slot) in ops {
                let key = key * stride;
                if keys.len() < SLOTS && !keys.contains(&key) {
                    index.set(key, keys.len() as u32, |slot| keys[slot as usize]);
                    keys.push(key);
                } else if !keys.is_empty() {
                    let slot = slot.index(keys.len());
                    index.remove(keys[slot], |slot| keys[slot as usize]);
                    if slot + 1 < keys.len() {
                        index.set(keys[keys.len() - 1], slot as u32, |slot| keys[slot as usize]);
                    }
                    keys.swap_remove(slot);
                }
                for key in (0..40).map(|key| key * stride) {
                    let expected = keys.iter().position(|other| *other == key);
                    let found = index.get(key, |slot| keys[slot as usize]);
                    prop_assert_eq!(found.map(|slot| slot as usize), expected);
                }
            }
        }
    }
}
