//! Tasks of two answers: what of the original model's preference is left with the SAEs of every run spliced in, as in the paper's table of
//! subject–verb agreement.

use std::collections::{BTreeMap, BTreeSet};

use sae_record::activations::Measured;
use sae_record::task::RunTask;
use serde::{Deserialize, Serialize};

use crate::AnalysisError;
use crate::bootstrap::{Estimate, Resampled, resample_items};
use crate::draw::{Axis, Draw, Figure, Looks, Panel, PointText, Series};
use crate::evidence::Evidence;
use crate::matching::MatchBy;
use crate::runs::{Group, Point};
use crate::study::{Study, pairs_of};
use crate::subject::{Block, Subject, TextFile};
use crate::table::{Cell, Column, Table, fixed};

/// What of tasks is left.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tasks {
    /// By the task's name.
    pub tasks: BTreeMap<String, TaskEvidence>,
}

/// What of a task is left.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskEvidence {
    /// Prompts.
    pub prompts: u64,
    /// The share of them that the original model gets right.
    pub accuracy: f64,
    /// Of every run that was measured.
    pub runs: Vec<RunFaithfulness>,
    /// Differences between groups, for matched runs.
    pub differences: Vec<FaithfulnessDifference>,
}

/// What of a task is left with a run's SAEs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunFaithfulness {
    /// Its point, at the first of its sites.
    pub point: Point,
    /// The mean logit difference over the original model's, with an interval over prompts.
    pub faithfulness: Estimate,
    /// The share of prompts that the spliced model gets right.
    pub accuracy: f64,
}

/// The faithfulness of one run less that of another, both matched, on the same prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaithfulnessDifference {
    /// What they are matched in.
    pub by: MatchBy,
    /// The first run and its group.
    pub of: (String, Group),
    /// The run that is taken away.
    pub less: (String, Group),
    /// The difference with its interval.
    pub estimate: Estimate,
}

impl Subject for Tasks {
    fn name(&self) -> &'static str {
        "tasks"
    }

    fn title(&self) -> &'static str {
        "Tasks"
    }

    fn find(study: &mut Study<'_>) -> Result<Self, AnalysisError> {
        let names: BTreeSet<String> =
            study.runs.finished.iter().flat_map(|run| names(study, &run.id)).collect();
        let mut found = Self::default();
        for name in names {
            let task = task(study, &name)?;
            if !task.runs.is_empty() {
                found.tasks.insert(name, task);
            }
        }
        Ok(found)
    }

    fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    fn files(&self, _: &Evidence) -> Result<Vec<TextFile>, AnalysisError> {
        Ok(vec![TextFile::csv("tasks", &faithfulness(self))])
    }

    fn figure(&self, evidence: &Evidence) -> Figure {
        let looks = evidence.looks();
        let panels = self.tasks.iter().map(|(name, task)| panel(name, task, &looks));
        Figure { rows: panels.map(|panel| vec![panel]).collect() }
    }

    fn section(&self, _: &Evidence) -> Result<Vec<Block>, &'static str> {
        if self.tasks.is_empty() {
            return Err("No task was measured: sae task measures what of it is left.");
        }
        let text = "What of the model's preference for the right one of two answers is left with the SAEs spliced in: faithfulness is the mean \
                    difference of the answers' logits over the original model's. Intervals are over prompts; runs are compared on the same \
                    ones.";
        Ok(vec![
            Block::Text(text.to_owned()),
            Block::Panels,
            Block::Table(differences(self)),
            Block::Folded("The numbers".to_owned(), vec![Block::Table(faithfulness(self))]),
        ])
    }
}

/// The tasks that a run was measured on.
fn names(study: &Study<'_>, run: &str) -> Vec<String> {
    let folder = study.runs.run(run).map(|run| study.runs.folder_of(run).tasks());
    let entries = folder.and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let json = paths.filter(|path| path.extension().is_some_and(|own| own == "json"));
    json.filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned())).collect()
}

fn task(study: &mut Study<'_>, name: &str) -> Result<TaskEvidence, AnalysisError> {
    let options = study.options.bootstrap;
    let mut found = TaskEvidence::default();
    let mut of_first = None;
    let mut resampled: BTreeMap<String, Resampled> = BTreeMap::new();
    for run in &study.runs.finished {
        let path = study.runs.folder_of(run).task(name);
        let measured = match Measured::<RunTask>::load(&path) {
            Ok(Some(measured)) => measured,
            Ok(None) => continue,
            Err(error) => {
                study.notes.add(format!("The task {name} of {} is left out: {error}.", run.id));
                continue;
            }
        };
        let RunTask { original, spliced } = &measured.values;
        let finite = original.iter().chain(spliced).all(|value| value.is_finite());
        if original.is_empty() || original.len() != spliced.len() || !finite {
            study
                .notes
                .add(format!("The task {name} of {} has no usable numbers: left out.", run.id));
            continue;
        }
        // On the same prompts, with the same model; the last bits of its logits may be another machine's.
        let mut of = measured.of.clone();
        of.remove("saes");
        if of_first.get_or_insert_with(|| of.clone()) != &of {
            study.notes.add(format!(
                "The task {name} of {} is of other prompts or another model: left out; sae task measures it again.",
                run.id
            ));
            continue;
        }
        let Some(point) = study.runs.points.iter().find(|point| point.run == run.id) else {
            continue;
        };
        let own = resample_items(original.len(), options, |weights| {
            measured.values.faithfulness(weights)
        })?;
        let [accuracy, spliced] = measured.values.accuracies();
        (found.prompts, found.accuracy) = (original.len() as u64, accuracy);
        found.runs.push(RunFaithfulness {
            point: point.clone(),
            faithfulness: own.estimate(options),
            accuracy: spliced,
        });
        resampled.insert(run.id.clone(), own);
    }
    let mut seen = BTreeSet::new();
    for matched in &study.matches {
        for (less, of) in pairs_of(&matched.points) {
            let pair = (resampled.get(&of.run), resampled.get(&less.run));
            let (Some(a), Some(b)) = pair else { continue };
            // A run of several sites is matched at each.
            if seen.insert((matched.by.to_string(), of.run.clone(), less.run.clone())) {
                found.differences.push(FaithfulnessDifference {
                    by: matched.by,
                    of: (of.run.clone(), of.group.clone()),
                    less: (less.run.clone(), less.group.clone()),
                    estimate: a.minus(b).estimate(options),
                });
            }
        }
    }
    Ok(found)
}

fn panel(name: &str, task: &TaskEvidence, looks: &Looks) -> Panel {
    let mut series = Vec::new();
    for (group, look) in looks.groups() {
        let own = task.runs.iter().filter(|run| run.point.group == *group);
        let mut own: Vec<&RunFaithfulness> =
            own.filter(|run| run.point.l0 > 0.0 && run.point.l0.is_finite()).collect();
        own.sort_by(|a, b| a.point.l0.total_cmp(&b.point.l0));
        if own.is_empty() {
            continue;
        }
        let points = own.iter().map(|run| (run.point.l0, run.faithfulness.value)).collect();
        let texts = own.iter().map(|run| (run.point.run.clone(), text(run))).collect();
        let line = Series::new(group.to_string(), look, Draw::MarkedLine, points);
        series.push(line.of(group).with_text(PointText::Runs(texts)));
    }
    let x = Axis::new("L0 (active features per token)").logarithmic();
    let y = Axis::new("Faithfulness").including(1.0);
    Panel::new(format!("{name}: faithfulness against L0"), x, y, series)
}

fn text(run: &RunFaithfulness) -> String {
    [
        run.point.run.clone(),
        format!("Type: {}", run.point.group),
        format!("L0: {}", fixed(run.point.l0, 1)),
        format!("CE increase: {}", fixed(run.point.ce_increase, 4)),
        format!("Faithfulness: {}", fixed(run.faithfulness.value, 3)),
        format!("Interval: {}", run.faithfulness.interval_text()),
    ]
    .join("\n")
}

/// A row a task and run.
fn faithfulness(found: &Tasks) -> Table {
    let columns = vec![
        Column::new("task", "task", "The name of its file"),
        Column::new("prompts", "prompts", "Prompts with two answers"),
        Column::new("original", "original right", "Share that the original model gets right"),
        Column::group(),
        Column::run(),
        Column::new("l0", "L0", "Active features per token, at the first site"),
        Column::new("ce_increase", "CE increase", "Nats per token"),
        Column::new("faithfulness", "faithfulness", "Mean logit difference over the original's"),
        Column::new("interval", "interval", "Bootstrap confidence interval, over prompts"),
        Column::new("right", "right", "Share that the spliced model gets right"),
    ];
    let rows = found.tasks.iter().flat_map(|(name, task)| {
        task.runs.iter().map(move |run| {
            vec![
                Cell::text(name),
                Cell::count(task.prompts),
                Cell::fixed(task.accuracy, 3),
                Cell::Group(run.point.group.clone()),
                Cell::Run(run.point.run.clone()),
                Cell::fixed(run.point.l0, 1),
                Cell::fixed(run.point.ce_increase, 4),
                Cell::fixed(run.faithfulness.value, 3),
                Cell::Text(run.faithfulness.interval_text()),
                Cell::fixed(run.accuracy, 3),
            ]
        })
    });
    Table::new("What of tasks is left", columns).with(rows)
}

fn differences(found: &Tasks) -> Table {
    let columns = vec![
        Column::new("task", "task", "The name of its file"),
        Column::new("by", "matched by", "What the runs are equal in"),
        Column::new("types", "types", "The faithfulness of the first less that of the second"),
        Column::new("difference", "difference", "Above 0: the first leaves more"),
        Column::new("interval", "interval", "Bootstrap confidence interval, over the same prompts"),
    ];
    let rows = found.tasks.iter().flat_map(|(name, task)| {
        task.differences.iter().map(move |pair| {
            vec![
                Cell::text(name),
                Cell::text(pair.by.describe()),
                Cell::Text(format!("{} − {}", pair.of.1, pair.less.1)),
                Cell::fixed(pair.estimate.value, 3),
                Cell::Text(pair.estimate.interval_text()),
            ]
        })
    });
    Table::new("Differences of faithfulness between matched runs", columns).with(rows)
}
