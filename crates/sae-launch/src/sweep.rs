//! A sweep in its folder: its manifest, the commands of its jobs, and which of them are finished.

use std::path::{Path, PathBuf};
use std::process::Command;

use sae_record::{Job, Manifest, RunFolder, layout};

use crate::LaunchError;

/// A sweep whose manifest is written.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// Its manifest.
    pub manifest: Manifest,
    /// Its folder.
    pub folder: PathBuf,
    /// The binary that is started.
    pub sae: PathBuf,
    /// What the analysis is told beside the folder.
    pub analysis_arguments: Vec<String>,
}

/// What pins the branches and tags of a manifest to the commits that they stand for.
pub type Pin<'a> =
    &'a mut dyn FnMut(&mut Manifest) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;

impl Sweep {
    /// Writes the manifest into the sweep's folder in `out`, unless it is there already; then model and data are where this
    /// one has them (each run compares their fingerprints). Refused is a folder that holds another sweep. Branches and tags of the
    /// hub are pinned once, here: a sweep whose jobs looked each for itself could be of two models.
    pub fn write(
        mut manifest: Manifest,
        out: &Path,
        sae: PathBuf,
        pin: Pin<'_>,
    ) -> Result<Self, LaunchError> {
        let folder = out.join(&manifest.sweep);
        let path = layout::manifest(&folder);
        if path.is_file() {
            let found = Manifest::load(&path)?;
            if !manifest.is_same_sweep(&found) {
                return Err(LaunchError::OtherSweep { folder });
            }
            let moved = manifest.moved(&found);
            if let Some(moved) = &moved {
                moved.save(&path)?;
            }
            return Ok(Self::of(moved.unwrap_or(found), folder, sae));
        }
        if manifest.is_floating() {
            pin(&mut manifest).map_err(LaunchError::Pin)?;
        }
        std::fs::create_dir_all(&folder)
            .map_err(|source| LaunchError::Folder { folder: folder.clone(), source })?;
        manifest.save(&path)?;
        Ok(Self::of(manifest, folder, sae))
    }

    fn of(manifest: Manifest, folder: PathBuf, sae: PathBuf) -> Self {
        Self { manifest, folder, sae, analysis_arguments: Vec::new() }
    }

    /// Its manifest's file.
    pub fn path(&self) -> PathBuf {
        layout::manifest(&self.folder)
    }

    /// The jobs that have a run which is not finished.
    pub fn unfinished(&self) -> Vec<usize> {
        let is_finished = |job: &Job| {
            job.runs
                .iter()
                .all(|run| RunFolder::new(self.folder.join(&run.folder)).summary().is_file())
        };
        let jobs = self.manifest.jobs.iter().enumerate();
        jobs.filter(|(_, job)| !is_finished(job)).map(|(index, _)| index).collect()
    }

    /// The command that trains a job.
    pub fn job(&self, index: usize) -> Command {
        let mut command = Command::new(&self.sae);
        command.args(["train", "--manifest"]).arg(self.path());
        command.arg("--job").arg(index.to_string());
        command
    }

    /// The command that analyses what is finished.
    pub fn analysis(&self) -> Command {
        let mut command = Command::new(&self.sae);
        command.arg("analyze").args(&self.analysis_arguments).arg(&self.folder);
        command
    }

    /// A job's name: what its first run is called, and how many there are.
    pub fn name(&self, index: usize) -> String {
        job_name(&self.manifest.jobs[index])
    }
}

/// A job's name.
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

/// A command as one would type it.
pub fn show(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    let words: Vec<String> = std::iter::once(program).chain(arguments).collect();
    format!("`{}`", words.join(" "))
}
