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
use sae_record::activations::{
    Direction, RunActivations, SaeActivations, SiteActivations, TokensAlong,
};
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
/// Principal directions whose components are followed over positions, of reconstructions.
const FOLLOWED: usize = 4;
/// Bins of cosines, and of components along a direction.
const BINS: usize = 80;
/// Tokens whose norms are kept.
const NORMS: u64 = 2000;

/// Measures the clean activations at a site. Every direction's component is permuted among the tokens of a batch,
/// those at the first position left out, by numbers drawn from `seed`. `end_of_text` is the token that ends a text, where there is
/// one.
///
/// # Shapes
/// `batches`: each `[B, T]`.
pub fn site_activations(
    model: &SplicedModel,
    principal: &Principal,
    (batches, end_of_text): (&[Tensor], Option<i64>),
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
        let mut first = Tensor::f_zeros([width as i64], (Kind::Double, principal.mean.device()))?;
        let mut kinds: [Vec<f64>; 3] = Default::default();
        for batch in batches {
            let (b, t) = batch.size2()?;
            let sites = BTreeSet::from([Site::resid_pre(site.block), site]);
            let clean = model.clean_pass(batch, &sites, true)?;
            let x = flat(clean.activation(site)?)?;
            let n = x.size()[0];
            tokens += n as u64;
            norm.add(&norms(&x)?, t)?;
            let _ = first.f_add_(&x.f_view([b, t, -1])?.f_select(1, 0)?.f_sum_dim_intlist(
                [0_i64].as_slice(),
                false,
                Kind::Double,
            )?)?;
            let along_first: Vec<f64> =
                Vec::try_from(x.f_mv(&principal.directions.f_select(0, 0)?)?)?;
            let ids: Vec<i64> = Vec::try_from(batch.f_reshape([-1])?)?;
            for (token, (component, id)) in along_first.into_iter().zip(ids).enumerate() {
                let kind = match (token as i64 % t, Some(id) == end_of_text) {
                    (0, _) => 0,
                    (_, true) => 1,
                    (_, false) => 2,
                };
                kinds[kind].push(component);
            }
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
            .enumerate()
            .map(|(place, ((&variance_share, along), &resampling_kl))| {
                Ok(Direction {
                    variance_share,
                    vector: Vec::try_from(principal.directions.f_select(0, place as i64)?)?,
                    by_position: along.means(),
                    resampling_kl,
                })
            })
            .collect::<Result<_, TchError>>()?;
        let length = first.f_norm()?.f_double_value(&[])?.max(f64::MIN_POSITIVE);
        let names = ["first position", "end of a text", "other"];
        let along_first = names.into_iter().zip(&kinds);
        let along_first = along_first.filter(|(_, components)| !components.is_empty());
        Ok(SiteActivations {
            tokens,
            norm: norm.means(),
            directions,
            random_resampling_kl: random.iter().sum::<f64>() / random.len().max(1) as f64,
            first_position: Vec::try_from(first.f_div_scalar(length)?)?,
            along_first: along_first.map(|(kind, values)| tokens_along(kind, values)).collect(),
        })
    })
}

/// Counts in bins that are evenly spaced between the least and the greatest value.
fn tokens_along(kind: &str, values: &[f64]) -> TokensAlong {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut counts = vec![0; BINS];
    for value in values {
        counts[bin(*value, low, high)] += 1;
    }
    TokensAlong { kind: kind.to_owned(), range: [low, high], counts }
}

/// The bin of a value between two ends; the last holds the upper end too.
fn bin(value: f64, low: f64, high: f64) -> usize {
    let place = (value - low) / (high - low) * BINS as f64;
    // Where all are equal, the first.
    if place.is_finite() { (place.max(0.0) as usize).min(BINS - 1) } else { 0 }
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
        let tokens: u64 = batches.iter().map(|batch| batch.numel() as u64).sum();
        let every = tokens.div_ceil(NORMS).max(1);
        let mut found: Vec<SaeSums> =
            member.dictionaries().iter().map(|_| SaeSums { every, ..SaeSums::default() }).collect();
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
    /// Of the tokens after the first position, by principal direction: how many, and the sums of a, b, a², b² and ab, a being `u · x` and
    /// b `u · x̂`, both less `u · mean x`.
    later: f64,
    products: [Vec<f64>; 5],
    reconstructed: Vec<ByPosition>,
    cosines: Vec<u64>,
    norms: Vec<[f64; 2]>,
    /// Of so many tokens the norms of one are kept.
    every: u64,
    seen: u64,
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
        let cosine = Tensor::f_cosine_similarity(x, x_hat, -1, 1e-8)?;
        self.cosine.add(&cosine, t)?;
        self.cosines.resize(BINS, 0);
        for cosine in Vec::<f64>::try_from(&cosine)? {
            self.cosines[bin(cosine, -1.0, 1.0)] += 1;
        }
        let (own, hat): (Vec<f64>, Vec<f64>) =
            (Vec::try_from(&length)?, Vec::try_from(&length_hat)?);
        for (own, hat) in own.into_iter().zip(hat) {
            if self.seen.is_multiple_of(self.every.max(1)) {
                self.norms.push([own, hat]);
            }
            self.seen += 1;
        }
        self.correlate(x, x_hat, principal, t)?;
        let squares = |x: &Tensor| -> Result<Vec<f64>, SpliceError> {
            let along = x.f_mm(&principal.directions.f_tr()?)?.f_square()?;
            Ok(Vec::try_from(along.f_sum_dim_intlist([0_i64].as_slice(), false, Kind::Double)?)?)
        };
        add(&mut self.residual, &squares(&x.f_sub(x_hat)?)?);
        add(&mut self.variance, &squares(&x.f_sub(&principal.mean)?)?);
        Ok(())
    }

    fn correlate(
        &mut self,
        x: &Tensor,
        x_hat: &Tensor,
        principal: &Principal,
        t: i64,
    ) -> Result<(), SpliceError> {
        let along = |x: &Tensor| -> Result<Tensor, TchError> {
            x.f_sub(&principal.mean)?.f_mm(&principal.directions.f_tr()?)
        };
        let (a, b) = (along(x)?, along(x_hat)?);
        let p = a.size2()?.1;
        self.reconstructed.resize_with(FOLLOWED.min(p as usize), ByPosition::default);
        for (index, by_position) in self.reconstructed.iter_mut().enumerate() {
            by_position.add(&b.f_select(1, index as i64)?.f_contiguous()?, t)?;
        }
        let later = |x: &Tensor| -> Result<Tensor, TchError> {
            x.f_view([-1, t, p])?.f_narrow(1, 1, t - 1)?.f_reshape([-1, p])
        };
        let (a, b) = (later(&a)?, later(&b)?);
        self.later += a.size2()?.0 as f64;
        let terms =
            [a.shallow_clone(), b.shallow_clone(), a.f_square()?, b.f_square()?, a.f_mul(&b)?];
        for (sums, term) in self.products.iter_mut().zip(terms) {
            let sum = term.f_sum_dim_intlist([0_i64].as_slice(), false, Kind::Double)?;
            add(sums, &Vec::<f64>::try_from(sum)?);
        }
        Ok(())
    }

    /// Pearson's, by principal direction.
    fn correlation(&self) -> Vec<Option<f64>> {
        let [a, b, aa, bb, ab] = &self.products;
        let n = self.later;
        let of = |place: usize| {
            let covariance = ab[place] / n - a[place] / n * (b[place] / n);
            let variance = |square: f64, sum: f64| square / n - (sum / n).powi(2);
            let (of_a, of_b) = (variance(aa[place], a[place]), variance(bb[place], b[place]));
            Some(covariance / (of_a * of_b).sqrt()).filter(|found| found.is_finite())
        };
        (0..a.len()).map(of).collect()
    }

    fn finish(self) -> SaeActivations {
        let correlation = self.correlation();
        let along = self.residual.iter().zip(&self.variance);
        SaeActivations {
            norm_ratio: self.ratio.means(),
            cosine: self.cosine.means(),
            explained_variance: along
                .map(|(residual, variance)| 1.0 - residual / variance)
                .collect(),
            correlation,
            reconstructed_by_position: self
                .reconstructed
                .into_iter()
                .map(ByPosition::means)
                .collect(),
            cosines: self.cosines,
            norms: self.norms,
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
