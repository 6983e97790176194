//! The files of `configs/`, built into the binary: tuned values of an algorithm on an environment.

use toml::Table;

/// Every preset; one line a file.
const FILES: &[(&str, &str)] = &[
    ("configs/dqn-cartpole.toml", include_str!("../../configs/dqn-cartpole.toml")),
    ("configs/dqn-acrobot.toml", include_str!("../../configs/dqn-acrobot.toml")),
    ("configs/dqn-mountaincar.toml", include_str!("../../configs/dqn-mountaincar.toml")),
    ("configs/ddpg-pendulum.toml", include_str!("../../configs/ddpg-pendulum.toml")),
    (
        "configs/ddpg-mountaincar-continuous.toml",
        include_str!("../../configs/ddpg-mountaincar-continuous.toml"),
    ),
    ("configs/dqn-minatar.toml", include_str!("../../configs/dqn-minatar.toml")),
    ("configs/dqn-atari.toml", include_str!("../../configs/dqn-atari.toml")),
];

/// The presets as (file name, parsed table).
///
/// # Panics
/// When a built-in file is not TOML; a test reads them all.
pub fn presets() -> impl Iterator<Item = (&'static str, Table)> {
    FILES.iter().map(|(name, text)| {
        (*name, text.parse().unwrap_or_else(|e| panic!("the built-in {name} is not TOML: {e}")))
    })
}

/// The preset of `algo` on `env`, if there is one. One whose env ends in `*` is for all that begin so.
pub(super) fn preset(algo: &str, env: &str) -> Option<(&'static str, Table)> {
    let is = |table: &Table, key: &str, value: &str| table.get(key).and_then(|v| v.as_str()) == Some(value);
    let suits = |table: &Table| {
        let name = table.get("env").and_then(|v| v.as_str()).unwrap_or_default();
        name == env || name.strip_suffix('*').is_some_and(|beginning| env.starts_with(beginning))
    };
    presets().find(|(_, table)| is(table, "algo", algo) && suits(table))
}
