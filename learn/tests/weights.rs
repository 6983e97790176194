//! Weights from the learner to actors: what arrives is what was published, whole, while the learner goes on changing it.

use rl_learn::{Kind, Tensor, no_grad, publish_weights};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

/// A matrix, a vector and a counter, all of one number.
fn tensors(value: f64, device: rl_learn::Device) -> Vec<Tensor> {
    let of = |size: &[i64], kind| Tensor::full(size, value, (kind, device));
    vec![of(&[40, 50], Kind::Float), of(&[50], Kind::Float), of(&[], Kind::Int64)]
}

fn zeros() -> Vec<Tensor> {
    tensors(0.0, rl_learn::Device::Cpu)
}

fn handles(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(Tensor::shallow_clone).collect()
}

fn set(tensors: &[Tensor], value: f64) {
    no_grad(|| tensors.iter().for_each(|tensor| drop(tensor.shallow_clone().fill_(value))));
}

/// The one number that all elements are.
fn value(tensors: &[Tensor]) -> f64 {
    let all: Vec<(f64, f64)> =
        tensors.iter().map(|t| (t.min().double_value(&[]), t.max().double_value(&[]))).collect();
    assert!(all.iter().all(|(min, max)| *min == all[0].0 && *max == all[0].0), "not whole: {all:?}");
    all[0].0
}

#[test]
fn a_reader_gets_what_was_published_and_with_it_its_version() {
    let source = tensors(5.0, rl_learn::Device::Cpu);
    // As parameters are.
    let _ = source[0].set_requires_grad(true);
    let targets = [zeros(), zeros()];
    let (mut publisher, mut readers) =
        publish_weights(handles(&source), targets.iter().map(|t| handles(t)).collect(), 70).unwrap();
    assert_eq!(value(&targets[0]), 0.0);
    let got = readers[0].refresh().unwrap();
    assert_eq!((got.version, got.updates, value(&targets[0])), (0, 70, 5.0));

    // The learner goes on, and what it has not published nobody sees.
    set(&source, 6.0);
    assert_eq!(readers[0].refresh().unwrap().version, 0);
    assert_eq!(value(&targets[0]), 5.0);
    assert_eq!(publisher.publish(80).unwrap(), 1);
    set(&source, 7.0);
    let got = readers[0].refresh().unwrap();
    assert_eq!((got.version, got.updates, value(&targets[0])), (1, 80, 6.0));
    assert_eq!((value(&targets[1]), readers[1].refresh().unwrap().updates), (0.0, 80));
    assert_eq!(value(&targets[1]), 6.0);
    assert!(!targets[0][0].requires_grad());
}

#[test]
fn other_shapes_are_refused() {
    let (source, mut target) = (zeros(), zeros());
    target[1] = Tensor::zeros([51], (Kind::Float, rl_learn::Device::Cpu));
    let (_, mut readers) = publish_weights(source, vec![target], 0).unwrap();
    assert!(readers[0].refresh().is_err());
}

/// The real thing on threads: every snapshot that arrives is of one moment, versions go up, and the last one arrives.
#[test]
fn whole_on_threads() {
    let source = zeros();
    let targets: Vec<Vec<Tensor>> = (0..3).map(|_| zeros()).collect();
    let (mut publisher, readers) =
        publish_weights(handles(&source), targets.iter().map(|t| handles(t)).collect(), 0).unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for (mut reader, target) in readers.into_iter().zip(targets) {
            let over = &over;
            scope.spawn(move || {
                let (mut last, mut seen) = (0, 0);
                loop {
                    let ends = over.load(Relaxed);
                    let got = reader.refresh().unwrap();
                    assert!(got.version >= last && got.updates == got.version);
                    seen += u64::from(got.version > last);
                    last = got.version;
                    assert_eq!(value(&target), got.updates as f64);
                    if ends {
                        break;
                    }
                }
                assert_eq!(last, 2_000);
                assert!(seen > 0);
            });
        }
        for update in 1..=2_000 {
            set(&source, update as f64);
            assert_eq!(publisher.publish(update).unwrap(), update);
        }
        over.store(true, Relaxed);
    });
}
