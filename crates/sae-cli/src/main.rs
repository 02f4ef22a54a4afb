//! The command `sae`: arguments → a validated configuration → one call into a library.

mod analyze;
mod bench;
mod concepts;
mod config;
mod configuration;
mod convert;
mod eval;
mod explain;
mod features;
mod generate;
mod import;
mod judge;
mod pin;
mod prepare;
mod pretrain;
mod profile;
mod publish;
mod score;
mod sweep;
mod task;
mod telemetry;
mod train;
mod view;

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use sae_config::message::{printable, without_frames};
use sae_model::device::DeviceChoice;
use tch::Device;

use telemetry::{ProgressMode, Telemetry};

/// Sparse autoencoders trained end to end.
///
/// Exit codes: 0 done; 1 failed, with the reason on stderr; 2 the arguments are wrong; 130 interrupted (train, sweep and
/// pretrain have saved what the same command goes on from).
#[derive(Debug, Parser)]
#[command(name = "sae", version, propagate_version = true, after_help = MAP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

/// The commands by what one wants to do.
const MAP: &str = "Where to begin:
  data      prepare (text → tokens, a tokeniser)   pretrain (a small language model)
  train     train (one run)   sweep (many, to a frontier)   import (the reference's YAML)   pin (the hub's commits)
  look      eval (metrics of a run)   analyze (figures and report)   features (what each feature is)
            concepts (how well features tell what tokens are)   explain (what a language model says that they are)
            score (how well that tells what they do)   task (what of a task is left)
            view (features and prompts in a browser)   generate (text with SAEs spliced in)
  share     publish (the hub, Neuronpedia)   convert (weights of other formats)
  learn     config (what every key of a configuration means)
  machine   bench (speeds)   completions (for a shell)

Every command has its own help with examples: sae train --help";

#[derive(Debug, Args)]
struct Global {
    /// Say less: warnings and errors alone
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Say more (-v debug, -vv trace); RUST_LOG goes first
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// How progress is shown: bars on a terminal and lines elsewhere, or always one of them, or JSON on stdout
    #[arg(long, global = true, value_enum, default_value_t = ProgressMode::Auto)]
    progress: ProgressMode,
    /// auto, cpu, cuda or cuda:NUMBER
    #[arg(long, global = true, default_value = "auto")]
    device: DeviceChoice,
}

#[derive(Debug, Subcommand)]
enum Command {
    Prepare(prepare::Arguments),
    Pretrain(pretrain::Arguments),
    Train(train::Arguments),
    Sweep(sweep::Arguments),
    Eval(eval::Arguments),
    Analyze(analyze::Arguments),
    Features(features::Arguments),
    Concepts(concepts::Arguments),
    Explain(explain::Arguments),
    Score(score::Arguments),
    Task(task::Arguments),
    View(view::Arguments),
    Publish(publish::Arguments),
    Import(import::Arguments),
    Pin(pin::Arguments),
    Config(config::Arguments),
    Convert(convert::Arguments),
    Generate(generate::Arguments),
    Bench(bench::Arguments),
    Completions(Completions),
}

/// Print what a shell completes `sae` by
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sae completions bash > ~/.local/share/bash-completion/completions/sae
  sae completions zsh > ~/.zfunc/_sae
  sae completions fish > ~/.config/fish/completions/sae.fish")]
struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

impl Completions {
    fn run(&self) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "sae", &mut script);
        print(String::from_utf8_lossy(&script).trim_end())
    }
}

/// What `--version` says, beside what `-V` does: the commit, and the libraries that are found.
fn long_version() -> String {
    let made_with = sae_train::made_with(env!("SAE_COMMIT"));
    let device = match DeviceChoice::Auto.resolve() {
        Ok(device @ Device::Cuda(_)) => {
            format!("{} CUDA devices, the first of them {device:?}", tch::Cuda::device_count())
        }
        Ok(_) => "no CUDA device".to_owned(),
        Err(error) => error.to_string(),
    };
    format!(
        "{} (commit {})\nlibtorch {}, {device}",
        made_with.sae, made_with.commit, made_with.libtorch
    )
}

fn main() -> ExitCode {
    let mut command = Cli::command();
    // Looking for devices takes a moment, which other commands need not wait.
    if std::env::args_os().any(|argument| argument == "--version") {
        command = command.long_version(long_version());
    }
    let cli = Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit());
    let mut telemetry = Telemetry::start(&cli.global);
    let outcome = match &cli.command {
        Command::Prepare(arguments) => prepare::run(arguments, &mut telemetry),
        Command::Pretrain(arguments) => pretrain::run(arguments, cli.global.device, &mut telemetry),
        Command::Train(arguments) => train::run(arguments, cli.global.device, &mut telemetry),
        Command::Sweep(arguments) => sweep::run(arguments, &cli.global),
        Command::Eval(arguments) => eval::run(arguments, cli.global.device, &mut telemetry),
        Command::Analyze(arguments) => analyze::run(arguments, cli.global.device, &mut telemetry),
        Command::Features(arguments) => features::run(arguments, cli.global.device, &mut telemetry),
        Command::Explain(arguments) => explain::run(arguments, &mut telemetry),
        Command::Score(arguments) => score::run(arguments, cli.global.device, &mut telemetry),
        Command::Concepts(arguments) => concepts::run(arguments, cli.global.device, &mut telemetry),
        Command::Publish(arguments) => publish::run(arguments, &mut telemetry),
        Command::Task(arguments) => task::run(arguments, cli.global.device, &mut telemetry),
        Command::View(arguments) => view::run(arguments, cli.global.device),
        Command::Bench(arguments) => bench::run(arguments, cli.global.device),
        Command::Completions(arguments) => arguments.run(),
        Command::Import(arguments) => import::run(arguments),
        Command::Pin(arguments) => pin::run(arguments),
        Command::Config(arguments) => config::run(arguments),
        Command::Convert(arguments) => convert::run(arguments),
        Command::Generate(arguments) => generate::run(arguments, cli.global.device, &mut telemetry),
    };
    telemetry.finish();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", whole(&error));
            let interrupted = telemetry.was_interrupted() || error.is::<sweep::Interrupted>();
            ExitCode::from(if interrupted { 130 } else { 1 })
        }
    }
}

/// An error with its causes, those left out that it tells already.
fn whole(error: &anyhow::Error) -> String {
    let causes = error.chain().map(|cause| without_frames(&cause));
    let whole = causes.fold(String::new(), |told, cause| match told.as_str() {
        "" => cause,
        so_far if so_far.contains(&cause) => told,
        so_far => format!("{so_far}: {cause}"),
    });
    printable(&whole).into_owned()
}

/// Writes the result of a command to stdout; a reader that has left is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
