//! The configuration of a run and of a sweep: types that cannot hold wrong values, and where a run's files lie.
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

pub mod activations;
mod error;
pub mod estimate;
pub mod file;
pub mod fingerprint;
pub mod layout;
pub mod message;
mod number;
pub mod pretrain;
pub mod progress;
pub mod reference;
pub mod run;
pub mod signals;
mod site;
mod source;
pub mod summary;
pub mod sweep;

pub use error::ConfigError;
pub use layout::RunFolder;
pub use number::{Coefficient, Fraction, Positive};
pub use pretrain::PretrainConfig;
pub use run::{RunConfig, Variant};
pub use site::{ParseSiteError, Site, SiteKind};
pub use source::{HubSource, ParseSourceError, Source};
pub use summary::Summary;
pub use sweep::{Job, Manifest, ManifestRun, SweepConfig};
