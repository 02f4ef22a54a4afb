//! How close matched runs stay to the original model's activations after their dictionaries.

mod figure;

use sae_config::Site;
use sae_record::metric::name;
use serde::{Deserialize, Serialize};

use crate::AnalysisError;
use crate::draw::Figure;
use crate::evidence::Evidence;
use crate::frontier::base;
use crate::matching::Chosen;
use crate::runs::Group;
use crate::runs::facets::Facets;
use crate::study::Study;
use crate::subject::{Block, Comparison, Finding, Subject, TextFile};
use crate::table::{Cell, Column, Table};

/// Reconstruction downstream of a matched run's dictionary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Downstream {
    /// The run's id.
    pub run: String,
    /// Its group.
    #[serde(rename = "type")]
    pub group: Group,
    /// The dictionary's site.
    pub site: Site,
    /// At every later site, in the order of computation.
    pub layers: Vec<DownstreamLayer>,
}

/// At one later site. The original activations themselves have MSE 0 and explained variance 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DownstreamLayer {
    /// Where.
    pub site: Site,
    /// Mean over all elements of `(spliced − original)²`.
    pub mse: f64,
    /// Explained variance.
    pub explained_variance: f64,
    /// The mean over tokens of the explained variance of each; none where it was not measured.
    #[serde(default)]
    pub explained_variance_per_token: Option<f64>,
    /// The explained variance of activations that are normalised as the final norm does.
    #[serde(default)]
    pub explained_variance_normalised: Option<f64>,
}

impl Subject for Vec<Downstream> {
    fn name(&self) -> &'static str {
        "downstream"
    }

    fn title(&self) -> &'static str {
        "Downstream reconstruction"
    }

    fn find(study: &mut Study<'_>) -> Result<Self, AnalysisError> {
        let mut found = Vec::new();
        for place in 0..study.chosen.len() {
            found.extend(at(study, place));
        }
        Ok(found)
    }

    fn is_empty(&self) -> bool {
        Vec::is_empty(self)
    }

    fn files(&self, _: &Evidence) -> Result<Vec<TextFile>, AnalysisError> {
        Ok(vec![TextFile::csv("downstream", &table(self))])
    }

    fn figure(&self, evidence: &Evidence) -> Figure {
        figure::figure(self, evidence)
    }

    fn findings(&self, evidence: &Evidence) -> Vec<Finding> {
        let mut findings = Vec::new();
        for site in evidence.frontier.sites() {
            let own = || self.iter().filter(|run| run.site == site);
            let Some(base) = base(own().map(|run| &run.group)) else { continue };
            let Some(base) = own().find(|run| run.group == *base) else { continue };
            let others = own().filter(|run| run.group != base.group);
            findings.extend(others.filter_map(|run| finding(run, base, evidence)));
        }
        findings
    }

    fn section(&self, evidence: &Evidence) -> Result<Vec<Block>, &'static str> {
        if Vec::is_empty(self) {
            return Err("No matched run was evaluated at sites after its dictionary.");
        }
        let text = format!(
            "How close the model's later activations stay to the original ones when a dictionary is spliced in. The original \
             has explained variance 1 and MSE 0. Runs matched by {}; where a site has none, those that the notes name.",
            evidence.match_by.describe()
        );
        Ok(vec![
            Block::Text(text),
            Block::Panels,
            Block::Folded("The numbers".to_owned(), vec![Block::Table(table(self))]),
        ])
    }
}

/// The chosen runs' reconstruction at every site after theirs.
fn at(study: &mut Study<'_>, place: usize) -> Vec<Downstream> {
    let Chosen { site: own, points, .. } = &study.chosen[place];
    let mut found = Vec::new();
    for point in points {
        let Some(run) = study.runs.run(&point.run) else { continue };
        let later = run.summary.evaluation.downstream.iter().filter(|(at, _)| **at > *own);
        let mut layers = Vec::new();
        for (&site, at) in later {
            let [mse, explained_variance] = [at.get(name::MSE), at.get(name::EXPLAINED_VARIANCE)];
            if mse.is_finite() && explained_variance.is_finite() {
                let finite = |name| Some(at.get(name)).filter(|value: &f64| value.is_finite());
                layers.push(DownstreamLayer {
                    site,
                    mse,
                    explained_variance,
                    explained_variance_per_token: finite("explained_variance_per_token"),
                    explained_variance_normalised: finite("explained_variance_normalised"),
                });
            } else {
                study.notes.add(format!(
                    "{} has no finite reconstruction at {site}; it is left out there.",
                    run.id
                ));
            }
        }
        if layers.is_empty() {
            study.notes.add(format!("{} tells of no reconstruction after {own}.", run.id));
            continue;
        }
        found.push(Downstream {
            run: run.id.clone(),
            group: point.group.clone(),
            site: *own,
            layers,
        });
    }
    found
}

/// A row a run and later site.
fn table(found: &[Downstream]) -> Table {
    let columns = vec![
        Column::run(),
        Column::group(),
        Column::site(),
        Column::new("later_site", "measured at", "The later site"),
        Column::new("mse", "MSE", "Mean over all elements of (spliced − original)²"),
        Column::new(
            "explained_variance",
            "expl. var.",
            "Share of the original activations' variance that is explained",
        ),
        Column::new(
            "explained_variance_per_token",
            "… per token",
            "Mean over tokens of the share of each that is explained",
        ),
        Column::new(
            "explained_variance_normalised",
            "… normalised",
            "The same share of activations after a layer norm without weights",
        ),
    ];
    let or_none = |value: Option<f64>| Cell::fixed(value.unwrap_or(f64::NAN), 4);
    let rows = found.iter().flat_map(|run| {
        run.layers.iter().map(move |layer| {
            vec![
                Cell::Run(run.run.clone()),
                Cell::Group(run.group.clone()),
                Cell::Site(run.site),
                Cell::text(layer.site.to_string()),
                Cell::significant(layer.mse),
                Cell::fixed(layer.explained_variance, 4),
                or_none(layer.explained_variance_per_token),
                or_none(layer.explained_variance_normalised),
            ]
        })
    });
    Table::new("Reconstruction after the dictionary", columns).with(rows)
}

/// How far a run's later activations are from the original ones, against those of the run that it is compared with.
fn finding(run: &Downstream, base: &Downstream, evidence: &Evidence) -> Option<Finding> {
    let ratios: Vec<f64> = run
        .layers
        .iter()
        .filter_map(|layer| {
            let own = base.layers.iter().find(|own| own.site == layer.site)?;
            Some(layer.mse / own.mse)
        })
        .filter(|ratio| ratio.is_finite())
        .collect();
    let low = ratios.iter().copied().reduce(f64::min)?;
    let high = ratios.iter().copied().reduce(f64::max)?;
    Some(Finding {
        site: run.site,
        facets: Facets::new(),
        group: run.group.clone(),
        base: base.group.clone(),
        what: "MSE to the original activations at later sites".to_owned(),
        value: Comparison::Ratios(low, high),
        range: None,
        on: evidence.choice(run.site),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::Point;

    fn run(group: &Group, mse: [f64; 2]) -> Downstream {
        let sites = [Site::resid_pre(2), Site::resid_post(2)];
        let layers = sites.into_iter().zip(mse);
        let layers = layers.map(|(site, mse)| DownstreamLayer {
            site,
            mse,
            explained_variance: 0.5,
            explained_variance_per_token: None,
            explained_variance_normalised: None,
        });
        let site = Site::resid_pre(1);
        Downstream { run: group.to_string(), group: group.clone(), site, layers: layers.collect() }
    }

    fn point() -> Point {
        let point = serde_json::json!({
            "run": "e2e", "type": "e2e", "site": "blocks.1.hook_resid_pre", "seed": 0, "coeff": 1.0, "l0": 10.0, "alive": 5,
            "n_features": 10, "ce_increase": 0.1, "kl": 0.1, "explained_variance": 0.5, "mse": 0.5, "ce_recovered": 0.9,
            "top1_agreement": 0.8, "training_tokens": 100,
        });
        serde_json::from_value(point).unwrap()
    }

    #[test]
    fn runs_are_set_against_local() {
        let mut evidence = Evidence::none("by hand".to_owned(), Vec::new());
        evidence.frontier.points = vec![point()];
        let mut found = vec![run(&Group::LOCAL, [0.5, 1.0]), run(&Group::E2E, [2.0, 3.0])];
        let findings = found.findings(&evidence);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].group, Group::E2E);
        assert_eq!(findings[0].value, Comparison::Ratios(3.0, 4.0));
        assert_eq!(findings[0].on, "one run of each type");
        // Another one that reconstructs locally stands in for it.
        let fvu: Group = "local, sparsity.p = 2".parse().unwrap();
        found[0].group = fvu.clone();
        assert_eq!(found.findings(&evidence)[0].base, fvu);
        // Without one there is nothing to set them against.
        found.remove(0);
        assert!(found.findings(&evidence).is_empty());
    }
}
