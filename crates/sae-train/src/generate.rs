//! Text from a model with its SAEs spliced in and without them.

use std::path::Path;

use sae_config::RunConfig;
use sae_model::generate::{Sampler, Sampling};
use sae_splice::{FeatureEdit, Member};
use tch::{Device, Tensor};

use crate::setup::Setup;
use crate::{TrainError, evaluate};

/// What is generated.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The text to go on from.
    pub prompt: &'a str,
    /// Whether the beginning-of-text token stands before it; before an empty prompt it does in any case.
    pub bos: bool,
    /// Tokens to add, fewer where the end-of-text token comes.
    pub tokens: usize,
    /// How each is chosen.
    pub sampling: Sampling,
    /// Seed of the choice, the same for all texts.
    pub seed: u64,
    /// Edits of features, for a third text.
    pub edits: Vec<FeatureEdit>,
}

/// Continuations of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// The model's own.
    pub original: String,
    /// With the SAEs spliced in.
    pub spliced: String,
    /// With the SAEs spliced in and features edited, where that was asked for.
    pub edited: Option<String>,
}

/// Goes on with a prompt without the SAEs at `saes`, with them, and, where there are edits, with edited ones; `progress` is told how many tokens are done. Windows
/// longer than the configuration's context lose their beginning.
pub fn generate(
    config: &RunConfig,
    saes: &Path,
    request: &Request<'_>,
    device: Device,
    mut progress: impl FnMut(usize),
) -> Result<Generated, TrainError> {
    let setup = Setup::model_only(config, device)?;
    let tokenizer = setup.text_tokenizer()?;
    let member = evaluate::member(config, saes, &setup, device)?;
    evaluate::warn_of_other_model(saes, &setup);
    let mut prompt = tokenizer.encode(request.prompt)?;
    if request.bos || prompt.is_empty() {
        prompt.insert(0, tokenizer.begin_of_text());
    }
    let mut done = 0;
    for edit in &request.edits {
        edit.check(&member)?;
    }
    let mut run = |member: Option<(&Member, &[FeatureEdit])>| -> Result<String, TrainError> {
        let mut sampler = Sampler::new(request.sampling, request.seed);
        let mut ids: Vec<i64> = prompt.iter().map(|&id| i64::from(id)).collect();
        for _ in 0..request.tokens {
            let start = ids.len().saturating_sub(config.data.context_length.get());
            let window =
                Tensor::f_from_slice(&ids[start..])?.f_view([1, -1])?.f_to_device(device)?;
            let logits = setup.model.next_token_logits(member, &window)?;
            if logits.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
                return Err(TrainError::NonFiniteLogits { path: saes.to_owned() });
            }
            let next = sampler.choose(&logits)?;
            done += 1;
            progress(done);
            if next == i64::from(tokenizer.end_of_text()) {
                break;
            }
            ids.push(next);
        }
        let added: Vec<u32> = ids[prompt.len()..].iter().map(|&id| id as u32).collect();
        Ok(tokenizer.decode(&added)?)
    };
    let (original, spliced) = (run(None)?, run(Some((&member, &[])))?);
    let edits = request.edits.as_slice();
    let edited = (!edits.is_empty()).then(|| run(Some((&member, edits)))).transpose()?;
    Ok(Generated { original, spliced, edited })
}
