//! Pairs of dictionaries in two dimensions.

mod figure;
mod neighbors;
mod regions;
mod umap;

use sae_config::Site;
use sae_record::activations::SiteActivations;
use sae_record::layout;
use serde::{Deserialize, Serialize};

pub use self::regions::Region;
pub use self::umap::{EmbeddedRow, Embedding, EmbeddingOptions, FEWEST_ROWS, embed};
use crate::AnalysisError;
use crate::activations::ACTIVATIONS;
use crate::draw::Figure;
use crate::evidence::Evidence;
use crate::matrix::Matrix;
use crate::measured;
use crate::runs::Group;
use crate::study::{Pair, Study};
use crate::subject::{Block, Choice, Subject, TextFile};
use crate::table::{Cell, Column, Table};

/// Two runs' dictionaries in two dimensions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairEmbedding {
    /// The site.
    pub site: Site,
    /// The runs, in the order of the embedding's numbers.
    pub runs: Vec<String>,
    /// Their groups.
    pub types: Vec<Group>,
    /// Where each element lies.
    pub embedding: Embedding,
    /// The cosines of the elements to directions of the model's activations, where these were measured.
    #[serde(default)]
    pub along: Vec<Along>,
    /// Regions that somebody has named.
    #[serde(default)]
    pub regions: Vec<Region>,
}

/// The cosines of embedded elements to a direction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Along {
    /// The direction.
    pub direction: String,
    /// Of each embedded element, in their order.
    pub cosines: Vec<f32>,
}

/// The choice of the pair that is shown on the page.
const PAIR: &str = "pair";

impl PairEmbedding {
    /// What it is called among others.
    fn name(&self) -> String {
        if self.are_of_one_group() {
            format!("{}: {}", self.site, self.runs.join(" and "))
        } else {
            let names: Vec<String> = self.types.iter().map(Group::to_string).collect();
            format!("{}: {}", self.site, names.join(" and "))
        }
    }

    fn are_of_one_group(&self) -> bool {
        self.types.iter().all(|group| *group == self.types[0])
    }
}

impl Subject for Vec<PairEmbedding> {
    fn name(&self) -> &'static str {
        "umap"
    }

    fn title(&self) -> &'static str {
        "Dictionaries in two dimensions"
    }

    fn find(study: &mut Study<'_>) -> Result<Self, AnalysisError> {
        let mut found: Self = Vec::new();
        for pair in study.pairs.clone() {
            study.step(&format!("{} and {}", pair.a.run, pair.b.run));
            // One pair of seeds a run is enough to look at, however many there are.
            let is_seen = |other: &PairEmbedding| {
                other.site == pair.site && other.runs[0] == pair.a.run && other.are_of_one_group()
            };
            if !(pair.are_seeds && found.iter().any(is_seen)) {
                found.extend(embedded(&pair, study));
            }
        }
        Ok(found)
    }

    fn is_empty(&self) -> bool {
        Vec::is_empty(self)
    }

    fn files(&self, _: &Evidence) -> Result<Vec<TextFile>, AnalysisError> {
        Ok(vec![
            TextFile::csv("umap", &rows(self)),
            TextFile::csv("umap_regions", &in_regions(self)),
        ])
    }

    fn figure(&self, evidence: &Evidence) -> Figure {
        figure::figure(self, &evidence.looks())
    }

    fn section(&self, evidence: &Evidence) -> Result<Vec<Block>, &'static str> {
        let first = self.first().ok_or("No pair of runs was embedded.")?;
        let text = format!(
            "Dictionary elements of two runs, embedded together by UMAP on cosine distances: what is near in the figure is near \
             in direction. Distances between far groups, and their sizes, mean little. Where one run's elements lie apart from \
             the other's, it has found directions that the other has not. The colour of an element in the lower row is its cosine to \
             a direction of the model's activations. Runs matched by {}; where a site has none, those \
             that the notes name.",
            evidence.match_by.describe()
        );
        let values = self.iter().map(|pair| (pair.name(), pair.name())).collect();
        let choice = Choice { key: PAIR, label: "Runs", values, first: first.name() };
        let mut numbers = vec![Block::Table(pairs(self))];
        if self.iter().any(|pair| !pair.regions.is_empty()) {
            numbers.push(Block::Table(regions(self)));
        }
        Ok(vec![
            Block::Text(text),
            Block::Choice(choice),
            Block::Panels,
            Block::Folded("The numbers".to_owned(), numbers),
        ])
    }
}

/// Two dictionaries embedded together; none, with a note, where that cannot be.
fn embedded(pair: &Pair, study: &mut Study<'_>) -> Option<PairEmbedding> {
    let Pair { site, a, b, .. } = pair;
    let dictionaries = study.dictionaries(pair)?;
    let [of_a, of_b] = &dictionaries;
    let directions = directions(study, *site);
    match embed(&[&of_a.rows, &of_b.rows], study.options.embedding) {
        Ok(mut embedding) => {
            let along = directions.into_iter().map(|(direction, vector)| Along {
                direction,
                cosines: cosines(&embedding, [&of_a.rows, &of_b.rows], &vector),
            });
            let along = along.collect();
            for point in &mut embedding.points {
                point.row = dictionaries[point.run].alive[point.row] as usize;
            }
            let runs = vec![a.run.clone(), b.run.clone()];
            let named = study.options.regions.iter().filter(|region| region.is_of(&runs));
            Some(PairEmbedding {
                site: *site,
                along,
                regions: named.cloned().collect(),
                runs,
                types: vec![a.group.clone(), b.group.clone()],
                embedding,
            })
        }
        Err(error) => {
            study.notes.add(format!("{} and {} at {site} have no picture: {error}.", a.run, b.run));
            None
        }
    }
}

/// Directions of the model's activations at a site, of unit length: the first principal one, and the mean at the first position.
fn directions(study: &mut Study<'_>, site: Site) -> Vec<(String, Vec<f64>)> {
    let path = layout::activations(&study.runs.folder, site);
    let measured =
        measured::read::<SiteActivations>(&path, ACTIVATIONS, study.runs, &mut study.notes);
    let Some(measured) = measured else { return Vec::new() };
    let SiteActivations { directions, first_position, .. } = measured.values;
    let first = directions.into_iter().next().map(|found| found.vector);
    let named = [
        ("first principal direction", first.unwrap_or_default()),
        ("mean activation at the first position", first_position),
    ];
    named.into_iter().map(|(name, vector)| (name.to_owned(), vector)).collect()
}

/// The cosines of embedded rows to a direction of unit length.
fn cosines(embedding: &Embedding, rows: [&Matrix; 2], direction: &[f64]) -> Vec<f32> {
    let of = |point: &EmbeddedRow| {
        let row = rows.get(point.run).and_then(|rows| rows.iter().nth(point.row));
        let row = row.filter(|row| row.len() == direction.len()).unwrap_or_default();
        let length = row.iter().map(|a| f64::from(*a).powi(2)).sum::<f64>().sqrt();
        let product: f64 = row.iter().zip(direction).map(|(a, b)| f64::from(*a) * b).sum();
        (product / length.max(f64::MIN_POSITIVE)) as f32
    };
    embedding.points.iter().map(of).collect()
}

/// A row an element in a named region.
fn in_regions(found: &[PairEmbedding]) -> Table {
    let keys = ["region", "site", "run", "type", "feature", "x", "y"];
    let rows = found.iter().flat_map(|pair| {
        pair.regions.iter().flat_map(move |region| {
            let own = pair.embedding.points.iter().filter(|point| region.holds(point));
            own.map(move |point| {
                vec![
                    Cell::text(&region.name),
                    Cell::Site(pair.site),
                    Cell::Run(pair.runs[point.run].clone()),
                    Cell::Group(pair.types[point.run].clone()),
                    Cell::count(point.row as u64),
                    Cell::text(point.x.to_string()),
                    Cell::text(point.y.to_string()),
                ]
            })
        })
    });
    Table::new("Elements in named regions", keys.map(Column::csv).into()).with(rows)
}

/// A row a named region of a pair.
fn regions(found: &[PairEmbedding]) -> Table {
    let columns = vec![
        Column::site(),
        Column::new("region", "region", "As it was named"),
        Column::new("elements", "elements", "Elements of the first and of the second run in it"),
        Column::new("runs", "runs", "The runs whose dictionaries are embedded together"),
    ];
    let rows = found.iter().flat_map(|pair| {
        pair.regions.iter().map(move |region| {
            let own = pair.embedding.points.iter().filter(|point| region.holds(point));
            let second = own.clone().filter(|point| point.run == 1).count();
            let first = own.count() - second;
            vec![
                Cell::Site(pair.site),
                Cell::text(&region.name),
                Cell::Text(format!("{first} and {second}")),
                Cell::text(pair.runs.join(" and ")),
            ]
        })
    });
    Table::new("Named regions; umap_regions.csv has their elements", columns).with(rows)
}

/// A row a dictionary element.
fn rows(found: &[PairEmbedding]) -> Table {
    let keys = [
        "pair",
        "site",
        "run",
        "type",
        "feature",
        "x",
        "y",
        "to_first_direction",
        "to_first_position",
    ];
    let rows = found.iter().enumerate().flat_map(|(place, pair)| {
        pair.embedding.points.iter().enumerate().map(move |(number, point)| {
            let cosine = |place: usize| {
                let along = pair.along.get(place).and_then(|along| along.cosines.get(number));
                Cell::text(along.map(ToString::to_string).unwrap_or_default())
            };
            vec![
                Cell::count(place as u64),
                Cell::Site(pair.site),
                Cell::Run(pair.runs[point.run].clone()),
                Cell::Group(pair.types[point.run].clone()),
                Cell::count(point.row as u64),
                // As many digits as single precision has.
                Cell::text(point.x.to_string()),
                Cell::text(point.y.to_string()),
                cosine(0),
                cosine(1),
            ]
        })
    });
    Table::new("Embedded elements", keys.map(Column::csv).into()).with(rows)
}

/// A row a pair.
fn pairs(found: &[PairEmbedding]) -> Table {
    let columns = vec![
        Column::site(),
        Column::new("runs", "runs", "The runs whose dictionaries are embedded together"),
        Column::new("drawn", "embedded", "Elements that are embedded"),
        Column::new("of", "of", "Alive elements of both"),
    ];
    let rows = found.iter().map(|pair| {
        vec![
            Cell::Site(pair.site),
            Cell::text(pair.runs.join(" and ")),
            Cell::count(pair.embedding.points.len() as u64),
            Cell::count(pair.embedding.available as u64),
        ]
    });
    Table::new("Embedded pairs", columns).with(rows)
}
