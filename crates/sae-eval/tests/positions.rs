//! Measurements of activations against plain formulas: principal directions, resampling, norms by position.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use std::collections::BTreeSet;
use std::path::Path;

use sae_config::loss::LossConfig;
use sae_config::run::Processing;
use sae_config::{Architecture, Site};
use sae_eval::{Principal, sae_activations, site_activations};
use sae_model::{Transformer, load};
use sae_nn::Dictionary;
use sae_splice::{Member, PlacedDictionary, SplicedModel};
use tch::{Device, Kind, Tensor};

const SITE: &str = "blocks.1.hook_resid_pre";

fn language_model() -> Transformer {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sae-model/tests/fixtures/gpt2");
    load::load(&folder, Processing::None, Device::Cpu, Kind::Double).unwrap()
}

/// Two batches of windows of 9 tokens, of different sizes.
fn batches(model: &SplicedModel) -> Vec<Tensor> {
    let vocabulary = model.model().config().vocabulary as i64;
    tch::manual_seed(2);
    [5, 3].map(|b| Tensor::randint(vocabulary, [b, 9], (Kind::Int64, Device::Cpu))).into()
}

/// All tokens' clean activations, `[N, D]`.
fn clean(model: &SplicedModel, site: Site, batches: &[Tensor]) -> Tensor {
    let of = |batch: &Tensor| {
        let clean = model.clean_pass(batch, &BTreeSet::from([site]), false).unwrap();
        clean.activation(site).unwrap().flatten(0, 1)
    };
    Tensor::cat(&batches.iter().map(of).collect::<Vec<_>>(), 0)
}

#[track_caller]
fn near(found: &[f64], expected: &Tensor, bound: f64) {
    let expected: Vec<f64> = Vec::try_from(expected.to_kind(Kind::Double).flatten(0, -1)).unwrap();
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(&expected) {
        assert!((a - b).abs() < bound, "{found:?} {expected:?}");
    }
}

#[test]
fn the_model_at_a_site() {
    let model = SplicedModel::new(language_model());
    let (site, batches) = (SITE.parse::<Site>().unwrap(), batches(&model));
    let x = clean(&model, site, &batches);
    let principal = Principal::of(&model, site, &batches, 6).unwrap();
    // A token that one window ends with stands for the end of a text.
    let end = batches[0].int64_value(&[2, 8]);
    let asked = (batches.as_slice(), Some(end));
    let found = site_activations(&model, &principal, asked, 0).unwrap();
    assert_eq!((found.tokens, found.norm.len(), found.directions.len()), (72, 9, 6));
    let mean = x.mean_dim([0_i64].as_slice(), true, Kind::Double);
    let centred = &x - &mean;
    // The singular values of the centred activations, another way to the same variances.
    let (_, s, v) = centred.svd(true, true);
    let v = v.tr();
    let shares = s.square() / s.square().sum(Kind::Double);
    let own: Vec<f64> = found.directions.iter().map(|one| one.variance_share).collect();
    near(&own, &shares.narrow(0, 0, 6), 1e-10);
    let norms = x.norm_scalaropt_dim(2.0, [1], false).view([8, 9]);
    near(&found.norm, &norms.mean_dim([0_i64].as_slice(), false, Kind::Double), 1e-10);
    for (index, direction) in found.directions.iter().enumerate() {
        let along = centred.matmul(&v.get(index as i64)).view([8, 9]);
        let along = along.mean_dim([0_i64].as_slice(), false, Kind::Double);
        // A direction has no sign of its own.
        let sign = (along.double_value(&[0]) * direction.by_position[0]).signum();
        near(&direction.by_position, &(along * sign), 1e-9);
        assert!(direction.by_position.iter().sum::<f64>().abs() < 1e-9);
        assert!(direction.resampling_kl > 0.0);
    }
    assert!(found.random_resampling_kl > 0.0);
    // Resampling what carries most costs more than resampling what carries little.
    assert!(found.directions[0].resampling_kl > found.directions[5].resampling_kl);
    // The seed decides.
    assert_eq!(site_activations(&model, &principal, asked, 0).unwrap(), found);
    assert_ne!(site_activations(&model, &principal, asked, 1).unwrap(), found);
    // The mean of the first position, and who is along the first direction how far.
    let first = x.view([8, 9, 32]).select(1, 0).mean_dim([0_i64].as_slice(), false, Kind::Double);
    near(&found.first_position, &(&first / first.norm()), 1e-9);
    let u = Tensor::from_slice(&found.directions[0].vector);
    assert!((u.norm().double_value(&[]) - 1.0).abs() < 1e-9);
    let along = Vec::<f64>::try_from(x.matmul(&u)).unwrap();
    let ids: Vec<i64> =
        batches.iter().flat_map(|own| Vec::try_from(own.flatten(0, -1)).unwrap()).collect();
    let kind = |token: usize| match (token % 9, ids[token] == end) {
        (0, _) => 0,
        (_, true) => 1,
        (_, false) => 2,
    };
    assert_eq!(found.along_first.len(), 3);
    for (number, own) in found.along_first.iter().enumerate() {
        let values = (0..72).filter(|&token| kind(token) == number).map(|token| along[token]);
        let values: Vec<f64> = values.collect();
        assert_eq!(own.counts.iter().sum::<u64>() as usize, values.len(), "{}", own.kind);
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        assert!((own.range[0] - low).abs() < 1e-9 && (own.range[1] - high).abs() < 1e-9);
    }
    let without = site_activations(&model, &principal, (&batches, None), 0).unwrap();
    let kinds: Vec<&str> = without.along_first.iter().map(|own| own.kind.as_str()).collect();
    assert_eq!(kinds, ["first position", "other"]);
}

/// Features +1 and −1 of every direction reproduce an activation; half of each dictionary element's activation halves it.
#[test]
fn an_sae_that_halves() {
    let model = SplicedModel::new(language_model());
    let (site, batches) = (SITE.parse::<Site>().unwrap(), batches(&model));
    let eye = Tensor::eye(32, (Kind::Double, Device::Cpu));
    let both = Tensor::cat(&[&eye, &-&eye], 0);
    let zeros = |n| Tensor::zeros([n], (Kind::Double, Device::Cpu));
    let tensors = vec![&both * 0.5, zeros(64), both, zeros(32)];
    let sae = Dictionary::from_tensors(&Architecture::default(), tensors).unwrap();
    let loss: LossConfig =
        serde_json::from_str(r#"{"sparsity": {"coeff": 1.0}, "kl": {"coeff": 1.0}}"#).unwrap();
    let member = Member::new(&model, vec![PlacedDictionary::sae(site, sae)], &loss).unwrap();
    let principals = [Principal::of(&model, site, &batches, 3).unwrap()];
    let found =
        sae_activations(&model, &member, &principals, &batches).unwrap().remove(&site).unwrap();
    near(&found.norm_ratio, &(zeros(9) + 0.5), 1e-12);
    near(&found.cosine, &(zeros(9) + 1.0), 1e-12);
    // 1 − Σ (u · x / 2)² / Σ (u · (x − mean))².
    let x = clean(&model, site, &batches);
    let mean = x.mean_dim([0_i64].as_slice(), true, Kind::Double);
    let (_, _, v) = (&x - &mean).svd(true, true);
    let v = v.tr();
    let directions = v.narrow(0, 0, 3).tr();
    let sums = |x: &Tensor| {
        x.matmul(&directions).square().sum_dim_intlist([0_i64].as_slice(), false, Kind::Double)
    };
    near(&found.explained_variance, &(1.0 - sums(&(&x * 0.5)) / sums(&(&x - &mean))), 1e-9);
    // Half of everything goes with everything, and points the same way.
    let correlation: Vec<f64> = found.correlation.iter().copied().flatten().collect();
    near(&correlation, &(zeros(3) + 1.0), 1e-9);
    assert_eq!(found.cosines.iter().sum::<u64>(), 72);
    assert_eq!(found.cosines.last(), Some(&72));
    assert_eq!(found.norms.len(), 72);
    assert!(found.norms.iter().all(|[own, hat]| (hat - own / 2.0).abs() < 1e-9));
    let u = Tensor::from_slice(&Vec::<f64>::try_from(directions.select(1, 0)).unwrap());
    let halved = (&x * 0.5 - &mean).matmul(&u).view([8, 9]);
    let halved = halved.mean_dim([0_i64].as_slice(), false, Kind::Double);
    let sign = (halved.double_value(&[0]) * found.reconstructed_by_position[0][0]).signum();
    near(&found.reconstructed_by_position[0], &(halved * sign), 1e-9);
    // A site that was not prepared is an error.
    assert!(sae_activations(&model, &member, &[], &batches).is_err());
}
