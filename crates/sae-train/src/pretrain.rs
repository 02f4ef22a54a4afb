//! Training a small language model of GPT-2's architecture from nothing, on next-token cross-entropy with AdamW.

mod validation;

use std::num::NonZeroUsize;
use std::path::Path;

use sae_config::difference::{differences, in_words};
use sae_config::file;
use sae_config::run::{Processing, ScheduleKind};
use sae_config::{Positive, PretrainConfig, Source};
use sae_data::{
    Batch, ColumnKind, Compared, Cursor, DataError, ShardSet, StreamOptions, TextTokenizer,
    TokenStream,
};
use sae_model::{ModelConfig, Transformer, load};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Reduction, Tensor};

use crate::checkpoint::{self, State};
use crate::optim::{Adam, AdamOptions, clip_factor, global_norm, read};
use crate::progress::{Event, Observer, Phase, RunProgress};
use crate::schedule::Schedule;
use crate::steps::{self, StepReport, Trained};
use crate::{Sources, TrainError, batch_tensor};

pub use validation::{ValidationLoss, validation_loss};
use validation::{Windows, next_token_loss};

/// What a pretraining run came to; `training.json` beside the weights. Losses are in nats a token, on the
/// validation data, with the weights as they are stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pretrained {
    /// Tokens trained on.
    pub training_tokens: u64,
    /// Parameters of the model.
    pub parameters: u64,
    /// Tokens that the validation loss is a mean over.
    pub validation_tokens: u64,
    /// Next-token cross-entropy of the model.
    pub validation_loss: f64,
    /// The same of a bigram model counted on the training data, on 50 M tokens of it at most.
    pub bigram_validation_loss: f64,
}

/// Steps between two checkpoints; the last one is kept until the model is written.
const CHECKPOINT_STEPS: u64 = 500;
/// The file beside a tokeniser's that names its special tokens.
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// The file that records the configuration.
const CONFIG: &str = "pretrain.toml";
/// The file of results.
const RESULTS: &str = "training.json";
/// The folder of what an interrupted call goes on from.
const CHECKPOINT: &str = "checkpoint";

/// Trains (from the checkpoint of an interrupted call, if there is one), writes the model in Hugging Face layout to `out`
/// (weights in half precision, the tokeniser, `training.json` and a model card), and evaluates it and a bigram model on
/// the validation data. Where `out` holds the model of this configuration, nothing is done; any other model there is an error.
pub fn pretrain(
    config: &PretrainConfig,
    out: &Path,
    device: Device,
    observer: &mut dyn Observer,
) -> Result<Pretrained, TrainError> {
    let sources = Sources::default();
    let config = &pinned(config, out, &sources)?;
    let data = Data::open(config, &sources)?;
    let config = &with_steps(config, &data, out, observer)?;
    if let Some(before) = finished(config, out)? {
        tracing::info!("{} holds the model of this configuration: nothing to do", out.display());
        return Ok(before);
    }
    let model = Transformer::random(
        model_config(config, &data.tokenizer),
        config.model.seed,
        device,
        Kind::Float,
    )?;
    let checkpoint = out.join(CHECKPOINT);
    record_config(config, out, checkpoint.exists())?;
    train(config, &model, &data, &checkpoint, observer)?;

    load::save(&model, out, Kind::Half)?;
    copy_tokenizer(&data.tokenizer, out)?;
    let stored = load::load(out, Processing::None, device, Kind::Float)?;
    let loss = validation::mean_loss(&stored, &data.validation, observer)?;
    let bigram = validation::bigram_loss(&data.training, &data.validation, observer)?;
    let windows = config.n_steps() * config.train.batch_size.get() as u64;
    let pretrained = Pretrained {
        training_tokens: windows * config.model.context_length.get() as u64,
        parameters: stored.n_parameters() as u64,
        validation_tokens: loss.tokens,
        validation_loss: loss.mean,
        bigram_validation_loss: bigram,
    };
    write_card(config, &data, &pretrained, out)?;
    // The last, because it is the sign of a finished model.
    if checkpoint.exists() {
        std::fs::remove_dir_all(&checkpoint).map_err(TrainError::file("remove", &checkpoint))?;
    }
    Ok(pretrained)
}

/// The configuration with the commits of what it names on the hub: those that an earlier call began with, else today's.
fn pinned(
    config: &PretrainConfig,
    out: &Path,
    sources: &Sources,
) -> Result<PretrainConfig, TrainError> {
    let mut config = config.clone();
    let before = out.join(CONFIG);
    if before.is_file() && (out.join(CHECKPOINT).exists() || holds_model(out)) {
        config.adopt_commits(&PretrainConfig::load_recorded(&before)?);
    }
    sources.pin_pretraining(&mut config)?;
    Ok(config)
}

/// The data of a pretraining, opened and checked.
struct Data {
    tokenizer: TextTokenizer,
    training: Windows,
    validation: Windows,
}

impl Data {
    fn open(config: &PretrainConfig, sources: &Sources) -> Result<Self, TrainError> {
        let data = &config.data;
        let tokenizer = TextTokenizer::load(&sources.tokenizer(&data.tokenizer)?)?;
        let training = sources.shards(&data.train, &data.column, None)?;
        if training.kind() == ColumnKind::Text {
            tracing::info!("{}", tokenizer.describe(data.bos));
        }
        // Of one data set, both are of one commit.
        let validation = if data.validation == data.train {
            training.clone()
        } else {
            sources.shards(&data.validation, &data.column, None)?
        };
        let is_same =
            validation.source() == training.source() && validation.names().eq(training.names());
        let held_out = (is_same && data.skip > 0).then_some(data.skip);
        let asked = data.n_validation_samples.map(|n| n.get() as u64);
        let most = held_out.into_iter().chain(asked).min();
        if held_out.is_none() {
            let compared = Compared {
                skipped_windows: data.skip,
                context_length: config.model.context_length.get(),
                ..Compared::default()
            };
            validation.check_disjoint(&training, Some(&tokenizer), compared)?;
        }
        let windows = |shards: ShardSet, skip: u64, most: Option<u64>| {
            let context_length = config.model.context_length.get();
            let in_order = StreamOptions::in_order(context_length, tokenizer.vocabulary());
            let options = StreamOptions { skip, bos: data.bos, ..in_order };
            Windows { shards, tokenizer: Some(tokenizer.clone()), options, most }
        };
        let (training, validation) =
            (windows(training, data.skip, None), windows(validation, 0, most));
        // Said now, and not after hours of training.
        validation::check_length(&validation)?;
        Ok(Self { tokenizer, training, validation })
    }
}

/// The configuration with its number of steps, for which the windows of an epoch are counted where it does not tell it.
fn with_steps(
    config: &PretrainConfig,
    data: &Data,
    out: &Path,
    observer: &mut dyn Observer,
) -> Result<PretrainConfig, TrainError> {
    let Some(n_epochs) = config.train.n_epochs else { return Ok(config.clone()) };
    let batch_size = config.train.batch_size.get() as u64;
    let windows = count(&data.training, observer)?;
    let steps = (windows / batch_size).saturating_mul(n_epochs.get() as u64);
    let n_steps = NonZeroUsize::new(steps as usize).ok_or_else(|| DataError::TooShort {
        path: data.training.shards.source().to_owned(),
        found: windows,
        context_length: config.model.context_length.get(),
        needed: batch_size,
        purpose: " for a step",
    })?;
    tracing::info!("{windows} windows, {n_epochs} epochs of them are {n_steps} steps");
    let mut config = config.clone();
    (config.train.n_steps, config.train.n_epochs) = (Some(n_steps), None);
    config.check(&out.join(CONFIG).display().to_string())?;
    Ok(config)
}

/// Windows of an epoch: rows that hold one each, or all text, tokenised.
fn count(training: &Windows, observer: &mut dyn Observer) -> Result<u64, TrainError> {
    if let Some(windows) = training.known() {
        return Ok(windows);
    }
    let mut windows = 0;
    observer.notice(Event::began(Phase::Count, 0, training.options.context_length as u64));
    for window in training.batches(1)? {
        window?;
        windows += 1;
        observer.notice(Event::advanced(windows));
    }
    observer.notice(Event::Ended);
    Ok(windows)
}

/// Whether a folder holds a language model.
fn holds_model(folder: &Path) -> bool {
    ["config.json", "model.safetensors"].iter().any(|name| folder.join(name).exists())
}

/// The results of an earlier call that has finished this pretraining.
fn finished(config: &PretrainConfig, out: &Path) -> Result<Option<Pretrained>, TrainError> {
    if out.join(CHECKPOINT).exists() || !holds_model(out) {
        return Ok(None);
    }
    let results = || {
        let found = PretrainConfig::load_recorded(&out.join(CONFIG)).ok()?;
        let text = file::read_text(&out.join(RESULTS), file::LONGEST_TEXT).ok()?;
        serde_json::from_str(&text).ok().filter(|_| found == *config)
    };
    match results() {
        Some(results) => Ok(Some(results)),
        None => Err(TrainError::OtherModel { path: out.to_owned() }),
    }
}

/// Writes `pretrain.toml`; a checkpoint of another configuration is refused.
fn record_config(
    config: &PretrainConfig,
    out: &Path,
    has_checkpoint: bool,
) -> Result<(), TrainError> {
    let path = out.join(CONFIG);
    let wanted = config.to_toml()?;
    if has_checkpoint && let Ok(found) = PretrainConfig::load_recorded(&path) {
        // Data may have moved; the checkpoint's cursor tells it from other data by its fingerprint.
        let [found, config] = [&found, config].map(|config| {
            let mut config = config.clone();
            config.clear_local_paths();
            config
        });
        let found =
            differences(&found, &config).map_err(TrainError::file("compare with", &path))?;
        if !found.is_empty() {
            return Err(TrainError::OtherPretraining {
                path: out.to_owned(),
                differences: in_words(&found),
            });
        }
    }
    std::fs::create_dir_all(out).map_err(TrainError::file("create", out))?;
    crate::write_atomically(&path, wanted.as_bytes())
}

/// A source for people elsewhere, to whom the folders of this machine tell nothing: the last two names of a path.
fn shown(source: &Source) -> String {
    match source.local() {
        None => source.to_string(),
        Some(path) => {
            let names: Vec<_> = path.iter().map(std::ffi::OsStr::to_string_lossy).collect();
            names[names.len().saturating_sub(2)..].join("/")
        }
    }
}

/// The configuration with such names.
fn with_names(config: &PretrainConfig) -> PretrainConfig {
    let mut config = config.clone();
    let data = &mut config.data;
    for source in [&mut data.train, &mut data.validation, &mut data.tokenizer] {
        if source.local().is_some() {
            *source = Source::Local(shown(source).into());
        }
    }
    config
}

fn model_config(config: &PretrainConfig, tokenizer: &TextTokenizer) -> ModelConfig {
    let sizes = &config.model;
    ModelConfig::gpt2(
        sizes.n_layers.get(),
        sizes.d_model.get(),
        sizes.n_heads.get(),
        sizes.context_length.get(),
        tokenizer.vocabulary(),
    )
}

/// The tokeniser belongs to the model: its file, and the one that names its special tokens, where there is one.
fn copy_tokenizer(tokenizer: &TextTokenizer, out: &Path) -> Result<(), TrainError> {
    let place = |path: &Path| std::fs::canonicalize(path).ok();
    let beside = tokenizer.path().with_file_name(TOKENIZER_CONFIG);
    let files = [(tokenizer.path(), "tokenizer.json"), (&beside, TOKENIZER_CONFIG)];
    for (from, name) in files.into_iter().filter(|(from, _)| from.is_file()) {
        let to = out.join(name);
        if place(from) != place(&to) {
            std::fs::copy(from, &to).map_err(TrainError::file("copy the tokeniser to", &to))?;
        }
    }
    Ok(())
}

fn train(
    config: &PretrainConfig,
    model: &Transformer,
    data: &Data,
    checkpoint: &Path,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    let Windows { shards: training, tokenizer, options, .. } = &data.training;
    let steps = config.n_steps();
    let batch_size = config.train.batch_size.get();
    let schedule = Schedule {
        kind: ScheduleKind::Cosine,
        warmup: config.train.warmup_steps as u64,
        cooldown: 0,
        end: steps,
        min_factor: config.train.min_lr_factor.get(),
    };
    let parameters = model
        .parameters()
        .into_iter()
        .map(|parameter| {
            let decay = if parameter.decays { config.train.weight_decay.get() } else { 0.0 };
            (parameter.tensor.set_requires_grad(true), decay)
        })
        .collect::<Vec<_>>();
    let mut optimiser =
        Adam::new(parameters, AdamOptions { beta_2: 0.95, ..AdamOptions::default() })?;
    let names: Vec<String> =
        model.parameters().into_iter().map(|parameter| parameter.name).collect();
    let from = if checkpoint.join("state.json").is_file() {
        checkpoint::restore(checkpoint, &names, &mut optimiser, &[])?.state.step
    } else {
        0
    };
    let options = StreamOptions {
        batch_size,
        shuffle_buffer: config.data.shuffle_buffer.get(),
        seed: config.data.seed,
        epochs: None,
        ..options.clone()
    };
    let (shards, reader) = (training.clone(), tokenizer.clone());
    let stream = if from == 0 {
        TokenStream::start(shards, reader, options.clone())?
    } else {
        let cursor = Cursor::load(&checkpoint::cursor(checkpoint), &options, training)?;
        TokenStream::resume(shards, reader, options.clone(), cursor)?
    };
    let tokens_per_unit = (batch_size * options.context_length) as u64;
    observer.notice(Event::began(Phase::Pretrain, steps, tokens_per_unit));
    let mut pretraining = Pretraining {
        config,
        model,
        training,
        options: &options,
        checkpoint,
        schedule,
        names,
        optimiser,
        stream,
    };
    steps::take(&mut pretraining, (from, steps), observer)?;
    for parameter in model.parameters() {
        let _ = parameter.tensor.set_requires_grad(false);
    }
    Ok(())
}

/// A language model in training.
struct Pretraining<'a> {
    config: &'a PretrainConfig,
    model: &'a Transformer,
    training: &'a ShardSet,
    options: &'a StreamOptions,
    /// The checkpoint's folder.
    checkpoint: &'a Path,
    schedule: Schedule,
    /// Of the parameters.
    names: Vec<String>,
    optimiser: Adam,
    stream: TokenStream,
}

impl Trained for Pretraining<'_> {
    fn step(&mut self, step: u64) -> Result<StepReport, TrainError> {
        let batch = next(&mut self.stream, self.training)?;
        let tokens = batch_tensor(&batch, self.model.device())?;
        let loss = next_token_loss(self.model, &tokens, Reduction::Mean)?;
        let parameters: Vec<&Tensor> = self.optimiser.parameters().collect();
        let gradients = Tensor::f_run_backward(&[&loss], &parameters, false, false)?;
        let norm = read(&[global_norm(&gradients)?])?[0];
        let loss = loss.f_double_value(&[])?;
        if !loss.is_finite() || !norm.is_finite() {
            let what = format!("loss {loss}, gradient norm {norm}");
            return Err(TrainError::PretrainNonFinite { step, what });
        }
        let train = &self.config.train;
        // The reference's cosine starts at 0, which would waste the first step.
        let lr = train.lr.get() * self.schedule.factor(step);
        let scale = clip_factor(norm, train.max_grad_norm.map(Positive::get));
        self.optimiser.step(&gradients, scale, lr)?;
        if !(step - 1).is_multiple_of(20) {
            return Ok(StepReport::default());
        }
        let values = vec![("loss".to_owned(), loss), ("grad_norm".to_owned(), norm)];
        let runs = vec![RunProgress { run: "language model".to_owned(), values }];
        Ok(StepReport { message: String::new(), runs })
    }

    fn is_due(&self, step: u64) -> bool {
        step.is_multiple_of(CHECKPOINT_STEPS)
    }

    fn save(&mut self, step: u64) -> Result<(), TrainError> {
        let state = State { step, optimiser_steps: step, diverged: None, good: None };
        let save_rest = |folder: &Path| {
            let cursor = checkpoint::cursor(folder);
            Ok(self.stream.cursor().save(self.options, self.training, &cursor)?)
        };
        let (names, optimiser) = (&self.names, &self.optimiser);
        let tensors = checkpoint::Tensors { names, optimiser, buffers: &[], good: &[] };
        checkpoint::save(self.checkpoint, &tensors, &state, &save_rest)
    }
}

fn next(stream: &mut TokenStream, training: &ShardSet) -> Result<Batch, TrainError> {
    match stream.next() {
        Some(batch) => Ok(batch?),
        None => Err(TrainError::File {
            action: "go on reading",
            path: training.source().to_owned(),
            message: "the data thread ended".to_owned(),
        }),
    }
}

fn write_card(
    config: &PretrainConfig,
    data: &Data,
    result: &Pretrained,
    out: &Path,
) -> Result<(), TrainError> {
    let write = |name: &str, text: String| {
        let path = out.join(name);
        std::fs::write(&path, text).map_err(TrainError::file("write", path))
    };
    let json = serde_json::to_string_pretty(result)
        .map_err(TrainError::file("write", out.join(RESULTS)))?;
    write(RESULTS, json + "\n")?;
    let sizes = &config.model;
    let skipped = match config.data.skip {
        0 => String::new(),
        skip => format!(", without its first {skip} windows"),
    };
    let held_out =
        data.validation.most.map_or(String::new(), |most| format!(", its first {most} windows"));
    write(
        "README.md",
        format!(
            "# {name}\n\n\
             A small language model of GPT-2's architecture, written by `sae pretrain` together with this card.\n\n\
             {about}\n\n\
             | | |\n| --- | --- |\n\
             | layers, D, heads, context | {}, {}, {}, {} |\n\
             | parameters | {} (half precision) |\n\
             | training data | `{}`{skipped} |\n\
             | tokens seen in training | {} |\n\
             | validation data | `{}`{held_out}, {} predictions |\n\
             | validation loss | {:.4} nats a token |\n\
             | a bigram model's | {:.4} nats a token |\n\n\
             The configuration that it was trained with:\n\n```toml\n{}```\n",
            sizes.n_layers,
            sizes.d_model,
            sizes.n_heads,
            sizes.context_length,
            result.parameters,
            shown(&config.data.train),
            result.training_tokens,
            shown(&config.data.validation),
            result.validation_tokens,
            result.validation_loss,
            result.bigram_validation_loss,
            with_names(config).to_toml()?,
            about = config.about.as_deref().unwrap_or_default().trim(),
            name = out.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy()),
        ),
    )
}
