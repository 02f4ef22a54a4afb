//! `sae features`: what every feature of finished runs is, and one of them in the terminal.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use sae_analysis::AnalysisOptions;
use sae_config::Site;
use sae_model::device::DeviceChoice;
use sae_record::RunFolder;
use sae_record::dashboard::{Dashboard, ExampleRecord, FeatureCard, LensToken};
use sae_train::RunSpec;
use sae_train::dashboards::make_dashboards;

use crate::configuration::{Settings, check_place, load_runs, specs_of};
use crate::telemetry::Telemetry;

/// Tell what every feature is: what it is active on, which tokens it makes likelier, what is near
///
/// Runs the model over evaluation data once for all runs and writes dashboard/SITE/ into each run's folder: features.parquet (a
/// card a feature: density, histogram, logit lens, nearest elements, partners) and examples.parquet (windows with activations). With
/// --show, prints a card.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Of all runs of a sweep, of 200 000 tokens
  sae features runs/rust-lm
  # Of one run, of more tokens
  sae features runs/rust-lm/e2e_sparsity-0.8 --tokens 1000000
  # One feature in the terminal
  sae features runs/rust-lm/e2e_sparsity-0.8 --show 17")]
pub(crate) struct Arguments {
    /// Folders of runs, of sweeps, or of several runs
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Tokens of the evaluation data to look at, from its start [default: what was looked at before; else 200 000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    tokens: Option<u64>,
    /// Print the card of this feature of a run
    #[arg(long, value_name = "FEATURE")]
    show: Option<u32>,
    /// The site of the feature, where the run has several
    #[arg(long, value_name = "SITE", requires = "show")]
    site: Option<Site>,
    #[command(flatten)]
    settings: Settings,
}

pub(crate) fn run(
    arguments: &Arguments,
    device: DeviceChoice,
    telemetry: &mut Telemetry,
) -> anyhow::Result<()> {
    let mut specs = Vec::new();
    for folder in &arguments.runs {
        let runs = load_runs(folder, &AnalysisOptions::default())?;
        specs.extend(specs_of(&runs, &arguments.settings)?);
    }
    if specs.is_empty() {
        let folders: Vec<String> =
            arguments.runs.iter().map(|folder| folder.display().to_string()).collect();
        bail!("no run is finished in {}", folders.join(", "));
    }
    if let Some(feature) = arguments.show {
        let [spec] = specs.as_slice() else {
            bail!("--show takes a single run, found {} of them", specs.len());
        };
        return show(spec, feature, arguments.site, telemetry);
    }
    check_place(&specs[0].config)?;
    let made = make_dashboards(&specs, arguments.tokens, device.resolve()?, telemetry)?;
    for run in made {
        for (site, (active, all)) in run.sites {
            tracing::info!("{}: {active} of {all} features at {site} have a card", run.run);
        }
    }
    let folder = specs[0].folder.path().display();
    tracing::info!("one of them in the terminal: sae features {folder} --show FEATURE");
    Ok(())
}

fn show(
    spec: &RunSpec,
    feature: u32,
    site: Option<Site>,
    telemetry: &Telemetry,
) -> anyhow::Result<()> {
    let sites = &spec.config.sae.sites;
    let site = match (site, sites.as_slice()) {
        (Some(site), sites) if sites.contains(&site) => site,
        (None, [site]) => *site,
        (found, sites) => {
            let sites: Vec<String> = sites.iter().map(Site::to_string).collect();
            let found = found.map_or(String::new(), |site| format!(", not {site}"));
            bail!("name a site of {} with --site: {}{found}", spec.id, sites.join(", "));
        }
    };
    let folder: &RunFolder = &spec.folder;
    let dashboard = Dashboard::load(&folder.dashboard(site))?.with_context(|| {
        format!("{} has no dashboards: `sae features {0}` makes them", folder.path().display())
    })?;
    let n_features = dashboard.gathered.n_features;
    if u64::from(feature) >= n_features {
        bail!("there is no feature {feature}: {} has {n_features}, counted from 0", spec.id);
    }
    let Some(card) = dashboard.card(feature) else {
        let tokens = dashboard.gathered.tokens;
        bail!("feature {feature} was not active on any of {tokens} tokens");
    };
    let examples = dashboard.examples(card)?;
    telemetry.result(&text(card, &examples, &dashboard))
}

/// Examples that are shown of the highest.
const SHOWN: usize = 8;
/// The blocks of a histogram.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A card as text.
fn text(card: &FeatureCard, examples: &[ExampleRecord], dashboard: &Dashboard) -> String {
    let mut text = format!(
        "feature {}: active on {} of {} tokens ({:.3} %), mean {:.3}, greatest {:.3}\n",
        card.feature,
        card.active,
        dashboard.gathered.tokens,
        100.0 * card.density,
        card.mean,
        card.max
    );
    let most = card.histogram.iter().copied().max().unwrap_or(1).max(2) as f64;
    let bar = |count: &u64| match count {
        0 => ' ',
        count => {
            // Rare sizes are seen, too: by logarithms.
            let height = (*count as f64).ln_1p() / most.ln_1p();
            BLOCKS[((height * 8.0).ceil() as usize).clamp(1, 8) - 1]
        }
    };
    let bars: String = card.histogram.iter().map(bar).collect();
    let end = card.histogram_width * card.histogram.len() as f32;
    let _ = writeln!(text, "activations  0 {bars} {end}  (logarithmic)");
    for (name, tokens) in [("likelier", &card.highest), ("unlikelier", &card.lowest)] {
        let shown = |token: &LensToken| {
            format!("{} {:+.2}", shown(dashboard.text(token.token)), token.logit)
        };
        let tokens: Vec<String> = tokens.iter().map(shown).collect();
        if !tokens.is_empty() {
            let _ = writeln!(text, "{name:<12} {}", tokens.join("  "));
        }
    }
    let near: Vec<String> = card
        .near
        .iter()
        .map(|near| {
            let of = near.run.as_ref().map_or(String::new(), |run| format!(" of {run}"));
            format!("{}{of} {:.2}", near.feature, near.cosine)
        })
        .collect();
    if !near.is_empty() {
        let _ = writeln!(text, "near         {}", near.join("  "));
    }
    let partners: Vec<String> = card
        .partners
        .iter()
        .map(|partner| format!("{} ×{:.0}", partner.feature, partner.lift))
        .collect();
    if !partners.is_empty() {
        let _ = writeln!(text, "active with  {}", partners.join("  "));
    }
    let highest = examples.iter().filter(|example| example.interval.is_none()).take(SHOWN);
    let lower = examples.iter().filter(|example| example.interval.is_some());
    for example in highest.chain(lower) {
        let place = match example.interval {
            None => "highest".to_owned(),
            Some(interval) => format!("{}/5", interval + 1),
        };
        let _ = write!(text, "{place:>7} {:7.3}  ", example.peak);
        for (place, (token, activation)) in
            example.tokens.iter().zip(&example.activations).enumerate()
        {
            // Some words around the greatest activation.
            if place.abs_diff(example.position as usize) > 12 {
                continue;
            }
            let token = one_line(dashboard.text(*token));
            match (*activation > 0.0, place == example.position as usize) {
                (_, true) => text.extend(["⟦", &token, "⟧"]),
                (true, _) => text.extend(["⟨", &token, "⟩"]),
                _ => text.push_str(&token),
            }
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}

/// A token in quotes, so that its spaces are seen.
fn shown(token: &str) -> String {
    format!("`{}`", one_line(token))
}

/// Text without what would break a line, or steer a terminal.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' => '⏎',
            '\t' => '⇥',
            // Controls, line separators, and what turns the direction of text.
            '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}
