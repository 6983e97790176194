//! Pieces of state as a stream of bytes.
//!
//! A piece is the length of its [`Record`] (u32, little-endian), the record in postcard, and the piece's bytes. A length
//! of 0 ends the stream. The reader gets pieces in the order in which they were written, passing over those that it
//! does not ask for.

use rl_minibatch::Dtype;
use serde::{Deserialize, Serialize};

/// Names and shapes are short; a longer record is damage.
pub(super) const MAX_RECORD_BYTES: usize = 1 << 16;

/// What stands before a piece's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Dotted path.
    pub(super) path: String,
    /// Element type and shape of an array; `None` for opaque bytes.
    pub(super) array: Option<(Dtype, Vec<u64>)>,
    /// Bytes that follow.
    pub(super) bytes: u64,
}

impl Record {
    pub(super) fn describe(&self) -> String {
        match &self.array {
            Some((dtype, shape)) => format!("{dtype} {shape:?}"),
            None => "opaque bytes".to_string(),
        }
    }
}

/// Where in the state a visitor is.
#[derive(Default)]
pub(super) struct Scope(Vec<String>);

impl Scope {
    pub(super) fn enter(&mut self, name: &str) {
        self.0.push(name.to_string());
    }

    pub(super) fn leave(&mut self) {
        self.0.pop();
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.0.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join(".")
    }
}

/// A shape as it is stored.
pub(super) fn stored_shape(shape: &[usize]) -> Vec<u64> {
    shape.iter().map(|dimension| *dimension as u64).collect()
}
