//! Pairs of dictionaries in two dimensions.

mod figure;
mod neighbors;
mod umap;

use sae_config::Site;
use serde::{Deserialize, Serialize};

pub use self::umap::{EmbeddedRow, Embedding, EmbeddingOptions, FEWEST_ROWS, embed};
use crate::AnalysisError;
use crate::draw::Figure;
use crate::evidence::Evidence;
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
        Ok(vec![TextFile::csv("umap", &rows(self))])
    }

    fn figure(&self, evidence: &Evidence) -> Figure {
        figure::figure(self, &evidence.looks())
    }

    fn section(&self, evidence: &Evidence) -> Result<Vec<Block>, &'static str> {
        let first = self.first().ok_or("No pair of runs was embedded.")?;
        let text = format!(
            "Dictionary elements of two runs, embedded together by UMAP on cosine distances: what is near in the figure is near \
             in direction. Distances between far groups, and their sizes, mean little. Where one run's elements lie apart from \
             the other's, it has found directions that the other has not. Runs matched by {}; where a site has none, those \
             that the notes name.",
            evidence.match_by.describe()
        );
        let values = self.iter().map(|pair| (pair.name(), pair.name())).collect();
        let choice = Choice { key: PAIR, label: "Runs", values, first: first.name() };
        Ok(vec![
            Block::Text(text),
            Block::Choice(choice),
            Block::Panels,
            Block::Folded("The numbers".to_owned(), vec![Block::Table(pairs(self))]),
        ])
    }
}

/// Two dictionaries embedded together; none, with a note, where that cannot be.
fn embedded(pair: &Pair, study: &mut Study<'_>) -> Option<PairEmbedding> {
    let Pair { site, a, b, .. } = pair;
    let dictionaries = study.dictionaries(pair)?;
    let [of_a, of_b] = &dictionaries;
    match embed(&[&of_a.rows, &of_b.rows], study.options.embedding) {
        Ok(mut embedding) => {
            for point in &mut embedding.points {
                point.row = dictionaries[point.run].alive[point.row] as usize;
            }
            Some(PairEmbedding {
                site: *site,
                runs: vec![a.run.clone(), b.run.clone()],
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

/// A row a dictionary element.
fn rows(found: &[PairEmbedding]) -> Table {
    let keys = ["pair", "site", "run", "type", "feature", "x", "y"];
    let rows = found.iter().enumerate().flat_map(|(place, pair)| {
        pair.embedding.points.iter().map(move |point| {
            vec![
                Cell::count(place as u64),
                Cell::Site(pair.site),
                Cell::Run(pair.runs[point.run].clone()),
                Cell::Group(pair.types[point.run].clone()),
                Cell::count(point.row as u64),
                // As many digits as single precision has.
                Cell::text(point.x.to_string()),
                Cell::text(point.y.to_string()),
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
