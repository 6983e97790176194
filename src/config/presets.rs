//! The files of `configs/`, built into the binary: tuned values of an algorithm on an environment.

use toml::Table;

/// Every preset; one line a file.
const FILES: &[(&str, &str)] = &[
    ("configs/dqn-cartpole.toml", include_str!("../../configs/dqn-cartpole.toml")),
    ("configs/dqn-acrobot.toml", include_str!("../../configs/dqn-acrobot.toml")),
    ("configs/dqn-lunarlander.toml", include_str!("../../configs/dqn-lunarlander.toml")),
    ("configs/dqn-mountaincar.toml", include_str!("../../configs/dqn-mountaincar.toml")),
    ("configs/ddpg-pendulum.toml", include_str!("../../configs/ddpg-pendulum.toml")),
    (
        "configs/ddpg-mountaincar-continuous.toml",
        include_str!("../../configs/ddpg-mountaincar-continuous.toml"),
    ),
    ("configs/ddpg-inverted-pendulum.toml", include_str!("../../configs/ddpg-inverted-pendulum.toml")),
    ("configs/ddpg-halfcheetah.toml", include_str!("../../configs/ddpg-halfcheetah.toml")),
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

/// The preset of `algo` on `env`, if there is one. One whose env ends in `*` is for all that begin so, and Python's environment of a
/// name (`gym:CartPole-v1`) has that of the one here.
pub(super) fn preset(algo: &str, env: &str) -> Option<(&'static str, Table)> {
    let key =
        |table: &Table, key: &str| table.get(key).and_then(|v| v.as_str()).unwrap_or_default().to_string();
    let suits = |pattern: &str, env: &str| {
        pattern == env || pattern.strip_suffix('*').is_some_and(|beginning| env.starts_with(beginning))
    };
    let of =
        |env: &str| presets().find(|(_, table)| key(table, "algo") == algo && suits(&key(table, "env"), env));
    let (preset, mut table) = of(env).or_else(|| of(plain_name(env)?))?;
    table.insert("env".to_string(), env.into());
    Some((preset, table))
}

/// The id in `gym:ID`, `gym-vec:ID`, `gym:module:ID` and `gym:ID?key=value`.
fn plain_name(env: &str) -> Option<&str> {
    let name = env.strip_prefix("gym:").or_else(|| env.strip_prefix("gym-vec:"))?;
    let name = name.split_once('?').map_or(name, |(name, _)| name);
    Some(name.rsplit_once(':').map_or(name, |(_, name)| name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_of_python_has_the_preset_of_its_namesake() {
        let (file, native) = preset("dqn", "CartPole-v1").expect("there is one");
        for env in ["gym:CartPole-v1", "gym-vec:CartPole-v1", "gym:a.b:CartPole-v1?gravity=3"] {
            let (name, mut table) = preset("dqn", env).expect("the same");
            assert_eq!((name, table.insert("env".into(), "CartPole-v1".into())), (file, Some(env.into())));
            assert_eq!(table, native);
        }
        assert!(preset("dqn", "gym:CartPole-v9").is_none() && preset("dqn", "other:CartPole-v1").is_none());
    }
}
