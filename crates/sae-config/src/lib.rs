//! The configuration of a run and of a sweep: types that cannot hold wrong values.
//!
//! This crate knows no tensors. It leaves the opening of models and data to `sae-model` and `sae-data`; what can be
//! checked without them (keys, ranges, schedules, divisibility) is checked here, once, when a configuration is read.
//!
//! ```
//! use sae_config::{RunConfig, Variant};
//!
//! let run = RunConfig::parse(r#"
//!     [model]
//!     path = "data/rust-lm"
//!     [data]
//!     train = "data/corpus/train"
//!     context_length = 128
//!     [sae]
//!     sites = ["blocks.3.hook_resid_pre"]
//!     expansion = 16
//!     [loss]
//!     sparsity = { coeff = 2.0 }
//!     kl = { coeff = 1.0 }
//!     [train]
//!     n_samples = 4800
//!     batch_size = 16
//!     lr = 1e-3
//!     [eval]
//!     data = "data/corpus/validation"
//!     n_samples = 256
//! "#, "example.toml")?;
//! assert_eq!(run.variant(), Variant::E2e);
//! assert_eq!(run.n_steps(), 300);
//! # Ok::<(), sae_config::ConfigError>(())
//! ```
//!
//! The same types are built in Rust, without a file; what is not given is as where it is left out of one. [`RunConfig::check`]
//! checks the whole; `docs/configuration.md` says what every key means, and [`keys`] tells it of the types.
//!
//! ```
//! use sae_config::loss::{LossConfig, SparsityConfig, TermConfig};
//! use sae_config::run::{DataConfig, EvalConfig, LogConfig, ModelConfig, SaeConfig, TrainConfig};
//! use sae_config::{RunConfig, Site};
//!
//! let run = RunConfig {
//!     model: ModelConfig::new("data/rust-lm".parse()?),
//!     data: DataConfig::new("data/corpus/train".parse()?, 128.try_into()?),
//!     sae: SaeConfig { seed: 1, ..SaeConfig::new(vec![Site::resid_pre(3)], 16.0.try_into()?) },
//!     loss: LossConfig {
//!         kl: Some(TermConfig { coeff: 1.0.try_into()? }),
//!         ..LossConfig::of(SparsityConfig::l1(2.0.try_into()?))
//!     },
//!     train: TrainConfig { n_samples: Some(4800), ..TrainConfig::new(16.try_into()?, 1e-3.try_into()?) },
//!     eval: EvalConfig::new("data/corpus/validation".parse()?),
//!     log: LogConfig::default(),
//! };
//! run.check("my run")?;
//! println!("{}", run.to_toml()?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod architecture;
pub mod difference;
mod error;
pub mod estimate;
pub mod file;
pub mod fingerprint;
pub mod keys;
pub mod loss;
pub mod message;
mod number;
pub mod pretrain;
pub mod reference;
pub mod run;
mod setting;
pub mod signals;
mod site;
mod source;
pub mod sweep;

pub use architecture::Architecture;
pub use error::{ConfigError, nearest};
pub use number::{Coefficient, Fraction, Positive};
pub use pretrain::PretrainConfig;
pub use run::{RunConfig, Variant};
pub use site::{ParseSiteError, Site, SiteKind};
pub use source::{HubSource, ParseSourceError, Source};
pub use sweep::SweepConfig;
