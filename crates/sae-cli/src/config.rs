//! `sae config`: what the keys of configuration files mean.

use anyhow::bail;
use clap::Args;
use clap::builder::PossibleValuesParser;
use sae_config::keys::{FileKind, markdown};
use sae_config::nearest;

/// Say what the keys of configuration files mean, in a terminal, as a page, or as a JSON schema for editors
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sae config --explain sae.expansion
  sae config --explain train                 # a section, with its keys
  sae config --schema run > run.schema.json  # named by `#:schema ./run.schema.json` in a file's first line
  sae config --markdown > configuration.md   # all of it")]
#[group(required = true, multiple = false)]
pub(crate) struct Arguments {
    /// A key, or a section
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

/// The key, or the section with those inside of it, of every kind of file that has it.
fn explain(path: &str) -> anyhow::Result<String> {
    let mut found: Vec<(FileKind, String)> = Vec::new();
    let mut known = Vec::new();
    let inside = format!("{path}.");
    for kind in FileKind::ALL {
        for section in kind.sections() {
            if (section.path == path || section.path.starts_with(&inside)) && !path.is_empty() {
                match found.last_mut() {
                    Some((of, text)) if *of == kind => {
                        text.push('\n');
                        text.push_str(&section.explain());
                    }
                    _ => found.push((kind, section.explain())),
                }
            }
            for key in section.keys {
                if key.path == path {
                    found.push((kind, key.explain()));
                }
                known.push(key.path);
            }
            known.push(section.path);
        }
    }
    match found.as_slice() {
        [] => {
            let ends = known.iter().filter(|key| key.ends_with(&format!(".{path}")));
            let mut near: Vec<&str> = ends.map(String::as_str).collect();
            near.dedup();
            if near.is_empty() {
                near.extend(nearest(path, known.iter().map(String::as_str)));
            }
            match near.as_slice() {
                [] => bail!("there is no key `{path}`; `sae config --markdown` lists all"),
                near => bail!("there is no key `{path}`; did you mean `{}`?", near.join("` or `")),
            }
        }
        [(_, text)] => Ok(text.clone()),
        several => Ok(several
            .iter()
            .map(|(kind, text)| format!("# of a {} file\n{text}", kind.name()))
            .collect::<Vec<_>>()
            .join("\n")),
    }
}
