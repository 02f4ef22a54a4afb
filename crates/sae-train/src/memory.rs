//! Whether the SAEs of a bank fit into memory, and what took it where there is none left; the estimate is that of
//! `sae_config::estimate`.

use std::path::Path;

use sae_config::RunConfig;
use sae_config::estimate::{MemoryUse, ModelShape, memory_uses, parameter_bytes};
use sae_model::{Transformer, device};

use crate::TrainError;

/// Refuses SAEs that do not fit into the machine's memory before anything is drawn or allocated for them.
pub(crate) fn check(configs: &[&RunConfig], model: &Transformer) -> Result<(), TrainError> {
    let available = device::memory(model.device()).map(|memory| memory.total as f64);
    match available.or_else(|| machine_bytes(Path::new("/"))) {
        Some(available) => fits(configs, shape(model), available),
        None => Ok(()),
    }
}

/// The parameters of every SAE and what is kept beside them, in bytes, against what there is.
fn fits(configs: &[&RunConfig], model: ModelShape, available: f64) -> Result<(), TrainError> {
    let needed = parameter_bytes(model, configs);
    let d_model = model.d_model as usize;
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

/// Where memory has run out, the error names what takes it; every other error stays as it is.
pub(crate) fn explain(
    error: TrainError,
    configs: &[&RunConfig],
    model: &Transformer,
) -> TrainError {
    let text = error.to_string();
    let Some(message) = text.lines().find(|line| is_out_of_memory(line)) else { return error };
    let mut uses = memory_uses(shape(model), configs);
    uses.sort_by(|a, b| b.bytes.total_cmp(&a.bytes));
    let show = |MemoryUse { what, bytes }: &MemoryUse| format!("{what} {:.2} GB", bytes / 1e9);
    let uses: Vec<String> = uses.iter().map(show).collect();
    TrainError::OutOfMemory {
        message: message.trim().to_owned(),
        uses: uses.join(", "),
        effective: configs.first().map_or(0, |config| config.effective_batch_size()),
    }
}

/// What memory depends on of a model.
fn shape(model: &Transformer) -> ModelShape {
    let sizes = model.config();
    let [n_layers, d_model, d_mlp, vocabulary, n_parameters] =
        [sizes.n_layers, sizes.d_model, sizes.d_mlp, sizes.vocabulary, model.n_parameters()]
            .map(|n| n as u64);
    ModelShape { n_layers, d_model, d_mlp, vocabulary, n_parameters }
}

/// As libtorch's allocators for GPUs and for CPUs say it.
fn is_out_of_memory(line: &str) -> bool {
    line.contains("out of memory") || line.contains("can't allocate memory")
}

#[cfg(test)]
mod tests {
    use sae_model::ModelConfig;
    use tch::{Device, Kind};

    use super::*;

    fn tiny() -> ModelShape {
        ModelShape::gpt2(6, 128, 4096, 128)
    }

    #[test]
    fn a_dictionary_larger_than_the_machine_is_refused_before_it_is_made() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/runs/rust-lm.toml");
        let text = std::fs::read_to_string(root).unwrap();
        let with = |expansion: &str| {
            let text = text.replace("expansion = 16", &format!("expansion = {expansion}"));
            RunConfig::parse(&text, "run.toml").unwrap()
        };
        // 46 080 elements were meant, not 46 080 · 128: 5.9 M × 257 numbers × 6 × 4 bytes = 36 GB.
        let slip = with("46080");
        let error = fits(&[&slip], tiny(), 24e9).unwrap_err().to_string();
        for part in ["5898240 dictionary elements", "sae.expansion = 46080", "36.4 GB", "24.0 GB"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(
            fits(&[&slip], tiny(), 40e9).is_ok() && fits(&[&slip, &slip], tiny(), 40e9).is_err()
        );
        assert!(fits(&[&with("360")], tiny(), 24e9).is_ok());
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
        // 16 windows × 128 tokens × (F = 2 048, three runs, and one's gradients) × 4 bytes = 84 MB.
        let torch = |message: &str| TrainError::Torch(tch::TchError::Torch(message.to_owned()));
        let real = "CUDA out of memory. Tried to allocate 20.00 MiB.\nException raised from x.cpp";
        let text = explain(torch(real), &[&config; 3], &model).to_string();
        for part in [
            "Tried to allocate 20.00 MiB.",
            "feature activations of 2048 tokens and their gradients 0.08 GB",
            "activations of 9 blocks after the SAEs of all runs 0.23 GB",
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
