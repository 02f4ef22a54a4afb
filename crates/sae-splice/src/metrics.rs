//! The metrics of an evaluation; their definitions stand with [`Evaluation`].
//!
//! `N` tokens, `V` vocabulary, `D` width of the residual stream. Means are over all tokens of the evaluation set unless
//! said otherwise; next-token metrics are over the `B · (T − 1)` positions that have a next token in their window.

use std::collections::{BTreeMap, BTreeSet};

use sae_config::{Site, SiteKind};
use sae_model::ModelConfig;
use sae_record::summary::{DownstreamMetrics, Evaluation, SiteMetrics};
use tch::{Kind, Tensor, no_grad};

use crate::spliced::{CleanPass, MemberPass};
use crate::{Member, SpliceError, SplicedModel};

impl SplicedModel {
    /// Evaluates every member on the same batches, each `[B, T]` of token ids. `progress` is told how many batches are
    /// done; the set is gone through twice, first for the mean activations.
    pub fn evaluate(
        &self,
        members: &[&Member],
        batches: &[Tensor],
        progress: &mut dyn FnMut(u64),
    ) -> Result<Vec<Evaluation>, SpliceError> {
        no_grad(|| {
            let sites = self.evaluated_sites(members);
            let means = self.means(batches, &sites)?;
            let mut shared = Shared::default();
            let mut sums: Vec<MemberSums> = members.iter().map(|_| MemberSums::default()).collect();
            for (index, tokens) in batches.iter().enumerate() {
                self.add_batch(members, tokens, &sites, &means, &mut shared, &mut sums)?;
                progress(index as u64 + 1);
            }
            Ok(members
                .iter()
                .zip(sums)
                .map(|(member, sums)| sums.finish(member, &shared, self.model().config()))
                .collect())
        })
    }

    /// SAE sites and where their spliced passes start, all later residual streams.
    fn evaluated_sites(&self, members: &[&Member]) -> BTreeSet<Site> {
        let mut sites = BTreeSet::new();
        for member in members {
            sites.insert(Site::resid_pre(member.start()));
            sites.extend(member.sites());
            sites.extend(self.downstream_of(member));
        }
        sites
    }

    fn downstream_of(&self, member: &Member) -> Vec<Site> {
        let config = self.model().config();
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
        &self,
        batches: &[Tensor],
        sites: &BTreeSet<Site>,
    ) -> Result<BTreeMap<Site, Tensor>, SpliceError> {
        let mut sums: BTreeMap<Site, Tensor> = BTreeMap::new();
        let mut tokens = 0;
        for batch in batches {
            let clean = self.clean_pass(batch, sites, false)?;
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

    fn add_batch(
        &self,
        members: &[&Member],
        tokens: &Tensor,
        sites: &BTreeSet<Site>,
        means: &BTreeMap<Site, Tensor>,
        shared: &mut Shared,
        sums: &mut [MemberSums],
    ) -> Result<(), SpliceError> {
        let clean = self.clean_pass(tokens, sites, true)?;
        let ablations = self.ablated_hidden(members, &clean, means)?;
        let mut passes = Vec::with_capacity(members.len());
        for (member, sums) in members.iter().zip(sums.iter_mut()) {
            let downstream = self.downstream_of(member);
            let pass = self.spliced_pass(member, &clean, &downstream, None)?;
            sums.add_activations(&pass, &clean, means)?;
            passes.push(pass.hidden);
        }
        let targets = Targets::of(tokens)?;
        let (n, chunk) = (tokens.numel() as i64, self.chunk() as i64);
        let mut start = 0;
        while start < n {
            let length = chunk.min(n - start);
            let rows = |tensor: &Tensor| tensor.f_narrow(0, start, length);
            let log_probabilities = |hidden: &Tensor| -> Result<Tensor, SpliceError> {
                Ok(self.model().logits(&rows(hidden)?)?.f_log_softmax(-1, None)?)
            };
            let Some(hidden) = &clean.hidden else { break };
            let log_p = log_probabilities(hidden)?;
            let (p, top) = (log_p.f_exp()?, log_p.f_argmax(-1, false)?);
            let target = rows(&targets.ids)?;
            let valid = rows(&targets.valid)?;
            shared.ce += cross_entropy(&log_p, &target, &valid)?;
            shared.correct += correct(&top, &target, &valid)?;
            for (key, [zero, mean]) in &ablations {
                let sums = shared.ablations.entry(key.clone()).or_default();
                sums[0] += cross_entropy(&log_probabilities(zero)?, &target, &valid)?;
                sums[1] += cross_entropy(&log_probabilities(mean)?, &target, &valid)?;
            }
            for (hidden, sums) in passes.iter().zip(sums.iter_mut()) {
                let Some(hidden) = hidden else { continue };
                let log_q = log_probabilities(hidden)?;
                let top_q = log_q.f_argmax(-1, false)?;
                sums.ce += cross_entropy(&log_q, &target, &valid)?;
                sums.correct += correct(&top_q, &target, &valid)?;
                sums.agree += number(&top_q.f_eq_tensor(&top)?)?;
                sums.kl += number(&log_p.f_sub(&log_q)?.f_mul_(&p)?)?;
                sums.distance += 0.5 * number(&log_q.f_exp()?.f_sub_(&p)?.f_abs()?)?;
            }
            start += length;
        }
        shared.tokens += n as u64;
        shared.predictions += number(&targets.valid)?;
        Ok(())
    }

    /// The final hidden state with zeros, and with the mean, at the sites of every distinct set of SAEs.
    fn ablated_hidden(
        &self,
        members: &[&Member],
        clean: &CleanPass,
        means: &BTreeMap<Site, Tensor>,
    ) -> Result<BTreeMap<Vec<Site>, [Tensor; 2]>, SpliceError> {
        let mut all = BTreeMap::new();
        for member in members {
            let key = sae_sites(member);
            if all.contains_key(&key) {
                continue;
            }
            let ablate = |with_mean: bool| -> Result<Tensor, SpliceError> {
                let start = clean.activation(Site::resid_pre(member.start()))?.shallow_clone();
                let blocks = member.start()..self.model().config().n_layers;
                let sites: BTreeSet<Site> = key.iter().copied().collect();
                let mut replace = |site: Site, x: Tensor| {
                    let zeros = x.f_zeros_like()?;
                    Ok::<_, SpliceError>(match means.get(&site).filter(|_| with_mean) {
                        Some(mean) => zeros.f_add(&mean.f_to_kind(x.kind())?)?,
                        None => zeros,
                    })
                };
                let last = self.model().run_to_end(blocks, start, &sites, &mut replace)?;
                flat(&self.model().final_norm(&last)?)
            };
            let both = [ablate(false)?, ablate(true)?];
            all.insert(key, both);
        }
        Ok(all)
    }
}

fn sae_sites(member: &Member) -> Vec<Site> {
    member.dictionaries().iter().map(|placed| placed.writes).collect()
}

/// `[B, T, D]` → `[N, D]`, in single precision at least.
fn flat(x: &Tensor) -> Result<Tensor, SpliceError> {
    let d = x.size().last().copied().unwrap_or(1);
    let kind = if x.kind() == Kind::Double { Kind::Double } else { Kind::Float };
    Ok(x.f_reshape([-1, d])?.f_to_kind(kind)?)
}

/// The sum of all elements, in f64.
fn number(x: &Tensor) -> Result<f64, SpliceError> {
    Ok(x.f_sum(Kind::Double)?.f_double_value(&[])?)
}

/// The next token of every position, and whether it has one.
struct Targets {
    /// `[N]`, 0 where there is none.
    ids: Tensor,
    /// `[N]`, 1 or 0.
    valid: Tensor,
}

impl Targets {
    fn of(tokens: &Tensor) -> Result<Self, SpliceError> {
        let (b, t) = tokens.size2()?;
        let ids = tokens.f_zeros_like()?;
        let valid = tokens.f_zeros_like()?;
        ids.f_narrow(1, 0, t - 1)?.f_copy_(&tokens.f_narrow(1, 1, t - 1)?)?;
        let _ = valid.f_narrow(1, 0, t - 1)?.f_fill_(1)?;
        Ok(Self { ids: ids.f_reshape([b * t])?, valid: valid.f_reshape([b * t])? })
    }
}

/// Summed over the valid rows.
fn cross_entropy(log_p: &Tensor, target: &Tensor, valid: &Tensor) -> Result<f64, SpliceError> {
    let picked = log_p.f_gather(-1, &target.f_unsqueeze(-1)?, false)?.f_squeeze_dim(-1)?;
    Ok(-number(&picked.f_mul(valid)?)?)
}

fn correct(top: &Tensor, target: &Tensor, valid: &Tensor) -> Result<f64, SpliceError> {
    number(&top.f_eq_tensor(target)?.f_mul(valid)?)
}

/// Sums that all members share.
#[derive(Default)]
struct Shared {
    tokens: u64,
    predictions: f64,
    ce: f64,
    correct: f64,
    /// Cross-entropies with zeros and with means, by the SAEs' sites.
    ablations: BTreeMap<Vec<Site>, [f64; 2]>,
}

/// Sums of one member.
#[derive(Default)]
struct MemberSums {
    ce: f64,
    correct: f64,
    agree: f64,
    kl: f64,
    distance: f64,
    sites: BTreeMap<Site, SiteSums>,
    downstream: BTreeMap<Site, ErrorSums>,
}

#[derive(Default)]
struct SiteSums {
    active: f64,
    error: ErrorSums,
    explained: f64,
    cosine: f64,
    ratio: f64,
}

/// Squared distances: of the reconstruction, and of the mean.
#[derive(Default)]
struct ErrorSums {
    residual: f64,
    variance: f64,
}

impl ErrorSums {
    fn explained_variance(&self) -> f64 {
        1.0 - self.residual / self.variance
    }
}

impl MemberSums {
    fn add_activations(
        &mut self,
        pass: &MemberPass,
        clean: &CleanPass,
        means: &BTreeMap<Site, Tensor>,
    ) -> Result<(), SpliceError> {
        for sae in &pass.dictionaries {
            let (x, x_hat) = (flat(&sae.target)?, flat(&sae.output.reconstruction)?);
            let sums = self.sites.entry(sae.site).or_default();
            let residual = square_norms(&x.f_sub(&x_hat)?)?;
            let variance = match means.get(&sae.site) {
                Some(mean) => square_norms(&x.f_sub(mean)?)?,
                None => return Err(SpliceError::NotRecorded { site: sae.site }),
            };
            sums.active += number(&sae.output.features.f_gt(0.0)?)?;
            sums.error.residual += number(&residual)?;
            sums.error.variance += number(&variance)?;
            let ratio = residual.f_div(&variance)?;
            sums.explained += x.size()[0] as f64 - number(&ratio)?;
            sums.cosine += number(&Tensor::f_cosine_similarity(&x, &x_hat, -1, 1e-8)?)?;
            sums.ratio += number(&square_norms(&x_hat)?.f_div(&square_norms(&x)?)?.f_sqrt()?)?;
        }
        for (site, spliced) in &pass.recorded {
            let original = flat(clean.activation(*site)?)?;
            let sums = self.downstream.entry(*site).or_default();
            let Some(mean) = means.get(site) else {
                return Err(SpliceError::NotRecorded { site: *site });
            };
            sums.residual += number(&square_norms(&flat(spliced)?.f_sub(&original)?)?)?;
            sums.variance += number(&square_norms(&original.f_sub(mean)?)?)?;
        }
        Ok(())
    }

    fn finish(self, member: &Member, shared: &Shared, config: &ModelConfig) -> Evaluation {
        let tokens = shared.tokens as f64;
        let elements = |site: Site| tokens * config.width(site.kind) as f64;
        let (ce_original, ce_spliced) =
            (shared.ce / shared.predictions, self.ce / shared.predictions);
        let [zero, mean] = shared.ablations.get(&sae_sites(member)).copied().unwrap_or_default();
        let [ce_zero_ablation, ce_mean_ablation] =
            [zero / shared.predictions, mean / shared.predictions];
        let recovered = |ablated: f64| (ablated - ce_spliced) / (ablated - ce_original);
        Evaluation {
            tokens: shared.tokens,
            l0: self.sites.values().map(|site| site.active / tokens).sum(),
            ce_original,
            ce_spliced,
            ce_increase: ce_spliced - ce_original,
            ce_zero_ablation,
            ce_mean_ablation,
            ce_recovered_zero: recovered(ce_zero_ablation),
            ce_recovered_mean: recovered(ce_mean_ablation),
            kl: self.kl / tokens,
            top1_accuracy_original: shared.correct / shared.predictions,
            top1_accuracy_spliced: self.correct / shared.predictions,
            top1_agreement: self.agree / tokens,
            statistical_distance: self.distance / tokens,
            sites: self
                .sites
                .into_iter()
                .map(|(site, sums)| {
                    let metrics = SiteMetrics {
                        l0: sums.active / tokens,
                        mse: sums.error.residual / elements(site),
                        explained_variance: sums.error.explained_variance(),
                        explained_variance_per_token: sums.explained / tokens,
                        cosine: sums.cosine / tokens,
                        l2_ratio: sums.ratio / tokens,
                    };
                    (site, metrics)
                })
                .collect(),
            downstream: self
                .downstream
                .into_iter()
                .map(|(site, sums)| {
                    let metrics = DownstreamMetrics {
                        mse: sums.residual / elements(site),
                        explained_variance: sums.explained_variance(),
                    };
                    (site, metrics)
                })
                .collect(),
        }
    }
}

/// `[N, D]` → `[N]`, in f64.
fn square_norms(x: &Tensor) -> Result<Tensor, SpliceError> {
    Ok(x.f_square()?.f_sum_dim_intlist([-1_i64].as_slice(), false, Kind::Double)?)
}
