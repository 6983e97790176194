//! Bytes that are kept from batch to batch.

use crate::batch::Line;

/// Bytes that begin on a cache line. Memory grows and never shrinks; after a [`resize`](Self::resize) what the bytes hold is
/// left over from before, so whoever resizes writes all of them.
#[derive(Clone, Default)]
pub(super) struct Buffer {
    lines: Vec<Line>,
    bytes: usize,
}

impl Buffer {
    /// A buffer that holds a copy of `bytes`.
    pub fn copied(bytes: &[u8]) -> Self {
        let mut buffer = Self::default();
        buffer.resize(bytes.len());
        buffer.bytes_mut().copy_from_slice(bytes);
        buffer
    }

    /// Makes the buffer `bytes` long.
    pub fn resize(&mut self, bytes: usize) {
        let lines = bytes.div_ceil(size_of::<Line>());
        if lines > self.lines.len() {
            self.lines.resize(lines, Line([0; 64]));
        }
        self.bytes = bytes;
    }

    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.bytes]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.bytes]
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} bytes)", self.bytes)
    }
}

/// Copies one cell of `bytes` bytes. Called with a constant (see [`sized`]) it becomes a load and a store instead of a call.
#[inline(always)]
pub(super) fn copy_cell(to: &mut [u8], to_cell: usize, from: &[u8], from_cell: usize, bytes: usize) {
    to[to_cell * bytes..][..bytes].copy_from_slice(&from[from_cell * bytes..][..bytes]);
}

/// Runs `$body` with `$bytes` a constant for the sizes of single elements, which are what small cells mostly are.
macro_rules! sized {
    ($bytes:ident => $body:expr) => {
        match $bytes {
            4 => {
                let $bytes = 4usize;
                $body
            }
            8 => {
                let $bytes = 8usize;
                $body
            }
            _ => $body,
        }
    };
}
pub(super) use sized;
