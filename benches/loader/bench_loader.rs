//! How many rows a second the loader gives, from a table in memory, in shuffled epochs. `scripts/bench-loader` runs it beside other libraries.
//!
//! ```text
//! cargo run --release -p rl-minibatch --example bench_loader              # a line a workload and number of workers
//! cargo run --release -p rl-minibatch --example bench_loader -- --json    # the same as JSON
//! cargo run --release -p rl-minibatch --example bench_loader -- --serve   # a window for each line "WORKLOAD VARIANT SECONDS"
//! ```
//!
//! Variants are numbers of workers, and `memcpy`: the same bytes copied in blocks of a batch by one thread, from one place to another,
//! which is what memory allows.

use rl_minibatch::{BatchSize, Batches, Dtype, Field, LastBatch, Loader, Schema, Shuffled, Table};
use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Workload {
    name: &'static str,
    field: Field,
    rows: usize,
    batch: usize,
}

fn workloads() -> [Workload; 2] {
    [
        Workload { name: "small", field: Field::new("x", Dtype::F32, [64]), rows: 1_000_000, batch: 256 },
        Workload { name: "image", field: Field::new("x", Dtype::U8, [3, 224, 224]), rows: 2_000, batch: 64 },
    ]
}

/// A workload's table, and its loaders by number of workers, each made when it is first asked for.
struct Bench {
    workload: Workload,
    table: Arc<Table>,
}

impl Bench {
    fn new(workload: Workload) -> Result<Self, Box<dyn Error>> {
        let schema = Schema::new(vec![workload.field.clone()])?;
        let bytes: Vec<u8> = (0..workload.rows * schema.row_bytes()).map(|i| (i % 251) as u8).collect();
        let table = Arc::new(Table::new(&schema, workload.rows, &[&bytes])?);
        Ok(Self { workload, table })
    }

    /// Rows a second in a window of `seconds`, after a tenth of that to warm up.
    fn measure(&self, variant: &str, seconds: f64) -> Result<f64, Box<dyn Error>> {
        if variant == "memcpy" {
            return Ok(self.memcpy(seconds));
        }
        let batches = Batches::builder(
            Shuffled::new(self.workload.rows as u64)?,
            self.workload.rows as u64,
            BatchSize::Fixed(self.workload.batch),
        );
        let batches = batches.last(LastBatch::Drop).seed(1).build()?;
        let builder = Loader::builder(Arc::clone(&self.table), batches).workers(variant.parse()?);
        let mut loader = builder.build()?;
        let mut run = |seconds: f64| -> Result<f64, Box<dyn Error>> {
            let (start, mut rows) = (Instant::now(), 0);
            let window = Duration::from_secs_f64(seconds);
            while start.elapsed() < window {
                let batch = loader.next()?;
                rows += black_box(batch.column(0).len()) / self.table.schema().row_bytes();
            }
            Ok(rows as f64 / start.elapsed().as_secs_f64())
        };
        run(seconds / 10.0)?;
        run(seconds)
    }

    fn memcpy(&self, seconds: f64) -> f64 {
        let row = self.table.schema().row_bytes();
        let from = vec![1u8; self.workload.rows * row];
        let mut to = vec![0u8; self.workload.batch * row];
        let mut blocks = from.chunks_exact(to.len()).cycle();
        let (mut start, mut rows) = (Instant::now(), 0);
        let warm = Duration::from_secs_f64(seconds / 10.0);
        let mut window = warm;
        loop {
            to.copy_from_slice(blocks.next().expect("there is a block"));
            black_box(&mut to);
            rows += self.workload.batch;
            if start.elapsed() >= window {
                if window > warm {
                    return rows as f64 / start.elapsed().as_secs_f64();
                }
                (start, rows, window) = (Instant::now(), 0, Duration::from_secs_f64(seconds));
            }
        }
    }

    fn json(&self, variant: &str, rows_per_s: f64) -> String {
        let bytes = rows_per_s * self.table.schema().row_bytes() as f64;
        format!(
            r#"{{"library":"rl-minibatch","workload":"{}","variant":"{variant}","rows_per_s":{rows_per_s:.1},"gb_per_s":{:.3}}}"#,
            self.workload.name,
            bytes / 1e9
        )
    }
}

fn serve(benches: &[Bench]) -> Result<(), Box<dyn Error>> {
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let [workload, variant, seconds] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            return Err(format!("'{line}' is not WORKLOAD VARIANT SECONDS").into());
        };
        let bench = benches.iter().find(|bench| bench.workload.name == workload);
        let bench = bench.ok_or_else(|| format!("no workload is called '{workload}'"))?;
        println!("{}", bench.json(variant, bench.measure(variant, seconds.parse()?)?));
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asked = |name: &str| arguments.iter().any(|argument| argument == name);
    let benches = workloads().into_iter().map(Bench::new).collect::<Result<Vec<_>, _>>()?;
    if asked("--serve") {
        return serve(&benches);
    }
    for bench in &benches {
        for variant in ["0", "1", "2", "memcpy"] {
            let mut windows = (0..5).map(|_| bench.measure(variant, 0.3)).collect::<Result<Vec<_>, _>>()?;
            windows.sort_by(f64::total_cmp);
            if asked("--json") {
                println!("{}", bench.json(variant, windows[2]));
            } else {
                println!("{:6} {variant:>6} {:14.0} rows/s", bench.workload.name, windows[2]);
            }
        }
    }
    Ok(())
}
