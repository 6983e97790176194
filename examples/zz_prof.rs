use rl_replay::*;
use std::time::Instant;
fn main() {
    let which: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let schema = [
        Schema::transition((Dtype::F32, &[4]), (Dtype::I64, &[])).unwrap(),
        Schema::transition((Dtype::F32, &[17]), (Dtype::F32, &[6])).unwrap(),
    ][which]
        .clone();
    let cap = 1_000_000_000 / schema.row_bytes();
    let b = |p: bool| {
        let b = Replay::builder(schema.clone()).capacity(cap);
        if p { b.prioritized(Prioritized::default()) } else { b }.build().unwrap()
    };
    for p in [false, true] {
        let r = b(p);
        let n = 10_000;
        let cols: Vec<Vec<u8>> = schema.fields().iter().map(|f| vec![0u8; f.row_bytes() * n]).collect();
        let cols: Vec<&[u8]> = cols.iter().map(|c| &c[..]).collect();
        let mut w = r.writer();
        let t = Instant::now();
        for _ in 0..cap / n {
            w.push_rows(n, &cols).unwrap();
        }
        println!("fill {:?}", t.elapsed());
        for _ in 0..3 {
            let t = Instant::now();
            let s = r.save("/dev/shm/zz.replay").unwrap();
            let e = t.elapsed();
            println!(
                "prio {p}: save {:?} {:.2} GB/s, {:.1} ns/row",
                e,
                s.file_bytes as f64 / 1e9 / e.as_secs_f64(),
                e.as_secs_f64() * 1e9 / cap as f64
            );
        }
        drop(r);
        for _ in 0..3 {
            let r = b(p);
            let t = Instant::now();
            r.load("/dev/shm/zz.replay").unwrap();
            let e = t.elapsed();
            println!("prio {p}: load {:?} {:.1} ns/row", e, e.as_secs_f64() * 1e9 / cap as f64);
        }
    }
    std::fs::remove_file("/dev/shm/zz.replay").unwrap();
}
