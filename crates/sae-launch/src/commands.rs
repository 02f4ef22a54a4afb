//! Jobs as lines of a file, for what starts them elsewhere: GNU `parallel`, `xargs`, a queue of one's own.

use std::process::Command;

use sae_config::file::write_atomically;

use crate::{LaunchError, Launcher, Outcome, Settings, Sweep};

/// Writes `jobs.txt` into the sweep's folder, a line a job that is not finished, as a shell takes it, and starts nothing.
#[derive(Debug, Clone)]
pub struct Commands {
    arguments: Vec<String>,
}

impl Commands {
    /// Every job gets the settings' arguments; where it runs is left to what starts it.
    pub fn new(settings: Settings) -> Self {
        Self { arguments: settings.arguments }
    }
}

impl Launcher for Commands {
    fn launch(&self, sweep: &Sweep) -> Result<Outcome, LaunchError> {
        let unfinished = sweep.unfinished();
        let jobs = unfinished.iter().map(|job| {
            let mut job = sweep.job(*job);
            line(job.args(&self.arguments)) + "\n"
        });
        let path = sweep.folder.join("jobs.txt");
        write_atomically(&path, jobs.collect::<String>().as_bytes())
            .map_err(|source| LaunchError::Folder { folder: path.clone(), source })?;
        let analysis = line(&sweep.analysis());
        Ok(Outcome::Prepared(match unfinished.len() {
            0 => {
                format!("all jobs have finished: there is none to start; what is left: {analysis}")
            }
            jobs => format!(
                "wrote {jobs} {}, a line each, to {}; when they have ended: {analysis}",
                if jobs == 1 { "job" } else { "jobs" },
                path.display(),
            ),
        }))
    }
}

/// A command as a shell takes it.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// A word in quotes, where a shell would see more in it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Commands, quoted};
    use crate::{Launcher, Outcome, Settings, Sweep};
    use sae_record::{Job, Manifest};

    #[test]
    fn jobs_are_lines_that_a_shell_takes() {
        let place = tempfile::tempdir().unwrap();
        let job = Job { runs: Vec::new() };
        let manifest = Manifest { sweep: "demo".to_owned(), jobs: vec![job] };
        let folder = place.path().join("it's here");
        let sweep = Sweep {
            manifest,
            folder: folder.clone(),
            sae: "/bin/sae".into(),
            analysis_arguments: Vec::new(),
        };
        std::fs::create_dir(&folder).unwrap();
        let settings = Settings { arguments: vec!["-q".to_owned()], ..Settings::default() };
        let outcome = Commands::new(settings).launch(&sweep).unwrap();
        // A job without runs is finished.
        assert_eq!(std::fs::read_to_string(folder.join("jobs.txt")).unwrap(), "");
        let Outcome::Prepared(how) = outcome else { panic!("{outcome:?}") };
        assert!(
            how.contains("all jobs have finished") && how.contains("/bin/sae analyze '"),
            "{how}"
        );
        assert!(how.contains(r"it'\''s here'"), "{how}");
        assert_eq!([quoted("a-b=c"), quoted(""), quoted("$x; y")], ["a-b=c", "''", "'$x; y'"]);
    }
}
