//! Dictionaries: sparse autoencoders and transcoders, their architectures, initialisation, the terms of their loss, their
//! weights on disk.
//!
//! This crate knows no language model: activations and hidden states come as tensors. `sae-splice` brings the two
//! together. A new architecture is a file in `architecture/`.
//!
//! ```
//! use sae_config::Architecture;
//! use sae_nn::{Dictionary, Sizes, loss};
//! use tch::{Device, Kind, Tensor};
//!
//! let sizes = Sizes::sae(8, 32); // D = 8, F = 32
//! let sae = Dictionary::random(&Architecture::default(), sizes, 0, 0, Device::Cpu, Kind::Float)?;
//! let x = Tensor::ones([5, 8], (Kind::Float, Device::Cpu));
//! let out = sae.forward(&x)?;
//! let loss = loss::mse(&out.reconstruction, &x)? + loss::sparsity(&out.features, 1.0, 8)? * 0.1;
//! let parameters: Vec<&Tensor> = sae.parameters().map(|(_, tensor)| tensor).collect();
//! let gradients = Tensor::f_run_backward(&[loss], &parameters, false, false)?;
//! assert_eq!(gradients[0].size(), [32, 8]);
//! # Ok::<(), sae_nn::SaeError>(())
//! ```

mod architecture;
mod code;
mod dictionary;
mod error;
mod init;
pub mod kernels;
pub mod loss;
pub mod reference;
mod saelens;
mod tape;
pub mod weights;

pub use dictionary::{Dictionary, DictionaryOutput, Sizes};
pub use error::SaeError;
pub use tape::{Gradients, Penalty, Tape};
