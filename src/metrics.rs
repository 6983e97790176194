//! What a run tells of itself while it goes: `metrics.jsonl`, and the same for TensorBoard.
//!
//! `metrics.jsonl` has a line a log point, `{"env_steps":…,"updates":…,"wall_s":…,"name":value,…}`, in the order of the
//! values given. A value that is not finite is `null` there, as JSON has no other way; TensorBoard gets it as it is.
//! Each log point is one write, so a run that is killed loses none that it made and leaves at most its last line unfinished.
//!
//! A run that resumes from a checkpoint repeats what it did after that checkpoint. Its log points of that time are taken
//! out of `metrics.jsonl`, and TensorBoard is told to forget them, so that none counts twice.

mod events;

use events::EventsFile;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;

/// Where in a run a log point is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogPoint {
    /// Environment steps taken since the run began.
    pub env_steps: u64,
    /// Updates of the networks since the run began.
    pub updates: u64,
    /// Seconds of wall-clock time since the run began, those before a resumption included.
    pub wall_s: f64,
}

/// Writes a run's metrics into its folder.
#[derive(Debug)]
pub struct Metrics {
    lines: File,
    events: EventsFile,
}

impl Metrics {
    /// Starts the metrics of a new run in `folder`, in place of those that may be there.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(folder: &Path) -> io::Result<Self> {
        let lines = File::create(folder.join(LINES))?;
        let mut events = EventsFile::create(folder)?;
        events.forget_from(0)?;
        Ok(Self { lines, events })
    }

    /// Goes on with the metrics of a run that resumes at `env_steps`: log points after that are dropped, and so is a line
    /// that was not finished. Where there are no metrics yet, this starts them.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn resume(folder: &Path, env_steps: u64) -> io::Result<Self> {
        let mut lines = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.join(LINES))?;
        let kept_bytes = bytes_until(&mut BufReader::new(&lines), env_steps)?;
        lines.set_len(kept_bytes)?;
        lines.seek(SeekFrom::End(0))?;
        let mut events = EventsFile::create(folder)?;
        events.forget_from(env_steps.saturating_add(1))?;
        Ok(Self { lines, events })
    }

    /// Logs `values`, each with its name, at `at`. A name is best one word a level, `train/loss`: TensorBoard groups by
    /// what is before the slash.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn log(&mut self, at: LogPoint, values: &[(&str, f64)]) -> io::Result<()> {
        let mut line = format!(
            r#"{{"env_steps":{},"updates":{},"wall_s":{}"#,
            at.env_steps,
            at.updates,
            number((at.wall_s * 1e3).round() / 1e3)
        );
        for (name, value) in values {
            line.push_str(&format!(",{}:{}", serde_json::Value::from(*name), number(*value)));
        }
        line.push_str("}\n");
        self.lines.write_all(line.as_bytes())?;
        self.events.scalars(at.env_steps, values)
    }
}

const LINES: &str = "metrics.jsonl";

/// A number as JSON; `null` when it is not finite.
fn number(value: f64) -> serde_json::Value {
    serde_json::Value::from(value)
}

/// How many bytes of `lines` come before the first line that is later than `env_steps`, or no whole log point.
fn bytes_until(lines: &mut impl BufRead, env_steps: u64) -> io::Result<u64> {
    let mut kept_bytes = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = lines.read_until(b'\n', &mut line)?;
        let at =
            serde_json::from_slice::<serde_json::Value>(&line).ok().and_then(|v| v["env_steps"].as_u64());
        match at {
            Some(at) if at <= env_steps && line.ends_with(b"\n") => kept_bytes += length as u64,
            _ => return Ok(kept_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(env_steps: u64) -> LogPoint {
        LogPoint { env_steps, updates: env_steps / 2, wall_s: env_steps as f64 / 3.0 }
    }

    fn read(folder: &Path) -> String {
        std::fs::read_to_string(folder.join(LINES)).expect("metrics.jsonl")
    }

    #[test]
    fn a_log_point_is_a_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut metrics = Metrics::create(folder.path()).expect("creates");
        metrics.log(point(10), &[("train/return", 21.5), ("a \"b\"", 1e-9)]).expect("logs");
        metrics.log(point(20), &[("loss", f64::NAN), ("q", f64::INFINITY), ("n", 3.0)]).expect("logs");
        assert_eq!(
            read(folder.path()),
            concat!(
                r#"{"env_steps":10,"updates":5,"wall_s":3.333,"train/return":21.5,"a \"b\"":1e-9}"#,
                "\n",
                r#"{"env_steps":20,"updates":10,"wall_s":6.667,"loss":null,"q":null,"n":3.0}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_resumed_run_logs_nothing_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut whole = Metrics::create(folder.path()).expect("creates");
        for env_steps in [10, 20, 30, 40] {
            whole.log(point(env_steps), &[("loss", 1.0)]).expect("logs");
        }
        let expected = read(folder.path());

        for unfinished in ["", r#"{"env_steps":15,"upda"#, r#"{"env_steps":15,"updates":7}"#] {
            let mut first = Metrics::create(folder.path()).expect("creates");
            for env_steps in [10, 20, 30] {
                first.log(point(env_steps), &[("loss", 1.0)]).expect("logs");
            }
            first.lines.write_all(unfinished.as_bytes()).expect("writes");
            let mut second = Metrics::resume(folder.path(), 20).expect("resumes");
            for env_steps in [30, 40] {
                second.log(point(env_steps), &[("loss", 1.0)]).expect("logs");
            }
            assert_eq!(read(folder.path()), expected);
        }
        // The last line is cut, once within it and once before its end of line: it is not kept, although it is early enough.
        for missing_bytes in [9, 1] {
            let cut = expected.len() - missing_bytes;
            std::fs::write(folder.path().join(LINES), &expected[..cut]).expect("writes");
            let mut resumed = Metrics::resume(folder.path(), 1000).expect("resumes");
            resumed.log(point(40), &[("loss", 1.0)]).expect("logs");
            assert_eq!(read(folder.path()), expected);
        }
    }

    #[test]
    fn resuming_without_metrics_starts_them() {
        let folder = tempfile::tempdir().expect("a folder");
        Metrics::resume(folder.path(), 50).expect("resumes").log(point(60), &[]).expect("logs");
        assert_eq!(read(folder.path()), "{\"env_steps\":60,\"updates\":30,\"wall_s\":20.0}\n");
    }
}
