//! `cargo xtask sweep`: a sweep from its configuration to its report, with jobs run side by side and a live view.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use rustix::process::{Pid, Signal, kill_process};
use sae_config::estimate::{ModelShape, peak_bytes, training_tokens};
use sae_config::sweep::{MOST_RUNS, bank_size};
use sae_config::{ConfigError, RunConfig, SweepConfig, reference, signals};
use sae_record::Event;
use sae_record::{Job, Manifest, ManifestRun, RunFolder, layout};

use crate::view::View;
use crate::{corpus, tool};

/// Run a sweep: expand, train, evaluate, analyse; without a configuration, the paper's three types on the embedded model
///
/// A second call goes on where the first was interrupted, and skips finished runs.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo xtask sweep
  cargo xtask sweep configs/sweeps/rust-lm.toml --dry-run")]
pub(crate) struct Arguments {
    /// The sweep's TOML, or a Weights & Biases sweep of the reference (YAML)
    #[arg(default_value = "configs/sweeps/rust-lm.toml")]
    config: PathBuf,
    /// Print the manifest, with tokens and memory, and stop
    #[arg(long)]
    dry_run: bool,
    /// Write the manifest, for a cluster's launcher to start its jobs, and stop
    #[arg(long)]
    manifest_only: bool,
    /// Jobs at a time [default: one a CUDA device, one on a CPU]
    #[arg(long, short, value_name = "N")]
    jobs: Option<std::num::NonZeroUsize>,
    /// The folder that the sweep's own folder is made in [default: runs, in the workspace]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Use this binary instead of building one
    #[arg(long, value_name = "PATH")]
    sae: Option<PathBuf>,
    /// Expand to this many runs at most
    #[arg(long, value_name = "N", default_value_t = MOST_RUNS)]
    max_runs: usize,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    // Paths in configurations are relative to the workspace, from wherever the task is called.
    let config = std::path::absolute(&arguments.config)?;
    let out = match &arguments.out {
        Some(out) => std::path::absolute(out)?,
        None => tool::root().join("runs"),
    };
    let sae = arguments.sae.as_deref().map(std::path::absolute).transpose()?;
    let config = if config.is_file() { config } else { tool::root().join(&arguments.config) };
    std::env::set_current_dir(tool::root()).context("cannot enter the workspace")?;
    let manifest = expand(&config, arguments.max_runs, sae.as_deref())?;
    if arguments.dry_run {
        return tool::print(&dry_run(&manifest));
    }
    let folder = out.join(&manifest.sweep);
    if arguments.manifest_only {
        let path = write_manifest(&manifest, &folder, sae.as_deref())?;
        return tool::print(&format!(
            "{} jobs: sae train --manifest {} --job 0 … {}",
            manifest.jobs.len(),
            path.display(),
            manifest.jobs.len() - 1
        ));
    }
    let sae = tool::sae(sae.as_deref())?;
    let local = |run: &ManifestRun| run.config.data.train.local().map(Path::to_owned);
    if manifest.runs().filter_map(local).any(|path| path.starts_with("data/corpus")) {
        corpus::ensure(Some(&sae))?;
    }
    let path = write_manifest(&manifest, &folder, Some(&sae))?;
    let began = Instant::now();
    let launcher = Launcher::new(&manifest, &path, &folder, &sae, arguments.jobs)?;
    let interrupted = Arc::clone(&launcher.interrupted);
    let failed = launcher.run()?;
    let mut command = Command::new(&sae);
    command.arg("analyze").arg(&folder);
    let drawn = run_until(&mut command, &interrupted);
    if !failed.is_empty() {
        bail!(
            "jobs failed: {}; what they said is above. The same command tries again what is not finished; a run that \
             diverged is finished, and is trained anew once its folder is removed",
            failed.join(", ")
        );
    }
    drawn?;
    let report = layout::report(&folder);
    tool::say(&format!("{} s; the report is {}", began.elapsed().as_secs(), report.display()));
    Ok(())
}

/// Runs a command with our own output; where a signal asks for the end, it is told so.
fn run_until(command: &mut Command, interrupted: &AtomicBool) -> anyhow::Result<()> {
    let shown = tool::show(command);
    let mut child = command.spawn().with_context(|| format!("cannot start {shown}"))?;
    let mut told = false;
    let status = loop {
        if let Some(status) =
            child.try_wait().with_context(|| format!("cannot wait for {shown}"))?
        {
            break status;
        }
        if interrupted.load(Ordering::SeqCst) && !std::mem::replace(&mut told, true) {
            terminate(&mut child);
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    if interrupted.load(Ordering::SeqCst) {
        bail!("interrupted; what was trained is saved: the same command goes on from it");
    }
    if !status.success() {
        bail!("{shown} failed ({status})");
    }
    Ok(())
}

/// Expands a sweep: this project's TOML, or a Weights & Biases sweep of the reference. Where its positions name several
/// sites each, the binary is asked, which knows models.
fn expand(config: &Path, most: usize, sae: Option<&Path>) -> anyhow::Result<Manifest> {
    if !reference::is_reference(config) {
        return Ok(SweepConfig::load(config)?.expand(most)?.into());
    }
    let mut asked = false;
    let expanded = reference::expand(config, bank_size(), most, &mut |model| {
        asked = true;
        let (origin, message) = (config.display().to_string(), format!("the sites of {model}"));
        Err(ConfigError::Parse { origin, message })
    });
    if asked {
        let mut command = Command::new(tool::sae(sae)?);
        command.arg("import").arg(config).arg("--max-runs").arg(most.to_string());
        let output = command.stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            bail!("{} failed", tool::show(&command));
        }
        return serde_json::from_slice(&output.stdout).context("the binary printed no manifest");
    }
    let (expanded, warnings) = expanded?;
    for warning in warnings {
        tool::tell(&format!("warning: {}: {warning}", config.display()));
    }
    Ok(expanded.into())
}

/// Writes the manifest, unless the folder holds another sweep. Branches and tags of the hub are pinned to their commits
/// once, here: a sweep whose jobs looked each for itself could be of two models.
fn write_manifest(
    manifest: &Manifest,
    folder: &Path,
    sae: Option<&Path>,
) -> anyhow::Result<PathBuf> {
    let path = layout::manifest(folder);
    if path.is_file() {
        let found = Manifest::load(&path)
            .with_context(|| format!("{} holds an unreadable manifest", folder.display()))?;
        if !manifest.is_same_sweep(&found) {
            bail!(
                "{} holds another sweep of the same name: give this one another name, or remove that folder",
                folder.display()
            );
        }
        return Ok(path);
    }
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    if !manifest.is_floating() {
        manifest.save(&path)?;
        return Ok(path);
    }
    let unpinned = folder.join("manifest-unpinned.json");
    manifest.save(&unpinned)?;
    let mut command = Command::new(tool::sae(sae)?);
    command.arg("pin").arg(&unpinned).arg("--out").arg(&path);
    tool::run(&mut command)?;
    std::fs::remove_file(&unpinned).context("cannot remove the manifest without commits")?;
    Ok(path)
}

/// The manifest as a table.
fn dry_run(manifest: &Manifest) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    table.set_header(["job", "run", "type", "λ", "tokens", "memory of the job"]);
    let mut total = 0;
    for (index, job) in manifest.jobs.iter().enumerate() {
        let configs: Vec<&RunConfig> = job.runs.iter().map(|run| &run.config).collect();
        let memory = match configs[0].model.path.local().map(ModelShape::load) {
            Some(Ok(shape)) => format!("≤ {:.1} GB", peak_bytes(shape, &configs) / 1e9),
            Some(Err(error)) => format!("unknown: {error}"),
            None => "unknown before the model is fetched".to_owned(),
        };
        for (place, run) in job.runs.iter().enumerate() {
            let tokens = training_tokens(&run.config);
            total += tokens;
            table.add_row([
                if place == 0 { index.to_string() } else { String::new() },
                run.id.clone(),
                run.config.variant().to_string(),
                run.config.loss.sparsity.coeff.get().to_string(),
                format!("{:.2} M", tokens as f64 / 1e6),
                if place == 0 { memory.clone() } else { String::new() },
            ]);
        }
    }
    for column in [3, 4] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!(
        "{table}\n{} runs in {} jobs, {:.2} M training tokens",
        manifest.runs().count(),
        manifest.jobs.len(),
        total as f64 / 1e6
    )
}

/// What a job's threads tell.
enum News {
    Event(usize, Event),
    Line(usize, String),
    Closed(usize),
}

/// Starts jobs, shows where they are, and waits for them.
struct Launcher<'a> {
    manifest: &'a Manifest,
    path: &'a Path,
    sae: &'a Path,
    folder: &'a Path,
    /// Places to run a job in: a CUDA device each, or the CPU.
    places: Vec<Option<String>>,
    view: View,
    interrupted: Arc<AtomicBool>,
}

struct Running {
    job: usize,
    place: Option<String>,
    child: Child,
    open: usize,
}

/// Tells a job to save itself and end.
fn terminate(child: &mut Child) {
    // One that has ended by itself needs no telling.
    if let Ok(None) = child.try_wait() {
        let _ = kill_process(Pid::from_child(child), Signal::TERM);
    }
}

impl<'a> Launcher<'a> {
    fn new(
        manifest: &'a Manifest,
        path: &'a Path,
        folder: &'a Path,
        sae: &'a Path,
        jobs: Option<std::num::NonZeroUsize>,
    ) -> anyhow::Result<Self> {
        let devices = cuda_devices();
        let count = jobs.map_or(devices.len().max(1), std::num::NonZeroUsize::get);
        let places = (0..count)
            .map(|job| (!devices.is_empty()).then(|| devices[job % devices.len()].clone()))
            .collect();
        let interrupted = Arc::new(AtomicBool::new(false));
        // Jobs are told to save themselves and end; we wait for them.
        for signal in signals::that_end_work() {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))
                .context("cannot handle signals")?;
        }
        Ok(Self { manifest, path, sae, folder, places, view: View::new(manifest), interrupted })
    }

    /// Runs all jobs that are not finished; returns the names of those that failed.
    fn run(mut self) -> anyhow::Result<Vec<String>> {
        let finished = |job: &Job| {
            job.runs
                .iter()
                .all(|run| RunFolder::new(self.folder.join(&run.folder)).summary().is_file())
        };
        let mut waiting = VecDeque::new();
        for (index, job) in self.manifest.jobs.iter().enumerate() {
            if finished(job) {
                self.view.skip(index, job);
            } else {
                waiting.push_back(index);
            }
        }
        let mut running: Vec<Running> = Vec::new();
        let failed = self.run_jobs(waiting, &mut running);
        // Where a job cannot be started, those that run must not be left behind.
        for Running { child, .. } in &mut running {
            terminate(child);
            let _ = child.wait();
        }
        self.view.finish();
        let failed = failed?;
        if self.interrupted.load(Ordering::SeqCst) {
            bail!("interrupted; everything up to there is saved: the same command goes on from it");
        }
        Ok(failed)
    }

    /// Starts the waiting jobs as places become free; returns the names of those that failed.
    fn run_jobs(
        &mut self,
        mut waiting: VecDeque<usize>,
        running: &mut Vec<Running>,
    ) -> anyhow::Result<Vec<String>> {
        let (sender, receiver) = channel();
        let mut places = std::mem::take(&mut self.places);
        let mut failed = Vec::new();
        let mut told = false;
        loop {
            while !self.interrupted.load(Ordering::SeqCst)
                && !places.is_empty()
                && let Some(job) = waiting.pop_front()
                && let Some(place) = places.pop()
            {
                running.push(self.start(job, place, &sender)?);
            }
            if running.is_empty() {
                return Ok(failed);
            }
            if self.interrupted.load(Ordering::SeqCst) && !std::mem::replace(&mut told, true) {
                // From a terminal they have the signal already; once more changes nothing.
                for running in running.iter_mut() {
                    terminate(&mut running.child);
                }
            }
            self.listen(&receiver, running);
            let ended = running.extract_if(.., |running| running.open == 0).collect::<Vec<_>>();
            for Running { job, place, mut child, .. } in ended {
                let status = child.wait().context("cannot wait for a job")?;
                places.push(place);
                if status.success() {
                    self.view.advance(self.manifest.jobs[job].runs.len() as u64);
                }
                let how = match (status.success(), self.interrupted.load(Ordering::SeqCst)) {
                    (true, _) => "done",
                    (false, true) => "stopped",
                    (false, false) => "FAILED",
                };
                self.view.end(job, how);
                if !status.success() {
                    failed.push(self.name(job));
                }
            }
        }
    }

    /// A job's name: what its first run is called, and how many there are.
    fn name(&self, job: usize) -> String {
        job_name(&self.manifest.jobs[job])
    }

    fn start(
        &mut self,
        job: usize,
        place: Option<String>,
        sender: &Sender<News>,
    ) -> anyhow::Result<Running> {
        let mut command = Command::new(self.sae);
        command.args(["--progress", "json", "train", "--manifest"]).arg(self.path);
        command.arg("--job").arg(job.to_string());
        if let Some(device) = &place {
            command.env("CUDA_VISIBLE_DEVICES", device);
        }
        let shown = tool::show(&command);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {shown}"))?;
        let mut open = 0;
        if let Some(stdout) = child.stdout.take() {
            open += 1;
            read_lines(job, stdout, sender.clone(), |job, line| {
                match serde_json::from_str(&line) {
                    Ok(event) => News::Event(job, event),
                    Err(_) => News::Line(job, line),
                }
            });
        }
        if let Some(stderr) = child.stderr.take() {
            open += 1;
            read_lines(job, stderr, sender.clone(), News::Line);
        }
        self.view.start(job, &self.name(job));
        Ok(Running { job, place, child, open })
    }

    /// Takes in what has come, and waits for a little more.
    fn listen(&mut self, receiver: &Receiver<News>, running: &mut [Running]) {
        let mut next = receiver.recv_timeout(Duration::from_millis(200)).ok();
        while let Some(news) = next {
            match news {
                News::Event(job, event) => self.view.event(job, &event),
                News::Line(job, line) => self.view.line(&self.name(job), &line),
                News::Closed(job) => {
                    if let Some(running) = running.iter_mut().find(|running| running.job == job) {
                        running.open -= 1;
                    }
                }
            }
            next = receiver.try_recv().ok();
        }
    }
}

pub(crate) fn job_name(job: &Job) -> String {
    match job.runs.as_slice() {
        [] => "empty".to_owned(),
        [run] => run.id.clone(),
        [first, .., last] => {
            let common: String = first
                .id
                .chars()
                .zip(last.id.chars())
                .take_while(|(a, b)| a == b)
                .map(|(a, _)| a)
                .collect();
            let common = common.trim_end_matches(|c: char| !c.is_ascii_alphabetic());
            let stem = common.rsplit_once('_').map_or(common, |(stem, _)| stem);
            format!("{stem} ×{}", job.runs.len())
        }
    }
}

fn read_lines(
    job: usize,
    stream: impl Read + Send + 'static,
    sender: Sender<News>,
    news: impl Fn(usize, String) -> News + Send + 'static,
) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(news(job, line)).is_err() {
                return;
            }
        }
        // The launcher outlives its jobs; a closed channel means that it is ending.
        let _ = sender.send(News::Closed(job));
    });
}

/// The CUDA devices that jobs may use: those that CUDA_VISIBLE_DEVICES leaves, else all that the driver lists; none
/// where libtorch is our own without its CUDA part.
fn cuda_devices() -> Vec<String> {
    if !crate::setup::provided() && !tool::root().join(".libtorch/torch/cuda").is_dir() {
        return Vec::new();
    }
    if let Ok(visible) = std::env::var("CUDA_VISIBLE_DEVICES") {
        return visible
            .split(',')
            .map(str::trim)
            .filter(|id| !id.is_empty())
            .map(str::to_owned)
            .collect();
    }
    let listed = Command::new("nvidia-smi").arg("--list-gpus").stderr(Stdio::null()).output();
    match listed {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let gpus = text.lines().filter(|line| line.starts_with("GPU ")).count();
            (0..gpus).map(|index| index.to_string()).collect()
        }
        _ => Vec::new(),
    }
}
