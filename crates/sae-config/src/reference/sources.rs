//! The reference's names of models, tokenisers and data sets, as sources: what lies on this machine goes first, as in the
//! libraries that read these names there; everything else is a repository of the hub.

use std::path::{Path, PathBuf};

use crate::{ConfigError, Source};

/// A model: a folder with `config.json`, a reference to the hub, or a name that TransformerLens knows.
pub(super) fn model(origin: &str, key: &'static str, name: &str) -> Result<Source, ConfigError> {
    if Path::new(name).join("config.json").is_file() {
        return Ok(Source::Local(PathBuf::from(name)));
    }
    let known = if is_hub(name) { Some(name.to_owned()) } else { hub_name(name) };
    known.and_then(|name| on_hub(&name)).ok_or_else(|| {
        ConfigError::invalid(
            origin,
            key,
            found(name, "config.json"),
            "expected a name that TransformerLens knows of a supported family (gpt2-small, pythia-14m, \
             tiny-stories-1M, gpt-neo-125M), owner/name as on the hub, or a folder with config.json",
        )
    })
}

/// A tokeniser: a folder with `tokenizer.json`, as `save_pretrained` writes it, a model's folder, that file itself, or a
/// repository of the hub.
pub(super) fn tokenizer(
    origin: &str,
    key: &'static str,
    name: &str,
) -> Result<Source, ConfigError> {
    let path = Path::new(name);
    let has = |file: &str| path.join(file).is_file();
    if path.is_file() || has("tokenizer.json") || has("config.json") {
        return Ok(Source::Local(path.to_owned()));
    }
    if path.is_dir() {
        return Err(ConfigError::invalid(
            origin,
            key,
            format!("`{name}`"),
            "that folder has no tokenizer.json: write one with `save_pretrained` of a fast tokeniser, or put hf:// before \
             the name if a repository of the hub is meant",
        ));
    }
    let known = if is_hub(name) { None } else { hub_name(name) };
    on_hub(known.as_deref().unwrap_or(name)).ok_or_else(|| {
        ConfigError::invalid(
            origin,
            key,
            found(name, "tokenizer.json"),
            "expected a folder with tokenizer.json, that file itself, or a name as on the hub: gpt2, owner/name",
        )
    })
}

/// A data set: parquet files of this machine, or a repository of the hub.
pub(super) fn dataset(origin: &str, key: &'static str, name: &str) -> Result<Source, ConfigError> {
    let path = Path::new(name);
    if holds_parquet(path) {
        return Ok(Source::Local(path.to_owned()));
    }
    on_hub(name).ok_or_else(|| {
        ConfigError::invalid(
            origin,
            key,
            found(name, "parquet file"),
            "expected a parquet file, a folder of them, or owner/name as on the hub",
        )
    })
}

/// A path, or a reference to the hub.
pub(super) fn any(origin: &str, text: &str) -> Result<Source, ConfigError> {
    text.parse().map_err(|error| ConfigError::parse(origin, &error))
}

fn is_hub(name: &str) -> bool {
    name.starts_with("hf://")
}

/// A repository of the hub, where the name can be one.
fn on_hub(name: &str) -> Option<Source> {
    if is_hub(name) { name.parse().ok() } else { format!("hf://{name}").parse().ok() }
}

/// A name that stands for nothing, and why.
fn found(name: &str, missing: &str) -> String {
    let here = Path::new(name).exists();
    format!("`{name}`{}", if here { format!(", which has no {missing}") } else { String::new() })
}

/// A parquet file, or a folder with some in it or in its folders.
fn holds_parquet(path: &Path) -> bool {
    let is_parquet = |path: &Path| path.extension().is_some_and(|extension| extension == "parquet");
    if path.is_file() {
        return is_parquet(path);
    }
    let Ok(entries) = std::fs::read_dir(path) else { return false };
    entries.flatten().any(|entry| {
        let path = entry.path();
        is_parquet(&path) || path.is_dir() && holds_parquet(&path)
    })
}

/// The hub's name of a model that TransformerLens knows by a short one; names with an owner are the hub's already.
pub fn hub_name(name: &str) -> Option<String> {
    if name.contains('/') {
        return Some(name.to_owned());
    }
    let known = match name {
        "gpt2" | "gpt2-small" => "openai-community/gpt2",
        "distilgpt2" | "distillgpt2" | "distill-gpt2" | "distil-gpt2" | "gpt2-xs" => {
            "distilbert/distilgpt2"
        }
        "neo" | "neo-small" | "gpt-neo-small" | "gpt-neo-125M" => "EleutherAI/gpt-neo-125m",
        "neo-medium" | "gpt-neo-medium" | "gpt-neo-1.3B" => "EleutherAI/gpt-neo-1.3B",
        "neo-large" | "gpt-neo-large" | "gpt-neo-2.7B" => "EleutherAI/gpt-neo-2.7B",
        "neox" | "gpt-neox" | "gpt-neox-20b" => "EleutherAI/gpt-neox-20b",
        "tiny-stories-1L-21M" => "roneneldan/TinyStories-1Layer-21M",
        "tiny-stories-2L-33M" => "roneneldan/TinyStories-2Layers-33M",
        // The hub's name is spelt so.
        "tiny-stories-instruct-1L-21M" => "roneneldan/TinyStories-Instuct-1Layer-21M",
        "tiny-stories-instruct-2L-33M" => "roneneldan/TinyStories-Instruct-2Layers-33M",
        "gpt2-medium" | "gpt2-large" | "gpt2-xl" => {
            return Some(format!("openai-community/{name}"));
        }
        _ if name.starts_with("pythia-") => return Some(format!("EleutherAI/{name}")),
        _ => {
            let size = name.strip_prefix("tiny-stories-")?;
            return Some(match size.strip_prefix("instruct-") {
                Some(size) => format!("roneneldan/TinyStories-Instruct-{size}"),
                None => format!("roneneldan/TinyStories-{size}"),
            });
        }
    };
    Some(known.to_owned())
}
