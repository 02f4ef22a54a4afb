//! `sae generate`: text with and without the SAEs.

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail, ensure};
use clap::Args;
use sae_config::Site;
use sae_model::device::DeviceChoice;
use sae_model::generate::Sampling;
use sae_record::{Event, Phase};
use sae_splice::{Change, FeatureEdit};
use sae_train::generate::{Generated, Request, generate};
use sae_train::progress::Observer;

use crate::configuration::{Settings, check_place, trained};
use crate::telemetry::Telemetry;

/// Go on with a text, by the model alone and with its SAEs spliced in, side by side; beside them with features edited
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sae generate runs/rust-lm/e2e_sparsity-0.8 --prompt 'impl Iterator for '
  sae generate runs/first --prompt 'Once upon a time' --greedy --tokens 40
  # What a feature does: without it, and with it everywhere
  sae generate runs/first --prompt 'fn main() {' --greedy --ablate 17
  sae generate runs/first --prompt 'fn main() {' --greedy --set 42=3.0
  sae generate out/samples_400000.pt --prompt 'The' --top-k 50 --top-p 0.9 --temperature 0.8 --seed 3")]
pub(crate) struct Arguments {
    /// A run's folder, a checkpoint in it, or a .pt of the reference
    #[arg(value_name = "SAES")]
    saes: String,
    /// The text to go on from
    #[arg(long, default_value = "")]
    prompt: String,
    /// Tokens to add
    #[arg(long, default_value_t = 60, value_name = "N")]
    tokens: usize,
    /// Always the likeliest token
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p"])]
    greedy: bool,
    /// Divides the logits: below 1 likelier tokens, above 1 more varied ones
    #[arg(long, default_value_t = 1.0)]
    temperature: f64,
    /// Choose among the K likeliest tokens
    #[arg(long, value_name = "K")]
    top_k: Option<std::num::NonZeroUsize>,
    /// Choose among the likeliest tokens that have this probability together
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,
    /// Begin with the beginning-of-text token (the reference does so by default) [default: as the training data does]
    #[arg(long, conflicts_with = "no_bos")]
    bos: bool,
    /// Begin with the prompt itself
    #[arg(long)]
    no_bos: bool,
    /// Seed of the choice
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Leave a feature out; may be given several times, as the next two
    #[arg(long, value_name = "[SITE:]FEATURE")]
    ablate: Vec<String>,
    /// Multiply a feature's activation
    #[arg(long, value_name = "[SITE:]FEATURE=FACTOR")]
    scale: Vec<String>,
    /// Set a feature's activation on every token, or another value of a key of the configuration, as model.path=PATH
    #[arg(long = "set", value_name = "[SITE:]FEATURE=VALUE")]
    set: Vec<String>,
    /// The SAEs' configuration, where it does not lie beside them
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(crate) fn run(
    arguments: &Arguments,
    device: DeviceChoice,
    telemetry: &mut Telemetry,
) -> anyhow::Result<()> {
    let &Arguments { temperature, top_p, tokens, .. } = arguments;
    ensure!(
        temperature.is_finite() && temperature > 0.0,
        "--temperature is {temperature}, expected a number above 0 (--greedy is its limit)"
    );
    ensure!(
        top_p.is_none_or(|p| p > 0.0 && p <= 1.0),
        "--top-p is {}, expected above 0 and at most 1",
        top_p.unwrap_or_default()
    );
    let sampling = if arguments.greedy {
        Sampling::Greedy
    } else {
        Sampling::Random { temperature, top_k: arguments.top_k.map(usize::from), top_p }
    };
    let mut found = trained(&arguments.saes, arguments.config.as_deref())?;
    let (set_features, settings): (Vec<String>, Vec<String>) =
        arguments.set.iter().cloned().partition(|set| names_feature(set));
    found.config = Settings::from(settings).apply_to_trained(found.config)?;
    let edits = edits(arguments, &set_features, &found.config.sae.sites)?;
    check_place(&found.config)?;
    let bos = match (arguments.bos, arguments.no_bos) {
        (true, _) => true,
        (_, true) => false,
        _ => found.config.data.bos,
    };
    let texts = if edits.is_empty() { 2 } else { 3 };
    let (prompt, seed) = (arguments.prompt.as_str(), arguments.seed);
    let request = Request { prompt, bos, tokens, sampling, seed, edits };
    telemetry.notice(Event::began(Phase::Generate, texts * tokens as u64, 1));
    let texts = generate(&found.config, &found.saes, &request, device.resolve()?, |done| {
        telemetry.notice(Event::advanced(done as u64));
    })?;
    telemetry.notice(Event::Ended);
    let Generated { original, spliced, edited } = &texts;
    let edited = edited.as_ref().map(|edited| ("with SAEs, edited", edited.as_str()));
    let columns: Vec<(&str, &str)> =
        [("without SAEs", original.as_str()), ("with SAEs", spliced.as_str())]
            .into_iter()
            .chain(edited)
            .collect();
    telemetry.result(&side_by_side(prompt, &columns, width()))
}

/// Whether the key of `KEY=VALUE` is a feature: a number, perhaps after a site.
fn names_feature(setting: &str) -> bool {
    let key = setting.split_once('=').map_or(setting, |(key, _)| key).trim();
    let number = key.rsplit_once(':').map_or(key, |(_, number)| number);
    !number.is_empty() && number.chars().all(|c| c.is_ascii_digit())
}

/// The edits that the arguments ask for.
fn edits(
    arguments: &Arguments,
    set: &[String],
    sites: &[Site],
) -> anyhow::Result<Vec<FeatureEdit>> {
    let with_value = |flag: &str, text: &str, change: fn(f64) -> Change| {
        let (key, value) = text
            .split_once('=')
            .with_context(|| format!("--{flag} {text}: expected [SITE:]FEATURE=NUMBER"))?;
        let value: f64 = value
            .trim()
            .parse()
            .ok()
            .filter(|value: &f64| value.is_finite())
            .with_context(|| format!("--{flag} {text}: `{value}` is not a number"))?;
        edit(flag, key, change(value), sites)
    };
    let ablated = arguments.ablate.iter().map(|key| edit("ablate", key, Change::Scale(0.0), sites));
    let scaled = arguments.scale.iter().map(|text| with_value("scale", text, Change::Scale));
    let set = set.iter().map(|text| with_value("set", text, Change::Set));
    let edits: Vec<FeatureEdit> = ablated.chain(scaled).chain(set).collect::<Result<_, _>>()?;
    for (place, edit) in edits.iter().enumerate() {
        let is_same =
            |other: &FeatureEdit| (other.site, other.feature) == (edit.site, edit.feature);
        ensure!(
            !edits[..place].iter().any(is_same),
            "feature {} at {} is edited twice: name it once",
            edit.feature,
            edit.site
        );
    }
    Ok(edits)
}

/// `[SITE:]FEATURE`; the site may be left out where there is only one.
fn edit(flag: &str, key: &str, change: Change, sites: &[Site]) -> anyhow::Result<FeatureEdit> {
    let (site, number) = match key.trim().rsplit_once(':') {
        Some((site, number)) => {
            let site: Site = site
                .parse()
                .map_err(|error| anyhow!("--{flag} {key}: `{site}` is no site: {error}"))?;
            (site, number)
        }
        None => match sites {
            [site] => (*site, key.trim()),
            _ => bail!(
                "--{flag} {key}: there are dictionaries at several sites; name one, as {}:{key}",
                sites.first().map_or(String::new(), Site::to_string)
            ),
        },
    };
    let feature = number
        .parse()
        .with_context(|| format!("--{flag} {key}: `{number}` is not a feature's number"))?;
    Ok(FeatureEdit { site, feature, change })
}

fn width() -> usize {
    // Columns of the terminal; 100 where there is none.
    console::Term::stdout().size_checked().map_or(100, |(_, columns)| usize::from(columns)).max(40)
}

/// Texts in columns under their names, the prompt above.
fn side_by_side(prompt: &str, texts: &[(&str, &str)], width: usize) -> String {
    let column = (width + 3) / texts.len() - 3;
    let columns: Vec<Vec<String>> = texts
        .iter()
        .map(|(name, text)| {
            let mut lines = wrap(name, column);
            lines.truncate(1);
            lines.push("-".repeat(column));
            lines.extend(wrap(text, column));
            lines
        })
        .collect();
    let mut out = String::new();
    if !prompt.is_empty() {
        out.push_str(prompt);
        out.push_str("\n\n");
    }
    let rows = columns.iter().map(Vec::len).max().unwrap_or(0);
    for row in 0..rows {
        let cells: Vec<String> = columns
            .iter()
            .map(|lines| {
                let line = lines.get(row).map_or("", String::as_str);
                format!("{line}{}", " ".repeat(column.saturating_sub(line.chars().count())))
            })
            .collect();
        out.push_str(cells.join(" | ").trim_end());
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out
}

/// Lines of at most `width` characters, broken wherever they are full: the text may be code.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.split('\n')
        .flat_map(|line| {
            let line: Vec<char> = line.replace('\t', "    ").chars().map(clean).collect();
            let mut parts: Vec<String> =
                line.chunks(width).map(|part| part.iter().collect()).collect();
            if parts.is_empty() {
                parts.push(String::new());
            }
            parts
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::side_by_side;

    #[test]
    fn texts_stand_in_columns() {
        let texts = [("without SAEs", " = 1;\n}"), ("with SAEs", " = abcdefghijklmno")];
        let shown = side_by_side("let x", &texts, 27);
        assert_eq!(
            shown,
            "let x\n\n\
             without SAEs | with SAEs\n\
             ------------ | ------------\n\x20\
             = 1;        |  = abcdefghi\n\
             }            | jklmno"
        );
    }
}
