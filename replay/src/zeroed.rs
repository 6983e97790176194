//! Memory for many numbers that are read in random order.

use bytemuck::{Pod, Zeroable};
use memmap2::{MmapMut, MmapOptions};
use std::fmt::{Debug, Formatter};
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// Zeroed memory, whose pages are taken when they are first written. With huge pages most of the misses of the address
/// translation go away; where the kernel does not offer them all works the same.
pub(crate) fn map(bytes: usize) -> io::Result<MmapMut> {
    let memory = MmapOptions::new().len(bytes).map_anon()?;
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    Ok(memory)
}

/// A slice of `T` in such memory, zero at first. It begins on a page, and so on a cache line.
pub(crate) struct Zeroed<T> {
    memory: MmapMut,
    elements: PhantomData<T>,
}

impl<T: Pod + Zeroable> Zeroed<T> {
    /// `elements` zeros, at least one.
    pub(crate) fn new(elements: usize) -> io::Result<Self> {
        let bytes = elements.checked_mul(size_of::<T>()).filter(|bytes| *bytes <= isize::MAX as usize);
        let bytes = bytes.ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { memory: map(bytes)?, elements: PhantomData })
    }
}

impl<T: Pod> Deref for Zeroed<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        bytemuck::cast_slice(&self.memory)
    }
}

impl<T: Pod> DerefMut for Zeroed<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.memory)
    }
}

impl<T: Pod> Clone for Zeroed<T> {
    /// # Panics
    /// When there is no memory for it, as a vector's clone does.
    fn clone(&self) -> Self {
        let mut clone = Self::new(self.len()).expect("memory for a clone");
        clone.copy_from_slice(self);
        clone
    }
}

impl<T: Pod + Debug> Debug for Zeroed<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        self.deref().fmt(f)
    }
}

impl<T: Pod + PartialEq> PartialEq for Zeroed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.deref() == other.deref()
    }
}
