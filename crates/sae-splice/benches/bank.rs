//! Gradients of a bank by themselves: one SAE, and four that share what the clean pass gives.
#![allow(missing_docs, clippy::unwrap_used)] // Criterion's macros make items without docs; a panic is the report.

use criterion::{Criterion, criterion_group, criterion_main};
use sae_config::Site;
use sae_config::loss::LossConfig;
use sae_model::{ModelConfig, Transformer};
use sae_splice::{Member, SplicedModel};
use tch::{Device, Kind, Tensor};

fn bank(c: &mut Criterion) {
    let config = ModelConfig::gpt2(4, 64, 4, 64, 2048);
    let model =
        SplicedModel::new(Transformer::random(config, 0, Device::Cpu, Kind::Float).unwrap());
    let tokens = Tensor::randint(2048, [8, 64], (Kind::Int64, Device::Cpu));
    for (name, loss) in [
        ("local", r#"{"sparsity": {"coeff": 1.0}, "local": {"coeff": 1.0}}"#),
        ("e2e", r#"{"sparsity": {"coeff": 1.0}, "kl": {"coeff": 1.0}}"#),
    ] {
        let loss: LossConfig = serde_json::from_str(loss).unwrap();
        let members: Vec<Member> = (0..4)
            .map(|seed| Member::random(&model, &[Site::resid_pre(2)], 1024, &loss, seed).unwrap())
            .collect();
        for size in [1, 4] {
            let members: Vec<&Member> = members.iter().take(size).collect();
            c.bench_function(&format!("gradients: {name}, bank of {size}"), |b| {
                b.iter(|| model.gradients(&members, &tokens, 1.0, 0).unwrap());
            });
        }
    }
}

criterion_group!(
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(std::time::Duration::from_millis(500));
    targets = bank
);
criterion_main!(benches);
