//! Project tasks, `cargo xtask …`: one file a task.

mod bench;
mod check;
mod compare;
mod corpus;
mod judge;
mod licences;
mod outside;
mod setup;
mod sweep;
mod test;
mod tool;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Project tasks: set up, make the corpus, sweep, test, check, compare, measure, judge.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    Setup(setup::Arguments),
    Corpus(corpus::Arguments),
    Sweep(sweep::Arguments),
    Test(test::Arguments),
    Check(check::Arguments),
    Compare(compare::Arguments),
    Bench(bench::Arguments),
    Judge(judge::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Setup(arguments) => setup::run(&arguments),
        Task::Corpus(arguments) => corpus::run(&arguments),
        Task::Sweep(arguments) => sweep::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        Task::Check(arguments) => check::run(&arguments),
        Task::Compare(arguments) => compare::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Judge(arguments) => judge::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tool::tell(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
