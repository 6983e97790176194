//! The crates of this workspace import each other along src → agents → learn → replay → minibatch and src → envs, and
//! only learn knows libtorch. Cargo is asked, so that development and build dependencies count as well.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Each crate, and the crates of this workspace that it may name.
const ARROWS: [(&str, &[&str]); 6] = [
    ("rl-train", &["rl-agents", "rl-learn", "rl-replay", "rl-minibatch", "rl-envs"]),
    ("rl-agents", &["rl-learn"]),
    ("rl-learn", &["rl-replay", "rl-minibatch"]),
    ("rl-replay", &["rl-minibatch"]),
    ("rl-minibatch", &[]),
    ("rl-envs", &[]),
];

/// Crates that somebody embeds without libtorch.
const WITHOUT_TORCH: [&str; 3] = ["rl-envs", "rl-minibatch", "rl-replay"];

const TORCH: [&str; 2] = ["tch", "torch-sys"];

#[test]
fn crates_import_each_other_one_way_only() {
    let found = violations(&cargo_metadata());
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn an_arrow_the_wrong_way_is_found() {
    let graph = cargo_metadata();
    for (from, to, expected) in [
        ("rl-minibatch", "rl-replay", "rl-minibatch names rl-replay"),
        ("rl-replay", "rl-learn", "rl-replay reaches tch"),
        ("rl-envs", "rl-minibatch", "rl-envs names rl-minibatch"),
        ("rl-learn", "rl-agents", "rl-learn names rl-agents"),
        ("rl-agents", "rl-replay", "rl-agents names rl-replay"),
        ("rl-agents", "tch", "rl-agents names tch"),
        ("rl-train", "torch-sys", "rl-train names torch-sys"),
    ] {
        let mut graph = graph.clone();
        let target = id_of(&graph, to);
        let node = id_of(&graph, from);
        for candidate in graph["resolve"]["nodes"].as_array_mut().expect("nodes") {
            if candidate["id"] == node {
                candidate["deps"].as_array_mut().expect("deps").push(json!({ "pkg": target }));
            }
        }
        let found = violations(&graph);
        assert!(found.iter().any(|v| v.starts_with(expected)), "{from} → {to}: {found:?}");
    }
}

/// What is wrong in a dependency graph, a sentence each.
fn violations(metadata: &Value) -> Vec<String> {
    let names: BTreeMap<&str, &str> = array(&metadata["packages"])
        .iter()
        .map(|package| (text(&package["id"]), text(&package["name"])))
        .collect();
    // By name alone: two versions of one crate are as good as one here.
    let mut direct: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for node in array(&metadata["resolve"]["nodes"]) {
        let targets = direct.entry(names[text(&node["id"])]).or_default();
        targets.extend(array(&node["deps"]).iter().map(|dependency| names[text(&dependency["pkg"])]));
    }
    let members: BTreeSet<&str> =
        array(&metadata["workspace_members"]).iter().map(|id| names[text(id)]).collect();

    let mut found = Vec::new();
    for &member in &members {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == member) else {
            found.push(format!("{member} is new; say in tests/architecture.rs what it may name"));
            continue;
        };
        for &target in &direct[member] {
            if members.contains(target) && !allowed.contains(&target) {
                found.push(format!("{member} names {target}, and may name only {allowed:?}"));
            }
            if TORCH.contains(&target) && member != "rl-learn" {
                found.push(format!("{member} names {target}, which only rl-learn may"));
            }
        }
    }
    for member in WITHOUT_TORCH {
        let reached = reachable(&direct, member);
        for torch in TORCH.iter().filter(|torch| reached.contains(**torch)) {
            found.push(format!("{member} reaches {torch}, and has to do without libtorch"));
        }
    }
    found
}

/// Every crate that `from` depends on, near or far.
fn reachable<'a>(direct: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&str> = direct[from].iter().copied().collect();
    while let Some(next) = open.pop() {
        if let Some((&next, targets)) = direct.get_key_value(next)
            && reached.insert(next)
        {
            open.extend(targets);
        }
    }
    reached
}

fn cargo_metadata() -> Value {
    // For this platform only: for all of them cargo would want to download what only others use.
    let rustc = Command::new("rustc").arg("-vV").output().expect("rustc runs");
    let version = String::from_utf8(rustc.stdout).expect("rustc prints text");
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host");

    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", host])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

fn id_of(metadata: &Value, name: &str) -> Value {
    let package = array(&metadata["packages"]).iter().find(|package| package["name"] == name);
    package.unwrap_or_else(|| panic!("{name} is in the graph"))["id"].clone()
}

fn array(value: &Value) -> &Vec<Value> {
    value.as_array().expect("cargo metadata has an array here")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("cargo metadata has a string here")
}
