//! Dictionaries: the sparse autoencoder, its initialisation, the terms of its loss, its weights on disk.
//!
//! This crate knows no language model: activations and hidden states come as tensors. `sae-splice` brings the two
//! together.
//!
//! ```
//! use sae_nn::{Sae, loss};
//! use tch::{Device, Kind, Tensor};
//!
//! let sae = Sae::random(8, 32, 0, 0, Device::Cpu, Kind::Float)?; // D = 8, F = 32
//! let x = Tensor::ones([5, 8], (Kind::Float, Device::Cpu));
//! let out = sae.forward(&x)?;
//! let loss = loss::mse(&out.reconstruction, &x)? + loss::sparsity(&out.features, 1.0, 8)? * 0.1;
//! let gradients = Tensor::f_run_backward(&[loss], &sae.parameters(), false, false)?;
//! assert_eq!(gradients[0].size(), [32, 8]);
//! # Ok::<(), sae_nn::SaeError>(())
//! ```

mod error;
mod init;
pub mod kernels;
pub mod loss;
mod pass;
pub mod reference;
mod sae;
mod saelens;
pub mod weights;

pub use error::SaeError;
pub use pass::{Penalty, SaeGradients, SaePass};
pub use sae::{Sae, SaeOutput};
