//! What a model does with a prompt: by itself, with dictionaries spliced in, and with some of their features edited.
//!
//! `T` tokens of the prompt, `V` vocabulary, `F` dictionary elements.

use std::collections::BTreeSet;

use sae_config::Site;
use sae_model::ModelError;
use sae_splice::{FeatureEdit, Member, MemberPass, SpliceError, SplicedModel};
use tch::{Device, Kind, TchError, Tensor, no_grad};

use crate::features::SparseCodes;

/// What is found at every token of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptFindings {
    /// The features that each dictionary has active, before edits.
    pub sites: Vec<ActiveFeatures>,
    /// What comes after each token, T of them.
    pub next: Vec<NextToken>,
}

/// The features that a dictionary has active on each token.
#[derive(Debug, Clone, PartialEq)]
pub struct ActiveFeatures {
    /// The site that the dictionary writes.
    pub site: Site,
    /// Of each token, the features with their activations, the greatest first.
    pub tokens: Vec<Vec<(u32, f32)>>,
}

/// Distributions of the token after another.
#[derive(Debug, Clone, PartialEq)]
pub struct NextToken {
    /// The original model's likeliest tokens.
    pub original: Vec<Likely>,
    /// Those of the spliced model.
    pub spliced: Vec<Likely>,
    /// Those with features edited; none without edits.
    pub edited: Vec<Likely>,
    /// KL(original ‖ spliced), nats.
    pub kl_spliced: f64,
    /// KL(original ‖ edited), nats; none without edits.
    pub kl_edited: Option<f64>,
    /// KL(spliced ‖ edited), nats: what the edits change; none without edits.
    pub kl_of_edits: Option<f64>,
    /// The tokens whose probability the edits change most, the greatest change first; none without edits.
    pub changes: Vec<Changed>,
}

/// A token with its probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Likely {
    /// Its id.
    pub token: u32,
    /// Its probability.
    pub probability: f32,
}

/// A token whose probability edits have changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Changed {
    /// Its id.
    pub token: u32,
    /// Its probability in the spliced model.
    pub before: f32,
    /// The same with edits.
    pub after: f32,
}

/// Runs a prompt through the model three ways, and tells what each expects after every token, `most` tokens of it.
///
/// # Shapes
/// `tokens: [1, T]`.
pub fn try_prompt(
    model: &SplicedModel,
    member: &Member,
    edits: &[FeatureEdit],
    tokens: &Tensor,
    most: usize,
) -> Result<PromptFindings, SpliceError> {
    no_grad(|| {
        let mut sites: BTreeSet<Site> = member.sites().collect();
        sites.insert(Site::resid_pre(member.start()));
        let clean = model.clean_pass(tokens, &sites, true)?;
        let spliced = model.spliced_pass(member, &clean, &[], None)?;
        let edited = (!edits.is_empty())
            .then(|| model.edited_pass(member, edits, &clean, &[], None))
            .transpose()?;
        let hidden = |hidden: Option<Tensor>| {
            let missing = || TchError::Shape("a pass to the end has a hidden state".to_owned());
            hidden.ok_or_else(|| SpliceError::from(ModelError::from(missing())))
        };
        let sites = spliced.dictionaries.iter().map(|seen| {
            let codes = SparseCodes::of(&seen.output.features)?;
            Ok(ActiveFeatures { site: seen.site, tokens: codes.by_activation() })
        });
        let sites = sites.collect::<Result<_, SpliceError>>()?;
        let hidden = Hidden {
            original: hidden(clean.hidden)?,
            spliced: hidden(spliced.hidden)?,
            edited: edited.map(|pass: MemberPass| hidden(pass.hidden)).transpose()?,
        };
        let n = hidden.original.size()[0];
        let (mut next, mut start) = (Vec::with_capacity(n as usize), 0);
        while start < n {
            let rows = (model.chunk() as i64).min(n - start);
            next.extend(hidden.next(model, (start, rows), most)?);
            start += rows;
        }
        Ok(PromptFindings { sites, next })
    })
}

/// The final hidden states of the three passes, `[T, D]`.
struct Hidden {
    original: Tensor,
    spliced: Tensor,
    edited: Option<Tensor>,
}

impl Hidden {
    /// What comes next after some tokens: logits are never there of all.
    fn next(
        &self,
        model: &SplicedModel,
        (start, rows): (i64, i64),
        most: usize,
    ) -> Result<Vec<NextToken>, SpliceError> {
        let logs = |hidden: &Tensor| -> Result<Tensor, SpliceError> {
            let logits = model.model().logits(&hidden.f_narrow(0, start, rows)?)?;
            Ok(logits.f_log_softmax(-1, Kind::Double)?)
        };
        let (log_p, log_q) = (logs(&self.original)?, logs(&self.spliced)?);
        let log_e = self.edited.as_ref().map(logs).transpose()?;
        let kl = |from: &Tensor, of: &Tensor| -> Result<Vec<f64>, SpliceError> {
            let terms = from.f_exp()?.f_mul(&from.f_sub(of)?)?;
            let sums = terms.f_sum_dim_intlist([-1].as_slice(), false, None)?;
            Ok(Vec::try_from(sums.f_to_device(Device::Cpu)?)?)
        };
        let (original, spliced) = (likeliest(&log_p, most)?, likeliest(&log_q, most)?);
        let kl_spliced = kl(&log_p, &log_q)?;
        let mut next: Vec<NextToken> = original
            .into_iter()
            .zip(spliced)
            .zip(kl_spliced)
            .map(|((original, spliced), kl_spliced)| NextToken {
                original,
                spliced,
                edited: Vec::new(),
                kl_spliced,
                kl_edited: None,
                kl_of_edits: None,
                changes: Vec::new(),
            })
            .collect();
        if let Some(log_e) = &log_e {
            let kls = kl(&log_p, log_e)?.into_iter().zip(kl(&log_q, log_e)?);
            let found = likeliest(log_e, most)?.into_iter().zip(kls);
            let found = found.zip(changes(&log_q, log_e, most)?);
            for (next, ((edited, (from_original, of_edits)), changes)) in next.iter_mut().zip(found)
            {
                (next.edited, next.changes) = (edited, changes);
                (next.kl_edited, next.kl_of_edits) = (Some(from_original), Some(of_edits));
            }
        }
        Ok(next)
    }
}

/// The likeliest tokens of each row.
///
/// # Shapes
/// `logs: [T, V]` → T lists.
fn likeliest(logs: &Tensor, most: usize) -> Result<Vec<Vec<Likely>>, SpliceError> {
    let (values, places) = top(logs, most)?;
    let likely = |(&token, &log): (&i64, &f64)| Likely {
        token: token as u32,
        probability: log.exp() as f32,
    };
    let rows = places.iter().zip(&values);
    Ok(rows.map(|(places, values)| places.iter().zip(values).map(likely).collect()).collect())
}

/// The tokens of each row whose probability differs most.
fn changes(before: &Tensor, after: &Tensor, most: usize) -> Result<Vec<Vec<Changed>>, SpliceError> {
    let (before, after) = (before.f_exp()?, after.f_exp()?);
    let most = (most as i64).min(before.size2()?.1);
    let (_, places) = after.f_sub(&before)?.f_abs()?.f_topk(most, -1, true, true)?;
    let at = |of: &Tensor| -> Result<Vec<Vec<f64>>, SpliceError> {
        Ok(Vec::try_from(of.f_gather(-1, &places, false)?.f_to_device(Device::Cpu)?)?)
    };
    let (before, after) = (at(&before)?, at(&after)?);
    let places: Vec<Vec<i64>> = Vec::try_from(places.f_to_device(Device::Cpu)?)?;
    let rows = places.into_iter().zip(before).zip(after);
    Ok(rows
        .map(|((places, before), after)| {
            let changed = |((token, before), after): ((i64, f64), f64)| Changed {
                token: token as u32,
                before: before as f32,
                after: after as f32,
            };
            places.into_iter().zip(before).zip(after).map(changed).collect()
        })
        .collect())
}

/// The greatest numbers of each row, and their places.
#[allow(clippy::type_complexity)]
fn top(x: &Tensor, most: usize) -> Result<(Vec<Vec<f64>>, Vec<Vec<i64>>), SpliceError> {
    let most = (most as i64).min(x.size().last().copied().unwrap_or(0));
    let (values, places) = x.f_topk(most, -1, true, true)?;
    Ok((
        Vec::try_from(values.f_to_kind(Kind::Double)?.f_to_device(Device::Cpu)?)?,
        Vec::try_from(places.f_to_device(Device::Cpu)?)?,
    ))
}
