//! One walk over everything that has to survive: saving, loading and broadcasting are three visitors of it.
//!
//! Whatever has state has a `visit` method that names each piece once. Because the writer and the reader of a
//! checkpoint both go that one way, they cannot disagree about what there is.

use crate::Dtype;
use serde::{Serialize, de::DeserializeOwned};

/// Something that is shown every piece of a state, one after the other.
///
/// Names are joined to a path with dots by [`scope`]. A visitor either takes values (saving: `loading()` is false, the
/// slices are read) or gives them (loading: the slices are overwritten). Pieces whose size is itself state (a buffer's
/// rows) come after the counters that determine it, so a loading `visit` can make room first.
pub trait StateVisitor {
    /// Whether values flow from the visitor into what it visits.
    fn loading(&self) -> bool;

    /// Goes into a named part. Use [`scope`], which also comes out again.
    fn enter(&mut self, name: &str);

    /// Comes out of the innermost part.
    fn leave(&mut self);

    /// An array of known size: `bytes` are its elements in native byte order, row-major.
    ///
    /// # Errors
    /// When loading: the piece is missing, or has another dtype or shape; or the medium failed.
    fn array(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        bytes: &mut [u8],
    ) -> Result<(), StateError>;

    /// Opaque bytes of any length.
    ///
    /// # Errors
    /// When loading: the piece is missing; or the medium failed.
    fn bytes(&mut self, name: &str, value: &mut Vec<u8>) -> Result<(), StateError>;
}

/// Why a state could not be saved or loaded.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The stored state lacks a piece.
    #[error("'{path}' is missing; the state was made by another configuration")]
    Missing {
        /// Dotted path of the piece.
        path: String,
    },
    /// The stored piece has another dtype or shape.
    #[error("'{path}' should be {expected} and is {found}; the state was made by another configuration")]
    Mismatch {
        /// Dotted path of the piece.
        path: String,
        /// Dtype and shape that the loader has room for.
        expected: String,
        /// Dtype and shape stored.
        found: String,
    },
    /// The stored value makes no sense.
    #[error("'{path}' is not valid: {why}")]
    Invalid {
        /// Dotted path of the piece.
        path: String,
        /// What is wrong.
        why: String,
    },
}

/// Visits a part under `name`: everything named inside gets the prefix `name.`.
///
/// # Errors
/// Those of `inside`.
pub fn scope(
    visitor: &mut dyn StateVisitor,
    name: &str,
    inside: impl FnOnce(&mut dyn StateVisitor) -> Result<(), StateError>,
) -> Result<(), StateError> {
    visitor.enter(name);
    let result = inside(visitor);
    visitor.leave();
    result
}

/// Visits one plain number (`u64`, `f64`, …) stored as an array of shape `[1]`.
///
/// # Errors
/// Those of [`StateVisitor::array`].
pub fn scalar<T: Element>(
    visitor: &mut dyn StateVisitor,
    name: &str,
    value: &mut T,
) -> Result<(), StateError> {
    slice(visitor, name, std::slice::from_mut(value))
}

/// Visits a slice of plain numbers stored as an array of shape `[len]`.
///
/// # Errors
/// Those of [`StateVisitor::array`].
pub fn slice<T: Element>(
    visitor: &mut dyn StateVisitor,
    name: &str,
    values: &mut [T],
) -> Result<(), StateError> {
    let shape = [values.len()];
    visitor.array(name, T::DTYPE, &shape, bytemuck::cast_slice_mut(values))
}

/// Visits a small value through its serde form (random generators, queues of steps): stored as opaque bytes.
///
/// # Errors
/// Those of [`StateVisitor::bytes`], and [`StateError::Invalid`] when the stored bytes do not decode.
pub fn value<T: Serialize + DeserializeOwned>(
    visitor: &mut dyn StateVisitor,
    name: &str,
    value: &mut T,
) -> Result<(), StateError> {
    let invalid = |e: postcard::Error| StateError::Invalid { path: name.to_string(), why: e.to_string() };
    let mut bytes =
        if visitor.loading() { Vec::new() } else { postcard::to_stdvec(value).map_err(invalid)? };
    visitor.bytes(name, &mut bytes)?;
    if visitor.loading() {
        *value = postcard::from_bytes(&bytes).map_err(invalid)?;
    }
    Ok(())
}

/// A plain number with a [`Dtype`].
pub trait Element: bytemuck::Pod {
    /// Its element type.
    const DTYPE: Dtype;
}

impl Element for u8 {
    const DTYPE: Dtype = Dtype::U8;
}
impl Element for i32 {
    const DTYPE: Dtype = Dtype::I32;
}
impl Element for i64 {
    const DTYPE: Dtype = Dtype::I64;
}
/// Stored with the bits of an `i64`, which every tensor format has.
impl Element for u64 {
    const DTYPE: Dtype = Dtype::I64;
}
impl Element for half::f16 {
    const DTYPE: Dtype = Dtype::F16;
}
impl Element for half::bf16 {
    const DTYPE: Dtype = Dtype::Bf16;
}
impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;
}
impl Element for f64 {
    const DTYPE: Dtype = Dtype::F64;
}
