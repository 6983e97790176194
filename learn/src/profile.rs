//! Where a run's time goes: spans with a name, written as a trace that `chrome://tracing` and Perfetto show.
//!
//! [`span`] and [`time`] mark what is done; without a [`Profile`] each costs one load and one branch. With one, a span costs two looks at
//! the clock and a lock that nobody else wants. A span is the host's time: what a GPU does for it may come later.
//!
//! ```
//! # let folder = std::env::temp_dir().join(format!("rl-learn-profile-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! let profile = rl_learn::profile::Profile::start(&folder.join("trace.json"))?;
//! let sum: u64 = rl_learn::profile::time("add", || (0..1000).sum());
//! profile.finish()?;
//! # assert_eq!(sum, 499_500);
//! # assert!(std::fs::read_to_string(folder.join("trace.json"))?.contains("\"name\":\"add\""));
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok::<(), std::io::Error>(())
//! ```

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Spans that a trace holds at most, 150 MB or so: viewers cope with that. Later ones are counted and left out.
pub const MAX_SPANS: u64 = 2_000_000;
/// Spans a thread keeps before it writes them.
const CHUNK: usize = 4_096;

/// Whether spans are recorded. Read without ordering: that a span at the very start or end is missed does no harm.
static ON: AtomicBool = AtomicBool::new(false);
/// The trace that is being written, if there is one.
static TRACE: Mutex<Option<Trace>> = Mutex::new(None);

thread_local! {
    /// This thread's spans, and the trace that they are of.
    static MINE: RefCell<Option<Mine>> = const { RefCell::new(None) };
}

/// A trace that is being written. There can be one at a time in a process.
#[derive(Debug)]
pub struct Profile {
    _one: (),
}

/// What is being done now; it ends when this is dropped.
#[derive(Debug)]
#[must_use = "a span ends when it is dropped"]
pub struct Span(Option<(&'static str, Instant)>);

/// A file that is a whole JSON array after each write, so that even a run that was killed leaves one that can be read.
struct Trace {
    file: File,
    /// Where the closing bracket is.
    end: u64,
    begin: Instant,
    written: u64,
    left_out: u64,
    threads: Vec<Arc<Mutex<Buffer>>>,
    /// Why writing stopped; [`Profile::finish`] says so.
    broken: Option<io::Error>,
}

#[derive(Default)]
struct Buffer {
    thread: usize,
    spans: Vec<(&'static str, Instant, Instant)>,
}

struct Mine {
    begin: Instant,
    buffer: Arc<Mutex<Buffer>>,
}

/// Marks what is done from now until the span is dropped.
#[inline]
pub fn span(name: &'static str) -> Span {
    Span(ON.load(Ordering::Relaxed).then(|| (name, Instant::now())))
}

/// Does `work` in a span of its own.
#[inline]
pub fn time<T>(name: &'static str, work: impl FnOnce() -> T) -> T {
    let _span = span(name);
    work()
}

impl Drop for Span {
    #[inline]
    fn drop(&mut self) {
        if let Some((name, begin)) = self.0 {
            record(name, begin, Instant::now());
        }
    }
}

impl Profile {
    /// Creates the file at `path`, and records from now on.
    ///
    /// # Errors
    /// When the file cannot be written, or another trace is.
    pub fn start(path: &Path) -> io::Result<Self> {
        let mut trace = lock(&TRACE);
        if trace.is_some() {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another profile is being written"));
        }
        let mut file = File::create(path)?;
        let process = std::process::id();
        // An event that says nothing new, so that all others begin with a comma.
        let head = format!(
            "[\n{{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":{process},\"tid\":0,\"args\":{{\"name\":\"rl-train\"}}}}"
        );
        file.write_all(format!("{head}\n]\n").as_bytes())?;
        *trace = Some(Trace {
            file,
            end: head.len() as u64,
            begin: Instant::now(),
            written: 0,
            left_out: 0,
            threads: Vec::new(),
            broken: None,
        });
        ON.store(true, Ordering::Relaxed);
        Ok(Self { _one: () })
    }

    /// Stops recording and writes what is left. Dropping does the same, and keeps quiet about errors.
    ///
    /// # Errors
    /// When something could not be written; what was written before can be read.
    pub fn finish(self) -> io::Result<()> {
        close()
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        let _ = close();
    }
}

fn close() -> io::Result<()> {
    ON.store(false, Ordering::Relaxed);
    let Some(mut trace) = lock(&TRACE).take() else { return Ok(()) };
    for buffer in std::mem::take(&mut trace.threads) {
        let mut buffer = lock(&buffer);
        let (thread, spans) = (buffer.thread, std::mem::take(&mut buffer.spans));
        drop(buffer);
        trace.write(thread, &spans);
    }
    if trace.left_out > 0 {
        let text = format!(
            ",\n{{\"name\":\"{} later spans are left out\",\"ph\":\"i\",\"s\":\"g\",\"ts\":{},\"pid\":{},\"tid\":0}}",
            trace.left_out,
            trace.begin.elapsed().as_micros(),
            std::process::id()
        );
        trace.append(&text);
    }
    trace.broken.map_or(Ok(()), Err)
}

/// Keeps a span, and writes the thread's when there are many.
fn record(name: &'static str, begin: Instant, end: Instant) {
    MINE.with_borrow_mut(|mine| {
        // From a trace before this one nothing is taken over.
        if mine.as_ref().is_none_or(|mine| begin < mine.begin || Arc::strong_count(&mine.buffer) == 1) {
            *mine = join();
        }
        let Some(Mine { buffer, .. }) = mine else { return };
        let mut buffer = lock(buffer);
        buffer.spans.push((name, begin, end));
        if buffer.spans.len() >= CHUNK {
            let (thread, spans) = (buffer.thread, std::mem::take(&mut buffer.spans));
            drop(buffer);
            if let Some(trace) = &mut *lock(&TRACE) {
                trace.write(thread, &spans);
            }
        }
    });
}

/// Makes this thread known to the trace, if there is one.
fn join() -> Option<Mine> {
    let mut trace = lock(&TRACE);
    let trace = trace.as_mut()?;
    let thread = trace.threads.len() + 1;
    let buffer = Arc::new(Mutex::new(Buffer { thread, spans: Vec::with_capacity(CHUNK) }));
    trace.threads.push(buffer.clone());
    let current = std::thread::current();
    let name: String = current.name().unwrap_or("thread").chars().filter(|c| c.is_ascii_graphic()).collect();
    let name = name.replace(['"', '\\'], "");
    let process = std::process::id();
    trace.append(&format!(
        ",\n{{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":{process},\"tid\":{thread},\"args\":{{\"name\":\"{name}\"}}}}"
    ));
    Some(Mine { begin: trace.begin, buffer })
}

impl Trace {
    fn write(&mut self, thread: usize, spans: &[(&'static str, Instant, Instant)]) {
        let room = (MAX_SPANS - self.written).min(spans.len() as u64) as usize;
        self.written += room as u64;
        self.left_out += (spans.len() - room) as u64;
        let (process, mut text) = (std::process::id(), String::with_capacity(room * 80));
        for (name, begin, end) in &spans[..room] {
            // Microseconds with the nanoseconds behind the point.
            let ns = |from: Instant, to: Instant| to.saturating_duration_since(from).as_nanos();
            let (ts, dur) = (ns(self.begin, *begin), ns(*begin, *end));
            let _ = write!(
                text,
                ",\n{{\"name\":\"{name}\",\"ph\":\"X\",\"ts\":{}.{:03},\"dur\":{}.{:03},\"pid\":{process},\"tid\":{thread}}}",
                ts / 1_000,
                ts % 1_000,
                dur / 1_000,
                dur % 1_000
            );
        }
        self.append(&text);
    }

    /// Writes `text` where the closing bracket was, and the bracket behind it.
    fn append(&mut self, text: &str) {
        if text.is_empty() || self.broken.is_some() {
            return;
        }
        let written = self
            .file
            .seek(SeekFrom::Start(self.end))
            .and_then(|_| self.file.write_all(format!("{text}\n]\n").as_bytes()));
        match written {
            Ok(()) => self.end += text.len() as u64,
            Err(e) => self.broken = Some(e),
        }
    }
}

/// What a thread that panicked has left is as good as before: nothing here is half done across a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
