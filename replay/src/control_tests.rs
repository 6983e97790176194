//! `control.rs` step by step on one thread. Not in that file, which `tests/model.rs` includes: its atomics are others,
//! and work only inside of a model.

use crate::control::Control;

fn insert(control: &Control, rows: u64) {
    let keys = control.try_claim(rows).unwrap();
    control.publish(keys);
}

#[test]
fn rows_come_to_life_in_order() {
    let control = Control::new(4, 3).unwrap();
    let [a, b, c] = [(); 3].map(|()| control.try_claim(1).unwrap());
    assert_eq!(control.try_claim(1), None, "the slack is spent");
    control.publish(c);
    assert_eq!(control.live(), 0..0);
    control.publish(a);
    assert_eq!(control.live(), 0..1);
    control.publish(b);
    assert_eq!(control.live(), 0..3);
    insert(&control, 3);
    assert_eq!(control.live(), 2..6);
}

#[test]
fn a_pin_holds_its_slot_and_no_newer_one() {
    let control = Control::new(4, 2).unwrap();
    let (early, late) = (control.cell(), control.cell());
    assert_eq!(control.pin(&early), None, "there is nothing to pin");
    for _ in 0..5 {
        insert(&control, 1);
    }
    assert_eq!(control.pin(&early), Some(1..5));
    // Serial 6 goes into slot 0, which nobody reads; serial 7 would go into the slot of 1.
    insert(&control, 1);
    insert(&control, 1);
    assert_eq!(control.try_claim(1), None);
    assert_eq!(control.pin(&late), Some(3..7));
    control.move_pin(&early, 2);
    assert_eq!(control.try_claim(1), Some(7..8));
    assert_eq!(control.try_claim(1), None);
    control.unpin(&early);
    assert_eq!(control.try_claim(1), Some(8..9), "what is live may be pinned without delay to anyone");
    control.publish(7..8);
    control.publish(8..9);
    control.withdraw(&late);
    insert(&control, 2);
    assert_eq!(control.live(), 7..11);
}

#[test]
fn windows_of_many_laps_do_not_mix() {
    let control = Control::new(3, 5).unwrap();
    for lap in 0..100 {
        let [a, b] = [2, 3].map(|rows| control.try_claim(rows).unwrap());
        assert_eq!(a.start, lap * 5);
        control.publish(b);
        assert_eq!(control.live().end, lap * 5);
        control.publish(a);
        assert_eq!(control.live().end, lap * 5 + 5);
    }
}

#[test]
fn closed_for_a_restore() {
    let control = Control::new(4, 4).unwrap();
    insert(&control, 3);
    control.close();
    assert_eq!(control.try_claim(1), None);
    control.restore(90..93);
    control.open();
    assert_eq!(control.live(), 90..93);
    assert_eq!(control.try_claim(4), Some(93..97));
}
