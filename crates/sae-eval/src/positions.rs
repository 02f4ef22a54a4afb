//! How activations lie, and what SAEs make of them: norms and cosines by position, principal directions, and what it
//! costs to resample one.
//!
//! `B` batch, `T` context length, `N = B·T`, `D` width of the residual stream, `P` principal directions.

use std::collections::BTreeSet;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use sae_config::Site;
use sae_model::Unembedding;
use sae_nn::loss;
use sae_record::activations::{Direction, RunActivations, SaeActivations, SiteActivations};
use sae_splice::{CleanPass, Member, SpliceError, SplicedModel};
use tch::{Device, Kind, TchError, Tensor, no_grad};

/// The principal directions of a site's clean activations.
#[derive(Debug)]
pub struct Principal {
    /// The site.
    pub site: Site,
    /// Mean activation, `[D]`, f64.
    mean: Tensor,
    /// Unit vectors, a row each, `[P, D]`, f64.
    directions: Tensor,
    /// Shares of the total variance.
    shares: Vec<f64>,
}

impl Principal {
    /// The first `count` principal directions of the clean activations at a site.
    ///
    /// # Shapes
    /// `batches`: each `[B, T]`.
    pub fn of(
        model: &SplicedModel,
        site: Site,
        batches: &[Tensor],
        count: usize,
    ) -> Result<Self, SpliceError> {
        no_grad(|| {
            let d = model.model().config().width(site.kind) as i64;
            let options = (Kind::Double, model.model().device());
            let (mut sum, mut products) =
                (Tensor::f_zeros([d], options)?, Tensor::f_zeros([d, d], options)?);
            let mut tokens = 0;
            for batch in batches {
                let x = clean_at(model, site, batch)?;
                tokens += x.size()[0];
                let _ =
                    sum.f_add_(&x.f_sum_dim_intlist([0_i64].as_slice(), false, Kind::Double)?)?;
                let _ = products.f_add_(&x.f_tr()?.f_mm(&x)?)?;
            }
            let n = tokens.max(1) as f64;
            let mean = sum.f_div_scalar(n)?;
            let covariance = products.f_div_scalar(n)?.f_sub(&mean.f_outer(&mean)?)?;
            let (values, vectors) = eigenvectors(&covariance)?;
            let count = (count as i64).min(d);
            let directions = vectors.f_narrow(0, 0, count)?.f_contiguous()?;
            let shares = values.f_narrow(0, 0, count)?.f_div(&values.f_sum(Kind::Double)?)?;
            Ok(Self { site, mean, directions, shares: Vec::try_from(shares)? })
        })
    }
}

/// Eigenvalues, the greatest first, and a unit vector a row for each.
///
/// # Shapes
/// `symmetric: [D, D]` → `[D]`, `[D, D]`.
pub(crate) fn eigenvectors(symmetric: &Tensor) -> Result<(Tensor, Tensor), TchError> {
    let (own, there) = (symmetric.device(), decomposition_device(symmetric.device()));
    // Ascending, in columns.
    let (values, vectors) = symmetric.f_to_device(there)?.f_linalg_eigh("L")?;
    let (values, vectors) = (values.f_to_device(own)?, vectors.f_to_device(own)?);
    Ok((values.f_flip([0])?, vectors.f_tr()?.f_flip([0])?))
}

/// Random directions that resampling is compared on.
const RANDOM_DIRECTIONS: usize = 4;

/// Measures the clean activations at a site. Every direction's component is permuted among the tokens of a batch,
/// those at the first position left out, by numbers drawn from `seed`.
///
/// # Shapes
/// `batches`: each `[B, T]`.
pub fn site_activations(
    model: &SplicedModel,
    principal: &Principal,
    batches: &[Tensor],
    seed: u64,
) -> Result<SiteActivations, SpliceError> {
    no_grad(|| {
        let site = principal.site;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let width = model.model().config().width(site.kind);
        let random = random_directions(model, width, &mut rng)?;
        let all = Tensor::f_cat(&[&principal.directions, &random], 0)?;
        let mut norm = ByPosition::default();
        let mut along: Vec<ByPosition> =
            principal.shares.iter().map(|_| ByPosition::default()).collect();
        let mut costs = vec![0.0; all.size()[0] as usize];
        let mut tokens = 0;
        for batch in batches {
            let t = batch.size2()?.1;
            let sites = BTreeSet::from([Site::resid_pre(site.block), site]);
            let clean = model.clean_pass(batch, &sites, true)?;
            let x = flat(clean.activation(site)?)?;
            let n = x.size()[0];
            tokens += n as u64;
            norm.add(&norms(&x)?, t)?;
            let centred = x.f_sub(&principal.mean)?;
            let components = centred.f_mm(&all.f_tr()?)?;
            for (index, along) in along.iter_mut().enumerate() {
                along.add(&components.f_select(1, index as i64)?, t)?;
            }
            for (index, cost) in costs.iter_mut().enumerate() {
                let order = resampled(n, t, &mut rng);
                let order = Tensor::f_from_slice(&order)?.f_to_device(x.device())?;
                let own = components.f_select(1, index as i64)?;
                let change = own.f_index_select(0, &order)?.f_sub(&own)?;
                let change = change.f_outer(&all.f_select(0, index as i64)?)?;
                *cost += n as f64 * kl_after_change(model, &clean, site, &change)?;
            }
        }
        let costs: Vec<f64> = costs.into_iter().map(|cost| cost / tokens.max(1) as f64).collect();
        let (own, random) = costs.split_at(principal.shares.len());
        let directions = principal
            .shares
            .iter()
            .zip(along)
            .zip(own)
            .map(|((&variance_share, along), &resampling_kl)| Direction {
                variance_share,
                by_position: along.means(),
                resampling_kl,
            })
            .collect();
        Ok(SiteActivations {
            tokens,
            norm: norm.means(),
            directions,
            random_resampling_kl: random.iter().sum::<f64>() / random.len().max(1) as f64,
        })
    })
}

/// What a member's SAEs make of the activations at their sites, spliced in.
///
/// # Shapes
/// `batches`: each `[B, T]`; a `Principal` for every site of the member.
pub fn sae_activations(
    model: &SplicedModel,
    member: &Member,
    principals: &[Principal],
    batches: &[Tensor],
) -> Result<RunActivations, SpliceError> {
    no_grad(|| {
        let mut found: Vec<SaeSums> =
            member.dictionaries().iter().map(|_| SaeSums::default()).collect();
        let sites = BTreeSet::from([Site::resid_pre(member.start())]);
        let last = member.dictionaries().last().map(|placed| placed.writes);
        for batch in batches {
            let t = batch.size2()?.1;
            let clean = model.clean_pass(batch, &sites, false)?;
            let pass = model.spliced_pass(member, &clean, &[], last)?;
            for (seen, sums) in pass.dictionaries.iter().zip(&mut found) {
                let principal = principals.iter().find(|own| own.site == seen.site);
                let principal = principal.ok_or(SpliceError::NotRecorded { site: seen.site })?;
                sums.add(&flat(&seen.target)?, &flat(&seen.output.reconstruction)?, principal, t)?;
            }
        }
        Ok(member
            .dictionaries()
            .iter()
            .zip(found)
            .map(|(placed, sums)| (placed.writes, sums.finish()))
            .collect())
    })
}

/// The clean activations at a site, `[N, D]`, f64.
fn clean_at(model: &SplicedModel, site: Site, tokens: &Tensor) -> Result<Tensor, SpliceError> {
    flat(model.clean_pass(tokens, &BTreeSet::from([site]), false)?.activation(site)?)
}

/// Unit vectors of random direction, `[RANDOM_DIRECTIONS, D]`, f64.
fn random_directions(
    model: &SplicedModel,
    d: usize,
    rng: &mut ChaCha8Rng,
) -> Result<Tensor, SpliceError> {
    let numbers: Vec<f64> =
        (0..RANDOM_DIRECTIONS * d).map(|_| StandardNormal.sample(rng)).collect();
    let drawn = Tensor::f_from_slice(&numbers)?
        .f_view([RANDOM_DIRECTIONS as i64, d as i64])?
        .f_to_device(model.model().device())?;
    Ok(drawn.f_div(&drawn.f_norm_scalaropt_dim(2.0, [1], true)?)?)
}

/// `KL(changed ‖ original)`, the paper's direction here, in nats a token where the activation at a site is changed by
/// this much.
///
/// # Shapes
/// `change: [N, D]`.
fn kl_after_change(
    model: &SplicedModel,
    clean: &CleanPass,
    site: Site,
    change: &Tensor,
) -> Result<f64, SpliceError> {
    let start = clean.activation(Site::resid_pre(site.block))?.shallow_clone();
    let blocks = site.block..model.model().config().n_layers;
    let mut add = |_: Site, x: Tensor| {
        let change = change.f_view_as(&x)?.f_to_kind(x.kind())?;
        Ok::<_, SpliceError>(x.f_add(&change)?)
    };
    let last = model.model().run_to_end(blocks, start, &[site].into(), &mut add)?;
    let Some(original) = &clean.hidden else {
        return Err(SpliceError::NotRecorded { site });
    };
    let changed = model.hidden(&last)?;
    let Unembedding { weight, bias } = model.model().unembedding();
    let terms =
        loss::kl_without_logits(&changed, &[original], weight, bias, model.chunk(), weight.kind())?;
    Ok(terms[0].value.f_double_value(&[])?)
}

/// Where a matrix is decomposed, whatever device it is on: libtorch's decompositions on a GPU are in a library of their
/// own, which it may not find, and D × D numbers take a moment.
fn decomposition_device(_own: Device) -> Device {
    Device::Cpu
}

/// Sums of a number at every position of a window.
#[derive(Default)]
struct ByPosition {
    sums: Vec<f64>,
    windows: u64,
}

impl ByPosition {
    /// # Shapes
    /// `values: [N]`, windows of `t` one after the other.
    fn add(&mut self, values: &Tensor, t: i64) -> Result<(), SpliceError> {
        let values = values.f_view([-1, t])?;
        let sums: Vec<f64> =
            Vec::try_from(values.f_sum_dim_intlist([0_i64].as_slice(), false, Kind::Double)?)?;
        self.sums.resize(sums.len(), 0.0);
        self.sums.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
        self.windows += values.size()[0] as u64;
        Ok(())
    }

    fn means(self) -> Vec<f64> {
        let n = self.windows.max(1) as f64;
        self.sums.into_iter().map(|sum| sum / n).collect()
    }
}

/// Sums of an SAE.
#[derive(Default)]
struct SaeSums {
    ratio: ByPosition,
    cosine: ByPosition,
    residual: Vec<f64>,
    variance: Vec<f64>,
}

impl SaeSums {
    /// # Shapes
    /// `x, x_hat: [N, D]`, windows of `t` one after the other.
    fn add(
        &mut self,
        x: &Tensor,
        x_hat: &Tensor,
        principal: &Principal,
        t: i64,
    ) -> Result<(), SpliceError> {
        let (length, length_hat) = (norms(x)?, norms(x_hat)?);
        self.ratio.add(&length_hat.f_div(&length)?, t)?;
        self.cosine.add(&Tensor::f_cosine_similarity(x, x_hat, -1, 1e-8)?, t)?;
        let squares = |x: &Tensor| -> Result<Vec<f64>, SpliceError> {
            let along = x.f_mm(&principal.directions.f_tr()?)?.f_square()?;
            Ok(Vec::try_from(along.f_sum_dim_intlist([0_i64].as_slice(), false, Kind::Double)?)?)
        };
        add(&mut self.residual, &squares(&x.f_sub(x_hat)?)?);
        add(&mut self.variance, &squares(&x.f_sub(&principal.mean)?)?);
        Ok(())
    }

    fn finish(self) -> SaeActivations {
        let along = self.residual.iter().zip(&self.variance);
        SaeActivations {
            norm_ratio: self.ratio.means(),
            cosine: self.cosine.means(),
            explained_variance: along
                .map(|(residual, variance)| 1.0 - residual / variance)
                .collect(),
        }
    }
}

fn add(total: &mut Vec<f64>, more: &[f64]) {
    total.resize(more.len(), 0.0);
    total.iter_mut().zip(more).for_each(|(total, more)| *total += more);
}

/// `[N, D]` → `[N]`.
fn norms(x: &Tensor) -> Result<Tensor, SpliceError> {
    Ok(x.f_norm_scalaropt_dim(2.0, [-1], false)?)
}

/// `[B, T, D]` → `[N, D]`, in f64.
fn flat(x: &Tensor) -> Result<Tensor, SpliceError> {
    let d = x.size().last().copied().unwrap_or(1);
    Ok(x.f_reshape([-1, d])?.f_to_kind(Kind::Double)?)
}

/// From which token each of `n` takes its component, in windows of `t`: a permutation that leaves first positions, whose
/// activations are often outliers, as they are.
fn resampled(n: i64, t: i64, rng: &mut ChaCha8Rng) -> Vec<i64> {
    let later: Vec<i64> = (0..n).filter(|token| token % t != 0).collect();
    let mut from = later.clone();
    from.shuffle(rng);
    let mut order: Vec<i64> = (0..n).collect();
    for (token, from) in later.into_iter().zip(from) {
        order[token as usize] = from;
    }
    order
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use sae_config::Site;

    use sae_splice::SplicedModel;

    /// The paper plots KL(resampled ‖ original).
    #[test]
    fn the_cost_of_a_change_is_in_the_papers_direction() {
        use tch::{Device, Kind, Tensor};

        let config = sae_model::ModelConfig::gpt2(2, 16, 2, 8, 50);
        let lm = sae_model::Transformer::random(config, 0, Device::Cpu, Kind::Double).unwrap();
        let model = SplicedModel::new(lm);
        let tokens = Tensor::arange(16, (Kind::Int64, Device::Cpu)).view([2, 8]);
        let site = Site::resid_pre(1);
        let clean = model.clean_pass(&tokens, &BTreeSet::from([site]), true).unwrap();
        tch::manual_seed(1);
        let change = Tensor::randn([16, 16], (Kind::Double, Device::Cpu)) * 3.0;
        let found = super::kl_after_change(&model, &clean, site, &change).unwrap();
        let x = clean.activation(site).unwrap() + change.view([2, 8, 16]);
        let mut nothing = |_: Site, x| Ok::<_, sae_splice::SpliceError>(x);
        let last = model.model().run_to_end(1..2, x, &BTreeSet::new(), &mut nothing).unwrap();
        let log_softmax =
            |hidden: &Tensor| model.model().logits(hidden).unwrap().log_softmax(-1, Kind::Double);
        let log_changed = log_softmax(&model.hidden(&last).unwrap());
        let log_original = log_softmax(clean.hidden.as_ref().unwrap());
        let kl =
            |p: &Tensor, q: &Tensor| ((p - q) * p.exp()).sum(Kind::Double).double_value(&[]) / 16.0;
        let [papers, other] = [kl(&log_changed, &log_original), kl(&log_original, &log_changed)];
        assert!(
            1000.0 * (found - papers).abs() < (papers - other).abs(),
            "{found} {papers} {other}"
        );
    }

    /// The decision; not run on a card.
    #[test]
    fn decompositions_are_taken_on_the_cpu() {
        use tch::Device;
        for own in [Device::Cpu, Device::Cuda(0), Device::Cuda(3)] {
            assert_eq!(super::decomposition_device(own), Device::Cpu);
        }
    }

    #[test]
    fn first_positions_keep_their_own() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let order = super::resampled(40, 8, &mut rng);
        assert!((0..40).step_by(8).all(|token| order[token as usize] == token));
        assert!((0..40).any(|token| order[token as usize] != token));
        let mut sorted = order;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..40).collect::<Vec<i64>>());
        assert_eq!(super::resampled(3, 1, &mut rng), [0, 1, 2]);
    }
}
