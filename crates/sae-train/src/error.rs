//! What can go wrong in training.

use std::path::PathBuf;

use sae_config::ConfigError;
use sae_config::message::without_frames;
use sae_data::DataError;
use sae_model::ModelError;
use tch::TchError;

/// A training, evaluation or pretraining that could not go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A line of a task cannot be used.
    #[error("cannot use line {line} of {}: {message}; a line is {{\"clean_prefix\": …, \"clean_answer\": …, \"patch_answer\": …}}", path.display())]
    Task {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file of a run or sweep.
    #[error(transparent)]
    Record(#[from] sae_record::RecordError),
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The language model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// What was asked of the language model is not in it.
    #[error("cannot use the model {}: {source}", path.display())]
    InModel {
        /// The model's folder.
        path: PathBuf,
        /// Why not.
        source: ModelError,
    },
    /// The hub.
    #[error(transparent)]
    Hub(#[from] sae_data::hub::HubError),
    /// A source that is not what it should be.
    #[error("cannot use {found}: expected {expected}")]
    Source {
        /// The source.
        found: String,
        /// What would do.
        expected: String,
    },
    /// The number of windows is not known before all text is tokenised, or all files are fetched.
    #[error(
        "train.n_samples is left out, but how many windows {} holds is not known: give train.n_samples, or make windows \
         of it first (`sae prepare`)", path.display()
    )]
    SamplesUnknown {
        /// The data.
        path: PathBuf,
    },
    /// What is wrong with one run.
    #[error("run {id}: {source}")]
    InRun {
        /// The run.
        id: String,
        /// What.
        source: Box<TrainError>,
    },
    /// The spliced model.
    #[error(transparent)]
    Splice(#[from] sae_splice::SpliceError),
    /// An SAE.
    #[error(transparent)]
    Sae(#[from] sae_nn::SaeError),
    /// libtorch failed.
    #[error("libtorch failed: {}", without_frames(.0))]
    Torch(#[from] TchError),
    /// There is no memory left.
    #[error(
        "out of memory in a training step ({message}); what it takes, about: {uses}. Halve train.batch_size, \
         keeping train.effective_batch_size at {effective}: the result is the same; or lower bank_size, or set \
         train.recompute = true"
    )]
    OutOfMemory {
        /// What libtorch said, its first line.
        message: String,
        /// The largest users.
        uses: String,
        /// The effective batch size.
        effective: u64,
    },
    /// Any other file.
    #[error("cannot {action} {}: {message}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        message: String,
    },
    /// Pretraining became non-finite.
    #[error(
        "the loss became non-finite at step {step} of pretraining ({what}); a lower train.lr may help. A checkpoint, \
         where there is one already, is kept"
    )]
    PretrainNonFinite {
        /// The step that failed.
        step: u64,
        /// What was not finite.
        what: String,
    },
    /// The output folder holds the checkpoint of another pretraining.
    #[error(
        "{0}/checkpoint belongs to the configuration in {0}/pretrain.toml, which differs from this one in {differences}: remove \
         the folder `checkpoint` to begin anew, or choose another --out", path.display()
    )]
    OtherPretraining {
        /// The output folder.
        path: PathBuf,
        /// The keys that differ, with their values.
        differences: String,
    },
    /// The output folder holds a model that this pretraining has not made.
    #[error(
        "{0} holds a model already, and {0}/pretrain.toml is not this configuration, or is missing: choose another --out, or \
         remove that model", path.display()
    )]
    OtherModel {
        /// The output folder.
        path: PathBuf,
    },
    /// The output folder holds a run with another configuration.
    #[error(
        "{0} holds another run: its config.toml differs from this run's in {differences}; choose another folder, remove that \
         one, or go on with it as it is (sae train {0}/config.toml --out {0})", path.display()
    )]
    OtherRun {
        /// The folder.
        path: PathBuf,
        /// The keys that differ, with their values.
        differences: String,
    },
    /// The model or data under a run's names is not what it began with.
    #[error(
        "{} was begun with another {what}: what lies at {place} has other contents now, under the same name; put back \
         what was there, or choose another folder", path.display()
    )]
    OtherInputs {
        /// The run's folder.
        path: PathBuf,
        /// The model, or which data.
        what: &'static str,
        /// Where it lies.
        place: String,
    },
    /// The SAEs do not fit into memory.
    #[error(
        "{elements} dictionary elements (sae.expansion = {expansion} times d_model = {d_model}) need about {needed:.1} GB \
         for parameters, gradients and optimiser alone, but this machine has {available:.1} GB: lower sae.expansion \
         (elements per dimension), sae.sites or bank_size"
    )]
    TooLarge {
        /// Dictionary elements of one SAE, F.
        elements: usize,
        /// Elements per dimension.
        expansion: f64,
        /// Width of the activation, D.
        d_model: usize,
        /// Gigabytes needed.
        needed: f64,
        /// Gigabytes there are.
        available: f64,
    },
    /// An evaluation gave no numbers.
    #[error(
        "the evaluation of {} gives a cross-entropy of {ce} and a KL divergence of {kl}: the SAEs' reconstructions \
         overflow; they have diverged in training, or belong to another model", path.display()
    )]
    NonFiniteEvaluation {
        /// The SAEs.
        path: PathBuf,
        /// Cross-entropy with the SAEs, nats.
        ce: f64,
        /// KL divergence, nats a token.
        kl: f64,
    },
    /// A model gave no logits to choose a token from.
    #[error(
        "the logits are NaN or infinite: the reconstructions of the SAEs at {} overflow; they have diverged in training, \
         or belong to another model", path.display()
    )]
    NonFiniteLogits {
        /// The SAEs.
        path: PathBuf,
    },
    /// Runs that do not see the same model, batches and evaluation were given as one bank.
    #[error(
        "{first} and {other} cannot train as one bank: they differ in model, data, batch size, number of samples, \
         evaluation or logging; train them one by one"
    )]
    NotOneBank {
        /// The first run.
        first: String,
        /// One that differs from it.
        other: String,
    },
    /// A loss or gradient is no longer finite.
    #[error(
        "the loss became non-finite at step {step} ({what}); the state of step {kept} is kept. A lower train.lr or a \
         train.max_grad_norm may help"
    )]
    NonFinite {
        /// The step that failed.
        step: u64,
        /// What was not finite.
        what: String,
        /// The last good step.
        kept: u64,
    },
    /// The user asked to stop an evaluation.
    #[error("interrupted in an evaluation; what was trained is saved: the same command evaluates")]
    InterruptedEvaluation,
    /// The user asked to stop.
    #[error(
        "interrupted at step {step}; everything up to there is saved: the same command goes on from it"
    )]
    Interrupted {
        /// The last finished step.
        step: u64,
    },
}

impl TrainError {
    /// For `map_err` on operations on a file.
    pub(crate) fn file<E: std::fmt::Display>(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |error| Self::File { action, path, message: error.to_string() }
    }
}
