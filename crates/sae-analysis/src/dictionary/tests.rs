//! Run folders as the trainer writes them, and broken ones.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, UInt32Array};
use parquet::arrow::ArrowWriter;
use sae_config::Site;
use sae_record::RunFolder;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::{Dictionary, Feature};

const SITE: Site = Site::resid_pre(3);
const OTHER: Site = Site::resid_pre(6);

/// (site, feature, frequency)
type Row = (Site, u32, f64);

fn rows() -> Vec<Row> {
    let other = (0..3).map(|feature| (OTHER, feature, 0.5));
    let own = [0.25, 0.0, 1.0, 0.0].into_iter().zip(0..);
    other.chain(own.map(|(frequency, feature)| (SITE, feature, frequency))).collect()
}

fn batch(rows: &[Row]) -> RecordBatch {
    let numbers = |number: fn(&Row) -> f64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(rows.iter().map(number)))
    };
    let alive: BooleanArray = rows.iter().map(|row| Some(row.2 > 0.0)).collect();
    RecordBatch::try_from_iter([
        (
            "site",
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0.to_string())))
                as ArrayRef,
        ),
        ("feature", Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.1)))),
        ("frequency", numbers(|row| row.2)),
        ("alive", Arc::new(alive)),
        ("encoder_norm", numbers(|row| f64::from(row.1) + 1.0)),
        ("decoder_norm", numbers(|row| f64::from(row.1) + 0.5)),
        ("encoder_bias", numbers(|row| -f64::from(row.1))),
    ])
    .unwrap()
}

fn write_table(path: &Path, batch: &RecordBatch) {
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

/// The decoder's element (f, d) is `10 f + d`; the other tensors that SAELens stores lie around it.
fn write_weights(folder: &RunFolder, name: &str, shape: [usize; 2]) {
    let [f, d] = shape;
    let bytes =
        |values: Vec<f32>| -> Vec<u8> { values.into_iter().flat_map(f32::to_le_bytes).collect() };
    let decoder = bytes((0..f * d).map(|i| (10 * (i / d) + i % d) as f32).collect());
    let (encoder, biases) = (bytes(vec![-1.0; d * f]), bytes(vec![-2.0; f]));
    let view = |shape: &[usize], bytes| TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap();
    let tensors = [
        ("W_enc", view(&[d, f], &encoder)),
        ("b_enc", view(&[f], &biases)),
        (name, view(&[f, d], &decoder)),
    ];
    let path = folder.sae(SITE);
    std::fs::create_dir_all(&path).unwrap();
    let bytes = safetensors::serialize(tensors, None).unwrap();
    std::fs::write(path.join("sae_weights.safetensors"), bytes).unwrap();
}

fn run() -> (tempfile::TempDir, RunFolder) {
    let place = tempfile::tempdir().unwrap();
    let folder = RunFolder::new(place.path());
    write_table(&folder.features(), &batch(&rows()));
    write_weights(&folder, "W_dec", [4, 3]);
    (place, folder)
}

fn refused(folder: &RunFolder) -> String {
    Dictionary::load(folder, SITE, 0.0).unwrap_err().to_string()
}

#[test]
fn the_alive_rows_of_the_site_are_read() {
    let (_place, folder) = run();
    let dictionary = Dictionary::load(&folder, SITE, 0.0).unwrap();
    assert_eq!((dictionary.site, &dictionary.alive[..]), (SITE, &[0, 2][..]));
    assert_eq!((dictionary.rows.rows(), dictionary.rows.columns()), (2, 3));
    assert_eq!(dictionary.rows.values(), [0.0, 1.0, 2.0, 20.0, 21.0, 22.0]);
    let expected = Feature {
        index: 2,
        frequency: 1.0,
        alive: true,
        encoder_norm: 3.0,
        decoder_norm: 2.5,
        encoder_bias: -2.0,
    };
    assert_eq!((dictionary.features.len(), dictionary.features[2]), (4, expected));
}

#[test]
fn features_are_put_in_order_and_none_alive_is_an_empty_matrix() {
    let (_place, folder) = run();
    let mut reversed = rows();
    reversed.reverse();
    write_table(&folder.features(), &batch(&reversed));
    assert_eq!(Dictionary::load(&folder, SITE, 0.0).unwrap().alive, [0, 2]);
    let dead: Vec<Row> = (0..4).map(|feature| (SITE, feature, 0.0)).collect();
    write_table(&folder.features(), &batch(&dead));
    let dictionary = Dictionary::load(&folder, SITE, 0.0).unwrap();
    assert_eq!((dictionary.rows.rows(), dictionary.rows.columns()), (0, 3));
}

#[test]
fn a_table_that_does_not_fit_is_refused_by_name() {
    let (_place, folder) = run();
    let tables: [(Vec<Row>, &str); 5] = [
        (rows()[..3].to_vec(), "found blocks.6.hook_resid_pre"),
        (rows()[..6].to_vec(), "its W_dec has 4 rows, but"),
        (vec![(SITE, 0, 0.1), (SITE, 2, 0.1)], "found 2 in place of 1"),
        (vec![(SITE, 0, 0.1), (SITE, 0, 0.1)], "found 0 in place of 1"),
        (vec![(SITE, 0, 1.5)], "feature 0 has frequency 1.5, expected 0 to 1"),
    ];
    for (rows, expected) in tables {
        write_table(&folder.features(), &batch(&rows));
        let message = refused(&folder);
        assert!(message.contains(expected), "{message}");
        assert!(message.contains("features.parquet"), "{message}");
    }
}

#[test]
fn a_table_with_other_columns_is_refused() {
    let (_place, folder) = run();
    let whole = batch(&rows());
    write_table(&folder.features(), &whole.project(&[0, 1, 2]).unwrap());
    let message = refused(&folder);
    assert!(message.contains("no column `alive`; it has site, feature, frequency"), "{message}");
    let columns = whole.schema();
    let named = columns.fields().iter().map(|field| field.name().as_str());
    let replaced = |name: &str, by: ArrayRef| {
        let columns = named.clone().zip(whole.columns().iter().cloned());
        let columns = columns.map(|(own, old)| (own, if own == name { by.clone() } else { old }));
        RecordBatch::try_from_iter_with_nullable(columns.map(|(own, array)| (own, array, true)))
            .unwrap()
    };
    let nulls: Float64Array = (0..7).map(|i| (i > 0).then_some(0.5)).collect();
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(["yes"; 7]));
    for (name, by, expected) in [
        ("frequency", Arc::new(nulls) as ArrayRef, "`frequency` has empty cells"),
        ("alive", texts, "`alive` is of type Utf8, expected true or false"),
    ] {
        write_table(&folder.features(), &replaced(name, by));
        let message = refused(&folder);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn files_that_are_missing_or_damaged_are_named() {
    let (_place, folder) = run();
    let weights = folder.sae(SITE).join("sae_weights.safetensors");
    let whole = std::fs::read(&weights).unwrap();
    let headerless = [&u64::MAX.to_le_bytes()[..], &[0; 8]].concat();
    for (bytes, expected) in [
        (whole[..whole.len() - 4].to_vec(), "bytes of tensors"),
        (vec![1, 2, 3], "it has 3 bytes"),
        (headerless, "its header claims"),
        ([&2_u64.to_le_bytes()[..], b"no"].concat(), "its header is not valid"),
    ] {
        std::fs::write(&weights, bytes).unwrap();
        let message = refused(&folder);
        assert!(message.contains(expected), "{message}");
        assert!(message.contains("sae_weights.safetensors"), "{message}");
    }
    write_weights(&folder, "W_other", [4, 3]);
    assert!(refused(&folder).contains("no tensor `W_dec`"));
    std::fs::remove_file(&weights).unwrap();
    assert!(refused(&folder).contains("cannot read"));
    std::fs::write(folder.features(), "text").unwrap();
    assert!(refused(&folder).contains("no whole parquet file"));
    std::fs::remove_file(folder.features()).unwrap();
    let message = refused(&folder);
    assert!(message.contains("cannot read") && message.contains("features.parquet"), "{message}");
}
