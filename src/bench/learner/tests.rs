use super::*;
use crate::config::without_env;

fn bench(algo: &str, set: &[&str]) -> LearnerBench {
    let small = ["device=cpu", "agent.hidden=[16,16]", "train.batch_size=8", "replay.capacity=300"];
    let set: Vec<String> = small.iter().chain(set).map(|pair| pair.to_string()).collect();
    let config = without_env(algo, &set, Vec::new()).unwrap();
    LearnerBench {
        config,
        network: NetworkKind::Mlp,
        obs: 3,
        actions: 2,
        seconds: 0.05,
        repeats: MIN_REPEATS,
    }
}

#[test]
fn every_algorithm_is_measured() {
    for algo in rl_agents::ALGOS {
        for prioritized in ["replay.prioritized=false", "replay.prioritized=true"] {
            let report = bench(algo.name, &[prioritized]).run(|_| ()).unwrap();
            assert_eq!((report.algo.as_str(), report.batch, report.obs), (algo.name, 8, 3));
            assert_eq!((report.hidden.as_slice(), report.actions), (&[16, 16][..], 2));
            assert!(report.updates_per_s > 0.0 && report.act_us > 0.0, "{report:?}");
            assert!(0.0 < report.update_us && report.update_us <= report.p99_us, "{report:?}");
            assert!((report.gflop_per_s / report.updates_per_s / report.gflop_per_update - 1.0).abs() < 1e-9);
        }
    }
}

#[test]
fn double_q_learning_is_one_more_pass() {
    let gflop = |double: &str| bench("dqn", &[double]).run(|_| ()).unwrap().gflop_per_update;
    let (off, on) = (gflop("agent.double=false"), gflop("agent.double=true"));
    let pass = 2.0 * 8.0 * (3.0 * 16.0 + 16.0 * 16.0 + 16.0 * 2.0) / 1e9;
    assert!(((on - off) / pass - 1.0).abs() < 1e-9, "{off} {on}");
}

#[test]
fn it_takes_turns() {
    let mut said = Vec::new();
    let report = bench("dqn", &[]).serve(&b"window 0.02\nwindow 0.02\n"[..], &mut said).unwrap().unwrap();
    let said = String::from_utf8(said).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], concat!("ready ", env!("CARGO_PKG_VERSION")));
    let rates: Vec<f64> = lines[1..].iter().map(|line| line.parse().unwrap()).collect();
    assert!(rates.len() == 2 && rates.contains(&report.updates_per_s), "{rates:?}");
    assert!(bench("dqn", &[]).serve(&b""[..], Vec::new()).unwrap().is_none());
    for order in ["window", "window x", "window -1", "window 1e9", "stop"] {
        assert!(bench("dqn", &[]).serve(order.as_bytes(), Vec::new()).is_err(), "{order}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_in_a_line() {
    let refused = |bench: LearnerBench| match bench.run(|_| ()) {
        Err(CommandError::Usage(text)) => text,
        other => panic!("expected a user's mistake, got {other:?}"),
    };
    assert!(refused(LearnerBench { seconds: f64::NAN, ..bench("dqn", &[]) }).contains("--seconds"));
    assert!(refused(LearnerBench { repeats: 4, ..bench("dqn", &[]) }).contains("--repeats"));
    assert!(refused(LearnerBench { obs: 0, ..bench("dqn", &[]) }).contains("--obs"));
    assert!(refused(LearnerBench { actions: 0, ..bench("ddpg", &[]) }).contains("--actions"));
    let one_row = &["agent.batch_norm=true", "train.batch_size=1"];
    assert!(refused(bench("ddpg", one_row)).contains("--batch is 1"));
    let images = LearnerBench { network: NetworkKind::NatureCnn, ..bench("ddpg", &[]) };
    assert!(refused(images).contains("nature-cnn"));
}
