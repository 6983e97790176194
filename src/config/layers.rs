//! Where a configuration's values come from, and which wins.

use super::Config;
use super::document::{Key, keys};
use super::presets::preset;
use crate::error::{CommandError, Result, io, usage};
use rl_agents::Algo;
use std::path::Path;
use toml::{Table, Value};

/// What the user gave, least binding first: a file, `--set` pairs, flags.
#[derive(Debug, Default)]
pub struct Layers<'a> {
    /// `--config FILE`
    pub file: Option<&'a Path>,
    /// `--set KEY=VALUE`, in order
    pub set: &'a [String],
    /// Flags as (key, value): `--env-steps N` is `("env_steps", N)`.
    pub flags: Vec<(&'static str, Value)>,
}

/// The configuration that `layers` give.
///
/// # Errors
/// [`CommandError::Usage`] in one line: an unknown key with the nearest known one, a value of the wrong type or out of range, an
/// unknown algorithm or environment, no algorithm or environment at all, an unreadable file.
pub fn resolve(layers: &Layers<'_>) -> Result<Config> {
    let mut given: Vec<(String, Table)> = Vec::new();
    if let Some(path) = layers.file {
        given.push((path.display().to_string(), read(path)?));
    }
    for pair in layers.set {
        given.push((format!("--set {pair}"), parse_set(pair)?));
    }
    for (key, value) in &layers.flags {
        given.push((format!("--{}", key.replace('_', "-")), nested(key, value.clone())));
    }
    let last = |key: &str| given.iter().rev().find_map(|(_, table)| table.get(key)).cloned();
    let named = |key: &str, list: &str| -> Result<String> {
        match last(key) {
            Some(Value::String(name)) => Ok(name),
            Some(other) => usage(format!("{key} is {other}; it must be a name in quotes")),
            None => usage(format!("which {key}? Give --{key} NAME; `rl-train list {list}` shows them")),
        }
    };
    let algo = find_algo(&named("algo", "algos")?)?;
    let env = named("env", "envs")?;
    crate::wiring::env_spec(&env)?;

    let known = keys(algo);
    let mut merged =
        Table::try_from(Config::defaults(algo, &env)).map_err(|e| CommandError::Failed(e.to_string()))?;
    if let Some((name, table)) = preset(algo.name, &env) {
        check_keys(name, &table, &known)?;
        merge(&mut merged, table, "");
    }
    for (source, table) in given {
        check_keys(&source, &table, &known)?;
        merge(&mut merged, table, "");
    }
    finish(merged, "the configuration")
}

/// The configuration that a run's folder holds, with flags over it (`--resume`).
///
/// # Errors
/// As [`resolve`], and when the folder holds none.
pub fn from_run(run: &Path, flags: Vec<(&'static str, Value)>) -> Result<Config> {
    let path = run.join("config.toml");
    if !path.is_file() {
        return usage(format!("{} holds no run: there is no config.toml in it", run.display()));
    }
    let mut table = read(&path)?;
    let name = table.get("algo").and_then(Value::as_str).unwrap_or_default().to_string();
    let algo = find_algo(&name)?;
    for (key, value) in flags {
        merge(&mut table, nested(key, value), "");
    }
    check_keys(&path.display().to_string(), &table, &keys(algo))?;
    finish(table, &path.display().to_string())
}

/// The defaults of `algo` with `set` and `flags` over them, for a learner that no environment feeds.
///
/// # Errors
/// As [`resolve`].
pub fn without_env(algo: &str, set: &[String], flags: Vec<(&'static str, Value)>) -> Result<Config> {
    let algo = find_algo(algo)?;
    let known = keys(algo);
    let mut table =
        Table::try_from(Config::defaults(algo, "none")).map_err(|e| CommandError::Failed(e.to_string()))?;
    for pair in set {
        let over = parse_set(pair)?;
        check_keys(&format!("--set {pair}"), &over, &known)?;
        merge(&mut table, over, "");
    }
    flags.into_iter().for_each(|(key, value)| merge(&mut table, nested(key, value), ""));
    finish(table, "the configuration")
}

fn finish(table: Table, source: &str) -> Result<Config> {
    let config: Config =
        table.try_into().map_err(|e: toml::de::Error| CommandError::Usage(format!("{source}: {e}")))?;
    config.check()?;
    // The agent's own keys are checked when it is built; their types are checked here, where a line can name them.
    Ok(config)
}

fn find_algo(name: &str) -> Result<&'static Algo> {
    rl_agents::algo(name).ok_or_else(|| {
        let names: Vec<&str> = rl_agents::ALGOS.iter().map(|algo| algo.name).collect();
        let likeness = |known: &str| strsim::jaro_winkler(known, &name.to_lowercase());
        let nearest =
            names.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).unwrap_or_default();
        let names = names.join(", ");
        CommandError::Usage(format!(
            "unknown algorithm '{name}'; did you mean '{nearest}'? There are: {names}"
        ))
    })
}

fn read(path: &Path) -> Result<Table> {
    let text = std::fs::read_to_string(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => CommandError::Usage(format!("there is no file {}", path.display())),
        std::io::ErrorKind::IsADirectory => {
            CommandError::Usage(format!("{} is a folder; name a TOML file", path.display()))
        }
        std::io::ErrorKind::InvalidData => {
            CommandError::Usage(format!("{} is not valid TOML: it is not UTF-8", path.display()))
        }
        _ => io(format!("cannot read {}", path.display()))(e),
    })?;
    text.parse().map_err(|e| CommandError::Usage(format!("{} is not valid TOML: {e}", path.display())))
}

/// `a.b=VALUE`; a value that is not TOML is taken as a string, so that `--set device=cpu` needs no quotes.
fn parse_set(pair: &str) -> Result<Table> {
    let Some((key, value)) = pair.split_once('=') else {
        return usage(format!("--set {pair}: write it as KEY=VALUE, for example --set replay.n_step=3"));
    };
    let value = format!("value = {value}")
        .parse::<Table>()
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(value.to_string()));
    Ok(nested(key.trim(), value))
}

/// A table with `value` at the dotted `key`.
fn nested(key: &str, value: Value) -> Table {
    let (head, rest) = match key.split_once('.') {
        Some((head, rest)) => (head, Value::Table(nested(rest, value))),
        None => (key, value),
    };
    Table::from_iter([(head.to_string(), rest)])
}

/// Lays `over` onto `table`. Sections merge key by key; a key's own value (a schedule, an optimizer) is replaced whole, unless
/// both are tables of the same `kind`, so that `--set agent.noise.sigma=0.2` changes one number.
fn merge(table: &mut Table, over: Table, prefix: &str) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(over)) if mergeable(below, &over, prefix) => {
                merge(below, over, "value");
            }
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}

fn mergeable(below: &Table, over: &Table, prefix: &str) -> bool {
    let is_section = prefix.is_empty();
    is_section || over.get("kind").is_none_or(|kind| below.get("kind") == Some(kind))
}

/// Refuses the first key of `table` that is not known.
fn check_keys(source: &str, table: &Table, known: &[Key]) -> Result<()> {
    for (name, value) in table {
        let is_section = known.iter().any(|key| key.table && key.path == *name);
        match value {
            Value::Table(inner) if is_section => {
                for inner_name in inner.keys() {
                    check_key(source, &format!("{name}.{inner_name}"), known)?;
                }
            }
            _ if is_section => {
                return usage(format!("{source}: {name} is a section; write [{name}] or {name}.KEY"));
            }
            _ => check_key(source, name, known)?,
        }
    }
    Ok(())
}

fn check_key(source: &str, path: &str, known: &[Key]) -> Result<()> {
    if known.iter().any(|key| !key.table && key.path == path) {
        return Ok(());
    }
    // The last part counts most: a right name in the wrong section is the commonest mistake.
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_string();
    let nearest = known
        .iter()
        .filter(|key| !key.table)
        .max_by(|a, b| {
            let score = |key: &Key| {
                strsim::jaro_winkler(&last(&key.path), &last(path))
                    + 0.1 * strsim::jaro_winkler(&key.path, path)
            };
            score(a).total_cmp(&score(b))
        })
        .map_or(String::new(), |key| format!("; did you mean '{}'?", key.path));
    usage(format!("{source}: unknown key '{path}'{nearest} `rl-train config` prints them all"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{presets, to_toml};

    fn given(set: &[&str]) -> Result<Config> {
        let set: Vec<String> =
            ["algo=dqn", "env=CartPole-v1"].iter().chain(set).map(|s| s.to_string()).collect();
        resolve(&Layers { set: &set, ..Layers::default() })
    }

    fn refused(set: &[&str]) -> String {
        match given(set) {
            Err(CommandError::Usage(text)) => text,
            other => panic!("expected a user's mistake, got {other:?}"),
        }
    }

    #[test]
    fn every_preset_resolves_and_builds_an_agent() {
        for (name, table) in presets() {
            let get = |key: &str| table[key].as_str().expect("a preset names algo and env").to_string();
            let env = match get("env").as_str() {
                "MinAtar/*" => "MinAtar/Freeway-v0".to_string(),
                // What needs Python stands for itself as a file, on another environment with images.
                "atari:*" => "MinAtar/Freeway-v0".to_string(),
                env => env.to_string(),
            };
            // Its feature may be off.
            if rl_envs::listings().iter().any(|listing| listing.spec.id == env && !listing.built_in) {
                continue;
            }
            let set = [format!("algo={}", get("algo")), format!("env={env}")];
            let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
            let file = get("env").starts_with("atari:").then_some(file);
            let config = resolve(&Layers { file: file.as_deref(), set: &set, ..Layers::default() })
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(config.env, env);
            assert_eq!(config.agent["hidden"], serde_json::to_value(&table["agent"]["hidden"]).unwrap());
            if file.is_some() {
                continue;
            }
            crate::wiring::build_agent(&config, rl_learn::Device::Cpu)
                .unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }

    #[test]
    fn the_documented_form_reads_back_as_the_same_configuration() {
        let config =
            given(&["replay.beta={kind=\"linear\",start=0.5,end=1.0,steps=7}", "agent.tau=0.5"]).unwrap();
        let text = to_toml(&config);
        let again: Config = text.parse::<Table>().unwrap().try_into().unwrap();
        assert_eq!(to_toml(&again), text);
        let documented = text.lines().filter(|line| line.starts_with("# ") && line.len() > 10).count();
        let keys = text.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count();
        let sections = text.lines().filter(|line| line.starts_with('[')).count();
        assert_eq!(documented, keys + sections, "a key without documentation:\n{text}");
    }

    #[test]
    fn later_layers_win() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.toml");
        std::fs::write(&file, "env_steps = 5\nseed = 5\n[replay]\nn_step = 5\n").unwrap();
        let set = ["algo=dqn", "env=CartPole-v1", "seed=6", "env_steps=6"].map(String::from);
        let flags = vec![("env_steps", Value::Integer(7))];
        let config = resolve(&Layers { file: Some(&file), set: &set, flags }).unwrap();
        assert_eq!((config.replay.n_step, config.seed, config.env_steps), (5, 6, 7));
    }

    #[test]
    fn values_below_a_key_merge_when_of_one_kind_and_are_replaced_otherwise() {
        let set = |pairs: &[&str]| {
            let mut set = vec!["algo=ddpg".to_string(), "env=Pendulum-v1".to_string()];
            set.extend(pairs.iter().map(|s| s.to_string()));
            resolve(&Layers { set: &set, ..Layers::default() }).unwrap().agent["noise"].clone()
        };
        assert_eq!(set(&["agent.noise.sigma=0.7"])["sigma"], 0.7);
        let ou = set(&["agent.noise={kind=\"ornstein-uhlenbeck\",sigma=0.2,theta=0.15}"]);
        assert_eq!(ou["theta"], 0.15);
    }

    #[test]
    fn mistakes_are_one_line_with_the_remedy() {
        assert!(refused(&["agent.learning_rat=1"]).contains("did you mean 'agent.learning_rate'?"));
        assert!(refused(&["n_step=3"]).contains("did you mean 'replay.n_step'?"));
        assert!(refused(&["gamma=3"]).contains("did you mean 'replay.gamma'?"));
        assert!(refused(&["replay=3"]).contains("section"));
        assert!(refused(&["seed"]).contains("KEY=VALUE"));
        assert!(refused(&["env=CartPool-v1"]).contains("CartPole-v1"));
        assert!(refused(&["algo=ppo"]).contains("dqn"));
        assert!(refused(&["replay.gamma=1.5"]).contains("between 0 and 1"));
        assert!(refused(&["train.batch_size=-1"]).contains("batch_size"));
        assert!(refused(&["train.batch_size=0"]).contains("at least 1"));
        assert!(refused(&["replay.capacity=10"]).contains("batch"));
        assert!(refused(&["replay.beta=\"x\""]).contains("kind"));
    }
}
