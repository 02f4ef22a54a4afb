//! The evidence behind each picture as CSV.

use super::csv::{Csv, number, optional};
use crate::bootstrap::Estimate;
use crate::evidence::{AcrossWhat, Evidence};
use crate::facets::describe;
use crate::histogram::Histogram;

/// Reconstruction downstream, a row a run and later site.
pub(crate) fn downstream(evidence: &Evidence) -> String {
    let mut csv = Csv::new(["run", "type", "site", "later_site", "mse", "explained_variance"]);
    for run in &evidence.downstream {
        for layer in &run.layers {
            csv.row([
                run.run.clone(),
                run.variant.to_string(),
                run.site.to_string(),
                layer.site.to_string(),
                number(layer.mse),
                number(layer.explained_variance),
            ]);
        }
    }
    csv.finish()
}

/// Means of the largest cosines: `within` a dictionary, `across` two, and the `difference` of two types' means within.
pub(crate) fn geometry(evidence: &Evidence) -> String {
    let mut csv = Csv::new([
        "what",
        "site",
        "by",
        "from",
        "to",
        "alive",
        "mean",
        "low",
        "high",
        "confidence",
        "n_resamples",
        "seed",
    ]);
    let interval = |estimate: &Estimate| {
        [
            number(estimate.value),
            optional(estimate.interval.map(|interval| interval.low)),
            optional(estimate.interval.map(|interval| interval.high)),
            number(estimate.options.confidence),
            estimate.options.n_resamples.to_string(),
            estimate.options.seed.to_string(),
        ]
    };
    let none = String::new;
    for found in &evidence.geometry.within {
        let start = ["within".to_owned(), found.site.to_string(), none(), found.run.clone()];
        let alive = [found.run.clone(), found.alive.to_string()];
        csv.row(start.into_iter().chain(alive).chain(interval(&found.mean)));
    }
    for found in &evidence.geometry.differences {
        let start = ["difference".to_owned(), found.site.to_string(), found.by.to_string()];
        let types = [found.of.to_string(), found.less.to_string(), none()];
        csv.row(start.into_iter().chain(types).chain(interval(&found.estimate)));
    }
    for found in &evidence.geometry.across {
        let start = [across(found.what).to_owned(), found.site.to_string(), none()];
        let runs = [found.from.clone(), found.to.clone(), found.cosines.n.to_string()];
        let mean = [optional(found.cosines.mean), none(), none(), none(), none(), none()];
        csv.row(start.into_iter().chain(runs).chain(mean));
    }
    csv.finish()
}

/// The histograms of the largest cosines, a row a bin that is not empty.
pub(crate) fn geometry_histograms(evidence: &Evidence) -> String {
    let mut csv = Csv::new(["what", "site", "from", "to", "from_cosine", "to_cosine", "count"]);
    let mut rows = |start: [&str; 4], histogram: &Histogram| {
        for (edges, &count) in histogram.edges.windows(2).zip(&histogram.counts) {
            if count > 0 {
                let bin = [number(edges[0]), number(edges[1]), count.to_string()];
                csv.row(start.map(str::to_owned).into_iter().chain(bin));
            }
        }
    };
    for found in &evidence.geometry.within {
        let start = ["within", &found.site.to_string(), &found.run, &found.run];
        rows(start, &found.cosines.histogram);
    }
    for found in &evidence.geometry.across {
        let start = [across(found.what), &found.site.to_string(), &found.from, &found.to];
        rows(start, &found.cosines.histogram);
    }
    csv.finish()
}

fn across(what: AcrossWhat) -> &'static str {
    match what {
        AcrossWhat::Types => "across_types",
        AcrossWhat::Seeds => "across_seeds",
    }
}

/// Embeddings, a row a dictionary element.
pub(crate) fn umap(evidence: &Evidence) -> String {
    let mut csv = Csv::new(["pair", "site", "run", "type", "feature", "x", "y"]);
    for (pair, found) in evidence.embeddings.iter().enumerate() {
        for point in &found.embedding.points {
            csv.row([
                pair.to_string(),
                found.site.to_string(),
                found.runs[point.run].clone(),
                found.types[point.run].to_string(),
                point.row.to_string(),
                point.x.to_string(),
                point.y.to_string(),
            ]);
        }
    }
    csv.finish()
}

/// Seeds side by side, a row a run and metric.
pub(crate) fn stability(evidence: &Evidence) -> String {
    let mut csv = Csv::new([
        "group",
        "type",
        "site",
        "coeff",
        "facets",
        "differ_in",
        "metric",
        "seed",
        "run",
        "value",
    ]);
    for (group, found) in evidence.stability.iter().enumerate() {
        for (metric, values) in &found.metrics {
            for ((seed, run), value) in found.runs.iter().zip(values) {
                csv.row([
                    group.to_string(),
                    found.variant.to_string(),
                    found.site.to_string(),
                    number(found.coeff),
                    describe(&found.facets),
                    found.differ_in.join(" "),
                    metric.clone(),
                    seed.to_string(),
                    run.clone(),
                    number(*value),
                ]);
            }
        }
    }
    csv.finish()
}

/// The alive features of matched runs, as far as the evidence holds them.
pub(crate) fn features(evidence: &Evidence) -> String {
    let mut csv = Csv::new([
        "run",
        "type",
        "site",
        "feature",
        "log10_frequency",
        "decoder_norm_as_trained",
        "encoder_norm",
        "encoder_bias",
    ]);
    for run in &evidence.features {
        for point in &run.statistics.scatter {
            csv.row([
                run.run.clone(),
                run.variant.to_string(),
                run.site.to_string(),
                point.feature.to_string(),
                number(point.log10_frequency),
                number(point.decoder_norm),
                number(point.encoder_norm),
                number(point.encoder_bias),
            ]);
        }
    }
    csv.finish()
}

/// Activations, a row a number: of the model (without a run) and of every measured run, by position, which counts from 0,
/// and by principal direction, which counts from 1.
pub(crate) fn activations(evidence: &Evidence) -> String {
    let mut csv = Csv::new(["site", "run", "quantity", "direction", "position", "value"]);
    for (site, found) in &evidence.activations {
        let mut row = |run: &str, quantity: &str, direction: &str, position: &str, value: f64| {
            let value = number(value);
            csv.row([&site.to_string(), run, quantity, direction, position, &value]);
        };
        for (position, &value) in found.model.norm.iter().enumerate() {
            row("", "norm", "", &position.to_string(), value);
        }
        for (number, direction) in found.model.directions.iter().enumerate() {
            let number = (number + 1).to_string();
            row("", "variance_share", &number, "", direction.variance_share);
            row("", "resampling_kl", &number, "", direction.resampling_kl);
            for (position, &value) in direction.by_position.iter().enumerate() {
                row("", "projection", &number, &position.to_string(), value);
            }
        }
        row("", "random_resampling_kl", "", "", found.model.random_resampling_kl);
        for (run, of) in &found.runs {
            for (quantity, values) in [("norm_ratio", &of.norm_ratio), ("cosine", &of.cosine)] {
                for (position, &value) in values.iter().enumerate() {
                    row(run, quantity, "", &position.to_string(), value);
                }
            }
            for (number, &value) in of.explained_variance.iter().enumerate() {
                row(run, "explained_variance", &(number + 1).to_string(), "", value);
            }
        }
    }
    csv.finish()
}

/// Features that are dead or ultra-dense, a row each.
pub(crate) fn unusual_features(evidence: &Evidence) -> String {
    let mut csv = Csv::new(["run", "type", "site", "what", "feature"]);
    for run in &evidence.features {
        let found = &run.statistics;
        for (what, features) in [("dead", &found.dead), ("ultra-dense", &found.ultra_dense)] {
            for feature in features {
                csv.row([
                    run.run.clone(),
                    run.variant.to_string(),
                    run.site.to_string(),
                    what.to_owned(),
                    feature.to_string(),
                ]);
            }
        }
    }
    csv.finish()
}
