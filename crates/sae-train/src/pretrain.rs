//! Training a small language model of GPT-2's architecture from nothing, on next-token cross-entropy with AdamW.

use std::collections::HashMap;
use std::path::Path;

use sae_config::PretrainConfig;
use sae_config::run::{Processing, ScheduleKind};
use sae_data::{Batch, Cursor, ShardSet, StreamOptions, TextTokenizer, TokenStream};
use sae_model::{ModelConfig, Transformer, load};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Reduction, Tensor, no_grad};

use crate::checkpoint::{self, State};
use crate::optim::{Adam, AdamOptions, clip_factor, global_norm, read};
use crate::progress::{Event, Observer};
use crate::schedule::Schedule;
use crate::{TrainError, batch_tensor};

/// What a pretraining run came to; `training.json` beside the weights. Losses are in nats a token, on the whole
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
    /// The same of a bigram model counted on the whole training data.
    pub bigram_validation_loss: f64,
}

/// Steps between two checkpoints; the last one is kept until the model is written.
const CHECKPOINT_STEPS: u64 = 500;

/// Trains (from the checkpoint of an interrupted call, if there is one), writes the model in Hugging Face layout to `out` (weights in half precision, the tokeniser, `training.json`
/// and a model card), and evaluates it and a bigram model on the validation data.
pub fn pretrain(
    config: &PretrainConfig,
    out: &Path,
    device: Device,
    observer: &mut dyn Observer,
) -> Result<Pretrained, TrainError> {
    let tokenizer = TextTokenizer::load(&config.data.tokenizer)?;
    let training = ShardSet::open(&config.data.train, &config.data.column)?;
    let validation = ShardSet::open(&config.data.validation, &config.data.column)?;
    validation.check_disjoint(&training)?;

    let model = Transformer::random(
        model_config(config, &tokenizer),
        config.model.seed,
        device,
        Kind::Float,
    )?;
    let checkpoint = out.join("checkpoint");
    record_config(config, out, checkpoint.exists())?;
    train(config, &model, &training, &tokenizer, &checkpoint, observer)?;

    load::save(&model, out, Kind::Half)?;
    let tokenizer_file = out.join("tokenizer.json");
    let place = |path: &Path| std::fs::canonicalize(path).ok();
    if place(tokenizer.path()) != place(&tokenizer_file) {
        std::fs::copy(tokenizer.path(), &tokenizer_file)
            .map_err(TrainError::file("copy the tokeniser to", &tokenizer_file))?;
    }
    let stored = load::load(out, Processing::None, device, Kind::Float)?;
    let context_length = config.model.context_length.get();
    let loss =
        validation_loss(&stored, validation.clone(), Some(&tokenizer), context_length, observer)?;
    let bigram = bigram_loss(config, training, validation, &tokenizer, observer)?;
    let pretrained = Pretrained {
        training_tokens: (config.train.n_steps.get()
            * config.train.batch_size.get()
            * context_length) as u64,
        parameters: stored.n_parameters() as u64,
        validation_tokens: loss.tokens,
        validation_loss: loss.mean,
        bigram_validation_loss: bigram,
    };
    write_card(config, &pretrained, out)?;
    if checkpoint.exists() {
        std::fs::remove_dir_all(&checkpoint).map_err(TrainError::file("remove", &checkpoint))?;
    }
    Ok(pretrained)
}

/// Writes `pretrain.toml`; a checkpoint of another configuration is refused.
fn record_config(
    config: &PretrainConfig,
    out: &Path,
    has_checkpoint: bool,
) -> Result<(), TrainError> {
    let path = out.join("pretrain.toml");
    let wanted = config.to_toml()?;
    if has_checkpoint && std::fs::read_to_string(&path).is_ok_and(|found| found != wanted) {
        return Err(TrainError::OtherPretraining { path: out.to_owned() });
    }
    std::fs::create_dir_all(out).map_err(TrainError::file("create", out))?;
    crate::write_atomically(&path, wanted.as_bytes())
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

fn train(
    config: &PretrainConfig,
    model: &Transformer,
    training: &ShardSet,
    tokenizer: &TextTokenizer,
    checkpoint: &Path,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    let steps = config.train.n_steps.get() as u64;
    let (batch_size, context_length) =
        (config.train.batch_size.get(), config.model.context_length.get());
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
        checkpoint::restore(checkpoint, &names, &mut optimiser)?.state.step
    } else {
        0
    };
    let options = StreamOptions {
        batch_size,
        shuffle_buffer: config.data.shuffle_buffer.get(),
        seed: config.data.seed,
        epochs: None,
        ..StreamOptions::in_order(context_length, model.config().vocabulary)
    };
    let (shards, reader) = (training.clone(), Some(tokenizer.clone()));
    let mut stream = if from == 0 {
        TokenStream::start(shards, reader, options.clone())?
    } else {
        let cursor = Cursor::load(&checkpoint::cursor(checkpoint), &options, training)?;
        TokenStream::resume(shards, reader, options.clone(), cursor)?
    };
    let tokens_per_unit = (batch_size * context_length) as u64;
    observer.notice(Event::began("pretrain", steps, tokens_per_unit));
    observer.notice(Event::advanced(from));
    for step in from..steps {
        let batch = next(&mut stream, config)?;
        let loss = next_token_loss(model, &batch_tensor(&batch, model.device())?, Reduction::Mean)?;
        let parameters: Vec<&Tensor> = optimiser.parameters().collect();
        let gradients = Tensor::f_run_backward(&[&loss], &parameters, false, false)?;
        let norm = read(&[global_norm(&gradients)?])?[0];
        let loss = loss.f_double_value(&[])?;
        if !loss.is_finite() || !norm.is_finite() {
            let what = format!("loss {loss}, gradient norm {norm}");
            return Err(TrainError::PretrainNonFinite { step: step + 1, what });
        }
        // The reference's cosine starts at 0, which would waste the first step.
        let scale = clip_factor(norm, Some(config.train.max_grad_norm.get()));
        optimiser.step(&gradients, scale, config.train.lr.get() * schedule.factor(step + 1))?;
        let message =
            if step % 20 == 0 { format!("loss {loss:.3}, norm {norm:.2}") } else { String::new() };
        observer.notice(Event::Advanced { done: step + 1, message });
        let interrupted = observer.interrupted() && step + 1 < steps;
        if interrupted || step + 1 == steps || (step + 1) % CHECKPOINT_STEPS == 0 {
            let step = step + 1;
            let state = State { step, optimiser_steps: step, diverged: None, good: None };
            let cursor = |path: &Path| Ok(stream.cursor().save(&options, training, path)?);
            checkpoint::save(checkpoint, &names, &optimiser, &[], &state, &cursor)?;
        }
        if interrupted {
            return Err(TrainError::Interrupted { step: step + 1 });
        }
    }
    observer.notice(Event::Ended);
    for parameter in model.parameters() {
        let _ = parameter.tensor.set_requires_grad(false);
    }
    Ok(())
}

fn next(stream: &mut TokenStream, config: &PretrainConfig) -> Result<Batch, TrainError> {
    match stream.next() {
        Some(batch) => Ok(batch?),
        None => Err(TrainError::File {
            action: "go on reading",
            path: config.data.train.clone(),
            message: "the data thread ended".to_owned(),
        }),
    }
}

/// Next-token cross-entropy of windows: position `t` predicts token `t + 1`.
///
/// # Shapes
/// `tokens: [B, T]` → scalar, nats: the mean or sum over the `B · (T − 1)` predictions.
fn next_token_loss(
    model: &Transformer,
    tokens: &Tensor,
    reduction: Reduction,
) -> Result<Tensor, TrainError> {
    let (b, t) = tokens.size2()?;
    let residual = model
        .run(0, model.embed(tokens)?, None, &mut |_, x| Ok(x))?
        .unwrap_or_else(|| unreachable!("a run without a stop reaches the end"));
    let hidden = model.final_norm(&residual.f_narrow(1, 0, t - 1)?)?;
    let logits = model.logits(&hidden)?.f_reshape([b * (t - 1), -1])?;
    let targets = tokens.f_narrow(1, 1, t - 1)?.f_reshape([-1])?;
    Ok(logits.f_cross_entropy_loss(&targets, None::<&Tensor>, reduction, -100, 0.0)?)
}

/// A loss over a data set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ValidationLoss {
    /// Mean next-token cross-entropy, nats.
    pub mean: f64,
    /// Predictions that it is a mean over.
    pub tokens: u64,
}

/// The model's next-token cross-entropy over the windows of `shards`, each once, in whole batches of 32: up to 31 windows
/// at the end are left out.
pub fn validation_loss(
    model: &Transformer,
    shards: ShardSet,
    tokenizer: Option<&TextTokenizer>,
    context_length: usize,
    observer: &mut dyn Observer,
) -> Result<ValidationLoss, TrainError> {
    const BATCH: usize = 32;
    let source = shards.source().to_owned();
    let stream = TokenStream::start(
        shards,
        tokenizer.cloned(),
        StreamOptions {
            batch_size: BATCH,
            ..StreamOptions::in_order(context_length, model.config().vocabulary)
        },
    )?;
    let (mut sum, mut tokens) = (0.0, 0);
    let tokens_per_unit = (BATCH * context_length) as u64;
    observer.notice(Event::began("validate", 0, tokens_per_unit));
    for (index, batch) in stream.enumerate() {
        let batch = batch_tensor(&batch?, model.device())?;
        let loss = no_grad(|| next_token_loss(model, &batch, Reduction::Sum))?;
        sum += loss.f_double_value(&[])?;
        tokens += (BATCH * (context_length - 1)) as u64;
        observer.notice(Event::advanced(index as u64 + 1));
    }
    observer.notice(Event::Ended);
    if tokens == 0 {
        return Err(sae_data::DataError::TooShort {
            path: source,
            found: 0,
            context_length,
            needed: BATCH as u64,
            purpose: " for a validation loss",
        }
        .into());
    }
    Ok(ValidationLoss { mean: sum / tokens as f64, tokens })
}

/// Validation loss of a bigram model: counts of the whole training data, `p(b | a) = (n_ab + α p(b)) / (n_a + α)` with
/// `α = 20` and add-one unigrams.
fn bigram_loss(
    config: &PretrainConfig,
    training: ShardSet,
    validation: ShardSet,
    tokenizer: &TextTokenizer,
    observer: &mut dyn Observer,
) -> Result<f64, TrainError> {
    const ALPHA: f64 = 20.0;
    let v = tokenizer.vocabulary();
    let options = StreamOptions::in_order(config.model.context_length.get(), v);
    let windows = |shards| TokenStream::start(shards, Some(tokenizer.clone()), options.clone());
    let mut pairs: HashMap<(usize, usize), u32> = HashMap::new();
    let (mut firsts, mut unigrams) = (vec![0_u64; v], vec![1_u64; v]);
    observer.notice(Event::began("bigram", 0, options.context_length as u64));
    for (index, window) in windows(training)?.enumerate() {
        let window = window?;
        for pair in window.tokens.windows(2) {
            let (a, b) = (pair[0] as usize, pair[1] as usize);
            *pairs.entry((a, b)).or_default() += 1;
            firsts[a] += 1;
            unigrams[b] += 1;
        }
        observer.notice(Event::advanced(index as u64 + 1));
    }
    observer.notice(Event::Ended);
    let total: u64 = unigrams.iter().sum();
    let (mut sum, mut tokens) = (0.0, 0_u64);
    for window in windows(validation)? {
        for pair in window?.tokens.windows(2) {
            let (a, b) = (pair[0] as usize, pair[1] as usize);
            let unigram = unigrams[b] as f64 / total as f64;
            let count = pairs.get(&(a, b)).copied().map_or(0.0, f64::from);
            let p = (count + ALPHA * unigram) / (firsts[a] as f64 + ALPHA);
            sum -= p.ln();
            tokens += 1;
        }
    }
    Ok(sum / tokens as f64)
}

fn write_card(config: &PretrainConfig, result: &Pretrained, out: &Path) -> Result<(), TrainError> {
    let write = |name: &str, text: String| {
        let path = out.join(name);
        std::fs::write(&path, text).map_err(TrainError::file("write", path))
    };
    let json = serde_json::to_string_pretty(result)
        .map_err(TrainError::file("write", out.join("training.json")))?;
    write("training.json", json + "\n")?;
    let sizes = &config.model;
    write(
        "README.md",
        format!(
            "# {name}\n\n\
             A small language model of GPT-2's architecture, written by `sae pretrain` together with this card.\n\n\
             {about}\n\n\
             | | |\n| --- | --- |\n\
             | layers, D, heads, context | {}, {}, {}, {} |\n\
             | parameters | {} (half precision) |\n\
             | training data | `{}` |\n\
             | tokens seen in training | {} |\n\
             | validation data | `{}`, {} predictions |\n\
             | validation loss | {:.4} nats a token |\n\
             | a bigram model's | {:.4} nats a token |\n\n\
             The configuration that it was trained with:\n\n```toml\n{}```\n",
            sizes.n_layers,
            sizes.d_model,
            sizes.n_heads,
            sizes.context_length,
            result.parameters,
            config.data.train.display(),
            result.training_tokens,
            config.data.validation.display(),
            result.validation_tokens,
            result.validation_loss,
            result.bigram_validation_loss,
            config.to_toml()?,
            about = config.about.as_deref().unwrap_or_default().trim(),
            name = out.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy()),
        ),
    )
}
