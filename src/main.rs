//! The `rl-train` binary; [`rl_train::main`] is all of it.

fn main() -> std::process::ExitCode {
    rl_train::main()
}
