//! Observations, to read and to write, in either element type.

use crate::{Dtype, EnvError, EnvSpec};

/// One observation or several in a row, to be read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Obs<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Bytes.
    U8(&'a [u8]),
}

impl Obs<'_> {
    /// The element type.
    pub fn dtype(&self) -> Dtype {
        match self {
            Obs::F32(_) => Dtype::F32,
            Obs::U8(_) => Dtype::U8,
        }
    }
}

/// Memory of the caller's, into which an environment writes an observation.
#[derive(Debug, PartialEq)]
pub enum ObsMut<'a> {
    /// Single precision.
    F32(&'a mut [f32]),
    /// Bytes.
    U8(&'a mut [u8]),
}

impl<'a> ObsMut<'a> {
    /// The same memory for a while, for a call that takes it by value when it is needed again after.
    pub fn reborrow(&mut self) -> ObsMut<'_> {
        match self {
            ObsMut::F32(out) => ObsMut::F32(out),
            ObsMut::U8(out) => ObsMut::U8(out),
        }
    }

    /// Row number `index` of rows of `elements`.
    #[cfg(feature = "python")]
    pub(crate) fn row(&mut self, index: usize, elements: usize) -> ObsMut<'_> {
        let range = index * elements..(index + 1) * elements;
        match self {
            ObsMut::F32(out) => ObsMut::F32(&mut out[range]),
            ObsMut::U8(out) => ObsMut::U8(&mut out[range]),
        }
    }

    /// The memory as the f32 elements of one observation of `spec`.
    ///
    /// # Errors
    /// [`EnvError::Buffer`] when `spec`'s observations or this memory are not f32, or the lengths differ.
    pub fn f32(self, spec: &EnvSpec) -> Result<&'a mut [f32], EnvError> {
        match self {
            ObsMut::F32(out)
                if spec.observation.dtype() == Dtype::F32 && out.len() == spec.observation.elements() =>
            {
                Ok(out)
            }
            other => Err(other.refused(spec)),
        }
    }

    /// The memory as the byte elements of one observation of `spec`.
    ///
    /// # Errors
    /// [`EnvError::Buffer`] when `spec`'s observations or this memory are not bytes, or the lengths differ.
    pub fn u8(self, spec: &EnvSpec) -> Result<&'a mut [u8], EnvError> {
        match self {
            ObsMut::U8(out)
                if spec.observation.dtype() == Dtype::U8 && out.len() == spec.observation.elements() =>
            {
                Ok(out)
            }
            other => Err(other.refused(spec)),
        }
    }

    #[cold]
    fn refused(self, spec: &EnvSpec) -> EnvError {
        let (dtype, len) = match self {
            ObsMut::F32(out) => (Dtype::F32, out.len()),
            ObsMut::U8(out) => (Dtype::U8, out.len()),
        };
        EnvError::Buffer {
            env: spec.id.clone(),
            expected: format!("{} of {}", spec.observation.elements(), spec.observation.dtype()),
            got: format!("{len} of {dtype}"),
        }
    }
}

impl<'a> From<&'a mut [f32]> for ObsMut<'a> {
    fn from(out: &'a mut [f32]) -> Self {
        ObsMut::F32(out)
    }
}

impl<'a, const N: usize> From<&'a mut [f32; N]> for ObsMut<'a> {
    fn from(out: &'a mut [f32; N]) -> Self {
        ObsMut::F32(out)
    }
}

impl<'a> From<&'a mut [u8]> for ObsMut<'a> {
    fn from(out: &'a mut [u8]) -> Self {
        ObsMut::U8(out)
    }
}
