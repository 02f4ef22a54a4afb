//! Two-dimensional pictures of dictionaries: the alive rows of several runs embedded together by UMAP.
//!
//! As the reference does for two runs (arXiv 2405.12241), with the same settings: the
//! defaults of umap-learn (15 neighbours, a minimal distance of 0.1, a spread of 1). Distances are cosine distances; on
//! rows of unit length they order neighbours as the reference's Euclidean ones do. Neighbours are exact. The layout
//! is optimised by Adam from a spectral start, so positions are not those of umap-learn; what is near is.
//!
//! Distances in the picture between groups that are far apart, and the sizes of groups, mean little.
//!
//! Legend: R rows of all dictionaries, D columns.

use faer::MatRef;
use manifolds_rs::data::graph::{
    coo_to_adjacency_list, filter_weak_edges, knn_to_coo, smooth_knn_dist, symmetrise_graph,
};
use manifolds_rs::data::init::spectral_layout;
use manifolds_rs::prelude::{UmapGraphParams, UmapOptimParams};
use manifolds_rs::training::umap_optimisers::optimise_embedding_adam_parallel;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::neighbors::{Neighbors, nearest};
use crate::AnalysisError;
use crate::matrix::Matrix;

/// How rows are embedded.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EmbeddingOptions {
    /// Nearest neighbours of a row that are to stay near it: few show detail, many the whole. Fewer are used where there
    /// are not as many other rows. At least 2.
    pub n_neighbors: usize,
    /// How close rows may be put to each other, from 0 (clumps) to 1 (evenly spread).
    pub min_dist: f32,
    /// Passes over the graph of neighbours; at least 1.
    pub n_epochs: usize,
    /// Rows that are embedded at most: where there are more, so many are drawn, each as likely as the others. The exact
    /// search for neighbours takes time in proportion to its square.
    pub max_rows: usize,
    /// The seed of the draw and of the layout.
    pub seed: u64,
}

impl Default for EmbeddingOptions {
    fn default() -> Self {
        Self { n_neighbors: 15, min_dist: 0.1, n_epochs: 500, max_rows: 10_000, seed: 0 }
    }
}

/// Rows in two dimensions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Embedding {
    /// The embedded rows, by dictionary and row.
    pub points: Vec<EmbeddedRow>,
    /// Rows that there were to embed, those of zeros left out.
    pub available: usize,
    /// How they were embedded.
    pub options: EmbeddingOptions,
}

/// A row in two dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EmbeddedRow {
    /// Which of the dictionaries, from 0.
    pub run: usize,
    /// Which of its rows, from 0; in a sweep's evidence the number of the feature.
    pub row: usize,
    /// Horizontally.
    pub x: f32,
    /// Vertically.
    pub y: f32,
}

/// The fewest rows that have a shape to show.
pub const FEWEST_ROWS: usize = 4;

/// Embeds the rows of all `dictionaries` together. The same input and seed give the same result, to the bit on one
/// machine, whatever the number of threads. Rows of zeros have no direction and are left out.
///
/// Refused are dictionaries of different widths, fewer than [`FEWEST_ROWS`] rows, and options out of range.
///
/// # Shapes
/// `dictionaries`: `[R_i, D]` each.
pub fn embed(
    dictionaries: &[&Matrix],
    options: EmbeddingOptions,
) -> Result<Embedding, AnalysisError> {
    check(dictionaries, options)?;
    let places: Vec<(usize, usize)> = dictionaries
        .iter()
        .enumerate()
        .flat_map(|(run, matrix)| matrix.iter().enumerate().map(move |(row, x)| (run, row, x)))
        .filter(|(_, _, x)| x.iter().any(|&x| x != 0.0))
        .map(|(run, row, _)| (run, row))
        .collect();
    let available = places.len();
    let drawn = draw(available, options);
    if drawn.len() < FEWEST_ROWS {
        return refused(format!(
            "expected at least {FEWEST_ROWS} rows that are not zeros, found {}",
            drawn.len()
        ));
    }
    let columns = dictionaries[0].columns();
    let unit: Vec<Matrix> = dictionaries.iter().map(|matrix| matrix.normalised()).collect();
    let mut values = Vec::with_capacity(drawn.len() * columns);
    for &place in &drawn {
        let (run, row) = places[place];
        values.extend_from_slice(&unit[run].values()[row * columns..(row + 1) * columns]);
    }
    let found = layout(&Matrix::new(columns, values)?, options)?;
    let points = drawn
        .iter()
        .zip(found)
        .map(|(&place, [x, y])| EmbeddedRow { run: places[place].0, row: places[place].1, x, y })
        .collect();
    Ok(Embedding { points, available, options })
}

fn refused<T>(message: String) -> Result<T, AnalysisError> {
    Err(AnalysisError::Input { action: "embed dictionaries", message })
}

fn check(dictionaries: &[&Matrix], options: EmbeddingOptions) -> Result<(), AnalysisError> {
    let widths: Vec<usize> = dictionaries.iter().map(|matrix| matrix.columns()).collect();
    if widths.iter().any(|&width| width != widths[0]) {
        return refused(format!(
            "their rows have {widths:?} numbers: they are of different sites or models"
        ));
    }
    if options.n_neighbors < 2 {
        return refused(format!("expected 2 or more neighbours, found {}", options.n_neighbors));
    }
    if !(0.0..=1.0).contains(&options.min_dist) {
        return refused(format!("expected a min_dist from 0 to 1, found {}", options.min_dist));
    }
    if options.n_epochs == 0 {
        return refused("expected at least one epoch, found 0".to_owned());
    }
    Ok(())
}

/// Which of the rows are embedded, rising.
fn draw(available: usize, options: EmbeddingOptions) -> Vec<usize> {
    if available <= options.max_rows {
        return (0..available).collect();
    }
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    let mut drawn = rand::seq::index::sample(&mut rng, available, options.max_rows).into_vec();
    drawn.sort_unstable();
    drawn
}

/// The coordinates `[x, y]` of rows of unit length.
///
/// The steps are those of `manifolds_rs::umap`, taken one by one: called whole, it also compiles every approximate
/// search for neighbours that it knows, for more than a minute.
fn layout(unit: &Matrix, options: EmbeddingOptions) -> Result<Vec<[f32; 2]>, AnalysisError> {
    // Rows have seeds of their own, counted up from this one: there has to be room above it.
    let seed = (options.seed ^ (options.seed >> 32)) & u64::from(u32::MAX);
    let (epochs, quiet) = (options.n_epochs, 0);
    let parameters = UmapOptimParams::from_min_dist_spread(
        options.min_dist,
        1.0,
        None,
        None,
        Some(epochs),
        None,
        None,
        None,
        None,
    );
    let UmapGraphParams { bandwidth, local_connectivity, mix_weight } = UmapGraphParams::default();
    let k = options.n_neighbors.min(unit.rows() - 1);
    let Neighbors { indices, distances } = nearest(unit, k);
    let (sigmas, rhos) = smooth_knn_dist(&distances, k, local_connectivity, bandwidth, 64);
    let graph = symmetrise_graph(knn_to_coo(&indices, &distances, &sigmas, &rhos), mix_weight);
    let graph = filter_weak_edges(graph, epochs, quiet);
    let rows = MatRef::from_row_major_slice(unit.values(), unit.rows(), unit.columns());
    let mut places = spectral_layout(&graph, 2, seed, None, Some(rows))
        .or_else(|error| refused(error.to_string()))?;
    let edges = coo_to_adjacency_list(&graph);
    optimise_embedding_adam_parallel(&mut places, &edges, &parameters, None, seed, quiet)
        .or_else(|error| refused(error.to_string()))?;
    places
        .into_iter()
        .map(|place| match place[..] {
            [x, y] if x.is_finite() && y.is_finite() => Ok([x, y]),
            _ => refused(format!("the layout of {} rows did not stay finite", unit.rows())),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::{Embedding, EmbeddingOptions, embed};
    use crate::matrix::Matrix;

    const OPTIONS: EmbeddingOptions = EmbeddingOptions {
        n_neighbors: 10,
        min_dist: 0.1,
        n_epochs: 100,
        max_rows: 10_000,
        seed: 1,
    };

    /// Rows around `groups` directions, one after the other.
    fn clustered(rows: usize, columns: usize, groups: usize, seed: u64) -> Matrix {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let values = (0..rows)
            .flat_map(|row| (0..columns).map(move |column| (row, column)))
            .map(|(row, column)| {
                let centre = f32::from(u8::from(column % groups == row % groups));
                centre + rng.random_range(-0.2..0.2)
            })
            .collect();
        Matrix::new(columns, values).unwrap()
    }

    fn bits(embedding: &Embedding) -> Vec<(usize, usize, u32, u32)> {
        let points = embedding.points.iter();
        points.map(|p| (p.run, p.row, p.x.to_bits(), p.y.to_bits())).collect()
    }

    #[test]
    fn near_rows_stay_near_whatever_their_run() {
        let (a, b) = (clustered(90, 16, 3, 1), clustered(60, 16, 3, 2));
        let found = embed(&[&a, &b], OPTIONS).unwrap();
        assert_eq!((found.points.len(), found.available), (150, 150));
        assert_eq!(found.points.iter().filter(|point| point.run == 1).count(), 60);
        let mut own = 0;
        for point in &found.points {
            let nearest = found
                .points
                .iter()
                .filter(|other| (other.run, other.row) != (point.run, point.row))
                .min_by(|p, q| {
                    let distance =
                        |other: &super::EmbeddedRow| (other.x - point.x).hypot(other.y - point.y);
                    distance(p).total_cmp(&distance(q))
                });
            own += usize::from(nearest.is_some_and(|other| other.row % 3 == point.row % 3));
        }
        assert!(own >= 148, "{own} of 150 rows lie next to one of their group");
    }

    #[test]
    fn the_same_seed_gives_the_same_bits_whatever_the_threads() {
        let (a, b) = (clustered(150, 8, 4, 3), clustered(150, 8, 4, 4));
        let with = |threads: usize, seed: u64| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            bits(&pool.install(|| embed(&[&a, &b], EmbeddingOptions { seed, ..OPTIONS })).unwrap())
        };
        let once = with(1, 5);
        assert_eq!(once, with(1, 5));
        assert_eq!(once, with(4, 5));
        assert_ne!(once, with(1, 6));
        // The largest seed has to leave room for those of the rows.
        assert_eq!(with(2, u64::MAX).len(), 300);
    }

    #[test]
    fn many_rows_are_drawn_from() {
        let (a, b) = (clustered(80, 8, 2, 5), clustered(80, 8, 2, 6));
        let drawn = |seed: u64| -> Vec<(usize, usize)> {
            let options = EmbeddingOptions { max_rows: 60, seed, ..OPTIONS };
            let found = embed(&[&a, &b], options).unwrap();
            assert_eq!(found.available, 160);
            found.points.iter().map(|point| (point.run, point.row)).collect()
        };
        let once = drawn(1);
        assert_eq!(once.len(), 60);
        assert!(once.is_sorted_by(|p, q| p < q), "every row at most once, and in order");
        let of_the_second = once.iter().filter(|(run, _)| *run == 1).count();
        assert!((15..=45).contains(&of_the_second), "{of_the_second} of 60");
        assert_eq!(once, drawn(1));
        assert_ne!(once, drawn(2));
    }

    #[test]
    fn few_rows_equal_rows_and_rows_of_zeros_are_no_trouble() {
        let rows = |values: &[f32]| Matrix::new(2, values.to_vec()).unwrap();
        let four = rows(&[1.0, 0.0, 0.0, 1.0, 1.0, 1.0, -1.0, 0.0]);
        assert_eq!(embed(&[&four], OPTIONS).unwrap().points.len(), 4);
        let same = clustered(40, 8, 4, 7);
        assert_eq!(embed(&[&same, &same], OPTIONS).unwrap().points.len(), 80);
        let one = rows(&[0.6; 24]);
        assert_eq!(embed(&[&one], OPTIONS).unwrap().points.len(), 12);
        for min_dist in [0.0, 1.0] {
            let options = EmbeddingOptions { min_dist, ..OPTIONS };
            assert_eq!(embed(&[&same], options).unwrap().points.len(), 40);
        }
        let zeros = rows(&[0.0; 4]);
        let found = embed(&[&zeros, &four], OPTIONS).unwrap();
        assert_eq!(found.available, 4);
        assert!(found.points.iter().all(|point| point.run == 1));
    }

    #[test]
    fn what_cannot_be_embedded_is_refused() {
        let rows = |columns, n| Matrix::new(columns, vec![1.0; columns * n]).unwrap();
        let message = |dictionaries: &[&Matrix], options| {
            embed(dictionaries, options).unwrap_err().to_string()
        };
        assert!(message(&[], OPTIONS).contains("at least 4 rows that are not zeros, found 0"));
        assert!(message(&[&rows(2, 3)], OPTIONS).contains("found 3"));
        assert!(message(&[&rows(2, 9), &rows(3, 9)], OPTIONS).contains("[2, 3] numbers"));
        let ten = rows(2, 10);
        for (options, expected) in [
            (EmbeddingOptions { n_neighbors: 1, ..OPTIONS }, "2 or more neighbours"),
            (EmbeddingOptions { min_dist: f32::NAN, ..OPTIONS }, "found NaN"),
            (EmbeddingOptions { n_epochs: 0, ..OPTIONS }, "at least one epoch"),
            (EmbeddingOptions { max_rows: 3, ..OPTIONS }, "found 3"),
        ] {
            let found = message(&[&ten], options);
            assert!(found.contains(expected), "{found}");
        }
    }
}
