//! The clean pass and the spliced pass.
//!
//! `B` batch, `T` context length, `D` width of the residual stream, `N = B·T`.

use std::collections::{BTreeMap, BTreeSet};

use sae_config::Site;
use sae_model::{ModelError, Transformer};
use sae_nn::SaeOutput;
use tch::{Device, Tensor, no_grad};

use crate::profile::{Part, time};
use crate::{Member, SpliceError};

/// A frozen language model into which SAEs are spliced.
#[derive(Debug)]
pub struct SplicedModel {
    model: Transformer,
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
    pub saes: Vec<SaePass>,
    /// The spliced model's activations at the recorded sites, `[B, T, D]`; where a site has an SAE, its input.
    pub recorded: Vec<(Site, Tensor)>,
    /// The final hidden state, `[N, D]`, where the pass went to the end.
    pub hidden: Option<Tensor>,
}

/// An SAE's part in a pass.
#[derive(Debug)]
pub struct SaePass {
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
        Self { model }
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
            Ok(CleanPass { activations, hidden: self.hidden(last)? })
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
        let start = clean.activation(Site::resid_pre(member.start()))?.shallow_clone();
        let (mut saes, mut recorded) = (Vec::new(), Vec::new());
        let mut failed = None;
        let last = self.model.run(member.start(), start, until, &mut |site, x| {
            if record.contains(&site) {
                recorded.push((site, x.shallow_clone()));
            }
            let Some(sae) = member.sae(site) else { return Ok(x) };
            match time(Part::Sae, || sae.forward(&x)) {
                Ok(output) => {
                    let replaced = output.reconstruction.shallow_clone();
                    saes.push(SaePass { site, input: x, output });
                    Ok(replaced)
                }
                Err(sae_nn::SaeError::Torch(error)) => Err(ModelError::Torch(error)),
                Err(error) => {
                    failed = Some(error);
                    Ok(x)
                }
            }
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        Ok(MemberPass { saes, recorded, hidden: self.hidden(last)? })
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
                Ok(SaePass { site: *site, input, output })
            })
            .collect::<Result<_, SpliceError>>()?;
        Ok(MemberPass { saes, recorded: Vec::new(), hidden: None })
    }

    fn hidden(&self, residual: Option<Tensor>) -> Result<Option<Tensor>, SpliceError> {
        let Some(residual) = residual else { return Ok(None) };
        let hidden = self.model.final_norm(&residual)?;
        Ok(Some(hidden.f_reshape([-1, self.model.config().d_model as i64])?))
    }

    /// Tokens in a chunk of logits. On a CPU about one and a half million logits at a time, which stay in cache; more
    /// where the model is wide, because every chunk reads the whole unembedding. On a GPU enough to fill it.
    pub(crate) fn chunk(&self) -> usize {
        let config = self.model.config();
        match self.model.device() {
            Device::Cpu => (3 << 19) / config.vocabulary.max(1),
            _ => (1 << 27) / config.vocabulary.max(1),
        }
        .max(config.d_model / 8)
    }
}
