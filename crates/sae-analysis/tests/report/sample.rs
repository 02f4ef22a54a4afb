//! A sweep's evidence, made up by formulas: two sites, three types, four coefficients, two seeds. Numbers are of the size
//! that a small model gives, and the same at every run.

use std::collections::{BTreeMap, BTreeSet};

use sae_analysis::activations::SiteEvidence;
use sae_analysis::bootstrap::{BootstrapOptions, Estimate, Interval};
use sae_analysis::dictionary::Feature;
use sae_analysis::downstream::{Downstream, DownstreamLayer};
use sae_analysis::embedding::{EmbeddedRow, Embedding, EmbeddingOptions, PairEmbedding};
use sae_analysis::evidence::{About, Evidence, RunFacts};
use sae_analysis::features::{FeatureStatistics, RunFeatures, ULTRA_DENSE, log10_frequency_edges};
use sae_analysis::geometry::similarity::{SimilaritySummary, summarise};
use sae_analysis::geometry::{AcrossRuns, AcrossWhat, Difference, Geometry, Within};
use sae_analysis::histogram::even_edges;
use sae_analysis::matching::{Match, MatchBy, matches};
use sae_analysis::runs::facets::Facets;
use sae_analysis::stability::Seeds;
use sae_analysis::{Frontier, Group, Point};
use sae_config::Site;
use sae_record::activations::{Direction, SaeActivations, SiteActivations};
use sae_record::metric::Values;
use sae_record::summary::Versions;

const TYPES: [Group; 3] = [Group::LOCAL, Group::E2E, Group::E2E_DS];
const BLOCKS: usize = 6;
const N_FEATURES: u64 = 2048;
const CONTEXT: usize = 128;
const STRENGTHS: [f64; 4] = [0.5, 1.5, 4.0, 12.0];

/// Numbers in 0..1 that look random.
fn noise(place: usize) -> f64 {
    let wild = (place as f64 * 12.9898 + 4.1).sin() * 43_758.545_3;
    wild - wild.floor()
}

/// The sum of many: a bell of mean 0 and deviation near 1.
fn bell(place: usize) -> f64 {
    (0..12).map(|term| noise(place * 13 + term)).sum::<f64>() - 6.0
}

/// The evidence.
pub fn evidence() -> Evidence {
    let points = points();
    let frontier = Frontier::of(&points);
    let matches: Vec<Match> = [MatchBy::CeIncrease, MatchBy::L0, MatchBy::Alive]
        .into_iter()
        .flat_map(|by| matches(&points, by))
        .collect();
    let chosen: BTreeSet<&str> = matches
        .iter()
        .filter(|found| found.by == MatchBy::CeIncrease)
        .flat_map(|found| &found.points)
        .map(|point| point.run.as_str())
        .collect();
    let chosen: Vec<&Point> =
        points.iter().filter(|point| chosen.contains(point.run.as_str())).collect();
    let notes = vec![
        "Not finished, left out: l2-local-30-s0.".to_owned(),
        "KL of l4-e2e-12-s1 is not a number.".to_owned(),
    ];
    Evidence {
        runs: points.iter().map(facts).collect(),
        about: About {
            model: vec!["data/rust-lm".to_owned()],
            data: vec!["data/corpus/train".to_owned()],
            evaluation: vec!["data/corpus/validation".to_owned()],
            training_tokens: vec![614_400],
            evaluation_tokens: vec![65_536],
            n_features: vec![N_FEATURES],
        },
        metrics: Vec::new(),
        frontier,
        alive_above: 0.0,
        match_by: MatchBy::CeIncrease,
        downstream: chosen.iter().map(|point| downstream(point)).collect(),
        geometry: geometry(&points, &matches),
        embeddings: matches
            .iter()
            .filter(|found| found.by == MatchBy::CeIncrease)
            .flat_map(|found| [[0, 1], [0, 2], [1, 2]].map(|pair| embedding(found, pair)))
            .collect(),
        activations: sites().into_iter().map(|site| (site, activations(site, &chosen))).collect(),
        stability: stability(&points),
        features: chosen.iter().map(|point| features(point)).collect(),
        matches,
        ..Evidence::none("rust-lm-types".to_owned(), notes)
    }
}

/// The same without anything but points: every other section is left out.
pub fn bare() -> Evidence {
    let Evidence { sweep, notes, runs, .. } = evidence();
    Evidence { runs, frontier: Frontier::of(&points()), ..Evidence::none(sweep, notes) }
}

/// The same with every other seed as another learning rate, by which the frontiers are split.
pub fn by_lr() -> Evidence {
    let mut evidence = evidence();
    let lr = |seed: u64| ("train.lr".to_owned(), ["0.001", "0.0005"][seed as usize].to_owned());
    let mut points = evidence.frontier.points;
    for (point, run) in points.iter_mut().zip(&mut evidence.runs) {
        point.facets.extend([lr(point.seed)]);
        run.facets.extend([lr(point.seed)]);
    }
    evidence.frontier = Frontier::by(&points, &["train.lr".to_owned()]);
    evidence
}

/// Text that tries to become more than text.
pub const HOSTILE: &str = "</script><script>window.hacked=1</script><img src=x onerror=\"window.hacked=1\">'\"&<!--{{data}}\u{2028}\u{2029}\\";

/// The evidence with hostile text wherever a user's text can stand.
pub fn hostile() -> Evidence {
    let mut evidence = evidence();
    let victim = evidence.runs[0].run.clone();
    let name = format!("{victim}{HOSTILE}");
    let rename = |run: &mut String| {
        if *run == victim {
            run.clone_from(&name);
        }
    };
    HOSTILE.clone_into(&mut evidence.sweep);
    evidence.notes.push(HOSTILE.to_owned());
    for run in &mut evidence.runs {
        rename(&mut run.run);
        run.config = format!("# {HOSTILE}\n{}", run.config);
        HOSTILE.clone_into(&mut run.folder);
        run.facets
            .insert(format!("key {HOSTILE}"), format!("{} {HOSTILE}", noise(run.run.len()) > 0.5));
        run.facets.insert(HOSTILE.to_owned(), run.run.clone());
        HOSTILE.clone_into(&mut run.versions.device);
    }
    evidence.frontier.points.iter_mut().for_each(|point| rename(&mut point.run));
    evidence.geometry.within.iter_mut().for_each(|run| rename(&mut run.run));
    for group in &mut evidence.stability {
        group.runs.iter_mut().for_each(|(_, run)| rename(run));
        group.metrics.insert(HOSTILE.to_owned(), vec![1.0, 2.0]);
    }
    evidence
}

fn sites() -> [Site; 2] {
    [Site::resid_pre(2), Site::resid_pre(4)]
}

fn points() -> Vec<Point> {
    let mut points = Vec::new();
    for site in sites() {
        for group in TYPES {
            for (strength, coeff) in STRENGTHS.into_iter().enumerate() {
                for seed in [0, 1] {
                    points.push(point(site, &group, (strength, coeff), seed));
                }
            }
        }
    }
    // Of one run the KL is lost; a page has to live with it.
    if let Some(point) = points.iter_mut().find(|point| point.run == "l4-e2e-12-s1") {
        point.kl = f64::NAN;
    }
    points
}

/// The group's place in [`TYPES`].
fn place_of(group: &Group) -> usize {
    TYPES.iter().position(|known| known == group).unwrap()
}

fn point(site: Site, group: &Group, (strength, coeff): (usize, f64), seed: u64) -> Point {
    let place = site.block * 1000 + place_of(group) * 100 + strength * 10 + seed as usize;
    let wobble = 1.0 + 0.06 * (noise(place) - 0.5);
    let (need, start, dead) = match place_of(group) {
        0 => (1.0, 95.0, 0.09),
        1 => (0.42, 62.0, 0.16),
        _ => (0.45, 66.0, 0.13),
    };
    let l0 = start / coeff.powf(0.62) * wobble;
    let depth = 1.0 + 0.15 * site.block as f64;
    let ce_increase =
        depth * 0.9 * (need / l0).powf(0.75) * (1.0 + 0.05 * (noise(place + 7) - 0.5)) + 0.004;
    let alive =
        (N_FEATURES as f64 * (1.0 - dead * (1.0 + strength as f64) * wobble)).round() as u64;
    let faithful = if *group == Group::E2E { 0.35 } else { 0.9 };
    Point {
        run: format!("l{}-{group}-{coeff}-s{seed}", site.block),
        group: group.clone(),
        site,
        seed,
        coeff,
        l0,
        alive,
        n_features: N_FEATURES,
        ce_increase,
        kl: ce_increase * 1.1,
        explained_variance: faithful - 0.08 * strength as f64 * wobble,
        mse: 0.02 * depth * (1.2 - faithful + 0.1 * strength as f64),
        ce_recovered: 1.0 - ce_increase / 4.0,
        top1_agreement: 0.97 - ce_increase * 0.6,
        grad_norm: Some(0.1 * l0),
        training_tokens: 614_400,
        metrics: Values::default(),
        facets: Facets::new(),
    }
}

fn facts(point: &Point) -> RunFacts {
    let kl = if point.group == Group::LOCAL { "0.0" } else { "1.0" };
    RunFacts {
        run: point.run.clone(),
        group: point.group.clone(),
        folder: point.run.clone(),
        config: format!(
            "[model]\npath = \"data/rust-lm\"\n\n[sae]\nsites = [\"{}\"]\nexpansion = 16\nseed = {}\n\n[loss]\n\
             sparsity = {{ coeff = {:?} }}\nkl = {{ coeff = {kl} }}\n\n[train]\nn_samples = 4800\nbatch_size = 16\nlr = 1e-3\n",
            point.site, point.seed, point.coeff
        ),
        facets: BTreeMap::from([
            ("loss.sparsity.coeff".to_owned(), point.coeff.to_string()),
            ("loss.kl.coeff".to_owned(), kl.to_owned()),
            ("sae.seed".to_owned(), point.seed.to_string()),
        ]),
        versions: Versions {
            sae: "0.1.0".to_owned(),
            commit: "0123abc".to_owned(),
            libtorch: "2.11.0".to_owned(),
            device: "cpu".to_owned(),
        },
    }
}

fn downstream(point: &Point) -> Downstream {
    let later = (point.site.block + 1..BLOCKS).map(Site::resid_pre);
    let layers = later.chain([Site::resid_post(BLOCKS - 1)]).zip(1..).map(|(site, step)| {
        let far = f64::from(step);
        let kept = match place_of(&point.group) {
            0 => 0.94 - 0.045 * far,
            1 => 0.55 - 0.07 * far,
            _ => 0.92 - 0.02 * far,
        };
        let explained_variance = kept - 0.2 * point.ce_increase;
        DownstreamLayer {
            site,
            mse: (1.0 - explained_variance) * 0.3 * far,
            explained_variance,
            explained_variance_per_token: Some(explained_variance),
            explained_variance_normalised: Some(explained_variance),
        }
    });
    Downstream {
        run: point.run.clone(),
        group: point.group.clone(),
        site: point.site,
        layers: layers.collect(),
    }
}

fn clustering(point: &Point) -> f64 {
    let base = if point.group == Group::LOCAL { 0.47 } else { 0.33 };
    base + 0.00004 * point.alive as f64 - 0.05 + 0.02 * noise(point.alive as usize)
}

fn cosines(centre: f64, n: usize, salt: usize) -> SimilaritySummary {
    let values: Vec<f32> =
        (0..n).map(|place| (centre + 0.11 * bell(place + salt)).clamp(-1.0, 1.0) as f32).collect();
    summarise(&values, even_edges(-1.0, 1.0, 100)).unwrap()
}

fn estimate(value: f64, half: f64) -> Estimate {
    Estimate {
        value,
        interval: Some(Interval {
            low: value - half,
            high: value + 1.1 * half,
            standard_error: half / 1.96,
            bias: 0.01,
            acceleration: 0.0,
        }),
        options: BootstrapOptions::default(),
    }
}

fn geometry(points: &[Point], matches: &[Match]) -> Geometry {
    let within = points
        .iter()
        .enumerate()
        .map(|(place, point)| {
            let cosines = cosines(clustering(point), 800, place * 31);
            Within {
                run: point.run.clone(),
                group: point.group.clone(),
                site: point.site,
                alive: point.alive as usize,
                mean: estimate(cosines.mean.unwrap(), 0.006),
                cosines,
            }
        })
        .collect();
    let differences = matches
        .iter()
        .flat_map(|found| {
            [(1, 0), (2, 0), (2, 1)].map(|(of, less)| {
                let (of, less) = (&found.points[of], &found.points[less]);
                let mut difference = estimate(clustering(of) - clustering(less), 0.009);
                if found.by == MatchBy::Alive && of.group == Group::E2E_DS {
                    difference.interval = None;
                }
                Difference {
                    site: found.site,
                    by: found.by,
                    of: of.group.clone(),
                    less: less.group.clone(),
                    estimate: difference,
                }
            })
        })
        .collect();
    let mut across = Vec::new();
    for found in matches.iter().filter(|found| found.by == MatchBy::CeIncrease) {
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
            let (from, to) = (&found.points[from], &found.points[to]);
            let near =
                if from.group != Group::LOCAL && to.group != Group::LOCAL { 0.6 } else { 0.42 };
            across.push(AcrossRuns {
                site: found.site,
                from: from.run.clone(),
                to: to.run.clone(),
                what: AcrossWhat::Types,
                cosines: cosines(
                    near + 0.05 * noise(across.len()),
                    800,
                    found.site.block * 7 + across.len() * 900,
                ),
            });
        }
        for point in &found.points {
            let other =
                point.run.replace(&format!("-s{}", point.seed), &format!("-s{}", 1 - point.seed));
            across.push(AcrossRuns {
                site: found.site,
                from: point.run.clone(),
                to: other,
                what: AcrossWhat::Seeds,
                cosines: cosines(0.65, 800, point.alive as usize),
            });
        }
    }
    Geometry { within, differences, across }
}

fn embedding(found: &Match, pair: [usize; 2]) -> PairEmbedding {
    let rows = pair.iter().enumerate().flat_map(|(run, _)| {
        (0..600).map(move |row| {
            let group = (row * 7 + run) % 23;
            let apart = if group > 17 { 3.0 * run as f64 } else { 0.0 };
            let (x, y) = (12.0 * noise(group) + apart, 9.0 * noise(group + 50) - apart);
            let place = row * 2 + run;
            EmbeddedRow {
                run,
                row,
                x: (x + 0.6 * bell(place)) as f32,
                y: (y + 0.6 * bell(place + 5000)) as f32,
            }
        })
    });
    PairEmbedding {
        site: found.site,
        runs: pair.iter().map(|&place| found.points[place].run.clone()).collect(),
        types: pair.iter().map(|&place| found.points[place].group.clone()).collect(),
        embedding: Embedding {
            points: rows.collect(),
            available: 3600,
            options: EmbeddingOptions::default(),
        },
        along: Vec::new(),
        regions: Vec::new(),
    }
}

fn activations(site: Site, chosen: &[&Point]) -> SiteEvidence {
    let norm =
        (0..CONTEXT).map(|t| if t == 0 { 310.0 } else { 14.0 + 3.0 * (1.0 - 1.0 / t as f64) });
    let directions = (0..8_u32).map(|rank| {
        let share = 0.45 / f64::from(rank + 1).powf(1.4);
        Direction {
            variance_share: share,
            vector: vec![1.0],
            by_position: (0..CONTEXT)
                .map(|t| {
                    let first = if t == 0 && rank < 2 { 9.0 } else { 0.0 };
                    first + (t as f64 / 20.0 + f64::from(rank)).sin() / f64::from(rank + 1)
                })
                .collect(),
            resampling_kl: [0.002, 0.31, 0.012, 0.08, 0.05, 0.06, 0.03, 0.02][rank as usize],
        }
    });
    let runs = chosen.iter().filter(|point| point.site == site).map(|point| {
        let faithful = match place_of(&point.group) {
            0 => 0.95,
            1 => 0.7,
            _ => 0.89,
        };
        let sae = SaeActivations {
            norm_ratio: (0..CONTEXT)
                .map(|t| faithful + 0.05 * noise(t) - if t == 0 { 0.5 } else { 0.0 })
                .collect(),
            cosine: (0..CONTEXT).map(|t| faithful + 0.02 * noise(t + 99)).collect(),
            explained_variance: (0..8)
                .map(|rank| faithful - 0.04 * f64::from(rank) - if rank == 0 { 0.3 } else { 0.0 })
                .collect(),
            correlation: (0..8).map(|rank| Some(faithful - 0.05 * f64::from(rank))).collect(),
            reconstructed_by_position: (0..4)
                .map(|rank| (0..CONTEXT).map(|t| faithful * noise(t + rank * 7)).collect())
                .collect(),
            cosines: (0..40).map(|bin| bin * bin).collect(),
            norms: (0..60).map(|t| [14.0 + noise(t), faithful * 14.0 + noise(t + 7)]).collect(),
        };
        (point.run.clone(), sae)
    });
    SiteEvidence {
        runs: runs.collect(),
        model: SiteActivations {
            tokens: 32_768,
            norm: norm.collect(),
            directions: directions.collect(),
            random_resampling_kl: 0.0021,
            first_position: vec![1.0],
            along_first: Vec::new(),
        },
    }
}

fn stability(points: &[Point]) -> Vec<Seeds> {
    points
        .chunks(2)
        .map(|pair| {
            let values = |metric: fn(&Point) -> f64| pair.iter().map(metric).collect();
            Seeds {
                group: pair[0].group.clone(),
                site: pair[0].site,
                coeff: pair[0].coeff,
                strength: pair[0].strength(),
                facets: BTreeMap::new(),
                differ_in: vec!["sae.seed".to_owned()],
                runs: pair.iter().map(|point| (point.seed, point.run.clone())).collect(),
                metrics: BTreeMap::from([
                    ("alive".to_owned(), values(|point| point.alive as f64)),
                    ("ce_increase".to_owned(), values(|point| point.ce_increase)),
                    ("kl".to_owned(), values(|point| point.kl)),
                    ("l0".to_owned(), values(|point| point.l0)),
                ]),
            }
        })
        .collect()
}

fn features(point: &Point) -> RunFeatures {
    let features: Vec<Feature> = (0..N_FEATURES as u32)
        .map(|index| {
            let place = index as usize + point.alive as usize;
            let alive = u64::from(index) < point.alive;
            let log10 = -2.6 + 0.7 * bell(place);
            Feature {
                index,
                frequency: if alive { 10_f64.powf(log10.min(-0.1)) } else { 0.0 },
                alive,
                encoder_norm: 1.0 + 0.2 * bell(place + 1) - 0.1 * log10,
                decoder_norm: 1.2 + 0.1 * bell(place + 2) + 0.2 * log10,
                encoder_bias: -0.4 + 0.1 * bell(place + 3),
            }
        })
        .collect();
    RunFeatures {
        run: point.run.clone(),
        group: point.group.clone(),
        site: point.site,
        statistics: FeatureStatistics::of(&features, log10_frequency_edges(), ULTRA_DENSE).unwrap(),
    }
}
