//! Ctrl-C, in two steps: the first asks the run to stop where it can go on from, the second stops it at once.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether somebody asked this process to stop.
#[derive(Clone, Debug)]
pub struct StopRequest {
    interrupted: Arc<AtomicBool>,
    terminated: Arc<AtomicBool>,
}

impl StopRequest {
    /// Listens, from now on, for Ctrl-C (SIGINT) and for SIGTERM, which is what `kill`, a batch system or a shutdown sends.
    /// The first of either is noted; the next of the same kind ends the process on the spot, with exit code 130 or 143.
    ///
    /// Meant to be called once, at the start of a program. Whoever forgets to ask [`requested`](Self::requested) makes a
    /// program that only the second Ctrl-C stops.
    ///
    /// # Errors
    /// When the system does not let these signals be caught.
    pub fn listen() -> io::Result<Self> {
        let listen_for = |signal| {
            let flag = Arc::new(AtomicBool::new(false));
            // In this order: a signal first looks whether the flag was set by an earlier one, and then sets it.
            flag::register_conditional_shutdown(signal, exit_code(signal), Arc::clone(&flag))?;
            flag::register(signal, Arc::clone(&flag))?;
            io::Result::Ok(flag)
        };
        Ok(Self { interrupted: listen_for(SIGINT)?, terminated: listen_for(SIGTERM)? })
    }

    /// Whether to finish the step in hand, save and stop. Costs next to nothing: ask it every step.
    pub fn requested(&self) -> bool {
        self.exit_code().is_some()
    }

    /// The exit code of a program that stops because it was asked to: 130 after Ctrl-C, 143 after SIGTERM. `None` when it was
    /// not asked.
    pub fn exit_code(&self) -> Option<i32> {
        // Nothing else is handed over with the flags, so no ordering is needed.
        if self.interrupted.load(Ordering::Relaxed) {
            Some(exit_code(SIGINT))
        } else if self.terminated.load(Ordering::Relaxed) {
            Some(exit_code(SIGTERM))
        } else {
            None
        }
    }
}

/// What shells report for a process that a signal ended.
fn exit_code(signal: i32) -> i32 {
    128 + signal
}

#[cfg(test)]
mod tests {
    use super::*;
    use signal_hook::low_level::raise;
    use std::process::Command;

    /// Tells a process that it is the child of a test, and which signals it sends itself.
    const CHILD: &str = "RL_TRAIN_TEST_SIGNALS";

    #[test]
    fn child_that_signals_itself() {
        let Ok(signals) = std::env::var(CHILD) else { return };
        let stop = StopRequest::listen().expect("listens");
        assert!(!stop.requested());
        for signal in signals.split(' ') {
            raise(signal.parse().expect("a number")).expect("raises");
            assert!(stop.requested());
        }
        // Stopped in good order: told apart from an exit at once by ten more.
        std::process::exit(stop.exit_code().expect("was asked to") + 10);
    }

    fn exit_code_after(signals: &str) -> Option<i32> {
        let module = module_path!().split_once("::").expect("a module").1;
        let output = Command::new(std::env::current_exe().expect("the test program"))
            .args(["--exact", &format!("{module}::child_that_signals_itself")])
            .env(CHILD, signals)
            .output();
        output.expect("runs").status.code()
    }

    #[test]
    fn the_first_signal_asks_and_the_second_ends() {
        assert_eq!(exit_code_after("2"), Some(140));
        assert_eq!(exit_code_after("15"), Some(153));
        assert_eq!(exit_code_after("15 2"), Some(140));
        assert_eq!(exit_code_after("2 2"), Some(130));
        assert_eq!(exit_code_after("15 15"), Some(143));
    }
}
