//! The clean pass and the spliced pass.
//!
//! `B` batch, `T` context length, `D` width of the residual stream, `N = B·T`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use sae_config::Site;
use sae_model::{Hook, ModelError, Transformer, device};
use sae_nn::DictionaryOutput;
use tch::{Tensor, no_grad};

use crate::edit::{self, FeatureEdit};
use crate::profile::{Part, time};
use crate::{Member, PlacedDictionary, SpliceError};

/// A frozen language model into which SAEs are spliced.
#[derive(Debug)]
pub struct SplicedModel {
    model: Transformer,
    checkpoints_activations: bool,
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
    /// Its dictionaries, in the order of computation.
    pub dictionaries: Vec<DictionarySeen>,
    /// The spliced model's activations at the recorded sites, `[B, T, width]`; where a dictionary writes a site, what it
    /// replaces.
    pub recorded: Vec<(Site, Tensor)>,
    /// The final hidden state, `[N, D]`, where the pass went to the end.
    pub hidden: Option<Tensor>,
}

/// What a dictionary saw in a pass, and made of it.
#[derive(Debug)]
pub struct DictionarySeen {
    /// The site that it writes.
    pub site: Site,
    /// The activation that it replaces, as the model computes it, `[B, T, width]`; of an SAE, what it reads.
    pub target: Tensor,
    /// What it made of what it read.
    pub output: DictionaryOutput,
}

/// Blocks to run.
pub(crate) struct Walk<'a> {
    pub blocks: Range<usize>,
    /// The last site that is computed, where it is not the end of the blocks.
    pub until: Option<Site>,
    /// Sites that are shown.
    pub record: &'a BTreeSet<Site>,
}

/// The dictionaries of a pass without gradients, as the model comes to the sites that they read and write.
struct Seen<'a> {
    member: &'a Member,
    edits: &'a [FeatureEdit],
    read: Vec<Option<DictionaryOutput>>,
    written: Vec<DictionarySeen>,
}

impl<'a> Seen<'a> {
    fn new(member: &'a Member, edits: &'a [FeatureEdit]) -> Self {
        let read = member.dictionaries().iter().map(|_| None).collect();
        Self { member, edits, read, written: Vec::new() }
    }

    /// Takes the activation at a site, and returns what the model goes on with.
    fn visit(&mut self, site: Site, x: Tensor) -> Result<Tensor, SpliceError> {
        let mut x = x;
        for (index, placed) in self.member.dictionaries().iter().enumerate() {
            if placed.reads == site {
                let edit = |features| edit::apply(features, placed.writes, self.edits);
                let output = time(Part::Sae, || placed.dictionary.forward_with(&x, edit))?;
                self.read[index] = Some(output);
            }
            if placed.writes == site
                && let Some(output) = self.read[index].take()
            {
                let replaced = output.reconstruction.shallow_clone();
                self.written.push(DictionarySeen { site, target: x, output });
                x = replaced;
            }
        }
        Ok(x)
    }
}

impl SplicedModel {
    /// Wraps a model; its weights are frozen from here on.
    pub fn new(model: Transformer) -> Self {
        for parameter in model.parameters() {
            let _ = parameter.tensor.set_requires_grad(false);
        }
        let chunk = chunk_of(&model);
        Self { model, checkpoints_activations: false, chunk }
    }

    /// Activation checkpointing: gradients compute every block after the first splice point a second time, one by one,
    /// instead of keeping all activations. The same gradients in less memory, for one more forward pass.
    #[must_use]
    pub fn with_activation_checkpointing(self, checkpoints_activations: bool) -> Self {
        Self { checkpoints_activations, ..self }
    }

    pub(crate) fn checkpoints_activations(&self) -> bool {
        self.checkpoints_activations
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
            let mut record = |site: Site, x: Tensor| {
                activations.insert(site, x.shallow_clone());
                Ok::<_, SpliceError>(x)
            };
            let residual = self.model.embed(tokens)?;
            let blocks = 0..self.model.config().n_layers;
            let hidden = match sites.last() {
                Some(last) if !to_end => {
                    self.model.run_until(0, residual, *last, sites, &mut record)?;
                    None
                }
                _ => {
                    let last = self.model.run_to_end(blocks, residual, sites, &mut record)?;
                    Some(self.hidden(&last)?)
                }
            };
            Ok(CleanPass { activations, hidden })
        })
    }

    /// A member's pass from the first block that one of its dictionaries reads in, recording `record`, up to `until` or the
    /// end.
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
        self.edited_pass(member, &[], clean, record, until)
    }

    /// The same with edits of features, on every token: what later dictionaries read, and the model does, follows from them.
    pub fn edited_pass(
        &self,
        member: &Member,
        edits: &[FeatureEdit],
        clean: &CleanPass,
        record: &[Site],
        until: Option<Site>,
    ) -> Result<MemberPass, SpliceError> {
        for edit in edits {
            edit.check(member)?;
        }
        let start = clean.activation(Site::resid_pre(member.start()))?;
        let record: BTreeSet<Site> = record.iter().copied().collect();
        let mut recorded = Vec::new();
        let mut see = |site: Site, x: &Tensor| recorded.push((site, x.shallow_clone()));
        let mut seen = Seen::new(member, edits);
        let mut splice = |site: Site, x: Tensor| seen.visit(site, x);
        let blocks = member.start()..self.model.config().n_layers;
        let walk = Walk { blocks, until, record: &record };
        let last = self.spliced_run(member, walk, start, &mut see, &mut splice)?;
        let hidden = last.map(|last| self.hidden(&last)).transpose()?;
        Ok(MemberPass { dictionaries: seen.written, recorded, hidden })
    }

    /// Runs blocks with dictionaries in: `see` is shown the activations that are to be recorded, as the model computes them,
    /// `splice` makes of those at a member's sites what the model goes on with. Returns the residual stream after the blocks,
    /// or `None` where it stopped at a site before.
    pub(crate) fn spliced_run(
        &self,
        member: &Member,
        walk: Walk<'_>,
        start: &Tensor,
        see: &mut dyn FnMut(Site, &Tensor),
        splice: &mut Hook<'_, SpliceError>,
    ) -> Result<Option<Tensor>, SpliceError> {
        let Walk { blocks, until, record } = walk;
        let own: BTreeSet<Site> = member.sites().collect();
        let shown: BTreeSet<Site> = own.union(record).copied().collect();
        let mut hook = |site: Site, x: Tensor| {
            if record.contains(&site) {
                see(site, &x);
            }
            if own.contains(&site) { splice(site, x) } else { Ok(x) }
        };
        let start = start.shallow_clone();
        match until {
            Some(until) if blocks.contains(&until.block) => {
                self.model.run_until(blocks.start, start, until, &shown, &mut hook)?;
                Ok(None)
            }
            _ => Ok(Some(self.model.run_to_end(blocks, start, &shown, &mut hook)?)),
        }
    }

    /// The logits that follow a window, of the model with a member's SAEs spliced in, some of their features edited, or of the
    /// model alone.
    ///
    /// # Shapes
    /// `tokens: [1, T]` → `[V]`.
    pub fn next_token_logits(
        &self,
        member: Option<(&Member, &[FeatureEdit])>,
        tokens: &Tensor,
    ) -> Result<Tensor, SpliceError> {
        no_grad(|| {
            let hidden = match member {
                None => self.clean_pass(tokens, &BTreeSet::new(), true)?.hidden,
                Some((member, edits)) => {
                    let sites = BTreeSet::from([Site::resid_pre(member.start())]);
                    let clean = self.clean_pass(tokens, &sites, false)?;
                    self.edited_pass(member, edits, &clean, &[], None)?.hidden
                }
            };
            let hidden = hidden.ok_or(ModelError::Torch(tch::TchError::Shape(
                "a pass to the end has a hidden state".to_owned(),
            )))?;
            Ok(self.model.logits(&hidden.f_select(0, hidden.size()[0] - 1)?)?)
        })
    }

    /// A member's dictionaries on the clean activations, nothing spliced in.
    pub fn local_pass(
        &self,
        member: &Member,
        clean: &CleanPass,
    ) -> Result<MemberPass, SpliceError> {
        let seen = |placed: &PlacedDictionary| {
            let read = clean.activation(placed.reads)?;
            let output = time(Part::Sae, || placed.dictionary.forward(read))?;
            let target = clean.activation(placed.writes)?.shallow_clone();
            Ok(DictionarySeen { site: placed.writes, target, output })
        };
        let dictionaries = member.dictionaries().iter().map(seen);
        let dictionaries = dictionaries.collect::<Result<_, SpliceError>>()?;
        Ok(MemberPass { dictionaries, recorded: Vec::new(), hidden: None })
    }

    /// The final hidden state, `[N, D]`, of the residual stream after the last block.
    pub fn hidden(&self, residual: &Tensor) -> Result<Tensor, SpliceError> {
        let hidden = self.model.final_norm(residual)?;
        Ok(hidden.f_reshape([-1, self.model.config().d_model as i64])?)
    }

    /// Tokens in a chunk of logits.
    pub fn chunk(&self) -> usize {
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
