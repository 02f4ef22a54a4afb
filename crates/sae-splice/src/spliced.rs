//! The clean pass and the spliced pass.
//!
//! `B` batch, `T` context length, `D` width of the residual stream, `N = B·T`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use sae_config::Site;
use sae_model::{ModelError, Transformer, device};
use sae_nn::{SaeError, SaeOutput};
use tch::{Tensor, no_grad};

use crate::profile::{Part, time};
use crate::{Member, SpliceError};

/// A frozen language model into which SAEs are spliced.
#[derive(Debug)]
pub struct SplicedModel {
    model: Transformer,
    recompute: bool,
    /// Tokens in a chunk of logits; always the same, so that a run's numbers do not depend on what else uses memory
    /// while it trains.
    chunk: usize,
}

/// What one pass of the original model gives to all members of a bank.
#[derive(Debug)]
pub struct CleanPass {
    activations: BTreeMap<Site, Tensor>,
    /// The final hidden state, `[N, D]`, where the pass went to the end.
    pub hidden: Option<Tensor>,
}

impl CleanPass {
    /// The original activation at a site, `[B, T, D]`.
    pub fn activation(&self, site: Site) -> Result<&Tensor, SpliceError> {
        self.activations.get(&site).ok_or(SpliceError::NotRecorded { site })
    }
}

/// One member's pass.
#[derive(Debug)]
pub struct MemberPass {
    /// Its SAEs, in the order of computation.
    pub saes: Vec<SaeSeen>,
    /// The spliced model's activations at the recorded sites, `[B, T, D]`; where a site has an SAE, its input.
    pub recorded: Vec<(Site, Tensor)>,
    /// The final hidden state, `[N, D]`, where the pass went to the end.
    pub hidden: Option<Tensor>,
}

/// What an SAE saw in a pass, and made of it.
#[derive(Debug)]
pub struct SaeSeen {
    /// Where.
    pub site: Site,
    /// What it saw, `[B, T, D]`.
    pub input: Tensor,
    /// What it made of it.
    pub output: SaeOutput,
}

impl SplicedModel {
    /// Wraps a model; its weights are frozen from here on.
    pub fn new(model: Transformer) -> Self {
        for parameter in model.parameters() {
            let _ = parameter.tensor.set_requires_grad(false);
        }
        let chunk = chunk_of(&model);
        Self { model, recompute: false, chunk }
    }

    /// Whether gradients compute every block after the SAE a second time, one by one, instead of keeping what the first
    /// time left: the same gradients in less memory, for one more forward pass.
    #[must_use]
    pub fn with_recomputation(self, recompute: bool) -> Self {
        Self { recompute, ..self }
    }

    pub(crate) fn recomputes(&self) -> bool {
        self.recompute
    }

    /// The model.
    pub fn model(&self) -> &Transformer {
        &self.model
    }

    /// The clean pass: original activations at `sites`, and the final hidden state if `to_end`; it stops at the last
    /// site otherwise. No gradients.
    ///
    /// # Shapes
    /// `tokens: [B, T]`.
    pub fn clean_pass(
        &self,
        tokens: &Tensor,
        sites: &BTreeSet<Site>,
        to_end: bool,
    ) -> Result<CleanPass, SpliceError> {
        no_grad(|| {
            let mut activations = BTreeMap::new();
            let until = if to_end { None } else { sites.last().copied() };
            let residual = self.model.embed(tokens)?;
            let last = self.model.run(0, residual, until, &mut |site, x| {
                if sites.contains(&site) {
                    activations.insert(site, x.shallow_clone());
                }
                Ok(x)
            })?;
            let hidden = last.map(|last| self.hidden(&last)).transpose()?;
            Ok(CleanPass { activations, hidden })
        })
    }

    /// A member's pass from its first SAE's block on, recording `record`, up to `until` or the end.
    ///
    /// # Shapes
    /// The clean pass holds `hook_resid_pre` of that block, `[B, T, D]`.
    pub fn spliced_pass(
        &self,
        member: &Member,
        clean: &CleanPass,
        record: &[Site],
        until: Option<Site>,
    ) -> Result<MemberPass, SpliceError> {
        let start = clean.activation(Site::resid_pre(member.start()))?;
        let (mut saes, mut recorded) = (Vec::new(), Vec::new());
        let mut see = |site: Site, x: &Tensor| {
            if record.contains(&site) {
                recorded.push((site, x.shallow_clone()));
            }
        };
        let mut splice = |index: usize, input: Tensor| {
            let (site, sae) = &member.saes()[index];
            let output = time(Part::Sae, || sae.forward(&input))?;
            let replaced = output.reconstruction.shallow_clone();
            saes.push(SaeSeen { site: *site, input, output });
            Ok(replaced)
        };
        let blocks = member.start()..self.model.config().n_layers;
        let last = self.spliced_run(member, blocks, start, until, &mut see, &mut splice)?;
        let hidden = last.map(|last| self.hidden(&last)).transpose()?;
        Ok(MemberPass { saes, recorded, hidden })
    }

    /// Runs blocks with SAEs in: `see` is shown every activation as the model computes it, `splice` makes of the one at a
    /// member's i-th site what the model goes on with. Returns the residual stream after the blocks, or `None` where it
    /// stopped right after the site `until`.
    pub(crate) fn spliced_run(
        &self,
        member: &Member,
        blocks: Range<usize>,
        start: &Tensor,
        until: Option<Site>,
        see: &mut dyn FnMut(Site, &Tensor),
        splice: &mut dyn FnMut(usize, Tensor) -> Result<Tensor, SaeError>,
    ) -> Result<Option<Tensor>, SpliceError> {
        let mut failed = None;
        let last =
            self.model.run_blocks(blocks, start.shallow_clone(), until, &mut |site, x| {
                see(site, &x);
                let Some(index) = member.saes().iter().position(|(at, _)| *at == site) else {
                    return Ok(x);
                };
                match splice(index, x.shallow_clone()) {
                    Ok(replaced) => Ok(replaced),
                    Err(error) => {
                        failed.get_or_insert(error);
                        Ok(x)
                    }
                }
            })?;
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(last),
        }
    }

    /// The logits that follow a window, of the model with a member's SAEs spliced in, or of the model alone.
    ///
    /// # Shapes
    /// `tokens: [1, T]` → `[V]`.
    pub fn next_token_logits(
        &self,
        member: Option<&Member>,
        tokens: &Tensor,
    ) -> Result<Tensor, SpliceError> {
        no_grad(|| {
            let hidden = match member {
                None => self.clean_pass(tokens, &BTreeSet::new(), true)?.hidden,
                Some(member) => {
                    let sites = BTreeSet::from([Site::resid_pre(member.start())]);
                    let clean = self.clean_pass(tokens, &sites, false)?;
                    self.spliced_pass(member, &clean, &[], None)?.hidden
                }
            };
            let hidden = hidden.ok_or(ModelError::Torch(tch::TchError::Shape(
                "a pass to the end has a hidden state".to_owned(),
            )))?;
            Ok(self.model.logits(&hidden.f_select(0, hidden.size()[0] - 1)?)?)
        })
    }

    /// A member's SAEs on the clean activations, nothing spliced in.
    pub fn local_pass(
        &self,
        member: &Member,
        clean: &CleanPass,
    ) -> Result<MemberPass, SpliceError> {
        let saes = member
            .saes()
            .iter()
            .map(|(site, sae)| {
                let input = clean.activation(*site)?.shallow_clone();
                let output = time(Part::Sae, || sae.forward(&input))?;
                Ok(SaeSeen { site: *site, input, output })
            })
            .collect::<Result<_, SpliceError>>()?;
        Ok(MemberPass { saes, recorded: Vec::new(), hidden: None })
    }

    /// The final hidden state, `[N, D]`, of the residual stream after the last block.
    pub(crate) fn hidden(&self, residual: &Tensor) -> Result<Tensor, SpliceError> {
        let hidden = self.model.final_norm(residual)?;
        Ok(hidden.f_reshape([-1, self.model.config().d_model as i64])?)
    }

    /// Tokens in a chunk of logits.
    pub(crate) fn chunk(&self) -> usize {
        self.chunk
    }
}

/// Logits in a chunk on a GPU: 1 024 tokens of GPT-2's vocabulary.
const GPU_LOGITS: usize = 1 << 26;
/// Buffers of a chunk's logits that stand in memory together, and the bytes of each number.
const BUFFERS: usize = 5 * size_of::<f32>();

/// Tokens in a chunk of logits, and in a full one.
#[derive(Debug, PartialEq, Eq)]
struct Chunk {
    tokens: usize,
    full: usize,
}

/// A full chunk has as many tokens as make efficient products, given by the device's kind and the vocabulary alone: sums
/// over chunks, and so the last bits of a run, depend on it. On a GPU with too little free memory (bytes) it is smaller.
fn chunk(on_gpu: bool, vocabulary: usize, free: Option<usize>) -> Chunk {
    if !on_gpu {
        return Chunk { tokens: 128, full: 128 };
    }
    let vocabulary = vocabulary.max(1);
    let power_of_two = |tokens: usize| 1 << tokens.max(1).ilog2();
    let full = power_of_two(GPU_LOGITS / vocabulary);
    let fits = free.map_or(usize::MAX, |free| free / vocabulary.saturating_mul(BUFFERS));
    Chunk { tokens: full.min(power_of_two(fits)), full }
}

/// The chunk of a model on its device; a smaller one than usual is worth a warning.
fn chunk_of(model: &Transformer) -> usize {
    let free = device::memory(model.device()).map(|memory| memory.free);
    let Chunk { tokens, full } = chunk(model.device().is_cuda(), model.config().vocabulary, free);
    if tokens < full {
        tracing::warn!(
            "{:.1} GB of the GPU's memory are free: the KL divergence is taken {tokens} tokens at a time instead of \
             {full}, which may change a run's last bits",
            free.unwrap_or_default() as f64 / 1e9
        );
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::{Chunk, chunk};

    /// Decisions for a GPU: not run on a card.
    #[test]
    fn chunks_depend_on_the_vocabulary_and_shrink_only_where_memory_is_short() {
        let gpt2 = |free| chunk(true, 50_257, free);
        assert_eq!(gpt2(None), Chunk { tokens: 1024, full: 1024 });
        // 1.03 GB for five buffers of a full chunk.
        for free in [1_100_000_000, 5_000_000_000, 140_000_000_000] {
            assert_eq!(gpt2(Some(free)), Chunk { tokens: 1024, full: 1024 });
        }
        assert_eq!(gpt2(Some(1_000_000_000)), Chunk { tokens: 512, full: 1024 });
        assert_eq!(gpt2(Some(0)), Chunk { tokens: 1, full: 1024 });
        assert_eq!(chunk(false, 50_257, Some(0)), Chunk { tokens: 128, full: 128 });
    }
}
