//! How the runs were trained: the terms of the loss, L0, learning rate and gradient norm at every logging step.

mod figure;

use std::collections::{BTreeMap, BTreeSet};

use sae_record::metrics;
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
                Ok(lines) if !lines.is_empty() => {
                    found.push(training(&run.id, &run.group, &lines));
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
            Block::Text("What every run logged while it was trained, each a line.".to_owned()),
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

fn training(run: &str, group: &Group, lines: &[metrics::Line]) -> Training {
    let kept = thin(&lines.iter().collect::<Vec<_>>(), MOST_STEPS);
    let names: BTreeSet<&String> = kept.iter().flat_map(|line| line.values.keys()).collect();
    let values = |name: &String| kept.iter().map(|line| line.values.get(name).copied()).collect();
    Training {
        run: run.to_owned(),
        group: group.clone(),
        steps: kept.iter().map(|line| line.step).collect(),
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

    #[test]
    fn a_value_that_some_steps_lack_is_empty_there() {
        let lines = [line(1, &[("loss", 2.0), ("kl", 1.0)]), line(2, &[("loss", 1.5)])];
        let run = training("a", &Group::E2E, &lines);
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
        let run = training("a", &Group::LOCAL, &lines);
        assert_eq!((run.steps.len(), run.values["loss"].len()), (MOST_STEPS, MOST_STEPS));
    }
}
