//! `sae config`: what the keys of configuration files mean.

use std::fmt::Write;

use anyhow::{anyhow, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use sae_config::keys::{FileKind, markdown};
use sae_config::nearest;

/// Say what the keys of configuration files mean, in a terminal, as a page, or as a JSON schema for editors
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sae config --explain sae.expansion
  sae config --explain train                 # a section, with its keys
  sae config --explain saes.dict_size_to_input_ratio    # what a key of the reference is here
  sae config --schema run > run.schema.json  # named by `#:schema ./run.schema.json` in a file's first line
  sae config --markdown > configuration.md   # all of it")]
#[group(required = true, multiple = false)]
pub(crate) struct Arguments {
    /// A key or a section, its last name alone where there is one of it; or a key of the reference, e2e_sae
    #[arg(long, value_name = "KEY")]
    explain: Option<String>,
    /// The JSON schema (draft 7) of a kind of file
    #[arg(long, value_name = "KIND", value_parser = PossibleValuesParser::new(FileKind::ALL.map(FileKind::name)))]
    schema: Option<String>,
    /// The page docs/configuration.md
    #[arg(long)]
    markdown: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let schema = arguments.schema.as_deref();
    match (&arguments.explain, FileKind::ALL.into_iter().find(|kind| Some(kind.name()) == schema)) {
        (Some(key), _) => crate::print(explain(key)?.trim_end()),
        (None, Some(kind)) => crate::print(&serde_json::to_string_pretty(&kind.schema())?),
        (None, None) => crate::print(markdown().trim_end()),
    }
}

/// The key, or the section with those inside of it, of every kind of file that has it; also by the reference's name of a key.
fn explain(path: &str) -> anyhow::Result<String> {
    let path = path.trim();
    if path.is_empty() {
        bail!("name a key or a section: {}", all_sections());
    }
    let inside = format!("{path}.");
    let mut found: Vec<(FileKind, String)> = Vec::new();
    let mut known = Vec::new();
    for kind in FileKind::ALL {
        for section in kind.sections() {
            if section.path == path || section.path.starts_with(&inside) {
                found.push((kind, section.explain()));
            }
            for key in section.keys {
                if key.path == path || key.reference.as_deref() == Some(path) {
                    found.push((kind, key.explain()));
                }
                known.push(key.path);
            }
            known.push(section.path);
        }
    }
    if found.is_empty() {
        return match ending_in(path, &known).as_slice() {
            [only] => explain(only),
            _ => Err(unknown(path, &known)),
        };
    }
    let mut text = String::new();
    let mut last = None;
    for (kind, part) in &found {
        if last != Some(kind) {
            let _ = writeln!(text, "# {} ({})\n", kind.title(), kind.command());
        }
        last = Some(kind);
        text.push_str(part);
        text.push('\n');
    }
    Ok(text)
}

/// Keys and sections whose last names are these, each once.
fn ending_in<'a>(name: &str, known: &'a [String]) -> Vec<&'a str> {
    let ending = format!(".{name}");
    let mut found: Vec<&str> =
        known.iter().filter(|key| key.ends_with(&ending)).map(String::as_str).collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn unknown(path: &str, known: &[String]) -> anyhow::Error {
    let mut near = ending_in(path, known);
    let last = path.rsplit('.').next().unwrap_or(path);
    if near.is_empty() && last.len() > 2 {
        // A part of a name, as `alive`.
        let holds = |key: &&str| key.rsplit('.').next().is_some_and(|own| own.contains(last));
        near.extend(known.iter().map(String::as_str).filter(holds));
        near.sort_unstable();
        near.dedup();
    }
    if near.is_empty() {
        near.extend(nearest(path, known.iter().map(String::as_str)));
    }
    match near.as_slice() {
        [] => anyhow!("there is no key `{path}`; `sae config --markdown` lists all"),
        near => anyhow!("there is no key `{path}`; did you mean `{}`?", near.join("` or `")),
    }
}

/// The sections of each kind of file, in words.
fn all_sections() -> String {
    let of = |kind: FileKind| {
        let sections = kind.sections();
        let paths = sections.iter().map(|section| section.path.as_str());
        let paths: Vec<&str> = paths.filter(|path| !path.is_empty()).collect();
        format!("{} has {}", kind.title(), paths.join(", "))
    };
    FileKind::ALL.map(of).join("; ")
}
