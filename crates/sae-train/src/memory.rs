//! What a training step needs memory for, about: for the error that says that there is none left.
//!
//! `N` tokens of a batch, `D` width of the residual stream, `F` dictionary elements, `K` members, `V` vocabulary.

use std::path::Path;

use sae_config::RunConfig;
use sae_config::run::Precision;
use sae_model::{Transformer, device};

use crate::TrainError;

/// Refuses SAEs that do not fit into the machine's memory before anything is drawn or allocated for them.
pub(crate) fn check(configs: &[&RunConfig], model: &Transformer) -> Result<(), TrainError> {
    let available = device::memory(model.device()).map(|memory| memory.total as f64);
    match available.or_else(|| machine_bytes(Path::new("/"))) {
        Some(available) => fits(configs, model.config().d_model, available),
        None => Ok(()),
    }
}

/// Parameters, gradients, two moments and the kept copy of every SAE, in bytes, against what there is.
fn fits(configs: &[&RunConfig], d_model: usize, available: f64) -> Result<(), TrainError> {
    let needed: f64 = configs
        .iter()
        .map(|config| {
            let number = if config.train.precision == Precision::F64 { 8.0 } else { 4.0 };
            let elements = config.n_features(d_model) as f64 * config.sae.sites.len() as f64;
            5.0 * number * elements * (2.0 * d_model as f64 + 1.0)
        })
        .sum();
    let largest = configs.iter().max_by_key(|config| config.n_features(d_model));
    match largest {
        Some(config) if needed > available => Err(TrainError::TooLarge {
            elements: config.n_features(d_model),
            expansion: config.sae.expansion.get(),
            d_model,
            needed: needed / 1e9,
            available: available / 1e9,
        }),
        _ => Ok(()),
    }
}

/// Bytes of memory that this process may use: the machine's, or its control group's where that is less. `None` where the
/// system does not say.
fn machine_bytes(root: &Path) -> Option<f64> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let text = read("proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let all = line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()? * 1024.0;
    let group = read("sys/fs/cgroup/memory.max").and_then(|text| text.trim().parse::<f64>().ok());
    Some(group.map_or(all, |group| group.min(all)))
}

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
    fn a_dictionary_larger_than_the_machine_is_refused_before_it_is_made() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/runs/rust-lm.toml");
        let text = std::fs::read_to_string(root).unwrap();
        let with = |expansion: &str| {
            let text = text.replace("expansion = 16", &format!("expansion = {expansion}"));
            RunConfig::parse(&text, "run.toml").unwrap()
        };
        // 46 080 elements were meant, not 46 080 · 128: 5.9 M × 257 numbers × 5 × 4 bytes = 30 GB.
        let slip = with("46080");
        let error = fits(&[&slip], 128, 24e9).unwrap_err().to_string();
        for part in ["5898240 dictionary elements", "sae.expansion = 46080", "30.3 GB", "24.0 GB"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(fits(&[&slip], 128, 40e9).is_ok() && fits(&[&slip, &slip], 128, 40e9).is_err());
        assert!(fits(&[&with("360")], 128, 24e9).is_ok());
    }

    #[test]
    fn memory_is_the_machines_or_its_control_groups() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let found =
            |bytes: f64| machine_bytes(root.path()).is_some_and(|all| (all - bytes).abs() < 1.0);
        assert!(machine_bytes(root.path()).is_none());
        write("proc/meminfo", "MemTotal:       24000000 kB\nMemFree: 1 kB\n");
        assert!(found(24_576_000_000.0));
        write("sys/fs/cgroup/memory.max", "max\n");
        assert!(found(24_576_000_000.0));
        write("sys/fs/cgroup/memory.max", "8000000000\n");
        assert!(found(8e9));
    }

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
