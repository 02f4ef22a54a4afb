//! What passes over data measure of SAEs in a language model: probes, one file each.
//!
//! [`evaluate()`] runs the clean and the spliced pass over an evaluation set and shows them to every probe; each declares its
//! metrics ([`metrics`]), with unit, direction and reduction. [`count_active`] counts how often features are active,
//! [`site_activations`] and [`sae_activations`] tell of positions and principal directions, [`features`] of what single features
//! are, [`concepts`] of how well they tell what tokens are, [`prompt`] of what a model does with a text. This crate leaves the opening of
//! models and data, and the writing of records, to `sae-train`.
//!
//! ```
//! use sae_config::loss::{LossConfig, SparsityConfig, TermConfig};
//! use sae_model::{ModelConfig, Transformer};
//! use sae_record::metric::name;
//! use sae_splice::{Member, SplicedModel};
//! use tch::{Device, Kind, Tensor};
//!
//! let config = ModelConfig::gpt2(2, 8, 2, 16, 50); // layers, D, heads, context, vocabulary
//! let model = SplicedModel::new(Transformer::random(config, 0, Device::Cpu, Kind::Float)?);
//! // Minimised: 0.1 · ‖c‖₁ / D + KL.
//! let kl = TermConfig { coeff: 1.0.try_into()? };
//! let loss = LossConfig { kl: Some(kl), ..LossConfig::of(SparsityConfig::l1(0.1.try_into()?)) };
//! let sites = ["blocks.1.hook_resid_pre".parse()?];
//! let member = Member::random(&model, &sites, 32, &loss, 0)?;
//!
//! let batches = [Tensor::from_slice(&[3_i64, 1, 4, 1, 5]).view([1, 5])];
//! let found = &sae_eval::evaluate(&model, &[&member], &batches, &mut |_| {})?[0];
//! assert!(found.values.get(name::KL) > 0.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod codes;
pub mod concepts;
mod evaluate;
pub mod features;
mod frequency;
mod positions;
mod probes;
pub mod prompt;
pub mod task;

pub use codes::for_each_code;
pub use evaluate::evaluate;
pub use frequency::{FeatureCounts, count_active};
pub use positions::{Principal, sae_activations, site_activations};
pub use probes::metrics;
