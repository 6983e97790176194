//! The row with the lowest, or highest, priority: a binary heap in which every row can be found.

/// Slots by rank, the smallest first; of equal ranks the older row first. Slots are 0..n without gaps.
///
/// O(log n) to add a slot, to remove any one, or to change its rank; O(1) to look at the first.
#[derive(Clone, Debug, Default)]
pub(super) struct Heap {
    /// No entry comes before its parent, which is at (i − 1) / 2.
    entries: Vec<Entry>,
    /// For each slot where its entry is.
    places: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    rank: f32,
    slot: u32,
    key: u64,
}

impl Entry {
    fn before(&self, other: &Self) -> bool {
        self.rank.total_cmp(&other.rank).then(self.key.cmp(&other.key)).is_lt()
    }
}

impl Heap {
    /// Bytes for each slot.
    pub(super) const SLOT_BYTES: usize = size_of::<Entry>() + size_of::<u32>();

    /// Room for so many slots; their memory is touched when they come.
    pub(super) fn new(slots: usize) -> Result<Self, std::collections::TryReserveError> {
        let (mut entries, mut places) = (Vec::new(), Vec::new());
        entries.try_reserve_exact(slots)?;
        places.try_reserve_exact(slots)?;
        Ok(Self { entries, places })
    }

    /// The slot that comes first.
    pub(super) fn first(&self) -> Option<u32> {
        self.entries.first().map(|entry| entry.slot)
    }

    /// Adds the next slot, which is as many as there are.
    pub(super) fn push(&mut self, rank: f32, key: u64) {
        let last = self.entries.len();
        self.entries.push(Entry { rank, slot: last as u32, key });
        self.places.push(last as u32);
        self.rise(last);
    }

    /// Gives `slot` another rank.
    pub(super) fn set(&mut self, slot: u32, rank: f32) {
        let place = self.places[slot as usize] as usize;
        self.entries[place].rank = rank;
        let place = self.rise(place);
        self.sink(place);
    }

    /// Takes `slot` out; the last slot gets its number.
    pub(super) fn swap_remove(&mut self, slot: u32) {
        let place = self.places.swap_remove(slot as usize) as usize;
        if let Some(moved) = self.places.get(slot as usize) {
            self.entries[*moved as usize].slot = slot;
        }
        self.entries.swap_remove(place);
        if place < self.entries.len() {
            self.settle(place);
            let place = self.rise(place);
            self.sink(place);
        }
    }

    /// Notes where the entry at `place` is.
    fn settle(&mut self, place: usize) {
        self.places[self.entries[place].slot as usize] = place as u32;
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.entries.swap(one, other);
        self.settle(one);
        self.settle(other);
    }

    /// Moves the entry at `place` up to where it belongs, and says where that is.
    fn rise(&mut self, mut place: usize) -> usize {
        while place > 0 {
            let parent = (place - 1) / 2;
            if !self.entries[place].before(&self.entries[parent]) {
                break;
            }
            self.swap(place, parent);
            place = parent;
        }
        place
    }

    /// Moves the entry at `place` down to where it belongs.
    fn sink(&mut self, mut place: usize) {
        loop {
            let mut least = place;
            for child in [2 * place + 1, 2 * place + 2] {
                if child < self.entries.len() && self.entries[child].before(&self.entries[least]) {
                    least = child;
                }
            }
            if least == place {
                return;
            }
            self.swap(place, least);
            place = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Op {
        Push(u8),
        Set(prop::sample::Index, u8),
        Remove(prop::sample::Index),
        RemoveFirst,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => (0u8..6).prop_map(Op::Push),
            2 => (any::<prop::sample::Index>(), 0u8..6).prop_map(|(slot, rank)| Op::Set(slot, rank)),
            1 => any::<prop::sample::Index>().prop_map(Op::Remove),
            1 => Just(Op::RemoveFirst),
        ]
    }

    proptest! {
        #[test]
        fn the_first_is_what_a_loop_finds(ops in prop::collection::vec(op(), 1..200)) {
            let (mut heap, mut model, mut key) = (Heap::new(4).unwrap(), Vec::<(u8, u64)>::new(), 0);
            for op in ops {
                match op {
                    Op::Push(rank) => {
                        heap.push(rank.into(), key);
                        model.push((rank, key));
                        key += 1;
                    }
                    _ if model.is_empty() => {}
                    Op::Set(slot, rank) => {
                        let slot = slot.index(model.len());
                        heap.set(slot as u32, rank.into());
                        model[slot].0 = rank;
                    }
                    Op::Remove(slot) => {
                        let slot = slot.index(model.len());
                        heap.swap_remove(slot as u32);
                        model.swap_remove(slot);
                    }
                    Op::RemoveFirst => {
                        let slot = heap.first().unwrap();
                        heap.swap_remove(slot);
                        model.swap_remove(slot as usize);
                    }
                }
                let first = (0..model.len()).min_by_key(|slot| model[*slot]);
                prop_assert_eq!(heap.first().map(|slot| slot as usize), first);
            }
        }
    }
}
