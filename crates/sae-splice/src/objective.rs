//! The loss of every member of a bank, and its gradients.

use std::collections::BTreeSet;

use sae_config::Site;
use sae_config::run::TermConfig;
use sae_model::Unembedding;
use sae_nn::loss;
use tch::{Kind, Tensor};

use crate::profile::{Part, time};
use crate::spliced::{CleanPass, MemberPass};
use crate::{Member, SpliceError, SplicedModel};

/// What a batch gives a member.
#[derive(Debug)]
pub struct Outcome {
    /// One gradient a parameter, in the order of [`Member::parameters`].
    pub gradients: Vec<Tensor>,
    /// The loss's terms.
    pub terms: LossTerms,
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
    /// distribution are computed once; apart from that no member's numbers depend on another's.
    ///
    /// # Shapes
    /// `tokens: [B, T]`.
    pub fn gradients(
        &self,
        members: &[&Member],
        tokens: &Tensor,
        scale: f64,
    ) -> Result<Vec<Outcome>, SpliceError> {
        let to_end = members.iter().any(|member| member.until().is_none());
        let clean = time(Part::Clean, || self.clean_pass(tokens, &sites(members), to_end))?;
        let passes = members
            .iter()
            .map(|member| {
                if member.is_spliced() {
                    let record = member.downstream().map_or(&[][..], |term| &term.sites);
                    time(Part::Spliced, || {
                        self.spliced_pass(member, &clean, record, member.until())
                    })
                } else {
                    self.local_pass(member, &clean)
                }
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut kl = time(Part::Kl, || self.kl_terms(&clean, &passes))?.into_iter();
        members
            .iter()
            .zip(&passes)
            .map(|(member, pass)| {
                let kl = if pass.hidden.is_some() { kl.next() } else { None };
                time(Part::Loss, || backward(member, &clean, pass, kl, scale))
            })
            .collect()
    }

    /// KL of every pass that went to the end, in order.
    fn kl_terms(
        &self,
        clean: &CleanPass,
        passes: &[MemberPass],
    ) -> Result<Vec<loss::KlTerm>, SpliceError> {
        let spliced: Vec<&Tensor> = passes.iter().filter_map(|pass| pass.hidden.as_ref()).collect();
        let Some(original) = clean.hidden.as_ref().filter(|_| !spliced.is_empty()) else {
            return Ok(Vec::new());
        };
        let Unembedding { weight, bias } = self.model().unembedding();
        Ok(loss::kl_without_logits(original, &spliced, weight, bias, self.chunk())?)
    }
}

/// Every site that the members need of the clean pass.
fn sites(members: &[&Member]) -> BTreeSet<Site> {
    let mut sites = BTreeSet::new();
    for member in members {
        sites.extend(member.saes().iter().map(|(site, _)| *site));
        sites.extend(member.downstream().iter().flat_map(|term| &term.sites));
        if member.is_spliced() {
            sites.insert(Site::resid_pre(member.start()));
        }
    }
    sites
}

fn backward(
    member: &Member,
    clean: &CleanPass,
    pass: &MemberPass,
    kl: Option<loss::KlTerm>,
    scale: f64,
) -> Result<Outcome, SpliceError> {
    let config = member.loss();
    let mut sum = Sum::default();
    let sparsity = over_saes(pass, |sae| {
        let d = member.saes()[0].1.d_model();
        Ok(loss::sparsity(&sae.output.features, config.sparsity.p.get(), d)?)
    })?;
    sum.add(config.sparsity.coeff.get(), &sparsity)?;
    let local = term(config.local, || {
        over_saes(pass, |sae| Ok(loss::mse(&sae.output.reconstruction, &sae.input)?))
    })?;
    sum.add_term(config.local, local.as_ref())?;
    let output = term(config.output, || {
        over_saes(pass, |sae| {
            Ok(loss::mse(&sae.output.reconstruction, clean.activation(sae.site)?)?)
        })
    })?;
    sum.add_term(config.output, output.as_ref())?;
    let downstream = match member.downstream() {
        None => None,
        Some(term) => {
            let mut mean = Sum::default();
            for (site, spliced) in &pass.recorded {
                let mse = loss::mse(spliced, clean.activation(*site)?)?;
                mean.add(1.0 / term.sites.len() as f64, &mse)?;
            }
            let mean = mean.total()?;
            sum.add(term.total_coeff, &mean)?;
            Some(mean)
        }
    };
    // The value that is reported counts the KL term; the one that is differentiated gets its gradient from outside.
    let without_kl = sum.total()?;
    let kl_coeff = config.kl.map_or(0.0, |term| term.coeff.get());
    let mut total = without_kl.f_detach()?.f_to_kind(Kind::Double)?;
    let mut differentiated = without_kl;
    if let (Some(kl), Some(hidden)) = (&kl, &pass.hidden) {
        total = total.f_add(&kl.value.f_mul_scalar(kl_coeff)?)?;
        if kl_coeff > 0.0 {
            let injected = hidden.f_mul(&kl.gradient)?.f_sum(None)?;
            differentiated = differentiated.f_add(&injected.f_mul_scalar(kl_coeff)?)?;
        }
    }
    let gradients = time(Part::Backward, || {
        let loss = differentiated.f_mul_scalar(scale)?;
        Tensor::f_run_backward(&[loss], &member.parameters(), false, false)
    })?;
    let l0 = over_saes(pass, |sae| {
        let features = sae.output.features.f_detach()?;
        let tokens =
            sae.input.numel() as f64 / sae.input.size().last().copied().unwrap_or(1) as f64;
        let active = features.f_count_nonzero(None::<i64>)?.f_to_kind(Kind::Double)?;
        Ok(active.f_div_scalar(tokens)?)
    })?;
    let detach = |tensor: Option<Tensor>| tensor.map(|tensor| tensor.detach());
    Ok(Outcome {
        gradients,
        terms: LossTerms {
            sparsity: sparsity.detach(),
            local: detach(local),
            output: detach(output),
            downstream: detach(downstream),
            kl: kl.map(|kl| kl.value),
            total,
            l0,
        },
    })
}

fn term(
    config: Option<TermConfig>,
    value: impl FnOnce() -> Result<Tensor, SpliceError>,
) -> Result<Option<Tensor>, SpliceError> {
    config.map(|_| value()).transpose()
}

/// The sum of a term over a pass's SAEs.
fn over_saes(
    pass: &MemberPass,
    mut value: impl FnMut(&crate::SaePass) -> Result<Tensor, SpliceError>,
) -> Result<Tensor, SpliceError> {
    let mut sum = Sum::default();
    for sae in &pass.saes {
        sum.add(1.0, &value(sae)?)?;
    }
    sum.total()
}

/// A weighted sum of scalar tensors; a weight of 0 leaves a term out of the graph.
#[derive(Default)]
struct Sum(Option<Tensor>);

impl Sum {
    #[allow(clippy::float_cmp)]
    fn add(&mut self, weight: f64, value: &Tensor) -> Result<(), SpliceError> {
        if weight == 0.0 {
            return Ok(());
        }
        let value =
            if weight == 1.0 { value.shallow_clone() } else { value.f_mul_scalar(weight)? };
        self.0 = Some(match self.0.take() {
            None => value,
            Some(sum) => sum.f_add(&value)?,
        });
        Ok(())
    }

    fn add_term(
        &mut self,
        config: Option<TermConfig>,
        value: Option<&Tensor>,
    ) -> Result<(), SpliceError> {
        match (config, value) {
            (Some(config), Some(value)) => self.add(config.coeff.get(), value),
            _ => Ok(()),
        }
    }

    fn total(self) -> Result<Tensor, SpliceError> {
        match self.0 {
            Some(sum) => Ok(sum),
            None => Ok(Tensor::f_zeros([], (Kind::Float, tch::Device::Cpu))?),
        }
    }
}
