//! Scores of explanations as a subject: tables, findings, section.

use super::{ExplanationEvidence, ScoreDifference, TaskScores, figure, find};
use crate::AnalysisError;
use crate::bootstrap::Estimate;
use crate::draw::Figure;
use crate::evidence::Evidence;
use crate::frontier::base;
use crate::matching;
use crate::runs::facets::Facets;
use crate::study::Study;
use crate::subject::{Block, Comparison, Finding, Subject, TextFile};
use crate::table::{Cell, Column, Table};

impl Subject for ExplanationEvidence {
    fn name(&self) -> &'static str {
        "explanations"
    }

    fn title(&self) -> &'static str {
        "Explanations"
    }

    fn find(study: &mut Study<'_>) -> Result<Self, AnalysisError> {
        find(study)
    }

    fn is_empty(&self) -> bool {
        self.sites.is_empty()
    }

    fn files(&self, _: &Evidence) -> Result<Vec<TextFile>, AnalysisError> {
        Ok(vec![
            TextFile::csv("explanations", &scores(self, true)),
            TextFile::csv("explanations_compared", &differences(self)),
        ])
    }

    fn figure(&self, evidence: &Evidence) -> Figure {
        figure::figure(self, evidence)
    }

    fn findings(&self, evidence: &Evidence) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (site, at) in &self.sites {
            let own = || at.differences.iter().filter(|found| found.by == evidence.match_by);
            let base = base(own().flat_map(|found| [&found.less.1, &found.of.1]));
            for found in own().filter(|found| Some(&found.less.1) == base) {
                findings.push(Finding {
                    site: *site,
                    facets: Facets::new(),
                    group: found.of.1.clone(),
                    base: found.less.1.clone(),
                    what: format!("{} by explanations", found.task),
                    value: Comparison::Difference(found.estimate.value),
                    range: found.estimate.range(),
                    on: format!(
                        "runs matched by {}; {} and {} features, judged by {}, p = {}",
                        found.by.describe(),
                        found.features[0],
                        found.features[1],
                        at.judge,
                        p_text(found)
                    ),
                });
            }
        }
        findings
    }

    fn section(&self, evidence: &Evidence) -> Result<Vec<Block>, &'static str> {
        let Some(at) = self.sites.values().next() else {
            return Err(
                "No explanations were scored: sae explain asks a language model what features are, sae score how well \
                 that tells what they do.",
            );
        };
        let text = format!(
            "Interpretability with a judge: {} has written explanations of features from one half of the documents; {} has read \
             each beside excerpts of the other half, and said yes or no. Detection: is the feature active in the excerpt? Half of ten are \
             active, one of each fifth of the activations; in up to three of the others a feature is active that is near, by cosine or on \
             the same tokens. Fuzzing: are the marked tokens those that the feature is active on, or others of the same excerpt? Balanced \
             accuracy is the mean of the shares of yes and no that are right; 0.5 is chance. The same was asked with explanations of \
             other features of the dictionary, which is the baseline. Intervals are over features; p is a permutation test's.",
            at.explained_by, at.judge
        );
        Ok(vec![
            Block::Text(text),
            matching::choice(evidence),
            Block::Panels,
            Block::Table(differences(self)),
            Block::Folded("The numbers".to_owned(), vec![Block::Table(scores(self, false))]),
        ])
    }
}

/// p to two digits; below what so many permutations tell apart, that.
fn p_text(found: &ScoreDifference) -> String {
    let least = 1.0 / (1.0 + found.estimate.options.n_resamples as f64);
    match found.p {
        p if p <= least => format!("{least:.0e} or less"),
        p if p < 0.1 => format!("{p:.1e}"),
        p => format!("{p:.2}"),
    }
}

/// A row a run and task.
fn scores(found: &ExplanationEvidence, is_csv: bool) -> Table {
    let mut columns = vec![
        Column::site(),
        Column::group(),
        Column::run(),
        Column::new("l0", "L0", "Active features per token"),
        Column::new("ce_increase", "CE increase", "Nats per token"),
        Column::new("task", "task", "What was asked of excerpts"),
        Column::new("features", "features", "Features that were answered about"),
        Column::new("balanced", "balanced accuracy", "Mean over features; 0.5 is chance"),
    ];
    if is_csv {
        columns.extend(["low", "high"].map(Column::csv));
    } else {
        columns.push(Column::people("interval", "Bootstrap confidence interval, over features"));
    }
    columns.push(Column::new(
        "shuffled",
        "shuffled",
        "The same with explanations of other features",
    ));
    if is_csv {
        columns.extend(["shuffled_low", "shuffled_high", "confidence"].map(Column::csv));
    } else {
        columns
            .push(Column::people("its interval", "Bootstrap confidence interval, over features"));
    }
    columns.extend([
        Column::new("f1", "F1", "Mean over features of the F1 of yes"),
        Column::new(
            "auc",
            "AUC",
            "Mean area under the curve of the probabilities of yes, where the endpoint tells them",
        ),
        Column::new(
            "near_rejected",
            "near rejected",
            "Share rightly rejected of excerpts with a feature that is near",
        ),
        Column::new(
            "inactive_rejected",
            "others rejected",
            "The same of other excerpts without the feature",
        ),
    ]);
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    for (site, at) in &found.sites {
        for run in &at.runs {
            for (task, scores) in &run.tasks {
                let head = vec![
                    Cell::Site(*site),
                    Cell::Group(run.point.group.clone()),
                    Cell::Run(run.point.run.clone()),
                    Cell::fixed(run.point.l0, 1),
                    Cell::fixed(run.point.ce_increase, 4),
                    Cell::text(task.to_string()),
                    Cell::count(scores.of_features.len() as u64),
                ];
                rows.push(head.into_iter().chain(numbers(scores, is_csv)).collect());
            }
        }
    }
    Table::new("Scores of explanations", columns).with(rows)
}

fn numbers(scores: &TaskScores, is_csv: bool) -> Vec<Cell> {
    let or_none = |value: Option<f64>| Cell::fixed(value.unwrap_or(f64::NAN), 3);
    let ends = |estimate: Option<&Estimate>| {
        let interval = estimate.and_then(|estimate| estimate.interval);
        interval.map_or([f64::NAN; 2], |found| [found.low, found.high]).map(Cell::significant)
    };
    let shuffled = scores.shuffled.as_ref();
    let mut cells = vec![Cell::fixed(scores.balanced.value, 3)];
    if is_csv {
        cells.extend(ends(Some(&scores.balanced)));
    } else {
        cells.push(Cell::Text(scores.balanced.interval_text()));
    }
    cells.push(or_none(shuffled.map(|found| found.value)));
    if is_csv {
        cells.extend(ends(shuffled));
        cells.push(Cell::significant(scores.balanced.options.confidence));
    } else {
        let text = shuffled.map_or_else(|| "–".to_owned(), Estimate::interval_text);
        cells.push(Cell::Text(text));
    }
    cells.push(Cell::fixed(scores.f1, 3));
    cells.extend([scores.auc, scores.near_rejected, scores.inactive_rejected].map(or_none));
    cells
}

fn differences(found: &ExplanationEvidence) -> Table {
    let columns = vec![
        Column::site(),
        Column::new("by", "matched by", "What the runs are equal in"),
        Column::new("task", "task", "What was asked of excerpts"),
        Column::new("types", "types", "The balanced accuracy of the first less that of the second"),
        Column::new("difference", "difference", "Above 0: explanations of the first tell more"),
        Column::new("interval", "interval", "Bootstrap confidence interval, over features"),
        Column::new("p", "p", "Permutation test, two-sided"),
        Column::new("features", "features", "Features of each"),
    ];
    let rows = found.sites.iter().flat_map(|(site, at)| {
        at.differences.iter().map(|pair| {
            vec![
                Cell::Site(*site),
                Cell::text(pair.by.describe()),
                Cell::text(pair.task.to_string()),
                Cell::Text(format!("{} − {}", pair.of.1, pair.less.1)),
                Cell::fixed(pair.estimate.value, 4),
                Cell::Text(pair.estimate.interval_text()),
                Cell::Number(pair.p, p_text(pair)),
                Cell::Text(format!("{}, {}", pair.features[0], pair.features[1])),
            ]
        })
    });
    Table::new("Differences of balanced accuracy between matched runs", columns).with(rows)
}
