//! Training: from a run's configuration to a run folder with weights, metrics and an evaluation.
//!
//! [`train`] takes the runs of a bank, which share the model, the batches and the clean pass, and trains each as if it
//! were alone: the same bits. [`pretrain::pretrain`] trains a small language model to do this on. Progress goes to an
//! [`progress::Observer`]; this crate prints nothing.
//!
//! ```no_run
//! use sae_config::loss::{LossConfig, SparsityConfig, TermConfig};
//! use sae_config::run::{DataConfig, EvalConfig, LogConfig, ModelConfig, SaeConfig, TrainConfig};
//! use sae_config::{RunConfig, Site};
//! use sae_record::RunFolder;
//! use sae_train::{RunSpec, progress::Silent, train};
//!
//! // Four steps of type `e2e` on the embedded model; `RunConfig::load` reads the same from a file.
//! let windows = 64;
//! let config = RunConfig {
//!     model: ModelConfig::new("data/rust-lm".parse()?),
//!     data: DataConfig::new("data/corpus/train".parse()?, 128.try_into()?),
//!     sae: SaeConfig::new(vec![Site::resid_pre(3)], 4.0.try_into()?),
//!     loss: LossConfig {
//!         kl: Some(TermConfig { coeff: 1.0.try_into()? }),
//!         ..LossConfig::of(SparsityConfig::l1(0.5.try_into()?))
//!     },
//!     train: TrainConfig {
//!         n_samples: Some(windows),
//!         ..TrainConfig::new(16.try_into()?, 1e-3.try_into()?)
//!     },
//!     eval: EvalConfig {
//!         n_samples: Some(windows),
//!         alive_tokens: 10_000,
//!         ..EvalConfig::new("data/corpus/validation".parse()?)
//!     },
//!     log: LogConfig::default(),
//! };
//! let folder = RunFolder::new(std::env::temp_dir().join("first-sae"));
//! let spec = RunSpec { id: "first".to_owned(), folder, config };
//! let made_with = sae_train::made_with("unknown");
//! let summaries = train(&[spec], tch::Device::Cpu, &made_with, &mut Silent)?;
//! println!("CE increase {:.3}", summaries[0].evaluation.values.get("ce_increase"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod agreement;
mod begun;
pub mod bench;
mod checkpoint;
pub mod concepts;
pub mod dashboards;
mod error;
mod evaluate;
pub mod excerpts;
pub mod generate;
mod gradients;
pub mod measure;
mod memory;
pub mod optim;
pub mod playground;
pub mod pretrain;
pub mod progress;
pub mod schedule;
mod setup;
mod sources;
mod steps;
pub mod task;
mod trainer;

use sae_data::Batch;
use sae_record::summary::Versions;
use tch::{Device, Tensor};

pub use error::TrainError;
pub use evaluate::{convert, evaluate_saes};
pub use sources::Sources;
pub use trainer::{RunSpec, train};

/// The version that the binding is written for and refuses others than.
const LIBTORCH: &str = "2.11.0";

/// The versions that go into a summary; the device is filled in when a run starts.
pub fn made_with(commit: &str) -> Versions {
    Versions {
        sae: env!("CARGO_PKG_VERSION").to_owned(),
        commit: commit.to_owned(),
        libtorch: LIBTORCH.to_owned(),
        device: String::new(),
    }
}

/// A batch's tokens, `[B, T]`, on a device.
pub(crate) fn batch_tensor(batch: &Batch, device: Device) -> Result<Tensor, TrainError> {
    let shape = [batch.rows as i64, batch.context_length as i64];
    Ok(Tensor::f_from_slice(&batch.tokens)?.f_view(shape)?.f_to_device(device)?)
}

/// Writes a file whole or not at all.
pub(crate) fn write_atomically(path: &std::path::Path, bytes: &[u8]) -> Result<(), TrainError> {
    sae_config::file::write_atomically(path, bytes).map_err(TrainError::file("write", path))
}
