//! `sae publish`: finished runs → the Hugging Face hub; their features → Neuronpedia.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use anyhow::{Context, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use sae_analysis::dictionary::Dictionary;
use sae_analysis::{AnalysisOptions, Frontier, SweepRuns};
use sae_config::message::counted;
use sae_config::{HubSource, Site, Source};
use sae_data::hub::HubOptions;
use sae_interp::http::ClientOptions;
use sae_interp::publish::PublishError;
use sae_interp::publish::card::{CardRun, card};
use sae_interp::publish::hub::{Content, HubTarget, Upload, files_below, publish, size};
use sae_interp::publish::neuronpedia::{
    ADDRESS, Features, NeuronpediaTarget, SourceName, Uncertain, send, write,
};
use sae_record::dashboard::Dashboard;
use sae_record::{Event, Phase, layout};
use sae_train::progress::Observer;

use crate::configuration::load_runs;
use crate::sweep::Interrupted;
use crate::telemetry::Telemetry;

/// What stands for Neuronpedia where it is published to.
const NEURONPEDIA: &str = "neuronpedia";

/// Publish runs on the Hugging Face hub, or features on Neuronpedia
///
/// hf://owner/name gets the weights of finished runs in SAELens's format, each with its configuration and metrics, and a model card with
/// the numbers and the picture of the frontier. Large files that have arrived are not sent again, unchanged files never; HF_TOKEN has to
/// be a token that may write. neuronpedia gets the features of a dictionary from its dashboard (`sae features`), with explanations where
/// there are any (`sae explain`); NEURONPEDIA_API_KEY has to be a key of an account there.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sae publish hf://owner/rust-lm-saes runs/rust-lm --dry-run
  sae publish hf://owner/rust-lm-saes runs/rust-lm --license mit
  # The same files as would be sent, and those of SAEDashboard
  sae publish neuronpedia runs/rust-lm/e2e_sparsity-0.3 --model-id rust-lm --set-name res-e2e --out upload
  sae publish neuronpedia runs/rust-lm/e2e_sparsity-0.3 --model-id rust-lm --set-name res-e2e")]
pub(crate) struct Arguments {
    /// Where to: neuronpedia, or hf://owner/name, with a branch hf://owner/name@branch
    #[arg(value_name = "TO")]
    to: String,
    /// The folder of a run, of a sweep, or of several runs
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// Say what would be sent, and stop
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    hub: HubArguments,
    #[command(flatten)]
    neuronpedia: NeuronpediaArguments,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Hub")]
struct HubArguments {
    /// Make a new repository one that nobody else sees
    #[arg(long)]
    private: bool,
    /// The licence of the weights, as the hub names it: mit, apache-2.0, …
    #[arg(long, value_name = "NAME")]
    license: Option<String>,
    /// The message of the commit
    #[arg(long, value_name = "TEXT", default_value = "Add sparse autoencoders")]
    message: String,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Neuronpedia")]
struct NeuronpediaArguments {
    /// The name of the source set
    #[arg(long, value_name = "NAME")]
    set_name: Option<String>,
    /// The model's id there, as gpt2-small; one that is not there is made
    #[arg(long, value_name = "ID")]
    model_id: Option<String>,
    /// What becomes of features of which nobody knows whether they have arrived, since the connection broke: send or skip
    #[arg(long, value_name = "WHAT", value_parser = PossibleValuesParser::new(["send", "skip"]))]
    uncertain: Option<String>,
    /// Layers of the model [default: as the run's evaluation says]
    #[arg(long, value_name = "N")]
    layers: Option<u64>,
    /// Which dictionary, where a run has several
    #[arg(long, value_name = "SITE")]
    site: Option<Site>,
    /// This feature alone; may be given several times
    #[arg(long = "feature", value_name = "FEATURE")]
    features: Vec<u32>,
    /// Write what would be sent, and SAEDashboard's files, into this folder, and send nothing
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// The address before /model/new
    #[arg(long, value_name = "URL", default_value = ADDRESS)]
    address: String,
    /// The environment variable that holds the key [default: for neuronpedia.org NEURONPEDIA_API_KEY, elsewhere none]
    #[arg(long, value_name = "VARIABLE")]
    key_from: Option<String>,
}

pub(crate) fn run(arguments: &Arguments, telemetry: &mut Telemetry) -> anyhow::Result<()> {
    let runs = load_runs(&arguments.folder, &AnalysisOptions::default())?;
    if arguments.to == NEURONPEDIA {
        return to_neuronpedia(arguments, &runs, telemetry);
    }
    let to: Source = arguments.to.parse().unwrap_or_else(|_| PathBuf::new().into());
    match to {
        Source::Hub(to) if to.path.is_none() && to.commit.is_none() => {
            to_hub(arguments, &to, &runs, telemetry)
        }
        _ => bail!(
            "expected where to publish, neuronpedia or hf://owner/name, found {:?}",
            arguments.to
        ),
    }
}

/// An error, or that a signal asked for the end.
fn told<T>(outcome: Result<T, PublishError>) -> anyhow::Result<T> {
    match outcome {
        Err(PublishError::Interrupted) => Err(Interrupted.into()),
        outcome => Ok(outcome?),
    }
}

fn to_hub(
    arguments: &Arguments,
    to: &HubSource,
    runs: &SweepRuns,
    telemetry: &mut Telemetry,
) -> anyhow::Result<()> {
    let uploads = uploads(arguments, &to.repository, runs)?;
    let bytes = told(size(&uploads))?;
    if arguments.dry_run {
        let mut lines = Vec::with_capacity(uploads.len() + 1);
        for upload in &uploads {
            let bytes = told(size(std::slice::from_ref(upload)))?;
            lines.push(format!("{:>12} {}", bytes, upload.path));
        }
        lines.push(format!("{:>12} bytes in {}", bytes, counted(uploads.len(), "file")));
        return crate::print(&lines.join("\n"));
    }
    let options = HubOptions::from_variables(|name| std::env::var_os(name))?;
    if options.offline {
        bail!("HF_HUB_OFFLINE is set: nothing can be published");
    }
    let target = HubTarget {
        endpoint: options.endpoint,
        token: options.token,
        repository: to.repository.clone(),
        revision: to.revision.clone().unwrap_or_else(|| "main".to_owned()),
        is_private: arguments.hub.private,
        requests: ClientOptions::default(),
    };
    telemetry.notice(Event::began(Phase::Publish, bytes, 0));
    let flag = telemetry.interruption();
    let is_interrupted = move || flag.load(Ordering::SeqCst);
    let published =
        publish(&target, &uploads, &arguments.hub.message, &is_interrupted, &mut |done| {
            telemetry.notice(Event::advanced(done));
        });
    telemetry.notice(Event::Ended);
    let published = told(published)?;
    if let Some(commit) = &published.commit {
        let files = counted(published.files, "file");
        tracing::info!("{files} in commit {commit}, {} bytes of large files sent", published.sent);
    } else {
        tracing::info!("everything is there already");
    }
    crate::print(&published.url)
}

/// The files of a repository: the runs', the sweep's picture and results where there are several, and the card.
fn uploads(
    arguments: &Arguments,
    repository: &str,
    runs: &SweepRuns,
) -> anyhow::Result<Vec<Upload>> {
    let is_single = runs.finished.len() == 1;
    let (mut uploads, mut cards) = (Vec::new(), Vec::new());
    for run in &runs.finished {
        let folder = runs.folder_of(run);
        let below = if is_single { String::new() } else { run.id.clone() };
        let path = |name: &str| {
            if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") }
        };
        for site in &run.config.sae.sites {
            uploads.extend(told(files_below(&folder.sae(*site), &path(&site.to_string())))?);
        }
        let config =
            run.config.without_places().to_toml().context("cannot write the configuration")?;
        uploads.push(Upload { path: path("config.toml"), content: Content::Text(config) });
        for file in [folder.summary(), folder.features()] {
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
            if let Some(name) = name.filter(|_| file.is_file()) {
                uploads.push(Upload { path: path(&name), content: Content::File(file) });
            }
        }
        cards.push(CardRun {
            folder: below,
            config: run.config.clone(),
            summary: run.summary.clone(),
        });
    }
    let mut picture = None;
    let file = layout::analysis(&runs.folder, "frontier", "png");
    if !is_single && file.is_file() {
        picture = Some("frontier.png".to_owned());
        uploads.push(Upload { path: "frontier.png".to_owned(), content: Content::File(file) });
    }
    if !is_single {
        let mut points = runs.points.clone();
        for point in &mut points {
            // What places on this machine tell apart is nobody else's business.
            point.facets.retain(|_, value| !value.contains(['/', '\\']) || value.contains("hf://"));
        }
        let frontier = serde_json::to_string_pretty(&Frontier::of(&points))?;
        uploads.push(Upload { path: "frontier.json".to_owned(), content: Content::Text(frontier) });
    }
    let license = arguments.hub.license.as_deref();
    let text = card(repository, &cards, picture.as_deref(), license);
    uploads.push(Upload { path: "README.md".to_owned(), content: Content::Text(text) });
    Ok(uploads)
}

fn to_neuronpedia(
    arguments: &Arguments,
    runs: &SweepRuns,
    telemetry: &mut Telemetry,
) -> anyhow::Result<()> {
    let own = &arguments.neuronpedia;
    let [run] = runs.finished.as_slice() else {
        bail!(
            "{} has {}: Neuronpedia gets those of one, give its folder",
            arguments.folder.display(),
            counted(runs.finished.len(), "run")
        );
    };
    let sites = &run.config.sae.sites;
    let site = match (own.site, sites.as_slice()) {
        (Some(site), _) if sites.contains(&site) => site,
        (None, [site]) => *site,
        _ => {
            let names: Vec<String> = sites.iter().map(ToString::to_string).collect();
            bail!("which dictionary? --site names one of {}", names.join(", "));
        }
    };
    let folder = runs.folder_of(run);
    let place = folder.dashboard(site);
    let dashboard = Dashboard::load(&place)?.with_context(|| {
        format!(
            "{} at {site} has no dashboard: `sae features {}` makes it",
            run.id,
            arguments.folder.display()
        )
    })?;
    let set = own.set_name.as_deref().context("which source set? --set-name NAME, as res-e2e")?;
    let downstream = run.summary.evaluation.downstream.keys().map(|site| site.block + 1).max();
    let layers = own.layers.or(downstream.map(|layers| layers as u64));
    let layers = layers.context("how many layers has the model? --layers N")?;
    let model =
        own.model_id.as_deref().context("which model there? --model-id ID, as gpt2-small")?;
    let source = told(SourceName::new(model, layers, set, site.block as u64))?;
    let mut features: Vec<u32> = if own.features.is_empty() {
        dashboard.cards.iter().map(|card| card.feature).collect()
    } else {
        own.features.clone()
    };
    features.sort_unstable();
    features.dedup();
    if let Some(missing) = features.iter().find(|feature| dashboard.card(**feature).is_none()) {
        bail!("feature {missing} was not active on any token that was looked at");
    }
    let what = format!(
        "{} of {} as {} of {}",
        counted(features.len(), "feature"),
        run.id,
        source.source(),
        source.model
    );
    if arguments.dry_run {
        return crate::print(&what);
    }
    let elements = elements(&folder, site);
    let description = format!("{} of {}, L0 {:.1}", run.summary.variant, site, l0(run, site));
    let asked = Features {
        dashboard: &dashboard,
        source: &source,
        description: &description,
        features: &features,
        elements: &elements,
    };
    telemetry.notice(Event::began(Phase::Publish, features.len() as u64, 0));
    let flag = telemetry.interruption();
    let is_interrupted = move || flag.load(Ordering::SeqCst);
    if let Some(out) = &own.out {
        let batches = write(out, asked, &mut |done| telemetry.notice(Event::advanced(done)));
        telemetry.notice(Event::Ended);
        let batches = told(batches)? as usize;
        tracing::info!("{what}: {} in {}", counted(batches, "batch"), out.display());
        return Ok(());
    }
    let target = NeuronpediaTarget {
        address: own.address.clone(),
        key: key(own)?,
        requests: ClientOptions::default(),
    };
    let uncertain = own.uncertain.as_deref().map(|what| match what {
        "skip" => Uncertain::Skip,
        _ => Uncertain::Send,
    });
    let sent = send(&target, asked, (&place, uncertain), &is_interrupted, &mut |done| {
        telemetry.notice(Event::advanced(done));
    });
    telemetry.notice(Event::Ended);
    let sent = told(sent)? as usize;
    tracing::info!("{what}: {} sent now, the others before", counted(sent, "feature"));
    Ok(())
}

fn key(own: &NeuronpediaArguments) -> anyhow::Result<String> {
    // A key that is for one place is not shown to another.
    let is_theirs = own.address.starts_with("https://www.neuronpedia.org/")
        || own.address.starts_with("https://neuronpedia.org/");
    let name = own.key_from.as_deref().or(is_theirs.then_some("NEURONPEDIA_API_KEY"));
    let name = name.with_context(|| {
        format!(
            "{} is not Neuronpedia's own address: --key-from names the variable with its key",
            own.address
        )
    })?;
    let key = std::env::var(name).ok().filter(|key| !key.is_empty());
    key.with_context(|| {
        format!(
            "{name} holds no key (account settings of Neuronpedia), or --out FOLDER writes files"
        )
    })
}

fn l0(run: &sae_analysis::FinishedRun, site: Site) -> f64 {
    let values = run.summary.evaluation.sites.get(&site);
    values.map_or(f64::NAN, |values| values.get(sae_record::metric::name::L0))
}

/// The dictionary elements of the alive features; none where the weights cannot be read.
fn elements(folder: &sae_record::RunFolder, site: Site) -> HashMap<u32, Vec<f32>> {
    match Dictionary::load(folder, site, 0.0) {
        Ok(found) => {
            let rows = found.alive.iter().zip(found.rows.iter());
            rows.map(|(feature, row)| (*feature, row.to_vec())).collect()
        }
        Err(error) => {
            tracing::warn!("without dictionary elements: {error}");
            HashMap::new()
        }
    }
}
