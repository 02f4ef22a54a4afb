//! How the runs were trained: the terms of the loss, L0, learning rate and gradient norm at every logging step.

mod figure;

use std::collections::{BTreeMap, BTreeSet};

use sae_record::metrics::{self, History};
use serde::{Deserialize, Serialize};

use crate::AnalysisError;
use crate::draw::Figure;
use crate::evidence::Evidence;
use crate::runs::Group;
use crate::study::Study;
use crate::subject::{Block, Choice, Subject, TextFile};
use crate::table::{Cell, Column, Table};
use crate::thin::thin;

/// The choice of what is drawn over the steps.
const CURVE: &str = "curve";
/// What is drawn at first: every run has it.
const FIRST: &str = "loss";
/// What is always drawn.
const L0: &str = "l0";
/// What is shown of the evaluations in the middle of a run: their names there, and here.
const EVALUATED: [(&str, &str); 3] =
    [("ce_increase", "ce_increase"), ("kl", "evaluated_kl"), ("alive", ALIVE)];
/// Alive features of all sites, counted on the evaluation set.
const ALIVE: &str = "alive";
/// The most steps of a run that are kept; those between are left out evenly.
const MOST_STEPS: usize = 300;

/// A run's training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// The run's id.
    pub run: String,
    /// Its group.
    #[serde(rename = "type")]
    pub group: Group,
    /// Optimiser steps taken.
    pub steps: Vec<u64>,
    /// What was logged after each of them, by name; null where there was no number.
    pub values: BTreeMap<String, Vec<Option<f64>>>,
}

impl Subject for Vec<Training> {
    fn name(&self) -> &'static str {
        "training"
    }

    fn title(&self) -> &'static str {
        "Training"
    }

    fn find(study: &mut Study<'_>) -> Result<Self, AnalysisError> {
        let mut found = Vec::new();
        for run in &study.runs.finished {
            match metrics::read(&study.runs.folder_of(run).metrics()) {
                Ok(history) if !history.steps.is_empty() => {
                    found.push(training(&run.id, &run.group, &history));
                }
                Ok(_) => study.notes.add(format!("{} has logged no step.", run.id)),
                Err(error) => study.notes.add(format!("No training curve of {}: {error}.", run.id)),
            }
        }
        Ok(found)
    }

    fn is_empty(&self) -> bool {
        Vec::is_empty(self)
    }

    fn files(&self, _: &Evidence) -> Result<Vec<TextFile>, AnalysisError> {
        Ok(vec![TextFile::csv("training", &table(self))])
    }

    fn figure(&self, evidence: &Evidence) -> Figure {
        figure::figure(self, &names(self), &evidence.looks())
    }

    fn section(&self, _: &Evidence) -> Result<Vec<Block>, &'static str> {
        if Vec::is_empty(self) {
            return Err("No run has logged a step.");
        }
        let values = names(self).into_iter().filter(|name| *name != L0);
        let values = values.map(|name| (name.to_owned(), label(name).to_owned()));
        Ok(vec![
            Block::Text(
                "What every run logged while it was trained, each a line. A drag across a chart chooses \
                 steps."
                    .to_owned(),
            ),
            Block::Steps,
            Block::Choice(Choice {
                key: CURVE,
                label: "Over the steps",
                values: values.collect(),
                first: FIRST.to_owned(),
            }),
            Block::Panels,
        ])
    }
}

fn training(run: &str, group: &Group, history: &History) -> Training {
    let kept = thin(&history.steps.iter().collect::<Vec<_>>(), MOST_STEPS);
    let evaluations = thin(&history.evaluations.iter().collect::<Vec<_>>(), MOST_STEPS);
    let mut by_step: BTreeMap<u64, BTreeMap<String, f64>> = BTreeMap::new();
    for line in kept {
        by_step.entry(line.step).or_default().extend(line.values.clone());
    }
    for line in evaluations {
        let shown = EVALUATED
            .iter()
            .filter_map(|(name, own)| Some(((*own).to_owned(), *line.values.get(*name)?)));
        by_step.entry(line.step).or_default().extend(shown);
    }
    let names: BTreeSet<&String> = by_step.values().flat_map(BTreeMap::keys).collect();
    let values = |name: &String| by_step.values().map(|line| line.get(name).copied()).collect();
    Training {
        run: run.to_owned(),
        group: group.clone(),
        steps: by_step.keys().copied().collect(),
        values: names.into_iter().map(|name| (name.clone(), values(name))).collect(),
    }
}

/// What the runs have logged, the loss first.
fn names(found: &[Training]) -> Vec<&str> {
    let all: BTreeSet<&str> =
        found.iter().flat_map(|run| run.values.keys().map(String::as_str)).collect();
    let first = all.contains(FIRST).then_some(FIRST);
    first.into_iter().chain(all.into_iter().filter(|name| *name != FIRST)).collect()
}

/// What people call a value of the log; terms of the loss have the names of their keys.
fn label(name: &str) -> &str {
    match name {
        "loss" => "Loss",
        L0 => "L0 (active features per token)",
        "lr" => "Learning rate",
        "grad_norm" => "Norm of the gradients, before clipping",
        "ce_increase" => "CE increase, on the evaluation set",
        "evaluated_kl" => "KL, on the evaluation set",
        ALIVE => "Features active on the evaluation set",
        "sparsity" => "Sparsity term",
        "local" => "Local reconstruction (MSE)",
        "output" => "Reconstruction of the output (MSE)",
        "downstream" => "Downstream reconstruction (MSE)",
        "kl" => "KL(original ‖ spliced)",
        term => term,
    }
}

/// A row a run and step.
fn table(found: &[Training]) -> Table {
    let names = names(found);
    let mut columns =
        vec![Column::run(), Column::group(), Column::new("step", "step", "Optimiser steps taken")];
    columns.extend(names.iter().map(|name| Column::new(name, name, label(name))));
    let rows = found.iter().flat_map(|run| {
        let names = &names;
        run.steps.iter().enumerate().map(move |(place, step)| {
            let value = |name: &&str| run.values.get(*name).and_then(|values| values[place]);
            let head =
                [Cell::Run(run.run.clone()), Cell::Group(run.group.clone()), Cell::count(*step)];
            let values =
                names.iter().map(|name| Cell::significant(value(name).unwrap_or(f64::NAN)));
            head.into_iter().chain(values).collect()
        })
    });
    Table::new("What was logged while the runs were trained", columns).with(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(step: u64, values: &[(&str, f64)]) -> metrics::Line {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        metrics::Line { step, values }
    }

    fn history(steps: &[metrics::Line], evaluations: &[metrics::Line]) -> History {
        History { steps: steps.to_vec(), evaluations: evaluations.to_vec() }
    }

    #[test]
    fn a_value_that_some_steps_lack_is_empty_there() {
        let lines = [line(1, &[("loss", 2.0), ("kl", 1.0)]), line(2, &[("loss", 1.5)])];
        let run = training("a", &Group::E2E, &history(&lines, &[]));
        assert_eq!(
            (run.steps.as_slice(), names(std::slice::from_ref(&run))),
            (&[1, 2][..], vec!["loss", "kl"])
        );
        assert_eq!(run.values["kl"], [Some(1.0), None]);
        assert_eq!(table(&[run]).csv(), "run,type,step,loss,kl\na,e2e,1,2,1\na,e2e,2,1.5,\n");
    }

    #[test]
    fn long_runs_are_thinned() {
        let lines: Vec<metrics::Line> =
            (0..1000).map(|step| line(step, &[("loss", 1.0)])).collect();
        let evaluations = [line(500, &[("ce_increase", 0.5), ("alive", 9.0), ("l0", 3.0)])];
        let run = training("a", &Group::LOCAL, &history(&lines, &evaluations));
        let (place, alive) = (run.steps.binary_search(&500).unwrap(), &run.values["alive"]);
        assert_eq!((alive[place], run.values["ce_increase"][place]), (Some(9.0), Some(0.5)));
        assert_eq!(alive.iter().flatten().count(), 1);
        // Its L0 is of another set of tokens than the others'.
        assert!(!run.values.contains_key("l0"));
        let run = training("a", &Group::LOCAL, &history(&lines, &[]));
        assert_eq!((run.steps.len(), run.values["loss"].len()), (MOST_STEPS, MOST_STEPS));
    }
}
