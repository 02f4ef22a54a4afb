//! A sweep's jobs: written down in a manifest, started by a launcher, shown while they run.
//!
//! A job is `sae train --manifest M --job I`, whatever starts it; a [`Launcher`] is one way to start all of a sweep's. This
//! crate knows no SAE and no language model: it starts the binary `sae`, and reads what that says of itself
//! ([`sae_record::Event`]).
//!
//! ```
//! use sae_config::SweepConfig;
//! use sae_launch::{Sweep, describe};
//! use sae_record::Manifest;
//!
//! let sweep = SweepConfig::parse(r#"
//!     name = "mine"
//!     base = "run.toml"
//!     [[variants]]
//!     name = "e2e"
//!     grid = { "loss.sparsity.coeff" = [0.5, 1.0, 2.0], "train.batch_size" = [8, 16] }
//! "#, "example.toml")?;
//! let base = toml::from_str(r#"
//!     model = { path = "data/rust-lm" }
//!     data = { train = "data/corpus/train", context_length = 128 }
//!     sae = { sites = ["blocks.3.hook_resid_pre"], expansion = 16 }
//!     loss = { sparsity = { coeff = 1.0 }, kl = { coeff = 1.0 } }
//!     train = { n_samples = 4800, batch_size = 16, lr = 1e-3 }
//!     eval = { data = "data/corpus/validation", n_samples = 256 }
//! "#)?;
//! let manifest: Manifest = sweep.expand_from(&base, 100)?.into(); // `expand` reads the base from its file
//! // Runs of one batch size train together, as a bank.
//! assert!(describe(&manifest).contains("6 runs in 2 jobs"));
//! # let out = tempfile::tempdir()?;
//! // Pinned are the hub's branches and tags, of which this sweep has none.
//! let sweep = Sweep::write(manifest, out.path(), "sae".into(), &mut |_| unreachable!())?;
//! assert_eq!(sweep.unfinished(), [0, 1]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod commands;
mod describe;
mod error;
mod local;
mod sweep;
mod view;

pub use self::commands::Commands;
pub use self::describe::describe;
pub use self::error::LaunchError;
pub use self::local::{Local, visible_cuda_devices};
pub use self::sweep::{Sweep, show};

/// A launcher's name, as `sae sweep --launcher` takes it, and how it is made.
type Entry = (&'static str, fn(Settings) -> Box<dyn Launcher>);

// One line a launcher; the first is the one where none is named.
const LAUNCHERS: &[Entry] = &[
    ("local", |settings| Box::new(Local::new(settings))),
    ("commands", |settings| Box::new(Commands::new(settings))),
];

/// The names of the launchers, that of the default first.
pub fn launchers() -> impl Iterator<Item = &'static str> {
    LAUNCHERS.iter().map(|(name, _)| *name)
}

/// What launchers are told beside the sweep.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Jobs at a time; where left out, one a device.
    pub jobs: Option<std::num::NonZeroUsize>,
    /// CUDA devices, by what `CUDA_VISIBLE_DEVICES` calls them; none: jobs run on the CPU.
    pub devices: Vec<String>,
    /// How jobs that run are shown.
    pub show: Show,
    /// Arguments that every job gets, `-q` or `-v`.
    pub arguments: Vec<String>,
}

/// How jobs that run are shown, on stderr.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Show {
    /// Bars on a terminal, lines elsewhere.
    #[default]
    Auto,
    /// Bars.
    Bars,
    /// Lines.
    Lines,
    /// What jobs say of themselves and how those end that fail.
    Quiet,
    /// Lines, and on stdout every event with its job, as JSON: `{"job": 0, "event": "advanced", …}`.
    Json,
}

/// The launcher with this name; none for an unknown name.
pub fn launcher(name: &str, settings: Settings) -> Option<Box<dyn Launcher>> {
    let (_, make) = LAUNCHERS.iter().find(|(known, _)| *known == name)?;
    Some(make(settings))
}

/// A way to start the jobs of a sweep.
pub trait Launcher {
    /// Starts all jobs that are not finished and, when these have ended, the analysis of what is finished; or prepares that.
    fn launch(&self, sweep: &Sweep) -> Result<Outcome, LaunchError>;
}

/// How jobs that were started have ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All are finished and analysed.
    Finished,
    /// These have failed, by their names; the others are finished.
    Failed(Vec<String>),
    /// A signal asked for the end; what was trained is saved.
    Interrupted,
    /// Others start the jobs: what was written for them, and how it goes on, in a sentence.
    Prepared(String),
}

#[cfg(test)]
mod tests {
    use super::{Settings, launcher, launchers};

    #[test]
    fn every_name_is_a_launcher() {
        assert_eq!(launchers().next(), Some("local"));
        for name in launchers() {
            assert!(launcher(name, Settings::default()).is_some(), "{name}");
        }
        assert!(launcher("nothing", Settings::default()).is_none());
    }
}
