//! `cargo xtask corpus`: Rust source code that cargo fetches → text parquet shards, split by crate.
//!
//! The crates are those of `data/rust-corpus/Cargo.lock`. Of each name the highest version is taken, of each crate at
//! most 400 kB of hand-written `.rs` files in the order of their paths.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use cargo_metadata::{MetadataCommand, Package};
use clap::Args;
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::tool;

/// Make the corpus of the embedded language model: Rust source code as parquet shards in data/corpus
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Use this binary instead of building one
    #[arg(long, value_name = "PATH")]
    sae: Option<PathBuf>,
}

/// Bytes of a file that is taken.
const FILE_BYTES: std::ops::RangeInclusive<usize> = 400..=64 << 10;
/// Bytes taken of a crate.
const CRATE_BYTES: usize = 400_000;
/// Crates in a hundred that go to validation.
const VALIDATION_PERCENT: u64 = 3;
/// Raised when the rules below change, so that an old corpus is made again.
const RULES: u32 = 1;

/// What a corpus was made of: `corpus.json`, written last.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Stamp {
    rules: u32,
    lockfile: u64,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    ensure(arguments.sae.as_deref()).map(|_| ())
}

/// Makes the corpus if it is not there; safe to call from several processes at once.
pub(crate) fn ensure(sae: Option<&Path>) -> anyhow::Result<PathBuf> {
    let folder = tool::root().join("data/corpus");
    let manifest = tool::root().join("data/rust-corpus/Cargo.toml");
    let lockfile = std::fs::read(manifest.with_extension("lock"))
        .context("cannot read data/rust-corpus/Cargo.lock")?;
    let wanted = Stamp { rules: RULES, lockfile: hash(&lockfile) };
    let made = || -> Option<Stamp> {
        serde_json::from_slice(&std::fs::read(folder.join("corpus.json")).ok()?).ok()
    };
    if made().as_ref() == Some(&wanted) {
        return Ok(folder);
    }
    let sae = tool::sae(sae)?;
    std::fs::create_dir_all(&folder)?;
    let lock = File::create(folder.join(".lock"))?;
    lock.lock().context("cannot lock data/corpus")?;
    if made().as_ref() == Some(&wanted) {
        return Ok(folder);
    }
    tool::say("fetching the crates of the corpus (about 55 MB)");
    let metadata = MetadataCommand::new()
        .manifest_path(&manifest)
        .other_options(vec![
            "--locked".to_owned(),
            "--filter-platform".to_owned(),
            "x86_64-unknown-linux-gnu".to_owned(),
        ])
        .exec()
        .context("cannot fetch the crates of data/rust-corpus")?;
    let split = select(metadata.packages)?;
    for (name, files) in [("train", &split.train), ("validation", &split.validation)] {
        let list = folder.join(format!("{name}.txt"));
        let lines: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        std::fs::write(&list, lines.join("\n"))?;
        let shards = folder.join(name);
        if shards.exists() {
            std::fs::remove_dir_all(&shards)?;
        }
        let mut command = Command::new(&sae);
        command.arg("prepare").arg("--file-list").arg(&list).arg("--out").arg(&shards);
        tool::run(&mut command)?;
    }
    std::fs::write(folder.join("corpus.json"), serde_json::to_string(&wanted)?)?;
    Ok(folder)
}

/// The files of both parts, in a fixed order.
struct Split {
    train: Vec<PathBuf>,
    validation: Vec<PathBuf>,
}

fn select(packages: Vec<Package>) -> anyhow::Result<Split> {
    let mut highest: BTreeMap<String, Package> = BTreeMap::new();
    for package in packages {
        let excluded = package.source.is_none()
            || package.name.ends_with("-sys")
            || ["windows", "winapi", "objc2", "web-sys", "js-sys"]
                .iter()
                .any(|prefix| package.name.starts_with(prefix))
            || package.name == "libc";
        let name = package.name.to_string();
        let newer = highest.get(&name).is_none_or(|other| other.version < package.version);
        if !excluded && newer {
            highest.insert(name, package);
        }
    }
    let rules = Rules::new()?;
    let mut seen = HashSet::new();
    let mut split = Split { train: Vec::new(), validation: Vec::new() };
    for (name, package) in &highest {
        let validation = hash(name.as_bytes()) % 100 < VALIDATION_PERCENT;
        let part = if validation { &mut split.validation } else { &mut split.train };
        let folder = package.manifest_path.parent().context("a manifest without a folder")?;
        let mut files = Vec::new();
        rust_files(folder.as_std_path(), &mut files)?;
        files.sort();
        let mut bytes = 0;
        for file in files {
            let relative =
                file.strip_prefix(folder).unwrap_or(&file).to_string_lossy().to_lowercase();
            let Ok(text) = std::fs::read_to_string(&file) else { continue };
            if !rules.accept(&relative, &text) || !seen.insert(hash(text.as_bytes())) {
                continue;
            }
            bytes += text.len();
            if bytes > CRATE_BYTES {
                break;
            }
            part.push(file);
        }
    }
    Ok(split)
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in
        std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// What tells hand-written source from bindings, generated code and data.
struct Rules {
    generated: Regex,
}

impl Rules {
    fn new() -> anyhow::Result<Self> {
        let generated = Regex::new(
            r"(?im)^\s*//[/!]?\s*(auto-?\s?generated|generated (from|by|using)|this (is|file is|file was) (auto-?)?generated)|@generated|automatically generated|do not edit",
        )?;
        Ok(Self { generated })
    }

    fn accept(&self, path: &str, text: &str) -> bool {
        let named = [
            "bindings",
            "generated",
            "bindgen",
            "tables",
            "unicode_data",
            ".expanded.",
            ".expected.",
        ];
        if !FILE_BYTES.contains(&text.len()) || named.iter().any(|word| path.contains(word)) {
            return false;
        }
        let head = &text[..text.floor_char_boundary(2000)];
        let (mut digits, mut printed, mut foreign) = (0, 0, 0);
        for c in text.chars().filter(|c| !c.is_whitespace()) {
            printed += 1;
            digits += usize::from(c.is_ascii_digit());
            foreign += usize::from(!c.is_ascii());
        }
        !self.generated.is_match(head)
            && digits * 4 <= printed
            && foreign * 10 <= printed
            && text.lines().all(|line| line.len() <= 1000)
    }
}

/// FNV-1a: the same on every platform and for every version of the standard library.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::{Rules, hash};

    #[test]
    fn hand_written_source_is_told_from_the_rest() {
        let rules = Rules::new().unwrap();
        let code =
            "fn main() {\n    let answer = compute();\n    println!(\"{answer}\");\n}\n".repeat(10);
        assert!(rules.accept("src/main.rs", &code));
        assert!(!rules.accept("src/bindings.rs", &code));
        assert!(!rules.accept("src/main.rs", &code[..300]), "too short");
        assert!(!rules.accept("src/main.rs", &format!("// @generated by a tool\n{code}")));
        assert!(!rules.accept("src/main.rs", &"0x12345678, 0x9abcdef0,\n".repeat(40)), "a table");
        assert!(!rules.accept("src/main.rs", &format!("{code}// {}", "x".repeat(1001))));
    }

    #[test]
    fn hash_is_fnv_1a() {
        assert_eq!(hash(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
