//! Frames come out as Gymnasium's and OpenCV's do.

use crate::recorded::{bytes, golden, list, sizes};
use crate::script::{Playing, Script, boxed};
use rl_envs::{Dtype, Env, Grayscale, ObsMut, Resize, Space};

/// The formula of tests/golden/wrappers.py.
pub fn image(shape: &[usize], flavor: u64) -> Vec<f64> {
    let n = shape.iter().product::<usize>() as u64;
    let pixel = |i: u64| {
        let mixed = ((i * 2_654_435_761 + flavor) % (1 << 32)) >> 13;
        match flavor {
            1 if mixed.is_multiple_of(3) => 255,
            1 => 0,
            2 => i * 255 / (n - 1).max(1),
            _ => mixed % 256,
        }
    };
    (0..n).map(|i| pixel(i) as f64).collect()
}

fn shown(shape: &[usize], image: Vec<f64>) -> Script {
    let playing = Playing { observations: vec![image], ..Playing::default() };
    Script::new(boxed(Dtype::U8, shape), Space::Discrete { n: 1 }, vec![playing])
}

fn first_frame(env: &mut dyn Env) -> Vec<u8> {
    let mut obs = vec![0; env.spec().observation.elements()];
    env.reset(None, ObsMut::U8(&mut obs)).unwrap();
    obs
}

#[test]
fn frames_are_resized_as_opencv_does() {
    for case in list(&golden()["images"]) {
        let (shape, size, flavor) =
            (sizes(&case["shape"]), sizes(&case["size"]), case["flavor"].as_u64().unwrap());
        let mut env = Resize::new(shown(&shape, image(&shape, flavor)), size[0], size[1]).unwrap();
        let (got, expected) = (first_frame(&mut env), bytes(&case["small"]));
        let wrong = got.iter().zip(&expected).filter(|(g, e)| g != e).count();
        let first = got.iter().zip(&expected).position(|(g, e)| g != e);
        assert_eq!(
            wrong,
            0,
            "{shape:?} to {size:?}, flavor {flavor}: the first at {first:?} of {}",
            got.len()
        );
        assert_eq!(got.len(), expected.len());
    }
}

#[test]
fn colors_become_the_grays_of_gymnasium() {
    for case in list(&golden()["grays"]) {
        let (shape, flavor) = (sizes(&case["shape"]), case["flavor"].as_u64().unwrap());
        let colors = match flavor {
            2 => (0..256).flat_map(|v| [f64::from(v); 3]).collect(),
            _ => image(&shape, flavor),
        };
        let mut env = Grayscale::new(shown(&shape, colors)).unwrap();
        assert_eq!(first_frame(&mut env), bytes(&case["gray"]), "{shape:?}, flavor {flavor}");
    }
}
