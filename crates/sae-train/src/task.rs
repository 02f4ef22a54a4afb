//! Tasks of two answers with the dictionaries of finished runs spliced in, as subject–verb agreement.

use std::path::Path;

use sae_config::RunConfig;
use sae_config::file::read_text;
use sae_config::fingerprint::Fingerprint;
use sae_data::TextTokenizer;
use sae_eval::task::{TwoAnswers, logit_differences};
use sae_record::activations::Measured;
use sae_record::summary::Summary;
use sae_record::task::RunTask;
use sae_splice::Member;
use serde::Deserialize;
use tch::Device;

use crate::dashboards::groups;
use crate::evaluate::member;
use crate::measure::{of_model, of_one_model, of_run};
use crate::progress::{Event, Observer, Phase};
use crate::setup::Setup;
use crate::{RunSpec, Sources, TrainError};

/// The longest file of a task, in bytes.
const LONGEST: u64 = 1 << 30;

/// A line of a task, as Marks et al. 2024 (arXiv 2403.19647) write them; what else it has does not matter.
#[derive(Debug, Deserialize)]
struct Line {
    /// The prompt.
    clean_prefix: String,
    /// What is right after it, and what is wrong: texts of which the first token counts.
    clean_answer: String,
    patch_answer: String,
}

/// What became of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskOutcome {
    /// The run's id.
    pub run: String,
    /// How its task goes.
    pub task: RunTask,
}

/// Measures how a task of JSON lines goes, `tasks/<name>.json` of each run, the name being that of the file. What is there of the same
/// task, model and SAEs is not measured again. Runs of another model than the first, and runs whose SAEs cannot be read, are left out,
/// with a warning.
pub fn measure_task(
    runs: &[RunSpec],
    path: &Path,
    device: Device,
    observer: &mut dyn Observer,
) -> Result<Vec<TaskOutcome>, TrainError> {
    let same = of_one_model(runs, "the task is not measured");
    let Some(first) = same.first() else { return Ok(Vec::new()) };
    let text = read_text(path, LONGEST).map_err(TrainError::file("read", path))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let inputs = Summary::load(&first.folder.summary()).ok().and_then(|summary| summary.inputs);
    let mut of = of_model(&first.config, inputs.as_ref(), &Sources::default())?;
    of.insert("task".to_owned(), Fingerprint::new().text(&text).finish());
    let (mut found, mut open) = (Vec::new(), Vec::new());
    for run in same {
        let of = of_run(&of, &run.folder, &run.config)?;
        match Measured::<RunTask>::load(&run.folder.task(&name)) {
            Ok(Some(measured)) if measured.of == of => {
                found.push(TaskOutcome { run: run.id.clone(), task: measured.values });
            }
            _ => open.push((run, of)),
        }
    }
    for group in groups(&open) {
        let config = &group[0].0.config;
        let setup = Setup::model_only(config, device)?;
        let prompts = prompts(path, &text, &setup.text_tokenizer()?, config)?;
        let (mut members, mut measured) = (Vec::new(), Vec::new());
        for (run, of) in group {
            match member(&run.config, run.folder.path(), &setup, device) {
                Ok(member) => {
                    members.push(member);
                    measured.push((run, of));
                }
                Err(error) => tracing::warn!("{}: the task is not measured: {error}", run.id),
            }
        }
        let own: Vec<&Member> = members.iter().collect();
        observer.notice(Event::began(Phase::Task, prompts.len() as u64, 0));
        let batch_size = config.eval_batch_size();
        let mut notice = |done| {
            observer.notice(Event::advanced(done));
            !observer.interrupted()
        };
        let differences = logit_differences(&setup.model, &own, &prompts, batch_size, &mut notice)?;
        let Some(differences) = differences else { return Err(TrainError::InterruptedEvaluation) };
        observer.notice(Event::Ended);
        for ((run, of), spliced) in measured.into_iter().zip(differences.spliced) {
            let values = RunTask { original: differences.original.clone(), spliced };
            Measured { of: of.clone(), values: values.clone() }.save(&run.folder.task(&name))?;
            found.push(TaskOutcome { run: run.id.clone(), task: values });
        }
    }
    let place = |own: &TaskOutcome| runs.iter().position(|run| run.id == own.run);
    found.sort_by_key(place);
    Ok(found)
}

/// The prompts of a task, each after the token that begins a text.
fn prompts(
    path: &Path,
    text: &str,
    tokenizer: &TextTokenizer,
    config: &RunConfig,
) -> Result<Vec<TwoAnswers>, TrainError> {
    let longest = config.data.context_length.get();
    let mut prompts = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let refused =
            |message: String| TrainError::Task { path: path.to_owned(), line: number + 1, message };
        let line: Line = serde_json::from_str(line).map_err(|error| refused(error.to_string()))?;
        let mut tokens = vec![tokenizer.begin_of_text()];
        tokens.extend(tokenizer.encode(&line.clean_prefix)?);
        if tokens.len() > longest {
            let found = tokens.len();
            return Err(refused(format!(
                "expected a prompt of {longest} tokens at most, data.context_length, found {found}"
            )));
        }
        let mut answers = [0; 2];
        for (answer, text) in answers.iter_mut().zip([&line.clean_answer, &line.patch_answer]) {
            let first = tokenizer.encode(text)?.first().copied();
            *answer = first.ok_or_else(|| refused("an answer is empty".to_owned()))?;
        }
        if answers[0] == answers[1] {
            return Err(refused(format!(
                "expected answers that begin with different tokens, found {:?} and {:?}",
                line.clean_answer, line.patch_answer
            )));
        }
        prompts.push(TwoAnswers { tokens, answers });
    }
    if prompts.is_empty() {
        return Err(TrainError::Task {
            path: path.to_owned(),
            line: 1,
            message: "expected a line a prompt, found none".to_owned(),
        });
    }
    Ok(prompts)
}
