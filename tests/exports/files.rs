//! The files: complete or not there, and the same rows in every format.

use std::{io::Read, sync::Mutex};

use arrow_array::{
    Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, cast::AsArray,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use scriptscope::export::{
    Table,
    columns::Columns,
    file::ExportFolder,
    format::{Compression, Format},
};
use sha2::{Digest, Sha256};

use crate::{ROWS, files_in, key, plan, store};

#[tokio::test]
async fn a_file_is_begun_anew_and_leaves_nothing_behind() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("exports/shop/again");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(".pay_runs_data.csv.partial"), "half a line").unwrap();
    let exports = ExportFolder::new(data.path());
    assert_eq!(exports.find(&key("again")).await.unwrap(), None);
    let plan = plan(Table::Runs);
    let store = store(&data).await;
    let told = Mutex::new(Vec::new());
    let mut written = Vec::new();
    for _ in 0..2 {
        let report = |progress| told.lock().unwrap().push(progress);
        let file = exports
            .write(
                &key("again"),
                "uid-1",
                plan.clone(),
                Format::default(),
                store.clone(),
                &report,
            )
            .await
            .unwrap();
        written.push(file);
    }
    assert_eq!(written[0], written[1]);
    assert_eq!(files_in(&folder), ["export.json", "pay_runs_data.csv"]);
    let csv = std::fs::read(folder.join("pay_runs_data.csv")).unwrap();
    assert_eq!(csv.len() as u64, written[0].bytes);
    let mut ids: Vec<String> = csv::Reader::from_reader(&csv[..])
        .records()
        .map(|r| r.unwrap()[0].to_owned())
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len() as u64, written[0].rows), (ROWS as u64, ROWS as u64));
    assert_eq!(told.lock().unwrap().last().unwrap().rows, ROWS as u64);
    assert_eq!(
        exports.list().await.unwrap(),
        [(key("again"), Some("uid-1".to_owned()))]
    );
    exports.remove(&key("again")).await.unwrap();
    exports.remove(&key("again")).await.unwrap();
    assert!(!folder.exists());
}

fn csv(compression: Compression, bom: bool) -> Format {
    Format::Csv { compression, bom }
}

fn records(csv: &[u8]) -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(csv);
    let rows = reader.records();
    rows.map(|r| r.unwrap().iter().map(ToOwned::to_owned).collect())
        .collect()
}

/// The rows of a Parquet file as a CSV file has them.
fn as_records(file: std::fs::File) -> Vec<Vec<String>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .unwrap()
        .build()
        .unwrap();
    let mut all = Vec::new();
    for batch in reader {
        let batch: RecordBatch = batch.unwrap();
        let names = batch.schema().fields().iter().map(|f| f.name().clone()).collect();
        if all.is_empty() {
            all.push(names);
        }
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().map(|column| cell(column, row));
            all.push(cells.collect());
        }
    }
    all
}

fn cell(column: &dyn Array, row: usize) -> String {
    if column.is_null(row) {
        return String::new();
    }
    let any = column.as_any();
    if let Some(texts) = any.downcast_ref::<StringArray>() {
        texts.value(row).to_owned()
    } else if let Some(numbers) = any.downcast_ref::<Int64Array>() {
        numbers.value(row).to_string()
    } else if let Some(numbers) = any.downcast_ref::<Float64Array>() {
        numbers.value(row).to_string()
    } else {
        let times: &TimestampMicrosecondArray = column.as_primitive();
        assert_eq!(times.timezone(), Some("UTC"));
        let time = jiff::Timestamp::from_microsecond(times.value(row)).unwrap();
        format!("{time:.6}")
    }
}

#[tokio::test]
async fn every_format_has_the_same_rows() {
    let data = tempfile::tempdir().unwrap();
    let store = store(&data).await;
    let exports = ExportFolder::new(data.path());
    let headings = [
        "Run ID",
        "Deployment Version",
        "Response Time",
        "Executed On",
        "Finished On",
        "Reason",
        "Input",
    ];
    let mut plan = plan(Table::Runs);
    plan.columns = Columns::named(Table::Runs, &headings).unwrap();
    let mut expected: Option<Vec<Vec<String>>> = None;
    for (name, format, file) in [
        ("plain", csv(Compression::None, false), "pay_runs_data.csv"),
        ("bom", csv(Compression::None, true), "pay_runs_data.csv"),
        ("gzip", csv(Compression::Gzip, false), "pay_runs_data.csv.gz"),
        ("zstd", csv(Compression::Zstd, true), "pay_runs_data.csv.zst"),
        ("parquet", Format::Parquet, "pay_runs_data.parquet"),
    ] {
        let written = exports
            .write(&key(name), "uid-1", plan.clone(), format, store.clone(), &|_| {})
            .await
            .unwrap();
        assert_eq!((written.file_name.as_str(), written.rows), (file, ROWS as u64));
        let path = data.path().join("exports/shop").join(name).join(file);
        let stored = std::fs::read(&path).unwrap();
        assert_eq!(stored.len() as u64, written.bytes);
        let hash = format!("{:x}", Sha256::digest(&stored));
        assert_eq!(hash, written.sha256);
        let found = exports.find(&key(name)).await.unwrap();
        assert_eq!(found, Some((written, path.clone())));

        let mut text = Vec::new();
        match name {
            "gzip" => {
                flate2::read::GzDecoder::new(&stored[..])
                    .read_to_end(&mut text)
                    .unwrap();
            }
            "zstd" => text = zstd::decode_all(&stored[..]).unwrap(),
            _ => text = stored,
        }
        let has_bom = text.starts_with("\u{feff}".as_bytes());
        assert_eq!(has_bom, matches!(format, Format::Csv { bom: true, .. }), "{name}");
        let rows = if format == Format::Parquet {
            as_records(std::fs::File::open(path).unwrap())
        } else {
            records(text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&text))
        };
        assert_eq!(rows[0], headings);
        assert_eq!(rows.len(), 1 + usize::try_from(ROWS).unwrap());
        assert_eq!(rows[1][6], "{\"n\": 1.0}");
        assert!(rows == *expected.get_or_insert_with(|| rows.clone()), "{name}");
    }
}

#[tokio::test]
async fn an_export_leaves_room_for_the_store() {
    let data = tempfile::tempdir().unwrap();
    let store = store(&data).await;
    let exports = ExportFolder::new(data.path()).keep_free(u64::MAX);
    let error = exports
        .write(
            &key("large"),
            "u",
            plan(Table::Runs),
            Format::default(),
            store,
            &|_| {},
        )
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("MiB left") && error.contains("delete exports"),
        "{error}"
    );
    assert_eq!(exports.find(&key("large")).await.unwrap(), None);
}

#[tokio::test]
async fn a_file_without_rows_has_its_headings() {
    let data = tempfile::tempdir().unwrap();
    let store = store(&data).await;
    let exports = ExportFolder::new(data.path());
    for (name, format) in [
        ("csv", csv(Compression::Gzip, false)),
        ("parquet", Format::Parquet),
    ] {
        let written = exports
            .write(&key(name), "u", plan(Table::Logs), format, store.clone(), &|_| {})
            .await
            .unwrap();
        assert_eq!(written.rows, 0);
        let (_, path) = exports.find(&key(name)).await.unwrap().unwrap();
        let file = std::fs::File::open(path).unwrap();
        let names: Vec<String> = if format == Format::Parquet {
            let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
            let fields = reader.schema().fields().clone();
            fields.iter().map(|f| f.name().clone()).collect()
        } else {
            let mut text = Vec::new();
            flate2::read::GzDecoder::new(file).read_to_end(&mut text).unwrap();
            records(&text).remove(0)
        };
        assert_eq!(names, ["Log ID", "Log Level", "Log Message", "Timestamp"]);
    }
}
