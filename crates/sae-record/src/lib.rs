//! What runs and sweeps leave behind: where each file lies, and its schema, written and read in one place.
//!
//! `sae-train` writes these files, `sae-analysis` and the launchers read them; this crate knows neither, and no tensors.
//!
//! | file | module |
//! | --- | --- |
//! | where everything lies | [`layout`] |
//! | `manifest.json`, the jobs of a sweep | [`manifest`] |
//! | `summary.json`, a finished run; `inputs.json`, what a run is computed from | [`summary`] |
//! | what a metric is, and values by name | [`metric`] |
//! | `features.parquet`, the features of a run's SAEs | `features`, with the feature `parquet` |
//! | `dashboard/<site>/`, what every feature is | `dashboard`, with the feature `parquet` |
//! | `dashboard/<site>/explanations.json`, what a language model says that features are | [`explanations`] |
//! | `dashboard/<site>/scores.json`, how well explanations tell what features do | [`scores`] |
//! | `metrics.jsonl`, a line a logging step | [`metrics`] |
//! | `events.out.tfevents.sae`, the same for TensorBoard | [`tensorboard`] |
//! | `activations.json`, what was measured of activations | [`activations`] |
//! | `concepts.json`, how well features tell the concepts of a text | [`concepts`] |
//! | `tasks/<name>.json`, how a task of two answers goes | [`task`] |
//! | progress, as lines of JSON on stdout | [`events`] |
//!
//! ```
//! use sae_record::{Inputs, RunFolder};
//!
//! let place = tempfile::tempdir()?;
//! let run = RunFolder::new(place.path().join("runs/first"));
//! let [model, training, evaluation] = ["a", "b", "c"].map(str::to_owned);
//! let inputs = Inputs { model, training, evaluation };
//! inputs.save(&run.inputs())?;
//! assert_eq!(Inputs::load(&run.inputs())?, inputs);
//! assert!(!run.summary().exists()); // not finished yet
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod activations;
pub mod concepts;
#[cfg(feature = "parquet")]
pub mod dashboard;
mod error;
pub mod events;
pub mod excerpts;
pub mod explanations;
#[cfg(feature = "parquet")]
pub mod features;
pub mod layout;
pub mod manifest;
pub mod metric;
pub mod metrics;
pub mod scores;
pub mod summary;
pub mod task;
pub mod tensorboard;

pub use error::RecordError;
pub use events::{Event, Phase, RunProgress, progress_text};
pub use layout::RunFolder;
pub use manifest::{Job, Manifest, ManifestRun};
pub use summary::{Inputs, Summary};
