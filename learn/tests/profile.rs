//! Traces: whole JSON at any moment, spans that nest, threads of their own. One test, because there is one trace a process.

use rl_learn::profile::{Profile, span, time};
use serde_json::Value;
use std::path::Path;

fn events(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("a file");
    serde_json::from_str::<Vec<Value>>(&text).unwrap_or_else(|e| panic!("{e}: …{}", &text[text.len() - 80..]))
}

fn spans(events: &[Value]) -> Vec<(&str, u64, f64, f64)> {
    let whole = events.iter().filter(|event| event["ph"] == "X");
    whole
        .map(|event| {
            let number = |key: &str| event[key].as_f64().expect("a number");
            (event["name"].as_str().expect("a name"), number("tid") as u64, number("ts"), number("dur"))
        })
        .collect()
}

#[test]
fn a_trace_can_be_read_whenever_it_is_looked_at() {
    let folder = std::env::temp_dir().join(format!("rl-learn-trace-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("trace.json");

    // Without a profile nothing happens.
    time("before", || ());
    assert!(Profile::start(&folder.join("no/such/folder")).is_err());

    let profile = Profile::start(&path).expect("a file");
    assert!(Profile::start(&path).is_err(), "one at a time");
    assert!(spans(&events(&path)).is_empty());
    {
        let _outer = span("outer");
        assert_eq!(time("inner", || std::thread::sleep(std::time::Duration::from_millis(2))), ());
    }
    std::thread::spawn(|| (0..5_000).for_each(|_| time("busy", || ()))).join().expect("no panic");
    // One chunk of that thread is written by now, as a killed process would leave it.
    assert_eq!(spans(&events(&path)).len(), 4_096);
    profile.finish().expect("written");
    time("after", || ());

    let all = events(&path);
    let found = spans(&all);
    assert_eq!(found.len(), 5_002);
    assert!(found.iter().all(|(name, ..)| ["outer", "inner", "busy"].contains(name)));
    let one = |wanted: &str| *found.iter().find(|(name, ..)| *name == wanted).expect("recorded");
    let (outer, inner) = (one("outer"), one("inner"));
    assert!(inner.3 >= 2_000.0, "microseconds: {inner:?}");
    assert!(outer.2 <= inner.2 && inner.2 + inner.3 <= outer.2 + outer.3, "{outer:?} {inner:?}");
    assert!(outer.1 == inner.1 && outer.1 != one("busy").1);
    let named = |event: &&Value| event["name"] == "thread_name" && event["tid"] == outer.1;
    assert_eq!(all.iter().filter(named).count(), 1);

    // A second trace has nothing of the first.
    let profile = Profile::start(&path).expect("a file");
    time("second", || ());
    drop(profile);
    assert_eq!(spans(&events(&path)).iter().map(|span| span.0).collect::<Vec<_>>(), ["second"]);
    std::fs::remove_dir_all(&folder).expect("ours");
}
