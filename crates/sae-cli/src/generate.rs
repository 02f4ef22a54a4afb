//! `sae generate`: text with and without the SAEs.

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;
use sae_model::device::DeviceChoice;
use sae_model::generate::Sampling;
use sae_record::{Event, Phase};
use sae_train::generate::{Generated, Request, generate};
use sae_train::progress::Observer;

use crate::configuration::{Settings, check_place, trained};
use crate::telemetry::Telemetry;

/// Go on with a text, by the model alone and with its SAEs spliced in, side by side
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sae generate runs/rust-lm/e2e_sparsity-0.8 --prompt 'impl Iterator for '
  sae generate runs/first --prompt 'Once upon a time' --greedy --tokens 40
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
    #[command(flatten)]
    settings: Settings,
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
    found.config = arguments.settings.apply_to_trained(found.config)?;
    check_place(&found.config)?;
    let bos = match (arguments.bos, arguments.no_bos) {
        (true, _) => true,
        (_, true) => false,
        _ => found.config.data.bos,
    };
    let request =
        Request { prompt: &arguments.prompt, bos, tokens, sampling, seed: arguments.seed };
    telemetry.notice(Event::began(Phase::Generate, 2 * tokens as u64, 1));
    let texts = generate(&found.config, &found.saes, &request, device.resolve()?, |done| {
        telemetry.notice(Event::advanced(done as u64));
    })?;
    telemetry.notice(Event::Ended);
    let Generated { original, spliced } = &texts;
    telemetry.result(&side_by_side(&arguments.prompt, original, spliced, width()))
}

fn width() -> usize {
    // Columns of the terminal; 100 where there is none.
    console::Term::stdout().size_checked().map_or(100, |(_, columns)| usize::from(columns)).max(40)
}

/// Two texts in columns under their names, the prompt above.
fn side_by_side(prompt: &str, original: &str, spliced: &str, width: usize) -> String {
    let column = (width - 3) / 2;
    let (left, right) = (wrap(original, column), wrap(spliced, column));
    let mut out = String::new();
    if !prompt.is_empty() {
        out.push_str(prompt);
        out.push_str("\n\n");
    }
    let empty = String::new();
    let head = ["without SAEs".to_owned(), "-".repeat(column)];
    let head_right = ["with SAEs".to_owned(), "-".repeat(column)];
    let rows = left.len().max(right.len());
    let lines = head.iter().zip(&head_right).chain(
        (0..rows).map(|row| (left.get(row).unwrap_or(&empty), right.get(row).unwrap_or(&empty))),
    );
    for (left, right) in lines {
        let padding = " ".repeat(column.saturating_sub(left.chars().count()));
        out.push_str(format!("{left}{padding} | {right}").trim_end());
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
        let shown = side_by_side("let x", " = 1;\n}", " = abcdefghijklmno", 27);
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
