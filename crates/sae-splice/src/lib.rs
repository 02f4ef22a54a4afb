//! A language model with SAEs spliced in: one clean pass for many of them, the spliced pass of each, the terms of
//! the loss, and its gradients.
//!
//! This crate leaves batches and optimisers to `sae-train`. Its unit is a bank of members ([`Member`]): runs that see the
//! same batches, share the clean pass and the original's output distribution, and are otherwise on their own.
//!
//! ```
//! use sae_config::loss::{LossConfig, SparsityConfig, TermConfig};
//! use sae_model::{ModelConfig, Transformer};
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
//! let tokens = Tensor::from_slice(&[3_i64, 1, 4, 1, 5]).view([1, 5]);
//! let outcome = &model.gradients(&[&member], &tokens, 1.0, 0)?[0];
//! assert_eq!(outcome.gradients.len(), 4);
//! assert!(outcome.terms.get("kl").is_some());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod edit;
mod error;
mod member;
mod objective;
pub mod profile;
mod segment;
mod spliced;
mod terms;

pub use edit::{Change, FeatureEdit};
pub use error::SpliceError;
pub use member::{DictionaryPlan, Member, PlacedDictionary};
pub use objective::{LossTerms, Outcome};
pub use spliced::{CleanPass, DictionarySeen, MemberPass, SplicedModel};
