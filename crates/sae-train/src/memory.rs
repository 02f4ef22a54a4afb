//! What a training step needs memory for, about: for the error that says that there is none left.
//!
//! `N` tokens of a batch, `D` width of the residual stream, `F` dictionary elements, `K` members, `V` vocabulary.

use sae_config::RunConfig;
use sae_config::run::Precision;
use sae_model::Transformer;

use crate::TrainError;

/// A user of memory, and its bytes.
struct Use {
    what: String,
    bytes: f64,
}

/// Says of an error that memory ran out what took it; any other error stays what it is.
pub(crate) fn explain(
    error: TrainError,
    configs: &[&RunConfig],
    model: &Transformer,
) -> TrainError {
    let text = error.to_string();
    let Some(message) = text.lines().find(|line| is_out_of_memory(line)) else { return error };
    let mut uses = uses(configs, model);
    uses.sort_by(|a, b| b.bytes.total_cmp(&a.bytes));
    let uses: Vec<String> =
        uses.iter().map(|Use { what, bytes }| format!("{what} {:.2} GB", bytes / 1e9)).collect();
    TrainError::OutOfMemory {
        message: message.trim().to_owned(),
        uses: uses.join(", "),
        effective: configs.first().map_or(0, |config| config.effective_batch_size()),
    }
}

/// As libtorch's allocators for GPUs and for CPUs say it.
fn is_out_of_memory(line: &str) -> bool {
    line.contains("out of memory") || line.contains("can't allocate memory")
}

fn uses(configs: &[&RunConfig], model: &Transformer) -> Vec<Use> {
    let Some(config) = configs.first() else { return Vec::new() };
    let lm = model.config();
    let (d, k) = (lm.d_model as f64, configs.len() as f64);
    let n = (config.train.batch_size.get() * config.data.context_length.get()) as f64;
    let (full, low) = match config.train.precision {
        Precision::F32 => (4.0, 4.0),
        Precision::F64 => (8.0, 8.0),
        Precision::Bf16 => (4.0, 2.0),
    };
    let features: f64 = configs
        .iter()
        .map(|config| (config.n_features(lm.d_model) * config.sae.sites.len()) as f64)
        .sum();
    // Attention and MLP leave about 16 activations as wide as the residual stream in a block.
    let first = config.sae.sites.first().map_or(0, |site| site.block);
    let kept = if config.train.recompute { 1 } else { lm.n_layers.saturating_sub(first) };
    vec![
        Use { what: "the language model".to_owned(), bytes: low * model.n_parameters() as f64 },
        Use {
            what: "parameters, gradients, moments and the kept copy of the SAEs".to_owned(),
            bytes: 5.0 * full * 2.0 * d * features,
        },
        Use {
            what: format!("feature activations of {n} tokens and their gradients"),
            bytes: low * n * (features + features / k),
        },
        Use {
            what: format!("activations of {kept} blocks after the SAE, for each of {k} runs"),
            bytes: low * n * 16.0 * d * kept as f64 * k,
        },
    ]
}

#[cfg(test)]
mod tests {
    use sae_model::ModelConfig;
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn an_error_of_memory_says_what_took_it() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/runs/rust-lm.toml");
        let mut config = RunConfig::load(root.as_ref()).unwrap();
        let model = Transformer::random(
            ModelConfig::gpt2(6, 128, 4, 128, 4096),
            0,
            Device::Cpu,
            Kind::Float,
        )
        .unwrap();
        // 16 windows × 128 tokens × (F = 2 048, three runs, and one gradient) × 4 bytes = 67 MB.
        let torch = |message: &str| TrainError::Torch(tch::TchError::Torch(message.to_owned()));
        let real = "CUDA out of memory. Tried to allocate 20.00 MiB.\nException raised from x.cpp";
        let text = explain(torch(real), &[&config; 3], &model).to_string();
        for part in [
            "Tried to allocate 20.00 MiB.",
            "feature activations of 2048 tokens and their gradients 0.07 GB",
            "activations of 3 blocks after the SAE, for each of 3 runs 0.15 GB",
            "train.effective_batch_size at 16",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("x.cpp"));
        config.train.recompute = true;
        let cpu = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you";
        let text = explain(torch(cpu), &[&config], &model).to_string();
        assert!(text.contains("activations of 1 blocks"), "{text}");
        assert!(matches!(explain(torch("shape"), &[&config], &model), TrainError::Torch(_)));
    }
}
