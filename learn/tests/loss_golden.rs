//! The cross-entropy and the mean by weights against PyTorch 2.11's own values, made by `tests/golden/loss.py`.

use rl_learn::{Device, Kind, Tensor, gradients, loss};
use safetensors::SafeTensors;

fn golden(name: &str) -> Tensor {
    let file =
        SafeTensors::deserialize(include_bytes!("golden/loss.safetensors")).expect("the file is whole");
    let view = file.tensor(name).unwrap_or_else(|_| panic!("the golden file has no '{name}'"));
    let kind = if view.dtype() == safetensors::Dtype::I64 { Kind::Int64 } else { Kind::Double };
    let shape: Vec<i64> = view.shape().iter().map(|&d| d as i64).collect();
    Tensor::from_data_size(view.data(), &shape, kind)
}

/// Within 1e-12 of the golden values, which are about 1.
fn assert_close(name: &str, found: &Tensor) {
    let expected = golden(name);
    assert_eq!(found.size(), expected.size(), "{name}");
    let apart = (found - &expected).abs().max().double_value(&[]);
    assert!(apart <= 1e-12, "{name} is off by {apart:e}");
}

#[test]
fn cross_entropy_with_smoothed_labels_and_row_weights_is_pytorchs() {
    let (classes, weight) = (golden("classes"), golden("weight"));
    for smoothing in ["0.0", "0.1", "1.0"] {
        let logits = golden("logits").set_requires_grad(true);
        let each = loss::cross_entropy(&logits, &classes, smoothing.parse().unwrap()).unwrap();
        let mean = loss::normalized_mean(&each, &weight);
        assert_close(&format!("each_{smoothing}"), &each.detach());
        assert_close(&format!("mean_{smoothing}"), &mean.detach());
        assert_close(&format!("grad_{smoothing}"), &gradients(&mean, &[logits])[0]);
    }
    // Weights of classes, given to their rows. The row without a class has neither.
    let by_row = golden("by_class").index_select(0, &classes.clamp_min(0)) * classes.ge(0);
    let each = loss::cross_entropy(&golden("logits"), &classes, 0.0).unwrap();
    assert_close("mean_by_class", &loss::normalized_mean(&each, &by_row));
}

#[test]
fn classes_of_any_integer_dtype_are_one_and_weights_of_another_dtype_too() {
    let (logits, weight) = (golden("logits").narrow(0, 0, 4), golden("weight").narrow(0, 0, 4));
    let classes = golden("classes").narrow(0, 0, 4);
    let each = loss::cross_entropy(&logits, &classes, 0.1).unwrap();
    for kind in [Kind::Uint8, Kind::Int, Kind::Int16] {
        assert_eq!(loss::cross_entropy(&logits, &classes.to_kind(kind), 0.1).unwrap(), each);
    }
    let single = loss::normalized_mean(&each, &weight.to_kind(Kind::Float));
    assert_eq!(single.kind(), Kind::Double);
    let apart = (single - loss::normalized_mean(&each, &weight)).abs().double_value(&[]);
    assert!(apart < 1e-6);
}

#[test]
fn what_has_no_cross_entropy_is_said_in_a_line() {
    let logits = Tensor::zeros([3, 2], (Kind::Float, Device::Cpu));
    let refused = |classes: &[i64], smoothing| {
        loss::cross_entropy(&logits, &Tensor::from_slice(classes), smoothing).unwrap_err().to_string()
    };
    assert_eq!(
        refused(&[0, 1], 0.0),
        "logits [3, 2] and classes [2] came to a cross-entropy; it takes [B, C] and [B]"
    );
    assert_eq!(refused(&[0, 1, 1], 1.5), "the label smoothing is 1.5; it must lie between 0 and 1");
    assert!(refused(&[0, 1, 1], f64::NAN).contains("NaN"));
    let none = refused(&[0, 2, 1], 0.0);
    assert!(none.starts_with("no cross-entropy: ") && none.contains('2') && !none.contains('\n'), "{none}");
    let floats = loss::cross_entropy(&logits, &Tensor::from_slice(&[0f32, 1.0, 1.0]), 0.0);
    assert!(floats.unwrap_err().to_string().contains("Float"));
}
