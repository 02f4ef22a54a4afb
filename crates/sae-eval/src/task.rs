//! Tasks of two answers: which of two tokens a model ranks higher after a prompt, by itself and with dictionaries spliced in.
//!
//! `B` prompts of one length `T`, `V` vocabulary.

use std::collections::{BTreeMap, BTreeSet};

use sae_config::Site;
use sae_model::ModelError;
use sae_splice::{Member, SpliceError, SplicedModel};
use tch::{Device, Kind, TchError, Tensor, no_grad};

/// A prompt, and two tokens that may come after it: the right one and a wrong one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwoAnswers {
    /// Its ids, one at least.
    pub tokens: Vec<u32>,
    /// The right token and the wrong one.
    pub answers: [u32; 2],
}

/// By how much the right token's logit is above the wrong one's after each prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct LogitDifferences {
    /// Of the original model.
    pub original: Vec<f64>,
    /// Of every member.
    pub spliced: Vec<Vec<f64>>,
}

/// The logit differences of prompts, `batch_size` of one length at a time. `progress` is told how many are done, and says whether to go on; none
/// where it does not.
pub fn logit_differences(
    model: &SplicedModel,
    members: &[&Member],
    prompts: &[TwoAnswers],
    batch_size: usize,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<Option<LogitDifferences>, SpliceError> {
    let mut by_length: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (place, prompt) in prompts.iter().enumerate() {
        by_length.entry(prompt.tokens.len()).or_default().push(place);
    }
    let mut sites: BTreeSet<Site> = members.iter().flat_map(|member| member.sites()).collect();
    sites.extend(members.iter().map(|member| Site::resid_pre(member.start())));
    let none = || vec![f64::NAN; prompts.len()];
    let mut found =
        LogitDifferences { original: none(), spliced: members.iter().map(|_| none()).collect() };
    let mut done = 0;
    no_grad(|| {
        for (length, places) in by_length {
            for places in places.chunks(batch_size.max(1)) {
                let own: Vec<&TwoAnswers> = places.iter().map(|&place| &prompts[place]).collect();
                let ids: Vec<i64> =
                    own.iter().flat_map(|own| own.tokens.iter().map(|&id| i64::from(id))).collect();
                let device = model.model().device();
                let ids =
                    Tensor::f_from_slice(&ids)?.f_view([-1, length as i64])?.f_to_device(device)?;
                let clean = model.clean_pass(&ids, &sites, true)?;
                let shape = (places.len() as i64, length as i64);
                let of = |hidden: Option<&Tensor>| differences(model, hidden, shape, &own);
                for (place, value) in places.iter().zip(of(clean.hidden.as_ref())?) {
                    found.original[*place] = value;
                }
                for (member, values) in members.iter().zip(&mut found.spliced) {
                    let pass = model.spliced_pass(member, &clean, &[], None)?;
                    for (place, value) in places.iter().zip(of(pass.hidden.as_ref())?) {
                        values[*place] = value;
                    }
                }
                done += places.len() as u64;
                if !progress(done) {
                    return Ok(None);
                }
            }
        }
        Ok(Some(found))
    })
}

/// # Shapes
/// `hidden: [B·T, D]` → B numbers.
fn differences(
    model: &SplicedModel,
    hidden: Option<&Tensor>,
    (b, t): (i64, i64),
    prompts: &[&TwoAnswers],
) -> Result<Vec<f64>, SpliceError> {
    let missing = || TchError::Shape("a pass to the end has a hidden state".to_owned());
    let hidden = hidden.ok_or_else(|| SpliceError::from(ModelError::from(missing())))?;
    let last = hidden.f_reshape([b, t, -1])?.f_select(1, t - 1)?;
    let logits = model.model().logits(&last)?.f_to_kind(Kind::Double)?;
    let answers: Vec<i64> =
        prompts.iter().flat_map(|prompt| prompt.answers.map(i64::from)).collect();
    let answers = Tensor::f_from_slice(&answers)?.f_view([b, 2])?.f_to_device(logits.device())?;
    let picked = logits.f_gather(1, &answers, false)?;
    let difference = picked.f_select(1, 0)?.f_sub(&picked.f_select(1, 1)?)?;
    Ok(Vec::try_from(difference.f_to_device(Device::Cpu)?)?)
}
