//! A bar for the epoch in hand.

use super::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressState, ProgressStyle};
use parking_lot::Mutex;
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Where nobody watches, no more than a line in this time.
const BETWEEN_LINES: Duration = Duration::from_secs(1);

/// Shows how far a [`Loader`](super::Loader) is (feature `progress`): epoch, rows and batches of the epoch, rows a second, the time
/// until the epoch ends, and a message.
///
/// ```text
/// epoch 3/20 ##########---------- 704/1438 rows, batch 22, 30512/s, 0s left, loss 0.021
/// ```
///
/// It is drawn on the standard error, on a terminal at most 20 times a second; a batch costs a comparison of times. Where that is no terminal,
/// a line is written when an epoch is over, but one a second at most, and the last epoch's in any case. Clones are the same bar.
///
/// ```
/// use rl_minibatch::{BatchSize, Batches, Dtype, EpochBar, Field, Loader, Schema, Shuffled, Table};
/// let table = Table::new(&Schema::new(vec![Field::new("x", Dtype::U8, [])])?, 5, &[&[0, 1, 2, 3, 4]])?;
/// let batches = Batches::builder(Shuffled::new(5)?, 5, BatchSize::Fixed(2)).build()?;
/// let bar = EpochBar::new(Some(3));
/// let mut loader = Loader::builder(table, batches).progress_bar(&bar).build()?;
/// for _ in 0..3 {
///     for batch in loader.epoch() {
///         bar.set_message(format!("sum {}", batch?.typed::<u8>("x")?.iter().sum::<u8>()));
///     }
/// }
/// bar.finish();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct EpochBar(Arc<Mutex<State>>);

struct State {
    epochs: Option<u64>,
    epoch: Option<u64>,
    shape: Shape,
}

enum Shape {
    Bar { bar: ProgressBar, batches: Arc<AtomicU64> },
    Lines(Lines),
}

struct Lines {
    to: Box<dyn Write + Send>,
    message: String,
    /// What is known of the epoch in hand, and when it was first heard of with how many rows drawn already.
    latest: Option<Progress>,
    began: (Instant, u64),
    written: Option<Instant>,
}

impl EpochBar {
    /// A bar for a training of `epochs` epochs, or of an unknown number.
    pub fn new(epochs: Option<u64>) -> Self {
        match std::io::stderr().is_terminal() {
            true => Self::on(epochs, ProgressDrawTarget::stderr()),
            false => Self::lines(epochs, std::io::stderr()),
        }
    }

    /// Lines and no bar, on any writer: a log file.
    pub fn lines(epochs: Option<u64>, to: impl Write + Send + 'static) -> Self {
        let (to, message) = (Box::new(to), String::new());
        let lines = Lines { to, message, latest: None, began: (Instant::now(), 0), written: None };
        Self::of(epochs, Shape::Lines(lines))
    }

    fn on(epochs: Option<u64>, target: ProgressDrawTarget) -> Self {
        let batches = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&batches);
        let template =
            "epoch {prefix} {wide_bar} {pos}/{len} rows, batch {batch}, {speed}/s, {eta} left{msg}";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let style = style
            .progress_chars("##-")
            .with_key("batch", move |_: &ProgressState, to: &mut dyn std::fmt::Write| {
                // Nothing to be done about a terminal that is closed.
                let _ = write!(to, "{}", counted.load(Ordering::Relaxed));
            })
            .with_key("speed", |state: &ProgressState, to: &mut dyn std::fmt::Write| {
                let _ = write!(to, "{:.0}", state.per_sec());
            });
        let bar = ProgressBar::with_draw_target(Some(0), target).with_finish(ProgressFinish::Abandon);
        bar.set_style(style);
        Self::of(epochs, Shape::Bar { bar, batches })
    }

    fn of(epochs: Option<u64>, shape: Shape) -> Self {
        Self(Arc::new(Mutex::new(State { epochs, epoch: None, shape })))
    }

    /// Shows `progress`. A loader with this [`progress_bar`](super::LoaderBuilder::progress_bar) calls it with each batch.
    pub fn show(&self, progress: &Progress) {
        let State { epochs, epoch, shape } = &mut *self.0.lock();
        let begins = *epoch != Some(progress.epoch);
        *epoch = Some(progress.epoch);
        match shape {
            Shape::Bar { bar, batches } => {
                batches.store(progress.epoch_batches, Ordering::Relaxed);
                if begins {
                    bar.set_prefix(name(progress.epoch, *epochs));
                    match progress.epoch_rows {
                        Some(rows) => bar.set_length(rows),
                        None => bar.unset_length(),
                    }
                    bar.reset();
                }
                bar.set_position(if progress.epoch_rows.is_some() {
                    progress.epoch_drawn
                } else {
                    progress.rows
                });
            }
            Shape::Lines(lines) => {
                if begins {
                    lines.write(*epochs, false);
                    lines.began = (Instant::now(), progress.epoch_drawn);
                }
                lines.latest = Some(*progress);
            }
        }
    }

    /// Shows `message` behind the numbers: a loss, say. It stays until there is another.
    pub fn set_message(&self, message: impl Display) {
        match &mut self.0.lock().shape {
            Shape::Bar { bar, .. } => bar.set_message(format!(", {message}")),
            Shape::Lines(lines) => lines.message = message.to_string(),
        }
    }

    /// Leaves the bar as it is and ends its line.
    pub fn finish(&self) {
        let State { epochs, shape, .. } = &mut *self.0.lock();
        match shape {
            Shape::Bar { bar, .. } => bar.abandon(),
            Shape::Lines(lines) => {
                lines.write(*epochs, true);
                lines.latest = None;
            }
        }
    }
}

/// With the last clone: whoever does not say that it is over has the last epoch's line all the same. (A bar stays as it is.)
impl Drop for State {
    fn drop(&mut self) {
        if let Shape::Lines(lines) = &mut self.shape {
            lines.write(self.epochs, true);
        }
    }
}

impl Lines {
    /// Writes what is known of the epoch in hand, unless it is too soon and need not be.
    fn write(&mut self, epochs: Option<u64>, at_once: bool) {
        let Some(at) = self.latest else { return };
        if !at_once && self.written.is_some_and(|before| before.elapsed() < BETWEEN_LINES) {
            return;
        }
        self.written = Some(Instant::now());
        let (began, before) = self.began;
        // Of the first batch it is not known how long it took.
        let rate = match at.epoch_drawn - before.min(at.epoch_drawn) {
            0 => String::new(),
            rows => format!(", {:.0}/s", rows as f64 / began.elapsed().as_secs_f64().max(1e-9)),
        };
        let (epoch, comma) = (name(at.epoch, epochs), if self.message.is_empty() { "" } else { ", " });
        let (rows, batches, message) = (at.epoch_drawn, at.epoch_batches, &self.message);
        // Nothing to be done about a log that cannot be written.
        let _ = writeln!(self.to, "epoch {epoch}: {rows} rows in {batches} batches{rate}{comma}{message}");
        let _ = self.to.flush();
    }
}

fn name(epoch: u64, epochs: Option<u64>) -> String {
    match epochs {
        Some(epochs) => format!("{}/{epochs}", epoch + 1),
        None => format!("{}", epoch + 1),
    }
}

impl std::fmt::Debug for EpochBar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.0.lock();
        f.debug_struct("EpochBar").field("epochs", &state.epochs).field("epoch", &state.epoch).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchSize, Batches, Dtype, Field, Loader, Schema, Sequential, Table};
    use indicatif::InMemoryTerm;

    /// A loader of 25 rows in batches of 10, from the third batch on, say, of epochs of three.
    fn loader(bar: &EpochBar) -> Loader {
        let schema = Schema::new(vec![Field::new("x", Dtype::U8, [])]).unwrap();
        let table = Table::new(&schema, 25, &[&[0; 25]]).unwrap();
        let batches = Batches::builder(Sequential::new(25).unwrap(), 25, BatchSize::Fixed(10));
        Loader::builder(table, batches.build().unwrap()).progress_bar(bar).workers(1).build().unwrap()
    }

    #[test]
    fn a_terminal_shows_the_epoch_its_rows_and_batches_and_the_message() {
        let terminal = InMemoryTerm::new(5, 110);
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(terminal.clone()), 255);
        let bar = EpochBar::on(Some(4), target);
        let mut loader = loader(&bar);
        for (batch, (epoch, rows, of_epoch)) in
            [(1, 10, 1), (1, 20, 2), (1, 25, 3), (2, 10, 1), (2, 20, 2)].into_iter().enumerate()
        {
            loader.next().unwrap();
            bar.set_message(format_args!("loss {batch}.5"));
            if let Shape::Bar { bar, .. } = &bar.0.lock().shape {
                bar.force_draw();
            }
            let shown = terminal.contents();
            assert!(shown.starts_with(&format!("epoch {epoch}/4 #")), "{shown}");
            let counts = format!(" {rows}/25 rows, batch {of_epoch}, ");
            assert!(shown.contains(&counts) && shown.contains("/s, "), "{shown}: {counts}");
            assert!(shown.ends_with(&format!(" left, loss {batch}.5")), "{shown}");
        }
        // Two fifths of the bar are empty still.
        let (full, empty) =
            (terminal.contents().matches('#').count(), terminal.contents().matches('-').count());
        assert!(full.abs_diff(4 * (full + empty) / 5) <= 1, "{full} of {}", full + empty);
    }

    #[test]
    fn elsewhere_a_line_an_epoch_is_written_but_not_many_at_once_and_the_last_always() {
        #[derive(Clone, Default)]
        struct Text(Arc<Mutex<Vec<u8>>>);
        impl Write for Text {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let text = Text::default();
        let start = Instant::now();
        let bar = EpochBar::lines(Some(5), text.clone());
        let mut loader = loader(&bar);
        let written = || String::from_utf8(text.0.lock().clone()).unwrap();
        for epoch in 1..=5 {
            assert_eq!(loader.epoch().count(), 3);
            // After the epoch's last batch, and it is in the epoch's line.
            bar.set_message(format_args!("loss 0.{epoch}"));
        }
        bar.finish();
        bar.finish();
        let all = written();
        let lines: Vec<_> = all.lines().collect();
        // The first, one a second at most, and the last.
        assert!(lines.len() as u64 <= 2 + start.elapsed().as_secs(), "{lines:?}");
        assert!(lines[0].starts_with("epoch 1/5: 25 rows in 3 batches, "), "{lines:?}");
        assert!(lines[0].ends_with("/s, loss 0.1"), "{lines:?}");
        let last = lines.last().unwrap();
        assert!(
            last.starts_with("epoch 5/5: 25 rows in 3 batches, ") && last.ends_with(", loss 0.5"),
            "{last}"
        );
        // Given up without a word, and not written twice where it was finished.
        drop((loader, bar));
        assert_eq!(written(), all);
        let bar = EpochBar::lines(None, text.clone());
        self::loader(&bar).next().unwrap();
        drop(bar);
        assert!(written().ends_with("\nepoch 1: 10 rows in 1 batches\n"), "{}", written());
    }
}
