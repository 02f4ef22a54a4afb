//! What a language model is worth: its loss on data that it was not trained on, beside that of a bigram model.

use std::collections::{BTreeSet, HashMap};

use sae_data::{Batch, ColumnKind, DataError, ShardSet, StreamOptions, TextTokenizer, TokenStream};
use sae_model::{ModelError, Site, Transformer};
use tch::{Reduction, Tensor, no_grad};

use crate::progress::{Event, Observer, Phase};
use crate::{TrainError, batch_tensor};

/// Windows in a batch of the validation.
const BATCH: usize = 32;

/// Windows of a data set.
pub(super) struct Windows {
    pub shards: ShardSet,
    pub tokenizer: Option<TextTokenizer>,
    /// In order, one by one.
    pub options: StreamOptions,
    /// The first so many; all where left out.
    pub most: Option<u64>,
}

impl Windows {
    /// The windows in whole batches, in order.
    pub fn batches(
        &self,
        size: usize,
    ) -> Result<impl Iterator<Item = Result<Batch, DataError>> + use<>, DataError> {
        let options = StreamOptions { batch_size: size, ..self.options.clone() };
        let stream = TokenStream::start(self.shards.clone(), self.tokenizer.clone(), options)?;
        Ok(stream.take(self.most.map_or(usize::MAX, |most| most as usize / size)))
    }

    /// How many there are, where that is known before they are read: text is tokenised first.
    pub fn known(&self) -> Option<u64> {
        let rows = self.shards.rows().filter(|_| self.shards.kind() == ColumnKind::Windows)?;
        let all = rows.saturating_sub(self.options.skip);
        Some(self.most.map_or(all, |most| all.min(most)))
    }

    /// The batches that a bar counts to: those that are known, else the most there may be; 0 where nothing says it.
    fn total(&self, size: usize) -> u64 {
        self.known().or(self.most).map_or(0, |windows| windows / size as u64)
    }

    fn too_short(&self) -> DataError {
        DataError::TooShort {
            path: self.shards.source().to_owned(),
            found: self.most.unwrap_or(0),
            context_length: self.options.context_length,
            needed: BATCH as u64,
            purpose: " for a validation loss",
        }
    }
}

/// Refuses validation data that has not one batch.
pub(super) fn check_length(validation: &Windows) -> Result<(), TrainError> {
    match validation.batches(BATCH)?.next() {
        Some(batch) => Ok(batch.map(|_| ())?),
        None => Err(validation.too_short().into()),
    }
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
    let options = StreamOptions::in_order(context_length, model.config().vocabulary);
    let windows = Windows { shards, tokenizer: tokenizer.cloned(), options, most: None };
    mean_loss(model, &windows, observer)
}

/// The same over windows that are open already.
pub(super) fn mean_loss(
    model: &Transformer,
    windows: &Windows,
    observer: &mut dyn Observer,
) -> Result<ValidationLoss, TrainError> {
    let context_length = windows.options.context_length;
    let (mut sum, mut tokens) = (0.0, 0);
    let tokens_per_batch = (BATCH * context_length) as u64;
    observer.notice(Event::began(Phase::Validate, windows.total(BATCH), tokens_per_batch));
    for (index, batch) in windows.batches(BATCH)?.enumerate() {
        let batch = batch_tensor(&batch?, model.device())?;
        let loss = no_grad(|| next_token_loss(model, &batch, Reduction::Sum))?;
        sum += loss.f_double_value(&[])?;
        tokens += (BATCH * (context_length - 1)) as u64;
        advance(index as u64 + 1, observer)?;
    }
    observer.notice(Event::Ended);
    if tokens == 0 {
        return Err(windows.too_short().into());
    }
    Ok(ValidationLoss { mean: sum / tokens as f64, tokens })
}

/// Tokens that a bigram model is counted on, at most: more change its loss little, and data may have no end in sight.
const BIGRAM_TOKENS: u64 = 50_000_000;

/// Validation loss of a bigram model: counts of the first [`BIGRAM_TOKENS`] of the training data,
/// `p(b | a) = (n_ab + α p(b)) / (n_a + α)` with `α = 20` and add-one unigrams.
pub(super) fn bigram_loss(
    training: &Windows,
    validation: &Windows,
    observer: &mut dyn Observer,
) -> Result<f64, TrainError> {
    const ALPHA: f64 = 20.0;
    let v = training.options.vocabulary;
    let mut pairs: HashMap<(usize, usize), u32> = HashMap::new();
    let (mut firsts, mut unigrams) = (vec![0_u64; v], vec![1_u64; v]);
    let context_length = training.options.context_length as u64;
    let most = BIGRAM_TOKENS.div_ceil(context_length);
    let total = Some(training.total(1)).filter(|total| *total > 0).map_or(most, |it| it.min(most));
    observer.notice(Event::began(Phase::Bigram, total, context_length));
    for (index, window) in training.batches(1)?.take(most as usize).enumerate() {
        let window = window?;
        for pair in window.tokens.windows(2) {
            let (a, b) = (pair[0] as usize, pair[1] as usize);
            *pairs.entry((a, b)).or_default() += 1;
            firsts[a] += 1;
            unigrams[b] += 1;
        }
        advance(index as u64 + 1, observer)?;
    }
    observer.notice(Event::Ended);
    let total: u64 = unigrams.iter().sum();
    let (mut sum, mut tokens) = (0.0, 0_u64);
    for window in validation.batches(1)? {
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

/// Tells of progress, and stops where that is asked for: the model in training is in its checkpoint.
fn advance(done: u64, observer: &mut dyn Observer) -> Result<(), TrainError> {
    observer.notice(Event::advanced(done));
    if observer.interrupted() { Err(TrainError::InterruptedEvaluation) } else { Ok(()) }
}

/// Next-token cross-entropy of windows: position `t` predicts token `t + 1`.
///
/// # Shapes
/// `tokens: [B, T]` → scalar, nats: the mean or sum over the `B · (T − 1)` predictions.
pub(super) fn next_token_loss(
    model: &Transformer,
    tokens: &Tensor,
    reduction: Reduction,
) -> Result<Tensor, TrainError> {
    let (b, t) = tokens.size2()?;
    let mut nothing = |_: Site, x| Ok::<_, ModelError>(x);
    let blocks = 0..model.config().n_layers;
    let residual =
        model.run_to_end(blocks, model.embed(tokens)?, &BTreeSet::new(), &mut nothing)?;
    let hidden = model.final_norm(&residual.f_narrow(1, 0, t - 1)?)?;
    let logits = model.logits(&hidden)?.f_reshape([b * (t - 1), -1])?;
    let targets = tokens.f_narrow(1, 1, t - 1)?.f_reshape([-1])?;
    Ok(logits.f_cross_entropy_loss(&targets, None::<&Tensor>, reduction, -100, 0.0)?)
}
