//! Spaces, actions and observations on their way between Python and the batch.

use crate::{Dtype, ObsMut, Space};
use numpy::{Element, PyArray1, PyArrayDyn, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyModule, PyTuple};

/// What is known of a Python space beside ours.
pub(super) struct Layout {
    pub(super) space: Space,
    /// Of a discrete space: what Python calls its first number.
    pub(super) start: i64,
    /// The shape that Python's arrays have.
    shape: Vec<usize>,
    /// Whether Python's elements are f64.
    double: bool,
}

impl Layout {
    /// From what `describe` of bridge.py gives.
    pub(super) fn read(described: &Bound<'_, PyAny>) -> PyResult<Self> {
        if described.len()? == 2 {
            let (start, n): (i64, usize) = described.extract()?;
            return Ok(Self { space: Space::Discrete { n }, start, shape: Vec::new(), double: false });
        }
        type Described<'py> = (String, Bound<'py, PyArray1<f32>>, Bound<'py, PyArray1<f32>>, Vec<usize>);
        let (kind, low, high, shape): Described<'_> = described.extract()?;
        let dtype = if kind == "uint8" { Dtype::U8 } else { Dtype::F32 };
        let (low, high) = (low.to_vec()?, high.to_vec()?);
        let space = Space::Box { dtype, low, high, shape: shape.clone() };
        Ok(Self { space, start: 0, shape, double: kind == "float64" })
    }
}

/// Makes Python's actions of ours.
pub(super) enum Giver {
    /// Python's integers, made in advance; those beyond are made when they are given.
    Discrete { start: i64, made: Vec<Py<PyAny>> },
    /// An array of its own for each action, for an environment may keep it.
    Box { shape: Vec<usize>, double: bool },
}

impl Giver {
    pub(super) fn new(py: Python<'_>, layout: &Layout) -> PyResult<Self> {
        /// Integers made in advance, at most.
        const MADE: usize = 1024;
        match layout.space {
            Space::Discrete { n } => {
                let number = |i: usize| Ok((layout.start + i as i64).into_pyobject(py)?.into_any().unbind());
                let made = (0..n.min(MADE)).map(number).collect::<PyResult<_>>()?;
                Ok(Giver::Discrete { start: layout.start, made })
            }
            _ => Ok(Giver::Box { shape: layout.shape.clone(), double: layout.double }),
        }
    }

    pub(super) fn discrete<'py>(&self, py: Python<'py>, action: usize) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Giver::Discrete { made, .. } if action < made.len() => Ok(made[action].bind(py).clone()),
            Giver::Discrete { start, .. } => Ok((start + action as i64).into_pyobject(py)?.into_any()),
            Giver::Box { .. } => Err(PyValueError::new_err("its actions are a Box")),
        }
    }

    /// One action, or `rows` of them.
    pub(super) fn values<'py>(
        &self,
        py: Python<'py>,
        values: &[f32],
        rows: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let Giver::Box { shape, double } = self else {
            return Err(PyValueError::new_err("its actions are Discrete"));
        };
        if *double {
            let values: Vec<f64> = values.iter().copied().map(f64::from).collect();
            shaped(PyArray1::from_vec(py, values), shape, rows)
        } else {
            shaped(PyArray1::from_slice(py, values), shape, rows)
        }
    }

    /// One number an environment.
    pub(super) fn numbers<'py>(&self, py: Python<'py>, actions: &[i64]) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Giver::Discrete { start: 0, .. } => Ok(PyArray1::from_slice(py, actions).into_any()),
            Giver::Discrete { start, .. } => {
                let shifted: Vec<i64> = actions.iter().map(|action| action + start).collect();
                Ok(PyArray1::from_vec(py, shifted).into_any())
            }
            Giver::Box { .. } => Err(PyValueError::new_err("its actions are a Box")),
        }
    }
}

fn shaped<'py, T: Element>(
    values: Bound<'py, PyArray1<T>>,
    shape: &[usize],
    rows: Option<usize>,
) -> PyResult<Bound<'py, PyAny>> {
    if shape.len() == 1 && rows.is_none() {
        return Ok(values.into_any());
    }
    let dims: Vec<usize> = rows.into_iter().chain(shape.iter().copied()).collect();
    Ok(values.reshape(dims)?.into_any())
}

/// Copies one observation, or those of all environments, to `out`: arrays of the element type that it has, f64 rounded to
/// f32, whatever else through NumPy. `start` is that of a discrete space.
pub(super) fn copy_obs(
    bridge: &Bound<'_, PyModule>,
    seen: &Bound<'_, PyAny>,
    start: i64,
    out: ObsMut<'_>,
) -> PyResult<()> {
    match out {
        ObsMut::F32(out) => {
            if let Ok(array) = seen.cast::<PyArrayDyn<f32>>() {
                copy(array, out, |value| value)?;
            } else if let Ok(array) = seen.cast::<PyArrayDyn<f64>>() {
                copy(array, out, |value| value as f32)?;
            } else {
                let array = bridge.call_method1("floats", (seen,))?;
                copy(array.cast::<PyArrayDyn<f32>>()?, out, |value| value)?;
            }
            if start != 0 {
                out.iter_mut().for_each(|value| *value -= start as f32);
            }
            Ok(())
        }
        ObsMut::U8(out) => match seen.cast::<PyArrayDyn<u8>>() {
            Ok(array) => copy(array, out, |value| value),
            Err(_) => {
                let array = bridge.call_method1("octets", (seen,))?;
                copy(array.cast::<PyArrayDyn<u8>>()?, out, |value| value)
            }
        },
    }
}

fn copy<T: Element + Copy, U>(
    array: &Bound<'_, PyArrayDyn<T>>,
    out: &mut [U],
    convert: impl Fn(T) -> U,
) -> PyResult<()> {
    let array = array.try_readonly()?;
    let fits = |len: usize| match len == out.len() {
        true => Ok(()),
        false => Err(PyValueError::new_err(format!(
            "an observation has {len} elements, where its space has {}",
            out.len()
        ))),
    };
    // As a slice also what is contiguous column by column would come, in another order.
    if array.is_c_contiguous()
        && let Ok(values) = array.as_slice()
    {
        fits(values.len())?;
        out.iter_mut().zip(values).for_each(|(out, value)| *out = convert(*value));
    } else {
        let values = array.as_array();
        fits(values.len())?;
        out.iter_mut().zip(values.iter()).for_each(|(out, value)| *out = convert(*value));
    }
    Ok(())
}

/// The five things that a step gives.
pub(super) fn parts<'py>(result: &Bound<'py, PyAny>) -> PyResult<[Bound<'py, PyAny>; 5]> {
    let wrong = || PyValueError::new_err("step must give (observation, reward, terminated, truncated, info)");
    let tuple = result.cast::<PyTuple>().map_err(|_| wrong())?;
    if tuple.len() != 5 {
        return Err(wrong());
    }
    Ok([tuple.get_item(0)?, tuple.get_item(1)?, tuple.get_item(2)?, tuple.get_item(3)?, tuple.get_item(4)?])
}
