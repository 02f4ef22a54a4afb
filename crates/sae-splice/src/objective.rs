//! The loss of every member of a bank, and its gradients.
//!
//! `B` batch, `T` context length, `D` width of the residual stream, `N = B·T`.

use std::collections::BTreeSet;

use sae_config::Site;
use sae_model::Unembedding;
use sae_nn::loss;
use tch::{Kind, Tensor};

use crate::profile::{Part, time};
use crate::segment::{ForwardPass, Terms};
use crate::spliced::CleanPass;
use crate::{Member, SpliceError, SplicedModel};

/// What a batch gives a member.
#[derive(Debug)]
pub struct Outcome {
    /// One gradient a parameter, in the order of [`Member::parameters`].
    pub gradients: Vec<Tensor>,
    /// The loss's terms.
    pub terms: LossTerms,
    /// What the dictionaries are to observe before the next batch, each with its number: [`Member::observe`].
    pub observed: Vec<(usize, Vec<Tensor>)>,
}

/// The terms of a loss at unit coefficient, and the total that is minimised; scalar tensors, so that nothing waits for
/// them before they are asked for. A term that is not configured is `None`.
#[derive(Debug)]
pub struct LossTerms {
    /// `Σ_sites mean_n ‖c_n‖_p / D`.
    pub sparsity: Tensor,
    /// `Σ_sites` MSE of output to input.
    pub local: Option<Tensor>,
    /// `Σ_sites` MSE of output to the original activation.
    pub output: Option<Tensor>,
    /// Mean over the downstream sites of the MSE to the original activations.
    pub downstream: Option<Tensor>,
    /// Nats a token.
    pub kl: Option<Tensor>,
    /// What is minimised.
    pub total: Tensor,
    /// Active features per token, summed over the sites.
    pub l0: Tensor,
}

impl LossTerms {
    /// The mean of the terms of several micro-batches.
    pub fn mean(all: &[Self]) -> Result<Self, SpliceError> {
        let mean = |term: fn(&Self) -> Option<&Tensor>| -> Result<Option<Tensor>, SpliceError> {
            let terms: Option<Vec<&Tensor>> = all.iter().map(term).collect();
            let Some(terms) = terms.filter(|terms| !terms.is_empty()) else { return Ok(None) };
            Ok(Some(Tensor::f_stack(&terms, 0)?.f_mean(None)?))
        };
        let always = |term: fn(&Self) -> Option<&Tensor>| match mean(term) {
            Ok(Some(tensor)) => Ok(tensor),
            Ok(None) => Ok(Tensor::f_zeros([], (Kind::Float, tch::Device::Cpu))?),
            Err(error) => Err(error),
        };
        Ok(Self {
            sparsity: always(|terms| Some(&terms.sparsity))?,
            local: mean(|terms| terms.local.as_ref())?,
            output: mean(|terms| terms.output.as_ref())?,
            downstream: mean(|terms| terms.downstream.as_ref())?,
            kl: mean(|terms| terms.kl.as_ref())?,
            total: always(|terms| Some(&terms.total))?,
            l0: always(|terms| Some(&terms.l0))?,
        })
    }

    /// All terms with their names; reads them from the device.
    pub fn values(&self) -> Result<Vec<(&'static str, f64)>, SpliceError> {
        let named = [
            ("loss", Some(&self.total)),
            ("sparsity", Some(&self.sparsity)),
            ("local", self.local.as_ref()),
            ("output", self.output.as_ref()),
            ("downstream", self.downstream.as_ref()),
            ("kl", self.kl.as_ref()),
            ("l0", Some(&self.l0)),
        ];
        named
            .into_iter()
            .filter_map(|(name, tensor)| tensor.map(|tensor| (name, tensor)))
            .map(|(name, tensor)| Ok((name, tensor.f_double_value(&[])?)))
            .collect()
    }
}

impl SplicedModel {
    /// The gradients of every member's loss times `scale`, on one batch. The clean pass and the original's output
    /// distribution are computed once; apart from that no member's numbers depend on another's. `micro_batch` is the number of
    /// the batch in the run, from which members that draw something draw.
    ///
    /// # Shapes
    /// `tokens: [B, T]`.
    pub fn gradients(
        &self,
        members: &[&Member],
        tokens: &Tensor,
        scale: f64,
        micro_batch: u64,
    ) -> Result<Vec<Outcome>, SpliceError> {
        let to_end = members.iter().any(|member| member.until().is_none());
        let clean = time(Part::Clean, || self.clean_pass(tokens, &sites(members), to_end))?;
        let passes = members
            .iter()
            .map(|member| {
                let prefixes = member.spliced_prefixes(micro_batch).into_iter();
                prefixes
                    .map(|prefix| time(Part::Spliced, || self.forward(member, &clean, prefix)))
                    .collect::<Result<Vec<_>, _>>()
            })
            .collect::<Result<Vec<_>, _>>()?;
        let all: Vec<&ForwardPass> = passes.iter().flatten().collect();
        let mut kl = time(Part::Kl, || self.kl_terms(&clean, &all))?.into_iter();
        members
            .iter()
            .zip(passes)
            .map(|(member, passes)| {
                let share = 1.0 / passes.len() as f64;
                let outcomes = passes
                    .into_iter()
                    .map(|pass| {
                        let kl = if pass.hidden().is_some() { kl.next() } else { None };
                        time(Part::Backward, || {
                            self.outcome(member, &clean, pass, kl, scale * share)
                        })
                    })
                    .collect::<Result<Vec<_>, _>>()?;
                Outcome::of_passes(outcomes)
            })
            .collect()
    }

    /// KL of every pass that went to the end, in order.
    fn kl_terms(
        &self,
        clean: &CleanPass,
        passes: &[&ForwardPass],
    ) -> Result<Vec<loss::KlTerm>, SpliceError> {
        let spliced: Vec<&Tensor> = passes.iter().filter_map(|pass| pass.hidden()).collect();
        let Some(original) = clean.hidden.as_ref().filter(|_| !spliced.is_empty()) else {
            return Ok(Vec::new());
        };
        let Unembedding { weight, bias } = self.model().unembedding();
        Ok(loss::kl_without_logits(original, &spliced, weight, bias, self.chunk())?)
    }

    fn outcome(
        &self,
        member: &Member,
        clean: &CleanPass,
        mut pass: ForwardPass,
        kl: Option<loss::KlTerm>,
        scale: f64,
    ) -> Result<Outcome, SpliceError> {
        let kl_coeff = member.loss().kl.map_or(0.0, |term| term.coeff.get());
        let at_end = match &kl {
            Some(kl) if kl_coeff > 0.0 => Some(kl.gradient.f_mul_scalar(kl_coeff * scale)?),
            _ => None,
        };
        let observed = pass.take_observed();
        let (terms, gradients) = self.backward(member, clean, pass, at_end, scale)?;
        let Terms { sparsity, local, output, downstream, l0, mut total } = terms;
        if let Some(kl) = &kl {
            total.add(kl_coeff, &kl.value)?;
        }
        let terms = LossTerms {
            sparsity: sparsity.total()?,
            local: member.loss().local.map(|_| local.total()).transpose()?,
            output: member.loss().output.map(|_| output.total()).transpose()?,
            downstream: member.downstream().map(|_| downstream.total()).transpose()?,
            kl: kl.map(|kl| kl.value),
            total: total.total()?,
            l0: l0.total()?,
        };
        Ok(Outcome { gradients, terms, observed })
    }
}

impl Outcome {
    /// The outcome of a member's passes, one a prefix, of each of which the gradients are a share already: their sum, and the
    /// means of the terms. What the last one observes counts: it splices the whole dictionaries, as evaluation does.
    fn of_passes(passes: Vec<Self>) -> Result<Self, SpliceError> {
        let (mut sums, mut terms, mut observed) = (Vec::<Tensor>::new(), Vec::new(), Vec::new());
        for pass in passes {
            if sums.is_empty() {
                sums = pass.gradients;
            } else {
                for (sum, own) in sums.iter_mut().zip(&pass.gradients) {
                    *sum = sum.f_add(own)?;
                }
            }
            terms.push(pass.terms);
            observed = pass.observed;
        }
        let terms = if terms.len() == 1 { terms.remove(0) } else { LossTerms::mean(&terms)? };
        Ok(Self { gradients: sums, terms, observed })
    }
}

/// Every site that the members need of the clean pass.
fn sites(members: &[&Member]) -> BTreeSet<Site> {
    let mut sites = BTreeSet::new();
    for member in members {
        sites.extend(member.sites());
        sites.extend(member.downstream().iter().flat_map(|term| &term.sites));
        if member.is_spliced() {
            sites.insert(Site::resid_pre(member.start()));
        }
    }
    sites
}
