//! A policy that was trained here plays in Python as it does here: its file needs nothing of ours to be read. `make test`
//! brings the Python that this needs, as `scripts/setup-tests` alone does.

mod binary;

use binary::{latest, python, script, succeed, text, train};
use rand::RngExt;
use rl_learn::{Device, Mode, Tensor, scope};
use rl_train::config::from_run;
use rl_train::run::{RunFolder, Which};
use rl_train::wiring::{Stream, build_agent, rng};
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

const EPISODES: usize = 200;

/// Good enough for returns that spread, and not so good that all of them are 500. Nothing is left to defaults that get
/// better one day.
const SETTINGS: &[&str] = &[
    "--algo=dqn",
    "--env=CartPole-v1",
    "--env-steps=5000",
    "--set=agent.hidden=[64,64]",
    "--set=agent.learning_rate=1e-3",
    "--set=agent.target_update_every=128",
    "--set=agent.epsilon={kind=\"linear\",start=1.0,end=0.05,steps=4000}",
    "--set=agent.tau=1",
    "--set=train.random_steps=1000",
    "--set=train.train_every=2",
    "--set=train.updates_per_train=1",
    "--set=train.batch_size=64",
    "--set=replay.n_step=1",
    "--set=replay.gamma=0.99",
    "--set=eval.every=0",
    "--set=eval.final_episodes=1",
];

/// Runs tests/play_policy.py with `arguments`, and `input` on its standard input.
fn play_policy(checkpoint: &Path, arguments: &[&str], input: &str) -> Value {
    let mut child = python()
        .arg(script("play_policy.py"))
        .arg(checkpoint)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python runs");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("python reads");
    let output = child.wait_with_output().expect("python ends");
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the script prints JSON")
}

/// Mean, and the variance of the mean.
fn mean_and_its_variance(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0) / n)
}

fn plays_alike(dueling: bool) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    train(at, SETTINGS, &["--out=run", &format!("--set=agent.dueling={dueling}")]);
    let run = at.join("run");

    // Gymnasium's CartPole-v1, and ours.
    let theirs = play_policy(&latest(&run), &["--episodes", &EPISODES.to_string()], "");
    let returns: Vec<f64> =
        theirs["returns"].as_array().expect("a list").iter().filter_map(Value::as_f64).collect();
    assert_eq!(returns.len(), EPISODES);
    let ours = succeed(at, &["eval", "--run=run", "--json", &format!("--episodes={EPISODES}")]);
    let ours: Value = serde_json::from_str(&ours).expect("JSON");
    let number = |key: &str| ours[key].as_f64().expect("a number");
    let (mean, variance) = mean_and_its_variance(&returns);
    let our_variance = number("std_return").powi(2) / (EPISODES as f64 - 1.0);

    // The returns say something: the policy has learned (random play reaches 22), does not always reach the end, and
    // does not always fall at the same time.
    assert!(mean > 60.0 && mean < 490.0, "mean return {mean}");
    assert!(variance * EPISODES as f64 > 25.0, "variance of the returns {}", variance * EPISODES as f64);
    // Four standard errors. For a policy that plays the same in both, that is exceeded by one policy in 16,000 (both
    // means being normal, as those of 200 bounded returns nearly are); each policy and each episode is seeded, so one
    // that passed on a machine passes there again.
    let standard_error = (variance + our_variance).sqrt();
    let difference = mean - number("mean_return");
    assert!(
        difference.abs() <= 4.0 * standard_error,
        "{mean} in Python and {} here: {} standard errors apart",
        number("mean_return"),
        difference / standard_error
    );

    // On the same observations it chooses the same actions, where its values are not as good as equal.
    let mut rng = rng(7, Stream::Envs);
    let rows = 500;
    let observations: Vec<f32> = (0..rows)
        .flat_map(|_| [2.4, 3.0, 0.21, 3.0].map(|bound: f32| bound * (2.0 * rng.random::<f32>() - 1.0)))
        .collect();
    let listed: Vec<&[f32]> = observations.chunks(4).collect();
    let values = play_policy(&latest(&run), &["--values"], &serde_json::to_string(&listed).expect("numbers"));

    let config = from_run(&run, Vec::new()).expect("the run's configuration");
    let mut agent = build_agent(&config, Device::Cpu).expect("an agent");
    let checkpoint = RunFolder::open(&run).load(Which::Latest, &config).expect("the run's checkpoint");
    checkpoint.load_part(|visitor| scope(visitor, "agent", |v| agent.visit(v))).expect("loads");
    let actions = agent.act(&Tensor::from_slice(&observations).reshape([-1, 4]), Mode::Greedy).expect("acts");
    let actions = Vec::<i64>::try_from(actions).expect("whole numbers");

    let (mut compared, mut left) = (0, 0);
    for (row, action) in values["values"].as_array().expect("a list").iter().zip(actions) {
        let (q0, q1) = (row[0].as_f64().expect("a number"), row[1].as_f64().expect("a number"));
        if (q0 - q1).abs() > 1e-4 * q0.abs().max(q1.abs()) {
            assert_eq!(action, i64::from(q1 > q0), "values {q0} and {q1}");
            compared += 1;
            left += usize::from(action == 0);
        }
    }
    assert!(compared > rows * 9 / 10, "only {compared} of {rows} could be compared");
    assert!(
        left > rows / 10 && left < compared - rows / 10,
        "{left} of {compared} go left: no choice at all"
    );
}

#[test]
fn a_policy_plays_in_gymnasium_as_it_does_here() {
    plays_alike(false);
}

#[test]
fn a_dueling_policy_plays_in_gymnasium_as_it_does_here() {
    plays_alike(true);
}
