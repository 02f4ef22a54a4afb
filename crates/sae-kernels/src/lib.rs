//! CPU loops that libtorch would make several passes of: ReLU with its counts, decoding and gradients of sparse codes,
//! softmax with its normaliser, the KL divergence with its gradient, Adam. All in f32 over slices.
//!
//! This crate knows no tensors: `sae-nn` borrows their memory and calls these functions. Sizes are checked once, where a
//! function is entered; slices of safe Rust cannot overlap. The loops are compiled for AVX-512, for AVX2 and for whatever
//! the compiler's target has, and give the same bits with each.
//!
//! ```
//! use sae_kernels::{Rows, RowsMut, SparseCode, relu, row_scales};
//!
//! // One token, three features, of which two are active; D = 2.
//! let mut features = [1.0, -1.0, 2.0];
//! let sums = relu(RowsMut::new(&mut features, 3)?);
//! let code = SparseCode::collect(Rows::new(&features, 3)?, &sums)?;
//! assert_eq!(code.len(), 2);
//!
//! let w_dec = [3.0, 0.0, 1.0, 1.0, 0.0, 0.5];
//! let w_dec = Rows::new(&w_dec, 2)?;
//! let scales = row_scales(w_dec);
//! let mut reconstruction = [0.0; 2];
//! code.decode(w_dec, &scales, &[0.5, 0.5], RowsMut::new(&mut reconstruction, 2)?)?;
//! assert_eq!(reconstruction, [1.5, 2.5]); // unit rows: 1 · [1, 0] + 2 · [0, 1] + the bias
//! # Ok::<(), sae_kernels::ShapeError>(())
//! ```

// A loop takes on the instructions of the function that it is compiled into, so it must be compiled into it.
#![allow(clippy::inline_always)]

mod adam;
mod dense;
mod distribution;
mod instructions;
mod rows;
mod select;
mod sparse;
#[cfg(test)]
mod tests;

pub use adam::{AdamStep, adam};
pub use dense::{MIN_NORM, RowSums, mask, project, relu, row_scales};
pub use distribution::{SoftmaxSums, compare, exponentials, subtract};
pub use instructions::are_worthwhile;
pub use rows::{Rows, RowsMut, ShapeError};
pub use select::{Kept, keep_largest, keep_top};
pub use sparse::{ParameterGradients, SparseCode, SparseInputs};
