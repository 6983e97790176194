//! What a run shows of itself on standard error: a bar where somebody watches, now and then a line where a file does.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// What a run has reached, as far as there is anything to tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Updates of the networks since the run began.
    pub updates: u64,
    /// Mean return of the last episodes.
    pub mean_return: Option<f64>,
    /// Loss of the last update.
    pub loss: Option<f64>,
    /// Probability of a random action.
    pub epsilon: Option<f64>,
}

/// Shows how far a run is.
#[derive(Debug)]
pub struct Progress {
    display: Display,
    speed: Speed,
    total_env_steps: u64,
    look: Look,
    next_show: Instant,
}

#[derive(Debug)]
enum Display {
    Bar(ProgressBar),
    Lines,
    Nothing,
}

impl Display {
    /// How long what is shown stays the latest.
    fn period(&self) -> Duration {
        match self {
            Display::Bar(_) => Duration::from_millis(200),
            Display::Lines => Duration::from_secs(5),
            // A century: never.
            Display::Nothing => Duration::from_secs(3_155_760_000),
        }
    }
}

impl Progress {
    /// Begins to show a run that goes from `start_env_steps` (0, or where it resumes, with `start_updates` behind it) to
    /// `total_env_steps`. On a terminal that is a bar with a line below it, elsewhere a line every five seconds, and with `quiet` nothing at all.
    pub fn new(total_env_steps: u64, start_env_steps: u64, start_updates: u64, quiet: bool) -> Self {
        let display = if quiet {
            Display::Nothing
        } else if std::io::stderr().is_terminal() {
            let bar =
                ProgressBar::with_draw_target(Some(total_env_steps), ProgressDrawTarget::stderr_with_hz(10));
            let style = ProgressStyle::with_template("{wide_bar} {percent:>3}% {prefix}\n{wide_msg}");
            bar.set_style(style.expect("the template is well-formed").progress_chars("━━╌"));
            bar.set_position(start_env_steps);
            Display::Bar(bar)
        } else {
            Display::Lines
        };
        let now = Instant::now();
        let next_show = now + display.period();
        let speed = Speed::new(now, start_env_steps, start_updates);
        Self { display, speed, total_env_steps, look: Look::new(now, start_env_steps), next_show }
    }

    /// Takes note that the run is at `env_steps`. Only when it is time to show something (some times a second at most) is
    /// `snapshot` called; otherwise this costs a comparison, so it may be called at every step.
    #[inline]
    pub fn update(&mut self, env_steps: u64, snapshot: impl FnOnce() -> Snapshot) {
        if env_steps < self.look.next_env_steps {
            return;
        }
        let now = Instant::now();
        self.look.taken(now, env_steps);
        if now >= self.next_show {
            self.show(now, env_steps, snapshot());
        }
    }

    #[cold]
    fn show(&mut self, now: Instant, env_steps: u64, snapshot: Snapshot) {
        self.next_show = now + self.display.period();
        self.speed.measure(now, env_steps, snapshot.updates);
        let mut done = vec![format!("{}/{} env steps", grouped(env_steps), grouped(self.total_env_steps))];
        done.extend(self.speed.time_left(self.total_env_steps.saturating_sub(env_steps)));
        let known = describe(&snapshot, &self.speed);
        match &self.display {
            Display::Bar(bar) => {
                bar.set_prefix(done.join(" · "));
                bar.set_message(known.join(" · "));
                bar.set_position(env_steps);
            }
            Display::Lines => print_line(&[done, known].concat().join(" · ")),
            Display::Nothing => {}
        }
    }

    /// Prints a line of its own, above the bar where there is one. With `quiet` it is dropped.
    pub fn println(&self, line: &str) {
        match &self.display {
            Display::Bar(bar) => bar.println(line),
            Display::Lines => print_line(line),
            Display::Nothing => {}
        }
    }

    /// Shows the run's end at `env_steps`, and leaves standard error to others.
    pub fn finish(mut self, env_steps: u64, snapshot: Snapshot) {
        self.show(Instant::now(), env_steps, snapshot);
        if let Display::Bar(bar) = &self.display {
            bar.abandon();
        }
    }
}

/// Prints to standard error. That nobody reads it (a closed pipe) is no reason to end a run, so this does not panic.
fn print_line(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// How fast a run is, smoothed over the last few measurements.
#[derive(Debug)]
struct Speed {
    at: Instant,
    env_steps: u64,
    updates: u64,
    env_steps_per_s: Option<f64>,
    updates_per_s: Option<f64>,
}

impl Speed {
    fn new(at: Instant, env_steps: u64, updates: u64) -> Self {
        Self { at, env_steps, updates, env_steps_per_s: None, updates_per_s: None }
    }

    fn measure(&mut self, now: Instant, env_steps: u64, updates: u64) {
        /// After this long, a change of speed shows to two thirds.
        const MEMORY_S: f64 = 2.0;
        let elapsed_s = now.duration_since(self.at).as_secs_f64();
        // At a run's end the last measurement may be just past.
        if elapsed_s < 1e-3 {
            return;
        }
        let keep = (-elapsed_s / MEMORY_S).exp();
        let smooth = |before: Option<f64>, count: u64| {
            let latest = count as f64 / elapsed_s;
            Some(before.map_or(latest, |before| keep * before + (1.0 - keep) * latest))
        };
        self.env_steps_per_s = smooth(self.env_steps_per_s, env_steps.saturating_sub(self.env_steps));
        self.updates_per_s = smooth(self.updates_per_s, updates.saturating_sub(self.updates));
        (self.at, self.env_steps, self.updates) = (now, env_steps, updates);
    }

    fn time_left(&self, env_steps_left: u64) -> Option<String> {
        let env_steps_per_s = self.env_steps_per_s.filter(|speed| *speed > 0.0 && env_steps_left > 0)?;
        Some(format!("{} left", duration(env_steps_left as f64 / env_steps_per_s)))
    }
}

/// When to look at the clock next, counted in steps, because to look takes longer than to count.
#[derive(Debug)]
struct Look {
    at: Instant,
    next_env_steps: u64,
    stride: u64,
}

impl Look {
    fn new(at: Instant, env_steps: u64) -> Self {
        Self { at, next_env_steps: env_steps, stride: 1 }
    }

    /// Looks come about every 20 to 80 ms, and never so many steps apart that a run which slows down, as it does when learning
    /// begins, falls silent.
    fn taken(&mut self, now: Instant, env_steps: u64) {
        let elapsed = now.duration_since(self.at);
        if elapsed < Duration::from_millis(20) {
            self.stride = (self.stride * 2).min(256);
        } else if elapsed > Duration::from_millis(80) {
            self.stride = (self.stride / 4).max(1);
        }
        (self.at, self.next_env_steps) = (now, env_steps + self.stride);
    }
}

/// What is known, in the order of interest.
fn describe(snapshot: &Snapshot, speed: &Speed) -> Vec<String> {
    let mut parts = Vec::new();
    if let Some(mean_return) = snapshot.mean_return {
        parts.push(format!("return {mean_return:.1}"));
    }
    if let Some(loss) = snapshot.loss {
        parts.push(format!("loss {loss:.3e}"));
    }
    if let Some(epsilon) = snapshot.epsilon {
        parts.push(format!("ε {epsilon:.2}"));
    }
    if let (Some(env_steps_per_s), Some(updates_per_s)) = (speed.env_steps_per_s, speed.updates_per_s) {
        parts.push(format!("{} env steps/s", grouped(env_steps_per_s as u64)));
        parts.push(format!("{} updates/s", grouped(updates_per_s as u64)));
    }
    parts
}

/// A number with its thousands apart: `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time as `m:ss` or `h:mm:ss`.
fn duration(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn lines(start: Instant) -> Progress {
        Progress {
            display: Display::Lines,
            speed: Speed::new(start, 0, 0),
            total_env_steps: 50_000,
            look: Look::new(start, 0),
            next_show: start,
        }
    }

    #[test]
    fn a_line_says_what_is_known() {
        let start = Instant::now();
        let mut speed = Speed::new(start, 0, 0);
        assert!(describe(&Snapshot::default(), &speed).is_empty());
        speed.measure(start + Duration::from_secs(2), 25_000, 2468);
        let snapshot =
            Snapshot { updates: 2468, mean_return: Some(123.44), loss: Some(0.01234), epsilon: Some(0.05) };
        assert_eq!(
            describe(&snapshot, &speed).join(" · "),
            "return 123.4 · loss 1.234e-2 · ε 0.05 · 12,500 env steps/s · 1,234 updates/s"
        );
        assert_eq!(
            describe(&Snapshot { mean_return: Some(-1500.0), ..Snapshot::default() }, &speed).join(" · "),
            "return -1500.0 · 12,500 env steps/s · 1,234 updates/s"
        );
        assert_eq!(speed.time_left(1_000_000).as_deref(), Some("1:20 left"));
        assert_eq!(speed.time_left(0), None);
    }

    #[test]
    fn a_resumed_run_is_not_faster_for_what_was_done_before() {
        let start = Instant::now();
        let mut speed = Speed::new(start, 40_000, 9_000);
        speed.measure(start + Duration::from_secs(1), 41_000, 9_500);
        assert_eq!((speed.env_steps_per_s, speed.updates_per_s), (Some(1000.0), Some(500.0)));
    }

    #[test]
    fn a_change_of_speed_shows_soon() {
        let start = Instant::now();
        let mut speed = Speed::new(start, 0, 0);
        for second in 1..=10 {
            speed.measure(start + Duration::from_secs(second), second * 1000, 0);
        }
        assert!((speed.env_steps_per_s.expect("measured") - 1000.0).abs() < 1e-6);
        for second in 1..=6 {
            speed.measure(start + Duration::from_secs(10 + second), 10_000 + second * 100, 0);
        }
        let now = speed.env_steps_per_s.expect("measured");
        assert!((100.0..150.0).contains(&now), "{now}");
    }

    #[test]
    fn snapshots_are_taken_only_when_something_is_shown() {
        let taken = Cell::new(0);
        let snapshot = || {
            taken.set(taken.get() + 1);
            Snapshot::default()
        };
        let mut progress = lines(Instant::now());
        for env_steps in 0..10_000 {
            progress.update(env_steps, snapshot);
        }
        // The first at once, as `lines` says, and none in the five seconds after it.
        assert_eq!(taken.get(), 1);
        progress.next_show = Instant::now();
        progress.update(20_000, snapshot);
        assert_eq!(taken.get(), 2);

        let mut quiet = Progress::new(100, 0, 0, true);
        for env_steps in 0..100 {
            quiet.update(env_steps, || unreachable!("nobody looks"));
        }
    }

    #[test]
    fn looks_are_rare_at_high_speed_and_frequent_at_low() {
        let mut now = Instant::now();
        let mut look = Look::new(now, 0);
        let mut looks_in = |steps: std::ops::Range<u64>, step_time: Duration| {
            let mut looks = 0;
            for env_steps in steps {
                now += step_time;
                if env_steps >= look.next_env_steps {
                    look.taken(now, env_steps);
                    looks += 1;
                }
            }
            looks
        };
        assert!(looks_in(0..100_000, Duration::from_micros(5)) < 500);
        assert!(looks_in(100_000..101_000, Duration::from_millis(10)) > 100);
    }

    #[test]
    fn numbers_are_grouped_and_times_are_readable() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
        for (seconds, text) in [(0.0, "0:00"), (61.4, "1:01"), (3599.6, "1:00:00"), (7325.0, "2:02:05")] {
            assert_eq!(duration(seconds), text);
        }
    }
}
