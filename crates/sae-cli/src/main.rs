//! The command `sae`: arguments → a validated configuration → one call into a library.

mod analyze;
mod bench;
mod configuration;
mod convert;
mod eval;
mod generate;
mod import;
mod pin;
mod prepare;
mod pretrain;
mod profile;
mod telemetry;
mod train;

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use sae_config::message::{printable, without_frames};
use sae_model::device::DeviceChoice;

use telemetry::{ProgressMode, Telemetry};

/// Sparse autoencoders trained end to end.
///
/// Exit codes: 0 done; 1 failed, with the reason on stderr; 2 the arguments are wrong; 130 interrupted (train and
/// pretrain have saved what the same command goes on from).
#[derive(Debug, Parser)]
#[command(name = "sae", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

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
    Eval(eval::Arguments),
    Analyze(analyze::Arguments),
    Import(import::Arguments),
    Pin(pin::Arguments),
    Convert(convert::Arguments),
    Generate(generate::Arguments),
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut telemetry = Telemetry::start(&cli.global);
    let outcome = match &cli.command {
        Command::Prepare(arguments) => prepare::run(arguments, &mut telemetry),
        Command::Pretrain(arguments) => pretrain::run(arguments, cli.global.device, &mut telemetry),
        Command::Train(arguments) => train::run(arguments, cli.global.device, &mut telemetry),
        Command::Eval(arguments) => eval::run(arguments, cli.global.device, &mut telemetry),
        Command::Analyze(arguments) => analyze::run(arguments, cli.global.device, &mut telemetry),
        Command::Bench(arguments) => bench::run(arguments, cli.global.device),
        Command::Import(arguments) => import::run(arguments),
        Command::Pin(arguments) => pin::run(arguments),
        Command::Convert(arguments) => convert::run(arguments),
        Command::Generate(arguments) => generate::run(arguments, cli.global.device, &mut telemetry),
    };
    telemetry.finish();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", whole(&error));
            ExitCode::from(if telemetry.was_interrupted() { 130 } else { 1 })
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
