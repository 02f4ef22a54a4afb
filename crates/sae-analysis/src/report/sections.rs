//! The page's sections: what each is about, where its charts go, and its tables.

use super::markup::{Cell, Column, Links, Table, escape, fixed};
use super::{Body, Section, data, frontiers};
use crate::bootstrap::Estimate;
use crate::evidence::{AcrossWhat, Evidence};
use crate::facets::describe;

/// The most features that are named of a run.
const LISTED: usize = 500;

/// All sections, in the order of the page.
pub(super) fn all(evidence: &Evidence) -> Vec<Section> {
    type Write = fn(&Evidence, &Links<'_>) -> Body;
    let sections: [(&str, &str, Write); 10] = [
        ("frontiers", "Frontiers", frontiers::frontiers),
        ("matches", "Matched runs", frontiers::matches),
        ("downstream", "Downstream reconstruction", downstream),
        ("geometry", "Dictionary geometry", geometry),
        ("embeddings", "Dictionaries in two dimensions", embeddings),
        ("activations", "Activations", activations),
        ("stability", "Stability across seeds", stability),
        ("features", "Features", features),
        ("runs", "All runs", frontiers::runs),
        ("configurations", "Configurations", configurations),
    ];
    let links = Links::of(&evidence.runs);
    sections
        .into_iter()
        .map(|(id, title, write)| Section { id, title, body: write(evidence, &links) })
        .collect()
}

/// A section of charts, whose tables are folded.
fn charts(text: &str, view: &str, tables: &[Table<'_>], links: &Links<'_>) -> String {
    let tables: String =
        tables.iter().filter(|table| !table.rows.is_empty()).map(|t| t.html(links)).collect();
    format!(
        "<p>{}</p>\n<div data-view=\"{view}\"></div>\n<details><summary>The numbers</summary>\n{tables}</details>\n",
        escape(text)
    )
}

/// Which runs a section looks at that does not show all of them.
fn which(evidence: &Evidence) -> String {
    format!(
        "Runs matched by {}; where a site has none, those that the notes name.",
        evidence.match_by.describe()
    )
}

fn downstream(evidence: &Evidence, links: &Links<'_>) -> Body {
    if evidence.downstream.iter().all(|run| run.layers.is_empty()) {
        return Body::LeftOut("No matched run was evaluated at sites after its SAE.");
    }
    let rows = evidence.downstream.iter().flat_map(|run| {
        run.layers.iter().map(|layer| {
            vec![
                Cell::Site(run.site),
                Cell::Type(run.variant),
                Cell::Run(run.run.clone()),
                Cell::Text(layer.site.to_string()),
                Cell::fixed(layer.explained_variance, 4),
                Cell::significant(layer.mse),
            ]
        })
    });
    let table = Table {
        caption: "Reconstruction after the SAE".to_owned(),
        columns: vec![
            Column("site", "Where the SAE stands"),
            Column("type", "The type of SAE"),
            Column("run", "The run's id"),
            Column("measured at", "The later site"),
            Column("expl. var.", "Share of the original activations' variance that is explained"),
            Column("MSE", "Mean over all elements of (spliced − original)²"),
        ],
        rows: rows.collect(),
    };
    Body::Shown(charts(
        &format!(
            "How close the model's later activations stay to the original ones when an SAE is spliced in. The original \
             has explained variance 1 and MSE 0. {}",
            which(evidence)
        ),
        "downstream",
        &[table],
        links,
    ))
}

fn geometry(evidence: &Evidence, links: &Links<'_>) -> Body {
    let found = &evidence.geometry;
    if found.within.is_empty() && found.across.is_empty() {
        return Body::LeftOut("No dictionary was compared.");
    }
    let within = Table {
        caption: "Within dictionaries: each alive element's largest cosine to another".to_owned(),
        columns: vec![
            Column("site", "Where the SAE stands"),
            Column("type", "The type of SAE"),
            Column("run", "The run's id"),
            Column("alive", "Alive elements"),
            Column("mean", "Mean over the alive elements"),
            Column("interval", "Bootstrap confidence interval of the mean"),
        ],
        rows: found
            .within
            .iter()
            .map(|run| {
                vec![
                    Cell::Site(run.site),
                    Cell::Type(run.variant),
                    Cell::Run(run.run.clone()),
                    Cell::count(run.alive as u64),
                    Cell::fixed(run.mean.value, 4),
                    Cell::Text(interval(&run.mean)),
                ]
            })
            .collect(),
    };
    let differences = Table {
        caption: "Differences of those means between matched runs".to_owned(),
        columns: vec![
            Column("site", "Where the SAEs stand"),
            Column("matched by", "What the runs are equal in"),
            Column("types", "The mean of the first less that of the second"),
            Column("difference", "Above 0: the first is more tightly clustered"),
            Column("interval", "Bootstrap confidence interval of the difference"),
        ],
        rows: found
            .differences
            .iter()
            .map(|pair| {
                vec![
                    Cell::Site(pair.site),
                    Cell::Text(pair.by.describe().to_owned()),
                    Cell::Text(format!("{} − {}", pair.of, pair.less)),
                    Cell::fixed(pair.estimate.value, 4),
                    Cell::Text(interval(&pair.estimate)),
                ]
            })
            .collect(),
    };
    let across = Table {
        caption: "Between dictionaries: each alive element's largest cosine to any in the other"
            .to_owned(),
        columns: vec![
            Column("site", "Where the SAEs stand"),
            Column("compared", "Matched runs of two types, or runs that differ in the seed alone"),
            Column("from", "The run whose elements look for a neighbour"),
            Column("to", "The run in which they do"),
            Column("elements", "How many look"),
            Column("mean", "Mean of their largest cosines"),
        ],
        rows: found
            .across
            .iter()
            .map(|pair| {
                vec![
                    Cell::Site(pair.site),
                    Cell::Text(what(pair.what).to_owned()),
                    Cell::Run(pair.from.clone()),
                    Cell::Run(pair.to.clone()),
                    Cell::count(pair.cosines.n as u64),
                    Cell::fixed(pair.cosines.mean.unwrap_or(f64::NAN), 4),
                ]
            })
            .collect(),
    };
    Body::Shown(charts(
        "How close the directions of dictionary elements are to each other, as cosines. High cosines within a dictionary \
         mean that it is tightly clustered, a sign of feature splitting; high cosines between two dictionaries mean that \
         they have found the same directions.",
        "geometry",
        &[within, differences, across],
        links,
    ))
}

fn what(what: AcrossWhat) -> &'static str {
    match what {
        AcrossWhat::Types => "types",
        AcrossWhat::Seeds => "seeds",
    }
}

fn interval(estimate: &Estimate) -> String {
    let percent = estimate.options.confidence * 100.0;
    estimate.interval.map_or_else(
        || "–".to_owned(),
        |found| format!("{} to {} ({percent} %)", fixed(found.low, 4), fixed(found.high, 4)),
    )
}

fn embeddings(evidence: &Evidence, links: &Links<'_>) -> Body {
    if evidence.embeddings.is_empty() {
        return Body::LeftOut("No pair of runs was embedded.");
    }
    let table = Table {
        caption: "Embedded pairs".to_owned(),
        columns: vec![
            Column("site", "Where the SAEs stand"),
            Column("runs", "The runs whose dictionaries are embedded together"),
            Column("drawn", "Elements in the picture"),
            Column("of", "Alive elements of both"),
        ],
        rows: evidence
            .embeddings
            .iter()
            .map(|pair| {
                vec![
                    Cell::Site(pair.site),
                    Cell::Text(pair.runs.join(" and ")),
                    Cell::count(pair.embedding.points.len() as u64),
                    Cell::count(pair.embedding.available as u64),
                ]
            })
            .collect(),
    };
    Body::Shown(charts(
        &format!(
            "Dictionary elements of two runs, embedded together by UMAP on cosine distances: what is near in the picture \
             is near in direction. Distances between far groups, and their sizes, mean little. Where one type's \
             elements lie apart from the other's, it has found directions that the other has not. {}",
            which(evidence)
        ),
        "embeddings",
        &[table],
        links,
    ))
}

fn activations(evidence: &Evidence, links: &Links<'_>) -> Body {
    if evidence.activations.is_empty() {
        return Body::LeftOut("No activations were measured.");
    }
    let directions = evidence.activations.iter().flat_map(|(site, found)| {
        let random = found.model.random_resampling_kl;
        found.model.directions.iter().zip(1_u64..).map(move |(direction, place)| {
            vec![
                Cell::Site(*site),
                Cell::count(place),
                Cell::significant(direction.variance_share),
                Cell::significant(direction.resampling_kl),
                Cell::significant(random),
            ]
        })
    });
    let explained = evidence.activations.iter().flat_map(|(site, found)| {
        found.runs.iter().flat_map(move |(run, sae)| {
            sae.explained_variance.iter().zip(1_u64..).map(move |(&explained, place)| {
                vec![
                    Cell::Site(*site),
                    Cell::Run(run.clone()),
                    Cell::count(place),
                    Cell::fixed(explained, 4),
                ]
            })
        })
    });
    let directions = Table {
        caption: "Principal directions of the model's activations".to_owned(),
        columns: vec![
            Column("site", "Where they were measured"),
            Column("direction", "1 has the most variance"),
            Column("variance share", "Share of the total variance"),
            Column(
                "resampling KL",
                "KL(resampled ‖ original), as the paper has it, when every token's component but the first's is \
                 another token's, nats",
            ),
            Column("of a random direction", "The same, mean over random directions"),
        ],
        rows: directions.collect(),
    };
    let explained = Table {
        caption: "Explained variance along principal directions".to_owned(),
        columns: vec![
            Column("site", "Where they were measured"),
            Column("run", "The run's id"),
            Column("direction", "1 has the most variance"),
            Column("expl. var.", "Share of the variance along the direction that the SAE keeps"),
        ],
        rows: explained.collect(),
    };
    Body::Shown(charts(
        &format!(
            "The model's activations where the SAEs stand, and what the SAEs make of them: by position in the window (the \
             first token is often special), and along the principal directions, the directions with the most variance. A \
             direction's resampling KL is what it costs the model's output to replace every token's component along it, \
             but the first's, by another token's, as KL(resampled ‖ original), the paper's direction: variance is not \
             importance. {} The tables have every run.",
            which(evidence)
        ),
        "activations",
        &[directions, explained],
        links,
    ))
}

fn stability(evidence: &Evidence, links: &Links<'_>) -> Body {
    if evidence.stability.is_empty() {
        return Body::LeftOut("No two runs differ in nothing but their seeds.");
    }
    let rows = evidence.stability.iter().flat_map(|group| {
        group.metrics.iter().map(|(metric, values)| {
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let low = values.iter().copied().fold(f64::INFINITY, f64::min);
            let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let each: Vec<String> = group
                .runs
                .iter()
                .zip(values)
                .map(|((seed, _), &value)| {
                    format!("{}: {}", seed, super::markup::significant(value))
                })
                .collect();
            vec![
                Cell::Site(group.site),
                Cell::Type(group.variant),
                Cell::Number(group.coeff, group.coeff.to_string()),
                Cell::Text(describe(&group.facets)),
                Cell::Text(group.differ_in.join(", ")),
                Cell::Text(metric.clone()),
                Cell::significant(mean),
                Cell::significant(high - low),
                Cell::Text(each.join(", ")),
            ]
        })
    });
    let table = Table {
        caption: "Metrics by seed".to_owned(),
        columns: vec![
            Column("site", "Where the SAE stands"),
            Column("type", "The type of SAE"),
            Column("coeff", "The sparsity coefficient"),
            Column("else", "What else tells these runs from others of the type"),
            Column(
                "seeds",
                "The seeds that differ: of the initialisation, of the order of the data",
            ),
            Column("metric", "What is compared"),
            Column("mean", "Mean over the seeds"),
            Column("range", "The largest less the smallest"),
            Column("by seed", "Each seed's value"),
        ],
        rows: rows.collect(),
    };
    Body::Shown(charts(
        "Runs that differ in nothing but their seeds. Differences between types that are not larger than those between seeds \
         are no findings.",
        "stability",
        &[table],
        links,
    ))
}

fn features(evidence: &Evidence, links: &Links<'_>) -> Body {
    if evidence.features.is_empty() {
        return Body::LeftOut("No matched run says how often its features are active.");
    }
    let share = |part: usize, all: usize| {
        Cell::Number(
            part as f64,
            format!("{part} ({} %)", fixed(100.0 * part as f64 / all as f64, 1)),
        )
    };
    let table = Table {
        caption: "Features of matched runs".to_owned(),
        columns: vec![
            Column("site", "Where the SAE stands"),
            Column("type", "The type of SAE"),
            Column("run", "The run's id"),
            Column("features", "Dictionary elements"),
            Column("dead", "Features that are not alive"),
            Column("ultra-dense", "Features that are active on more tokens than the threshold"),
            Column("threshold", "Share of tokens above which a feature is ultra-dense"),
        ],
        rows: evidence
            .features
            .iter()
            .map(|run| {
                let found = &run.statistics;
                vec![
                    Cell::Site(run.site),
                    Cell::Type(run.variant),
                    Cell::Run(run.run.clone()),
                    Cell::count(found.n_features as u64),
                    share(found.dead.len(), found.n_features),
                    share(found.ultra_dense.len(), found.n_features),
                    Cell::significant(found.ultra_dense_above),
                ]
            })
            .collect(),
    };
    let mut html = charts(
        &format!(
            "How often features are active, as base-10 logarithms of the share of tokens, and what that goes with. {} Of \
             each, at most {} features are drawn.",
            which(evidence),
            data::MAX_FEATURES
        ),
        "features",
        &[table],
        links,
    );
    html.push_str(&listed(evidence));
    Body::Shown(html)
}

/// Dead and ultra-dense features by number.
fn listed(evidence: &Evidence) -> String {
    let numbers = |features: &[u32]| {
        let shown: Vec<String> = features.iter().take(LISTED).map(ToString::to_string).collect();
        let more = features.len().saturating_sub(LISTED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        if shown.is_empty() { "none".to_owned() } else { format!("{}{more}", shown.join(", ")) }
    };
    let dead = if evidence.alive_above > 0.0 { "Dead or too rare" } else { "Dead" };
    let runs: String = evidence
        .features
        .iter()
        .map(|run| {
            let found = &run.statistics;
            format!(
                "<div data-type=\"{}\" data-site=\"{}\" data-run=\"{id}\">\n<h3>{}, {id}</h3>\n\
                 <p>{dead}: {}.</p>\n<p>Ultra-dense: {}.</p>\n</div>\n",
                run.variant,
                run.site,
                run.site,
                numbers(&found.dead),
                numbers(&found.ultra_dense),
                id = escape(&run.run),
            )
        })
        .collect();
    format!(
        "<details><summary>Dead and ultra-dense features by number</summary>\n<p>All of them are in \
         unusual_features.csv.</p>\n{runs}</details>\n"
    )
}

fn configurations(evidence: &Evidence, _: &Links<'_>) -> Body {
    if evidence.runs.is_empty() {
        return Body::LeftOut("No run is finished.");
    }
    let runs: String = evidence
        .runs
        .iter()
        .enumerate()
        .map(|(place, run)| {
            format!(
                "<details class=\"configuration\" id=\"run-{place}\" data-type=\"{}\" data-run=\"{}\">\
                 <summary>{}</summary>\n<p>Folder: {}</p>\n<pre tabindex=\"0\">{}</pre>\n</details>\n",
                run.variant,
                escape(&run.run),
                escape(&run.run),
                escape(&run.folder),
                escape(&run.config)
            )
        })
        .collect();
    Body::Shown(runs)
}
