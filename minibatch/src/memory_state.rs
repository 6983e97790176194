//! A state kept in memory: the plainest of the visitors.

use crate::{Dtype, StateError, StateVisitor};
use std::collections::BTreeMap;

/// Everything that a `visit` showed, by dotted path. It saves and loads without a file, and two of them compare, which
/// makes "nothing has changed" and "the same after a round trip" one-line tests.
///
/// ```
/// use rl_minibatch::{MemoryState, scalar};
/// let mut counter = 41u64;
/// let saved = MemoryState::save(|v| scalar(v, "counter", &mut counter))?;
/// counter = 0;
/// saved.load(|v| scalar(v, "counter", &mut counter))?;
/// assert_eq!(counter, 41);
/// # Ok::<(), rl_minibatch::StateError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryState {
    pieces: BTreeMap<String, Piece>,
}

/// One piece of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// An array of known type and shape.
    Array {
        /// Element type.
        dtype: Dtype,
        /// Shape.
        shape: Vec<usize>,
        /// Elements in native byte order, row-major.
        bytes: Vec<u8>,
    },
    /// Opaque bytes.
    Bytes(Vec<u8>),
}

impl MemoryState {
    /// Keeps what `visit` shows.
    ///
    /// # Errors
    /// Those of `visit`, and [`StateError::Invalid`] when two pieces have one path.
    pub fn save(
        visit: impl FnOnce(&mut dyn StateVisitor) -> Result<(), StateError>,
    ) -> Result<Self, StateError> {
        let mut saver = Saver { path: Vec::new(), pieces: BTreeMap::new() };
        visit(&mut saver)?;
        Ok(Self { pieces: saver.pieces })
    }

    /// Gives back what was saved. Pieces that `visit` does not ask for are left alone.
    ///
    /// # Errors
    /// Those of `visit`; [`StateError::Missing`] and [`StateError::Mismatch`] when it asks for what was not saved so.
    pub fn load(
        &self,
        visit: impl FnOnce(&mut dyn StateVisitor) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        visit(&mut Loader { path: Vec::new(), pieces: &self.pieces })
    }

    /// The pieces by dotted path, in the order of the paths.
    pub fn pieces(&self) -> impl Iterator<Item = (&str, &Piece)> {
        self.pieces.iter().map(|(path, piece)| (path.as_str(), piece))
    }

    /// The piece at `path`.
    pub fn get(&self, path: &str) -> Option<&Piece> {
        self.pieces.get(path)
    }

    /// As [`get`](Self::get), to change it: tests damage a state this way and expect an error.
    pub fn get_mut(&mut self, path: &str) -> Option<&mut Piece> {
        self.pieces.get_mut(path)
    }

    /// Takes a piece out.
    pub fn remove(&mut self, path: &str) -> Option<Piece> {
        self.pieces.remove(path)
    }

    /// The paths at which two states differ, for a test's message.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let paths = self.pieces.keys().chain(other.pieces.keys().filter(|p| !self.pieces.contains_key(*p)));
        paths.filter(|path| self.pieces.get(*path) != other.pieces.get(*path)).cloned().collect()
    }
}

fn joined(path: &[String], name: &str) -> String {
    path.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join(".")
}

struct Saver {
    path: Vec<String>,
    pieces: BTreeMap<String, Piece>,
}

impl Saver {
    fn keep(&mut self, name: &str, piece: Piece) -> Result<(), StateError> {
        let path = joined(&self.path, name);
        if self.pieces.contains_key(&path) {
            return Err(StateError::Invalid { path, why: "two pieces of state have this name".into() });
        }
        if let Piece::Array { dtype, shape, bytes } = &piece
            && bytes.len() != shape.iter().product::<usize>() * dtype.size_bytes()
        {
            return Err(StateError::Invalid { path, why: "its bytes do not fill its shape".into() });
        }
        self.pieces.insert(path, piece);
        Ok(())
    }
}

impl StateVisitor for Saver {
    fn loading(&self) -> bool {
        false
    }

    fn enter(&mut self, name: &str) {
        self.path.push(name.to_string());
    }

    fn leave(&mut self) {
        self.path.pop();
    }

    fn array(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        bytes: &mut [u8],
    ) -> Result<(), StateError> {
        self.keep(name, Piece::Array { dtype, shape: shape.to_vec(), bytes: bytes.to_vec() })
    }

    fn bytes(&mut self, name: &str, value: &mut Vec<u8>) -> Result<(), StateError> {
        self.keep(name, Piece::Bytes(value.clone()))
    }
}

struct Loader<'a> {
    path: Vec<String>,
    pieces: &'a BTreeMap<String, Piece>,
}

impl Loader<'_> {
    fn find(&self, name: &str) -> Result<(String, &Piece), StateError> {
        let path = joined(&self.path, name);
        match self.pieces.get(&path) {
            Some(piece) => Ok((path, piece)),
            None => Err(StateError::Missing { path }),
        }
    }
}

impl StateVisitor for Loader<'_> {
    fn loading(&self) -> bool {
        true
    }

    fn enter(&mut self, name: &str) {
        self.path.push(name.to_string());
    }

    fn leave(&mut self) {
        self.path.pop();
    }

    fn array(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        bytes: &mut [u8],
    ) -> Result<(), StateError> {
        let (path, piece) = self.find(name)?;
        let found = match piece {
            Piece::Array { dtype: d, shape: s, bytes: b }
                if *d == dtype && s == shape && b.len() == bytes.len() =>
            {
                bytes.copy_from_slice(b);
                return Ok(());
            }
            Piece::Array { dtype, shape, .. } => format!("{dtype} {shape:?}"),
            Piece::Bytes(_) => "opaque bytes".to_string(),
        };
        Err(StateError::Mismatch { path, expected: format!("{dtype} {shape:?}"), found })
    }

    fn bytes(&mut self, name: &str, value: &mut Vec<u8>) -> Result<(), StateError> {
        let (path, piece) = self.find(name)?;
        match piece {
            Piece::Bytes(bytes) => {
                value.clone_from(bytes);
                Ok(())
            }
            Piece::Array { dtype, shape, .. } => Err(StateError::Mismatch {
                path,
                expected: "opaque bytes".to_string(),
                found: format!("{dtype} {shape:?}"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{scalar, scope, slice, value};

    #[derive(Clone, Debug, PartialEq)]
    struct Thing {
        steps: u64,
        weights: Vec<f32>,
        queue: Vec<(u8, String)>,
    }

    impl Thing {
        fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
            scalar(visitor, "steps", &mut self.steps)?;
            scope(visitor, "net", |v| slice(v, "weights", &mut self.weights))?;
            value(visitor, "queue", &mut self.queue)
        }
    }

    fn thing() -> Thing {
        Thing { steps: u64::MAX, weights: vec![1.5, -0.0], queue: vec![(3, "a".into())] }
    }

    #[test]
    fn a_round_trip_gives_the_same() {
        let saved = MemoryState::save(|v| thing().visit(v)).unwrap();
        let paths: Vec<_> = saved.pieces().map(|(path, _)| path).collect();
        assert_eq!(paths, ["net.weights", "queue", "steps"]);
        let mut other = Thing { steps: 0, weights: vec![0.0; 2], queue: vec![] };
        let blank = MemoryState::save(|v| other.visit(v)).unwrap();
        assert_eq!(saved.differences(&blank), ["net.weights", "queue", "steps"]);
        saved.load(|v| other.visit(v)).unwrap();
        assert_eq!(other, thing());
        assert_eq!(MemoryState::save(|v| other.visit(v)).unwrap(), saved);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let mut saved = MemoryState::save(|v| thing().visit(v)).unwrap();
        let mut longer = Thing { weights: vec![0.0; 3], ..thing() };
        let message = saved.load(|v| longer.visit(v)).unwrap_err().to_string();
        assert!(message.contains("'net.weights' should be f32 [3] and is f32 [2]"), "{message}");
        *saved.get_mut("queue").unwrap() = Piece::Bytes(vec![1]);
        let message = saved.load(|v| thing().visit(v)).unwrap_err().to_string();
        assert!(message.contains("'queue' is not valid"), "{message}");
        saved.remove("steps");
        let message = saved.load(|v| thing().visit(v)).unwrap_err().to_string();
        assert!(message.contains("'steps' is missing"), "{message}");
        let twice = MemoryState::save(|v| {
            thing().visit(v)?;
            thing().visit(v)
        });
        assert!(twice.unwrap_err().to_string().contains("two pieces of state have this name"));
    }
}
