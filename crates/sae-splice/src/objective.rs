//! The loss of every member of a bank, and its gradients.
//!
//! `B` batch, `T` context length, `D` width of the residual stream, `N = B·T`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sae_config::Site;
use tch::Tensor;

use crate::profile::{Part, time};
use crate::segment::{ForwardPass, Sum, Values};
use crate::spliced::CleanPass;
use crate::terms::{MemberTerm, OutputValue};
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

/// The terms of a loss at unit coefficient, by name, and the total that is minimised; scalar tensors, so that nothing waits
/// for them before they are asked for. Only terms that are configured are there.
#[derive(Debug)]
pub struct LossTerms {
    /// `(name, value)`, in the order of the configuration.
    terms: Vec<(&'static str, Tensor)>,
    /// What is minimised.
    pub total: Tensor,
    /// Active features per token, summed over the sites.
    pub l0: Tensor,
}

impl LossTerms {
    /// A term by its key below `loss`.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.terms.iter().find(|(own, _)| *own == name).map(|(_, value)| value)
    }

    /// All with their names: the total as `loss`, every term, and `l0`.
    fn named(&self) -> impl Iterator<Item = (&'static str, &Tensor)> {
        let terms = self.terms.iter().map(|(name, value)| (*name, value));
        std::iter::once(("loss", &self.total)).chain(terms).chain([("l0", &self.l0)])
    }

    /// The mean of the terms of several micro-batches of one member; there is at least one.
    pub fn mean(all: &[Self]) -> Result<Self, SpliceError> {
        let mean = |place: usize| -> Result<Tensor, SpliceError> {
            let values: Vec<&Tensor> = all
                .iter()
                .filter_map(|own| own.named().nth(place))
                .map(|(_, value)| value)
                .collect();
            Ok(Tensor::f_stack(&values, 0)?.f_mean(None)?)
        };
        let names = all.first().map_or(&[][..], |first| &first.terms);
        let own = names.iter().enumerate();
        let terms = own.map(|(index, (name, _))| Ok((*name, mean(index + 1)?)));
        let terms = terms.collect::<Result<Vec<_>, SpliceError>>()?;
        Ok(Self { total: mean(0)?, l0: mean(terms.len() + 1)?, terms })
    }

    /// All of [`LossTerms`] with their names, the total as `loss`; reads them from the device.
    pub fn values(&self) -> Result<Vec<(&'static str, f64)>, SpliceError> {
        self.named().map(|(name, tensor)| Ok((name, tensor.f_double_value(&[])?))).collect()
    }
}

/// The values of a term at the model's output, one for each pass of the members that have it, in order.
type OutputValues = BTreeMap<&'static str, VecDeque<OutputValue>>;

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
        let mut at_output = time(Part::Kl, || self.at_output(members, &clean, &passes))?;
        members
            .iter()
            .zip(passes)
            .map(|(member, passes)| {
                let share = 1.0 / passes.len() as f64;
                let outcomes = passes
                    .into_iter()
                    .map(|pass| {
                        let own = own_values(member, &mut at_output);
                        time(Part::Backward, || {
                            self.outcome(member, &clean, pass, own, scale * share)
                        })
                    })
                    .collect::<Result<Vec<_>, _>>()?;
                Outcome::of_passes(outcomes)
            })
            .collect()
    }

    /// The terms at the model's output, each of all passes at once.
    fn at_output(
        &self,
        members: &[&Member],
        clean: &CleanPass,
        passes: &[Vec<ForwardPass>],
    ) -> Result<OutputValues, SpliceError> {
        let mut values = OutputValues::new();
        for MemberTerm { name, term, .. } in members.iter().flat_map(|member| member.terms()) {
            let (Some(compute), Some(original)) = (term.at_output(), &clean.hidden) else {
                continue;
            };
            if values.contains_key(name) {
                continue;
            }
            let having = members.iter().zip(passes).filter(|(member, _)| member.has_term(name));
            let spliced: Vec<&Tensor> =
                having.flat_map(|(_, passes)| passes).filter_map(ForwardPass::hidden).collect();
            values.insert(name, compute(self, original, &spliced)?.into());
        }
        Ok(values)
    }

    fn outcome(
        &self,
        member: &Member,
        clean: &CleanPass,
        mut pass: ForwardPass,
        at_output: Vec<Option<OutputValue>>,
        scale: f64,
    ) -> Result<Outcome, SpliceError> {
        let mut at_end = Sum::default();
        for (term, found) in member.terms().iter().zip(&at_output) {
            if let Some(found) = found {
                at_end.add(term.coeff * scale, &found.gradient)?;
            }
        }
        let observed = pass.take_observed();
        let (values, gradients) = self.backward(member, clean, pass, at_end.sum(), scale)?;
        let Values { terms, l0, mut total } = values;
        let mut named = Vec::with_capacity(terms.len());
        for ((term, sum), found) in member.terms().iter().zip(terms).zip(at_output) {
            if let Some(found) = &found {
                total.add(term.coeff, &found.value)?;
            }
            let value = found.map_or_else(|| sum.total(), |found| Ok(found.value))?;
            named.push((term.name, value));
        }
        let terms = LossTerms { terms: named, total: total.total()?, l0: l0.total()? };
        Ok(Outcome { gradients, terms, observed })
    }
}

/// The next value of every term of a member that looks at the model's output.
fn own_values(member: &Member, values: &mut OutputValues) -> Vec<Option<OutputValue>> {
    let next = |term: &MemberTerm| values.get_mut(term.name).and_then(VecDeque::pop_front);
    member.terms().iter().map(next).collect()
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
        sites.extend(member.compared_sites());
        if member.is_spliced() {
            sites.insert(Site::resid_pre(member.start()));
        }
    }
    sites
}
