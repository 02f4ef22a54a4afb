//! What was found, in sentences for the terminal and the report. Those that tell of a site begin with it.

use std::collections::BTreeSet;

use sae_config::Site;

use crate::Frontier;
use crate::evidence::{Difference, Downstream, Evidence};
use crate::facets::{Facets, describe};
use crate::frontier::{Comparison, Ratio};
use crate::{Point, SaeType};

/// All of them, site by site: the frontiers, then what matched runs say.
pub(crate) fn sentences(evidence: &Evidence) -> Vec<String> {
    let frontier = &evidence.frontier;
    let sites: BTreeSet<Site> = frontier.sites().into_iter().collect();
    let mut lines = Vec::new();
    for site in sites {
        let summary = frontier.summary.iter().filter(|found| found.site == site);
        lines.extend(summary.flat_map(comparison));
        lines.extend(downstream(evidence, site));
        let differences = evidence.geometry.differences.iter().filter(|found| {
            found.site == site && found.by == evidence.match_by && found.less == SaeType::LOCAL
        });
        lines.extend(differences.map(|found| geometry(found, evidence)));
    }
    if frontier.points.is_empty() {
        lines.push("No run has numbers to compare.".to_owned());
    } else if frontier.summary.is_empty() {
        lines.push("Nothing to compare: no site has `local` runs beside others.".to_owned());
    }
    lines.extend(flat(frontier));
    lines
}

/// How far each type's later activations are from the original ones, against `local`'s.
fn downstream(evidence: &Evidence, site: Site) -> Vec<String> {
    let runs: Vec<&Downstream> =
        evidence.downstream.iter().filter(|run| run.site == site).collect();
    let matched =
        evidence.matches.iter().any(|found| found.site == site && found.by == evidence.match_by);
    let Some(local) = runs.iter().find(|run| run.variant == SaeType::LOCAL) else {
        return Vec::new();
    };
    let which = if matched {
        format!("runs matched by {}", evidence.match_by.describe())
    } else {
        "runs that are not matched".to_owned()
    };
    let others = runs.iter().filter(|run| run.variant != SaeType::LOCAL);
    others
        .filter_map(|run| {
            let ratios: Vec<f64> = run
                .layers
                .iter()
                .filter_map(|layer| {
                    let own = local.layers.iter().find(|own| own.site == layer.site)?;
                    Some(layer.mse / own.mse)
                })
                .filter(|ratio| ratio.is_finite())
                .collect();
            let low = ratios.iter().copied().reduce(f64::min)?;
            let high = ratios.iter().copied().reduce(f64::max)?;
            Some(format!(
                "{site}: {} has {low:.2} to {high:.2} × local's MSE to the original activations at later sites ({which}).",
                run.variant
            ))
        })
        .collect()
}

fn geometry(found: &Difference, evidence: &Evidence) -> String {
    let Difference { site, of, less, estimate, .. } = found;
    let interval = match estimate.interval {
        Some(interval) => format!(
            "{:.0} % interval of the difference {:.3} to {:.3}",
            100.0 * estimate.options.confidence,
            interval.low,
            interval.high
        ),
        None => "no interval".to_owned(),
    };
    format!(
        "{site}: the mean largest cosine within {of}'s dictionary is {:.3} {} than within {less}'s ({interval}, which is \
         over the elements of one run each; runs matched by {}).",
        estimate.value.abs(),
        if estimate.value < 0.0 { "lower" } else { "higher" },
        evidence.match_by.describe()
    )
}

fn comparison(comparison: &Comparison) -> Vec<String> {
    let Comparison { variant, base, .. } = comparison;
    let site = where_at(comparison.site, &comparison.facets);
    let line = |what: &str, at: &str, ratio: Ratio, decimals: usize| match (ratio.mean, ratio.range)
    {
        (Some(mean), Some([low, high])) => format!(
            "{site}: {variant} has {mean:.2} × {base}'s {what} at equal {at} (mean over {low:.decimals$} to \
             {high:.decimals$})."
        ),
        (None, Some(_)) => {
            format!(
                "{site}: {variant} ÷ {base} of {what} at equal {at} is not told: one of them is not above 0 everywhere."
            )
        }
        _ => format!("{site}: {variant} and {base} share no range of {at}; no ratio of {what}."),
    };
    vec![
        line("L0", "CE increase", comparison.l0_at_equal_ce, 3),
        line("CE increase", "L0", comparison.ce_at_equal_l0, 1),
        line("CE increase", "alive features", comparison.ce_at_equal_alive, 0),
    ]
}

fn where_at(site: Site, facets: &Facets) -> String {
    if facets.is_empty() { site.to_string() } else { format!("{site}, {}", describe(facets)) }
}

/// Where the second frontier says nothing, because no feature dies.
fn flat(frontier: &Frontier) -> Option<String> {
    let alive = |point: &Point| point.alive as f64 / point.n_features.max(1) as f64;
    let least = frontier.points.iter().map(alive).reduce(f64::min)?;
    if least < 0.98 {
        return None;
    }
    let share = if least < 1.0 {
        format!("At least {:.1} %", (least * 1000.0).floor() / 10.0)
    } else {
        "All".to_owned()
    };
    Some(format!(
        "{share} of every dictionary is alive: the frontier against alive features is flat, and says little here."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::{BootstrapOptions, Estimate, Interval};
    use crate::evidence::DownstreamLayer;
    use crate::matching::MatchBy;
    use sae_record::metric::Values;

    fn run(variant: SaeType, mse: [f64; 2]) -> Downstream {
        let sites = [Site::resid_pre(2), Site::resid_post(2)];
        let layers = sites.into_iter().zip(mse);
        let layers =
            layers.map(|(site, mse)| DownstreamLayer { site, mse, explained_variance: 0.5 });
        let run = variant.to_string();
        Downstream { run, variant, site: Site::resid_pre(1), layers: layers.collect() }
    }

    #[test]
    fn matched_runs_are_set_against_local() {
        let interval = Interval {
            low: -0.06,
            high: -0.04,
            standard_error: 0.01,
            bias: 0.0,
            acceleration: 0.0,
        };
        let estimate = Estimate {
            value: -0.05,
            interval: Some(interval),
            options: BootstrapOptions::default(),
        };
        let difference = |by, less| Difference {
            site: Site::resid_pre(1),
            by,
            of: SaeType::E2E,
            less,
            estimate,
        };
        let (ce, l0) = (MatchBy::CeIncrease, MatchBy::L0);
        let mut evidence = Evidence::none("by hand".to_owned(), Vec::new());
        evidence.frontier.points = vec![point()];
        evidence.downstream = vec![run(SaeType::LOCAL, [0.5, 1.0]), run(SaeType::E2E, [2.0, 3.0])];
        evidence.geometry.differences = vec![
            difference(ce, SaeType::LOCAL),
            difference(l0, SaeType::LOCAL),
            difference(ce, SaeType::E2E_DS),
        ];
        let lines = sentences(&evidence);
        assert_eq!(
            lines[..2],
            [
                "blocks.1.hook_resid_pre: e2e has 3.00 to 4.00 × local's MSE to the original activations at later sites \
                 (runs that are not matched).",
                "blocks.1.hook_resid_pre: the mean largest cosine within e2e's dictionary is 0.050 lower than within \
                 local's (95 % interval of the difference -0.060 to -0.040, which is over the elements of one run \
                 each; runs matched by CE increase)."
            ]
        );
        // Without `local` there is nothing to set them against.
        evidence.downstream.remove(0);
        evidence.geometry.differences.clear();
        assert!(!sentences(&evidence).iter().any(|line| line.contains("MSE")));
    }

    fn point() -> Point {
        Point {
            run: "e2e".to_owned(),
            variant: SaeType::E2E,
            site: Site::resid_pre(1),
            seed: 0,
            coeff: 1.0,
            l0: 10.0,
            alive: 5,
            n_features: 10,
            ce_increase: 0.1,
            kl: 0.1,
            explained_variance: 0.5,
            mse: 0.5,
            ce_recovered: 0.9,
            top1_agreement: 0.8,
            training_tokens: 100,
            metrics: Values::default(),
            facets: Facets::new(),
        }
    }
}
