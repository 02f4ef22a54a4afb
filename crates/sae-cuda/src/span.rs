//! Pieces of a GPU's memory, lent by who owns it.

use std::marker::PhantomData;

use crate::CudaError;

/// A number in bfloat16: the upper half of an f32.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub struct Bf16(#[allow(dead_code)] u16);

/// Numbers that lie next to each other in a GPU's memory. Kernels take it as an address.
#[derive(Debug)]
#[repr(C)]
pub struct Span<'a, T> {
    address: u64,
    len: usize,
    owner: PhantomData<&'a T>,
}

impl<T> Clone for Span<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Span<'_, T> {}

impl<T> Span<'_, T> {
    /// `len` numbers from an address on.
    ///
    /// # Safety
    /// They lie in the memory of the GPU that the kernels are on until the work that they are lent to is done, which is in the
    /// order of the device's default stream: whatever else reads, writes or frees them keeps to that order.
    #[allow(unsafe_code)]
    pub unsafe fn new(address: u64, len: usize) -> Self {
        Self { address, len, owner: PhantomData }
    }

    /// How many numbers.
    pub fn len(self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    pub(crate) fn address(self) -> u64 {
        self.address
    }

    #[cfg(test)]
    pub(crate) fn nothing() -> Self {
        Self { address: 0, len: 0, owner: PhantomData }
    }
}

/// Numbers in the precision that products are taken in.
#[derive(Debug, Clone, Copy)]
pub enum Low<'a> {
    /// f32, or TF32.
    F32(Span<'a, f32>),
    /// bfloat16.
    Bf16(Span<'a, Bf16>),
}

impl Low<'_> {
    /// How many numbers.
    pub fn len(self) -> usize {
        match self {
            Self::F32(span) => span.len(),
            Self::Bf16(span) => span.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    pub(crate) fn address(self) -> u64 {
        match self {
            Self::F32(span) => span.address(),
            Self::Bf16(span) => span.address(),
        }
    }

    /// Numbers in 16 bytes.
    pub(crate) fn pack(self) -> usize {
        match self {
            Self::F32(_) => 4,
            Self::Bf16(_) => 8,
        }
    }

    pub(crate) fn is_like(self, other: Low<'_>) -> bool {
        matches!((self, other), (Self::F32(_), Low::F32(_)) | (Self::Bf16(_), Low::Bf16(_)))
    }
}

/// A matrix, its rows one behind the other.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// All numbers.
    pub numbers: Low<'a>,
    /// Of a row; at least 1.
    pub width: usize,
}

impl Rows<'_> {
    /// How many rows.
    pub fn rows(self) -> usize {
        self.numbers.len() / self.width.max(1)
    }

    /// Refuses rows that a kernel would read 16 bytes at a time for their width, and whose first does not lie so.
    pub(crate) fn check_aligned(self) -> Result<(), CudaError> {
        if self.width.is_multiple_of(self.numbers.pack()) && !self.has_packs() {
            return Err(CudaError::of("reading rows that are not aligned"));
        }
        Ok(())
    }

    /// Whether rows can be read 16 bytes at a time.
    pub(crate) fn has_packs(self) -> bool {
        self.width.is_multiple_of(self.numbers.pack()) && self.numbers.address().is_multiple_of(16)
    }
}
