//! Where few features are active, training takes another way than where many are: over 50 steps it tells the same.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sae_config::Site;
use sae_config::loss::LossConfig;
use sae_model::{ModelConfig, Transformer};
use sae_splice::{Member, SplicedModel};
use sae_train::optim::{Adam, AdamOptions, clip_factor, global_norm, read};
use tch::{Device, Kind, Tensor, no_grad};

const FEATURES: usize = 512;
const STEPS: u64 = 50;

fn tokens(step: u64) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(step);
    let ids: Vec<i64> = (0..8 * 16).map(|_| rng.random_range(0..200)).collect();
    Tensor::from_slice(&ids).view([8, 16])
}

/// Encoder biases with which about 1 in 40 features is active, `[F]` in f64.
fn biases(site: Site) -> Tensor {
    let model = model(Kind::Double);
    let clean = model.clean_pass(&tokens(STEPS), &[site].into(), false).unwrap();
    let x = clean.activation(site).unwrap().reshape([-1, 32]);
    let member = Member::random(&model, &[site], FEATURES, &loss(), 0).unwrap();
    no_grad(|| -x.matmul(&member.parameters()[0].tr()).quantile_scalar(0.975, 0, false, "linear"))
}

fn model(kind: Kind) -> SplicedModel {
    let config = ModelConfig::gpt2(3, 32, 2, 16, 200);
    SplicedModel::new(Transformer::random(config, 0, Device::Cpu, kind).unwrap())
}

fn loss() -> LossConfig {
    let text = r#"{"sparsity": {"coeff": 0.01}, "kl": {"coeff": 1.0}, "local": {"coeff": 1.0}}"#;
    serde_json::from_str(text).unwrap()
}

/// Every step's loss and L0.
fn train(kind: Kind) -> Vec<(f64, f64)> {
    let (model, site) = (model(kind), Site::resid_pre(1));
    let member = Member::random(&model, &[site], FEATURES, &loss(), 0).unwrap();
    no_grad(|| member.parameters()[1].shallow_clone().copy_(&biases(site)));
    let parameters = member.parameters().into_iter().map(|tensor| (tensor.shallow_clone(), 0.0));
    let mut adam = Adam::new(parameters, AdamOptions::default()).unwrap();
    (0..STEPS)
        .map(|step| {
            let outcome = model.gradients(&[&member], &tokens(step), 1.0, step).unwrap().remove(0);
            let norm = read(&[global_norm(&outcome.gradients).unwrap()]).unwrap()[0];
            adam.step(&outcome.gradients, clip_factor(norm, Some(1.0)), 1e-4).unwrap();
            (outcome.terms.total.double_value(&[]), outcome.terms.l0.double_value(&[]))
        })
        .collect()
}

#[test]
fn few_active_features_train_as_many_do() {
    // In f64 libtorch's own operations are taken, in f32 the kernels.
    let (plain, fast) = (train(Kind::Double), train(Kind::Float));
    for (step, ((a, l0), (b, _))) in plain.iter().zip(&fast).enumerate() {
        assert!(*l0 > 2.0 && *l0 < FEATURES as f64 / 16.0, "{l0} active at step {step}");
        assert!((a - b).abs() < 1e-5 * a, "step {step}: {a} {b}");
    }
    assert!(plain[STEPS as usize - 1].0 < plain[0].0, "nothing was learnt");
}
