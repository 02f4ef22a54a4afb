//! Tensors in files that somebody else wrote: safetensors and PyTorch's `.pt` and `.bin`, whole or sharded.
//!
//! A file is untrusted. Opening reads names, types and shapes alone, and checks every length against the file before
//! anything of that size is allocated; a tensor's numbers are read when it is asked for. Pickles are parsed, never
//! executed. What the tensors mean is left to `sae-model` and `sae-nn`.
//!
//! ```
//! use sae_tensors::TensorFiles;
//! use tch::Tensor;
//!
//! let path = std::env::temp_dir().join(format!("sae-tensors-{}.safetensors", std::process::id()));
//! Tensor::write_safetensors(&[("weight", Tensor::from_slice(&[1.0_f32, 2.0]))], &path)?;
//! let files = TensorFiles::open(&path)?;
//! assert_eq!(files.shape("weight"), Some(&[2][..]));
//! assert_eq!(Vec::<f32>::try_from(files.read("weight")?)?, [1.0, 2.0]);
//! # std::fs::remove_file(&path).ok();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod files;
mod pytorch;
mod safetensors;

pub use error::TensorError;
pub use files::TensorFiles;
