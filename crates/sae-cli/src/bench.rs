//! `sae bench`: this side of `cargo xtask bench`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use clap::{Args, Subcommand};
use sae_analysis::geometry::similarity::{across, within};
use sae_analysis::matrix::Matrix;
use sae_config::RunConfig;
use sae_data::{ColumnKind, ShardSet, StreamOptions, TextTokenizer, TokenStream};
use sae_model::device::DeviceChoice;
use sae_record::RunFolder;
use sae_train::agreement;
use sae_train::bench::{Bench, Floor, Shape, peak_bytes};
use serde_json::json;
use tch::{Device, Kind, Tensor};

/// Measure speeds; `cargo xtask bench` does so beside Python's
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Data(Data),
    Train(Train),
    /// Measure what a step of a shape cannot be faster than
    Floor(Train),
    Cosines(Cosines),
    Gather(Gather),
    Features(Features),
    /// Compare the fast paths of a device with plain operations in double precision
    ///
    /// Prints a line of JSON for each: what, difference (of norms, relative), bound. Fails where one is beyond its bound.
    Agreement,
}

/// The largest cosines within two dictionaries of random numbers, and across them
///
/// Prints one line of JSON: within_seconds (of both), across_seconds, peak_bytes.
#[derive(Debug, Args)]
struct Cosines {
    /// Dictionary elements
    #[arg(long)]
    rows: i64,
    /// The model's width
    #[arg(long)]
    columns: i64,
}

/// Gather what features are active on, from random codes
///
/// Prints one line of JSON: tokens, seconds, peak_bytes.
#[derive(Debug, Args)]
struct Gather {
    /// Dictionary elements
    #[arg(long, default_value_t = 46_080)]
    features: u32,
    /// Active features of a token
    #[arg(long, default_value_t = 50)]
    active: u32,
    /// Tokens
    #[arg(long, default_value_t = 10_000_000)]
    tokens: u64,
}

/// Evaluate a finished run, and gather what its features are active on, on the same tokens
///
/// Prints one line of JSON: tokens, evaluation_seconds, features_seconds.
#[derive(Debug, Args)]
struct Features {
    /// The run's folder
    run: PathBuf,
}

/// Take training steps at a shape, on random weights and tokens
///
/// Reads numbers of steps from stdin, a line each, and prints a line of JSON for each: seconds, tokens_per_step,
/// peak_bytes, l0.
#[derive(Debug, Args)]
struct Train {
    /// The shape, JSON, as scripts/peer/train.py has it
    shape: String,
}

/// Read a data set as training does, through the shuffle buffer into batches
///
/// Prints one line of JSON: windows, tokens, seconds, tokens_per_second.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  sae bench data data/windows --column input_ids --context-length 128 --batch-size 16")]
struct Data {
    /// A parquet file, a folder of them or a glob
    shards: PathBuf,
    /// The column: windows, or text
    #[arg(long)]
    column: String,
    /// Tokens in a window
    #[arg(long)]
    context_length: usize,
    /// Windows in a batch
    #[arg(long)]
    batch_size: usize,
    /// The tokeniser of text
    #[arg(long)]
    tokenizer: Option<PathBuf>,
    /// Stop after so many windows
    #[arg(long)]
    max_windows: Option<u64>,
}

pub(crate) fn run(arguments: &Arguments, device: DeviceChoice) -> anyhow::Result<()> {
    match &arguments.what {
        What::Data(data) => read(data),
        What::Train(train) => serve(train, device),
        What::Cosines(size) => cosines(size),
        What::Gather(size) => gather(size),
        What::Features(of) => features(of, device),
        What::Agreement => {
            let all = agreement::measure(device.resolve()?)?;
            for found in &all {
                crate::print(&serde_json::to_string(found)?)?;
            }
            let bad = all.iter().filter(|found| !found.is_good()).count();
            anyhow::ensure!(
                bad == 0,
                "{bad} of {} differences are beyond their bounds (on a GPU, TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=0 takes \
                 products of single precision as such)",
                all.len()
            );
            Ok(())
        }
        What::Floor(train) => {
            let floor = Floor::measure(&shape(train)?, device.resolve()?)?;
            crate::print(&serde_json::to_string(&floor)?)
        }
    }
}

fn shape(arguments: &Train) -> anyhow::Result<Shape> {
    serde_json::from_str(&arguments.shape).context("cannot read the shape")
}

fn serve(arguments: &Train, device: DeviceChoice) -> anyhow::Result<()> {
    let mut bench = Bench::new(&shape(arguments)?, device.resolve()?)?;
    crate::print(&json!({"ready": true}).to_string())?;
    for line in std::io::stdin().lines() {
        let steps = line?.trim().parse().context("cannot read the number of steps")?;
        crate::print(&serde_json::to_string(&bench.measure(steps)?)?)?;
    }
    Ok(())
}

fn cosines(&Cosines { rows, columns }: &Cosines) -> anyhow::Result<()> {
    tch::manual_seed(0);
    let dictionary = || -> anyhow::Result<Matrix> {
        let values = Tensor::f_rand([rows * columns], (Kind::Float, Device::Cpu))? * 2.0 - 1.0;
        Ok(Matrix::new(usize::try_from(columns)?, values.try_into()?)?)
    };
    let (a, b) = (dictionary()?, dictionary()?);
    let began = Instant::now();
    within(&a)?;
    within(&b)?;
    let within_seconds = began.elapsed().as_secs_f64();
    let began = Instant::now();
    across(&a, &b)?;
    let across_seconds = began.elapsed().as_secs_f64();
    let peak_bytes = peak_bytes();
    crate::print(
        &json!({ "within_seconds": within_seconds, "across_seconds": across_seconds, "peak_bytes": peak_bytes })
            .to_string(),
    )
}

fn gather(size: &Gather) -> anyhow::Result<()> {
    let found = sae_train::bench::gather(size.features, size.active, size.tokens);
    crate::print(&serde_json::to_string(&found)?)
}

fn features(of: &Features, device: DeviceChoice) -> anyhow::Result<()> {
    let config = RunConfig::load_recorded(&RunFolder::new(&of.run).config())?;
    let found = sae_train::bench::features(&config, &of.run, device.resolve()?)?;
    crate::print(&serde_json::to_string(&found)?)
}

fn read(arguments: &Data) -> anyhow::Result<()> {
    let began = Instant::now();
    let shards = ShardSet::open(&arguments.shards, &arguments.column)?;
    let tokenizer = arguments.tokenizer.as_deref().map(TextTokenizer::load).transpose()?;
    let vocabulary = tokenizer.as_ref().map_or(u32::MAX as usize, TextTokenizer::vocabulary);
    // As the reference: 1 000 windows to shuffle among; text is taken in order.
    let shuffle_buffer = if shards.kind() == ColumnKind::Windows { 1000 } else { 1 };
    let options = StreamOptions {
        batch_size: arguments.batch_size,
        shuffle_buffer,
        ..StreamOptions::in_order(arguments.context_length, vocabulary)
    };
    let (mut windows, mut tokens) = (0, 0);
    for batch in TokenStream::start(shards, tokenizer, options)? {
        let batch = batch?;
        windows += batch.rows as u64;
        tokens += batch.tokens.len() as u64;
        if arguments.max_windows.is_some_and(|most| windows >= most) {
            break;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let rate = tokens as f64 / seconds;
    crate::print(
        &json!({"windows": windows, "tokens": tokens, "seconds": seconds, "tokens_per_second": rate})
            .to_string(),
    )
}
