//! Who may touch which row: the ring's bookkeeping, as a state machine without locks or memory.
//!
//! Every row has a *serial*, counted from 0 in the order of claiming; it is the row's key for ever. The ring has
//! `slots = capacity + reserve` slots, and serial s lives in slot s mod `slots`. Three counters cut the serials:
//!
//! ```text
//!   0 ……………… live.start ………………………… published ………… claimed
//!   overwritten │ live: may be drawn │ being copied │ not yet given out
//! ```
//!
//! A serial goes through these states:
//!
//! 1. *claimed* by one writer ([`try_claim`](Control::try_claim)), which alone may write its slot;
//! 2. *ready* once that writer has copied its row ([`publish`](Control::publish)), or *given up* when it could not
//!    ([`give_up`](Control::give_up));
//! 3. *live* once every serial before it is ready as well ([`advance`](Control::advance)): rows come to life in the
//!    order of their serials, so the live rows are one range;
//! 4. *overwritten*, in two steps: it leaves the live range when `capacity` newer rows live, and its slot is claimed
//!    anew only `reserve` rows later.
//!
//! A reader *pins* the oldest serial that it is going to copy. Invariants, on which the safety of the memory rests:
//!
//! * A slot has one writer at a time, and never a writer and a reader. The serial s that is claimed next shares its slot
//!   with s − slots and no other. It is given out only when (a) s < published + reserve, so that s − slots lies before
//!   the live range and is no longer being written, nor can it be pinned afresh; and (b) s − slots lies before every
//!   pin, so that no reader is still copying it.
//! * Every pin lay in the live range when it was made. Hence new readers never hold up a writer: by (a), whatever is
//!   live may be pinned without delaying any claim that (a) allows; a writer waits only for readers that began at least
//!   `reserve` rows ago, and those finish without needing anything of it.
//! * No live row is lost: the live range shrinks only by growing at its other end.

use std::collections::VecDeque;
use std::ops::Range;

/// What has become of a claimed serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Copying,
    Ready,
    GivenUp,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Control {
    capacity: u64,
    reserve: u64,
    /// Nothing before it was ever live here: 0, or where a restored buffer began.
    floor: u64,
    published: u64,
    /// One entry for each serial from `published` on that has been claimed.
    window: VecDeque<Progress>,
    /// The oldest serial that each reader may still touch. In no order; as many as there are readers copying right now.
    pins: Vec<u64>,
}

impl Control {
    /// An empty ring of `capacity` rows and `reserve` more slots, both at least 1.
    pub(crate) fn new(capacity: u64, reserve: u64) -> Self {
        assert!(capacity > 0 && reserve > 0);
        Self {
            capacity,
            reserve,
            floor: 0,
            published: 0,
            window: VecDeque::with_capacity(reserve as usize),
            pins: Vec::with_capacity(16),
        }
    }

    /// The serials that may be drawn.
    pub(crate) fn live(&self) -> Range<u64> {
        self.floor.max(self.published.saturating_sub(self.capacity))..self.published
    }

    /// Claims the next `rows` serials, if their slots are free.
    pub(crate) fn try_claim(&mut self, rows: u64) -> Option<Range<u64>> {
        debug_assert!(rows <= self.reserve, "a larger claim would wait for ever");
        let first = self.published + self.window.len() as u64;
        let end = first + rows;
        if end > self.published + self.reserve {
            return None;
        }
        // The last serial claimed, end − 1, overwrites end − 1 − slots.
        let slots = self.capacity + self.reserve;
        if self.pins.iter().any(|pin| end > pin + slots) {
            return None;
        }
        self.window.extend((0..rows).map(|_| Progress::Copying));
        Some(first..end)
    }

    /// The rows of a claim are copied.
    pub(crate) fn publish(&mut self, keys: Range<u64>) {
        self.mark(keys, Progress::Ready);
    }

    /// The rows of a claim will not be copied. Its serials go back if they are the newest; if others have been claimed
    /// since, they cannot, and [`advance`](Self::advance) has them filled.
    pub(crate) fn give_up(&mut self, keys: Range<u64>) {
        self.mark(keys, Progress::GivenUp);
        while self.window.back() == Some(&Progress::GivenUp) {
            self.window.pop_back();
        }
    }

    /// Brings to life, in order, the serials that are ready, and returns those that became live.
    ///
    /// A serial that was given up becomes a copy of the row before it, which `repeat(serial)` must make at once: the
    /// sequence of serials then has no hole, and no garbage is ever drawn. If there is no row before it, the live range
    /// begins after it.
    pub(crate) fn advance(&mut self, mut repeat: impl FnMut(u64)) -> Range<u64> {
        let before = self.published;
        loop {
            match self.window.front() {
                Some(Progress::Ready) => {}
                Some(Progress::GivenUp) if self.live().is_empty() => self.floor = self.published + 1,
                Some(Progress::GivenUp) => repeat(self.published),
                Some(Progress::Copying) | None => break,
            }
            self.window.pop_front();
            self.published += 1;
        }
        before.max(self.floor).min(self.published)..self.published
    }

    /// A reader begins; it will touch no serial before `oldest`, which must be live.
    pub(crate) fn pin(&mut self, oldest: u64) {
        debug_assert!(self.live().contains(&oldest));
        self.pins.push(oldest);
    }

    /// The reader that pinned `oldest` is done.
    pub(crate) fn unpin(&mut self, oldest: u64) {
        let position = self.pins.iter().position(|pin| *pin == oldest);
        debug_assert!(position.is_some(), "every pin is taken back once");
        if let Some(position) = position {
            self.pins.swap_remove(position);
        }
    }

    /// The reader that pinned `oldest` is done with the serials before `next`, which is not older.
    pub(crate) fn move_pin(&mut self, oldest: u64, next: u64) {
        debug_assert!(oldest <= next);
        // `next` need not be live any more: it was pinned all along.
        self.unpin(oldest);
        self.pins.push(next);
    }

    /// Whether nobody is copying anything.
    pub(crate) fn is_quiet(&self) -> bool {
        self.window.is_empty() && self.pins.is_empty()
    }

    /// Puts the counters to where `live` says. Only when quiet; `live` must not exceed the capacity.
    pub(crate) fn restore(&mut self, live: Range<u64>) {
        assert!(self.is_quiet() && live.start <= live.end && live.end - live.start <= self.capacity);
        self.floor = live.start;
        self.published = live.end;
    }

    fn mark(&mut self, keys: Range<u64>, progress: Progress) {
        for key in keys {
            let entry = &mut self.window[(key - self.published) as usize];
            debug_assert_eq!(*entry, Progress::Copying, "a claim ends once");
            *entry = progress;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: u64) {
        panic!("nothing was given up");
    }

    #[test]
    fn rows_come_to_life_in_order() {
        let mut control = Control::new(4, 3);
        let (a, b, c) =
            (control.try_claim(1).unwrap(), control.try_claim(1).unwrap(), control.try_claim(1).unwrap());
        assert_eq!(control.try_claim(1), None, "the reserve is spent");
        control.publish(c);
        assert_eq!(control.advance(none), 0..0);
        control.publish(a);
        assert_eq!(control.advance(none), 0..1);
        assert_eq!(control.live(), 0..1);
        control.publish(b);
        assert_eq!(control.advance(none), 1..3);
        assert_eq!(control.live(), 0..3);
    }

    #[test]
    fn a_pin_holds_its_slot_and_no_newer_one() {
        let mut control = Control::new(4, 2);
        for _ in 0..4 {
            let keys = control.try_claim(1).unwrap();
            control.publish(keys);
            control.advance(none);
        }
        control.pin(1);
        // Serial 6 goes into slot 0, which nobody reads; serial 7 would go into the slot of 1.
        for serial in 4..7 {
            assert_eq!(control.try_claim(1), Some(serial..serial + 1));
            control.publish(serial..serial + 1);
            control.advance(none);
        }
        assert_eq!(control.try_claim(1), None);
        assert_eq!(control.live(), 3..7);
        control.pin(3);
        control.unpin(1);
        assert_eq!(control.try_claim(2), Some(7..9), "what is live may be pinned without delay to anyone");
    }

    #[test]
    fn a_pin_that_moves_on_frees_what_is_behind_it() {
        let mut control = Control::new(4, 2);
        let go_on = |control: &mut Control| {
            let keys = control.try_claim(1)?;
            control.publish(keys.clone());
            control.advance(none);
            Some(keys.start)
        };
        (0..4).for_each(|_| assert!(go_on(&mut control).is_some()));
        control.pin(0);
        assert_eq!((go_on(&mut control), go_on(&mut control)), (Some(4), Some(5)));
        assert_eq!(go_on(&mut control), None, "serial 6 would overwrite 0");
        control.move_pin(0, 1);
        assert_eq!(control.live(), 2..6, "what is pinned need not be live any more");
        assert_eq!((go_on(&mut control), go_on(&mut control)), (Some(6), None));
        control.unpin(1);
        assert!(go_on(&mut control).is_some() && control.is_quiet());
    }

    #[test]
    fn what_is_given_up_goes_back_or_is_filled() {
        let mut control = Control::new(4, 4);
        let (a, b) = (control.try_claim(1).unwrap(), control.try_claim(2).unwrap());
        control.give_up(b);
        assert_eq!(control.try_claim(1), Some(1..2), "the newest serials are given out again");
        control.give_up(a);
        assert!(control.advance(none).is_empty());
        control.publish(1..2);
        assert_eq!(control.advance(none), 1..2, "before the first row there is nothing to repeat");
        assert_eq!(control.live(), 1..2);

        let (c, d) = (control.try_claim(1).unwrap(), control.try_claim(1).unwrap());
        control.give_up(c);
        control.publish(d);
        let mut filled = Vec::new();
        assert_eq!(control.advance(|serial| filled.push(serial)), 2..4);
        assert_eq!((filled, control.live()), (vec![2], 1..4));
        assert!(control.is_quiet());
    }
}
