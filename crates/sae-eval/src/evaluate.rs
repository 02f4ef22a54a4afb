//! The passes of an evaluation, shown to every probe.
//!
//! `B` batch, `T` context length, `N` tokens, `V` vocabulary, `D` width of the residual stream.

use std::collections::{BTreeMap, BTreeSet};

use sae_config::{Site, SiteKind};
use sae_record::metric::Values;
use sae_record::summary::Evaluation;
use sae_splice::{CleanPass, Member, SpliceError, SplicedModel};
use tch::{Kind, Tensor, no_grad};

use crate::probes::{self, Batch, Outputs, Probe, Targets, Totals, flat, number};

/// Evaluates every member on the same batches, each `[B, T]` of token ids, with its dictionaries spliced in whatever it was
/// trained on. `progress` is told how many batches are done; the set is gone through twice, first for the mean activations.
pub fn evaluate(
    model: &SplicedModel,
    members: &[&Member],
    batches: &[Tensor],
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<Evaluation>, SpliceError> {
    no_grad(|| {
        let mut pass = EvaluationPass::new(model, members, batches)?;
        for (index, tokens) in batches.iter().enumerate() {
            pass.add(tokens)?;
            progress(index as u64 + 1);
        }
        Ok(pass.finish())
    })
}

/// A pass over the evaluation set.
struct EvaluationPass<'a> {
    model: &'a SplicedModel,
    members: &'a [&'a Member],
    /// What the clean pass keeps.
    sites: BTreeSet<Site>,
    /// The mean clean activation, `[D]` in f64, at every site.
    means: BTreeMap<Site, Tensor>,
    /// Of every member.
    probes: Vec<Vec<Box<dyn Probe>>>,
    shared: Shared,
}

/// Sums that all members share.
#[derive(Default)]
struct Shared {
    tokens: u64,
    predictions: f64,
    ce: f64,
    correct: f64,
    /// Cross-entropies with zeros and with means, by the sites that dictionaries write.
    ablated: BTreeMap<Vec<Site>, [f64; 2]>,
}

impl<'a> EvaluationPass<'a> {
    fn new(
        model: &'a SplicedModel,
        members: &'a [&'a Member],
        batches: &[Tensor],
    ) -> Result<Self, SpliceError> {
        let mut sites = BTreeSet::new();
        for member in members {
            sites.insert(Site::resid_pre(member.start()));
            sites.extend(member.sites());
            sites.extend(downstream(model, member));
        }
        let means = means(model, batches, &sites)?;
        let probes = members.iter().map(|_| probes::all()).collect();
        Ok(Self { model, members, sites, means, probes, shared: Shared::default() })
    }

    fn add(&mut self, tokens: &Tensor) -> Result<(), SpliceError> {
        let clean = self.model.clean_pass(tokens, &self.sites, true)?;
        let ablated = self.ablated_hidden(&clean)?;
        let mut hidden = Vec::with_capacity(self.members.len());
        for (member, probes) in self.members.iter().zip(&mut self.probes) {
            let recorded = downstream(self.model, member);
            let pass = self.model.spliced_pass(member, &clean, &recorded, None)?;
            let batch = Batch { pass: &pass, clean: &clean, means: &self.means };
            for probe in probes {
                probe.see(&batch)?;
            }
            hidden.push(pass.hidden);
        }
        let targets = Targets::of(tokens)?;
        let (n, chunk) = (tokens.numel() as i64, self.model.chunk() as i64);
        let mut start = 0;
        while let Some(original) = clean.hidden.as_ref().filter(|_| start < n) {
            let length = chunk.min(n - start);
            let log_probabilities = |hidden: &Tensor| -> Result<Tensor, SpliceError> {
                let rows = hidden.f_narrow(0, start, length)?;
                Ok(self.model.model().logits(&rows)?.f_log_softmax(-1, None)?)
            };
            let log_p = log_probabilities(original)?;
            let (p, top) = (log_p.f_exp()?, log_p.f_argmax(-1, false)?);
            let targets = targets.narrow(start, length)?;
            self.shared.ce += targets.cross_entropy(&log_p)?;
            self.shared.correct += targets.correct(&top)?;
            for (key, [zero, mean]) in &ablated {
                let sums = self.shared.ablated.entry(key.clone()).or_default();
                sums[0] += targets.cross_entropy(&log_probabilities(zero)?)?;
                sums[1] += targets.cross_entropy(&log_probabilities(mean)?)?;
            }
            for (hidden, probes) in hidden.iter().zip(&mut self.probes) {
                let Some(hidden) = hidden else { continue };
                let log_q = &log_probabilities(hidden)?;
                let outputs = Outputs { log_p: &log_p, p: &p, top: &top, log_q, targets: &targets };
                for probe in probes {
                    probe.see_outputs(&outputs)?;
                }
            }
            start += length;
        }
        self.shared.tokens += n as u64;
        self.shared.predictions += number(&targets.valid)?;
        Ok(())
    }

    /// The final hidden state with zeros, and with the mean, at the sites of every distinct set of dictionaries.
    fn ablated_hidden(
        &self,
        clean: &CleanPass,
    ) -> Result<BTreeMap<Vec<Site>, [Tensor; 2]>, SpliceError> {
        let lm = self.model.model();
        let mut all = BTreeMap::new();
        for member in self.members {
            let key = written(member);
            if all.contains_key(&key) {
                continue;
            }
            let ablate = |with_mean: bool| -> Result<Tensor, SpliceError> {
                let start = clean.activation(Site::resid_pre(member.start()))?.shallow_clone();
                let blocks = member.start()..lm.config().n_layers;
                let sites: BTreeSet<Site> = key.iter().copied().collect();
                let mut replace = |site: Site, x: Tensor| {
                    let zeros = x.f_zeros_like()?;
                    Ok::<_, SpliceError>(match self.means.get(&site).filter(|_| with_mean) {
                        Some(mean) => zeros.f_add(&mean.f_to_kind(x.kind())?)?,
                        None => zeros,
                    })
                };
                let last = lm.run_to_end(blocks, start, &sites, &mut replace)?;
                flat(&lm.final_norm(&last)?)
            };
            let both = [ablate(false)?, ablate(true)?];
            all.insert(key, both);
        }
        Ok(all)
    }

    fn finish(self) -> Vec<Evaluation> {
        let Shared { tokens, predictions, ce, correct, ablated } = self.shared;
        let of_member = |(member, probes): (&&Member, Vec<Box<dyn Probe>>)| {
            let ablated = ablated.get(&written(member)).copied().unwrap_or_default();
            let totals = Totals { tokens, predictions, ce, correct, ablated };
            let mut found = Evaluation {
                tokens,
                values: Values::default(),
                sites: BTreeMap::new(),
                downstream: BTreeMap::new(),
            };
            for probe in probes {
                probe.finish(&totals, &mut found);
            }
            found
        };
        self.members.iter().zip(self.probes).map(of_member).collect()
    }
}

/// The sites that a member's dictionaries write.
fn written(member: &Member) -> Vec<Site> {
    member.dictionaries().iter().map(|placed| placed.writes).collect()
}

/// Every later residual stream, and the last.
fn downstream(model: &SplicedModel, member: &Member) -> Vec<Site> {
    let config = model.model().config();
    let first = member.dictionaries().first().map(|placed| placed.writes);
    let last = Site::resid_post(config.n_layers - 1);
    config
        .sites()
        .filter(|site| Some(*site) > first)
        .filter(|site| site.kind == SiteKind::ResidPre || *site == last)
        .collect()
}

/// The mean clean activation, `[D]` in f64, at every site.
fn means(
    model: &SplicedModel,
    batches: &[Tensor],
    sites: &BTreeSet<Site>,
) -> Result<BTreeMap<Site, Tensor>, SpliceError> {
    let mut sums: BTreeMap<Site, Tensor> = BTreeMap::new();
    let mut tokens = 0;
    for batch in batches {
        let clean = model.clean_pass(batch, sites, false)?;
        tokens += batch.numel();
        for &site in sites {
            let sum = flat(clean.activation(site)?)?.f_sum_dim_intlist(
                [0_i64].as_slice(),
                false,
                Kind::Double,
            )?;
            match sums.get_mut(&site) {
                Some(total) => {
                    let _ = total.f_add_(&sum)?;
                }
                None => {
                    sums.insert(site, sum);
                }
            }
        }
    }
    for sum in sums.values_mut() {
        let _ = sum.f_div_scalar_(tokens.max(1) as f64)?;
    }
    Ok(sums)
}
