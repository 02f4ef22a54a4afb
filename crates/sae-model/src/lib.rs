//! The frozen language model: loading it from a folder, running it whole or in part, reading and replacing the
//! activations at its hook sites.
//!
//! This crate knows no sparse autoencoders; `sae-splice` puts them in through the hooks.
//!
//! ```
//! use sae_model::{ModelConfig, ModelError, Site, Transformer};
//! use tch::{Device, Kind, Tensor};
//!
//! let config = ModelConfig::gpt2(2, 8, 2, 16, 50); // layers, D, heads, context, vocabulary
//! let model = Transformer::random(config, 0, Device::Cpu, Kind::Float)?;
//! let tokens = Tensor::from_slice(&[3_i64, 1, 4, 1, 5]).view([1, 5]);
//!
//! // Zero what the second block's MLP adds, and see the logits: [1, 5, 50].
//! let site: Site = "blocks.1.hook_mlp_out".parse()?;
//! let embedded = model.embed(&tokens)?;
//! let mut zero = |_, x: Tensor| Ok::<_, ModelError>(x.f_zeros_like()?);
//! let last = model.run_to_end(0..2, embedded, &[site].into(), &mut zero)?;
//! let logits = model.logits(&model.final_norm(&last)?)?;
//! assert_eq!(logits.size(), [1, 5, 50]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod attention;
pub mod config;
pub mod device;
mod error;
pub mod generate;
mod linear;
pub mod load;
mod mlp;
mod norm;
mod precision;
mod process;
mod rotary;
mod transformer;

pub use config::ModelConfig;
pub use error::ModelError;
pub use sae_config::{Site, SiteKind};
pub use transformer::{Hook, Transformer, Unembedding};
