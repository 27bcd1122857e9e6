//! Reads pods from Parquet: `cpu_milli`, `memory_mib` and `num_gpu` count, other columns are ignored.

use std::fs::File;
use std::path::{Path, PathBuf};

use deltalake::arrow::array::{Array, AsArray, RecordBatch};
use deltalake::arrow::compute::cast;
use deltalake::arrow::datatypes::{DataType, Int64Type};
use deltalake::arrow::error::ArrowError;
use deltalake::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use deltalake::parquet::errors::ParquetError;

use crate::scheduling::packing::{Pod, Resources};

#[derive(Debug, thiserror::Error)]
pub enum PodsError {
    #[error("could not read {}", path.display())]
    Read { path: PathBuf, #[source] source: std::io::Error },
    #[error("{} is no Parquet file", path.display())]
    Format { path: PathBuf, #[source] source: ParquetError },
    #[error("{} breaks off", path.display())]
    Rows { path: PathBuf, #[source] source: ArrowError },
    #[error("{} has no column {column}", path.display())]
    Column { path: PathBuf, column: &'static str },
    #[error("{}: row {row}: {column} is missing, negative or no whole number", path.display())]
    Cell { path: PathBuf, row: usize, column: &'static str },
}

/// The pods, in the order of the file; each is named by its 0-based row.
pub fn read(path: &Path) -> Result<Vec<Pod>, PodsError> {
    let file = File::open(path).map_err(|source| PodsError::Read { path: path.to_owned(), source })?;
    let format = |source| PodsError::Format { path: path.to_owned(), source };
    let batches = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.build()).map_err(format)?;
    let mut pods = Vec::new();
    for batch in batches {
        let batch = batch.map_err(|source| PodsError::Rows { path: path.to_owned(), source })?;
        let [cpu, memory, gpus] = ["cpu_milli", "memory_mib", "num_gpu"].map(|column| whole_numbers(path, &batch, column, pods.len()));
        for ((cpu, memory), gpus) in cpu?.into_iter().zip(memory?).zip(gpus?) {
            pods.push(pod(pods.len(), cpu, memory, gpus));
        }
    }
    Ok(pods)
}

fn whole_numbers(path: &Path, batch: &RecordBatch, column: &'static str, first_row: usize) -> Result<Vec<u64>, PodsError> {
    let values = batch.column_by_name(column).ok_or_else(|| PodsError::Column { path: path.to_owned(), column })?;
    let numbers = cast(values, &DataType::Int64).map_err(|source| PodsError::Rows { path: path.to_owned(), source })?;
    let numbers = numbers.as_primitive::<Int64Type>();
    let number = |row: usize| numbers.is_valid(row).then(|| u64::try_from(numbers.value(row)).ok()).flatten();
    (0..numbers.len()).map(|row| number(row).ok_or_else(|| PodsError::Cell { path: path.to_owned(), row: first_row + row, column })).collect()
}

fn pod(row: usize, cpu_milli: u64, memory_mib: u64, gpus: u64) -> Pod {
    let extended = [("nvidia.com/gpu".to_owned(), gpus)].into_iter().filter(|(_, count)| *count > 0).collect();
    let requests = Resources { cpu_milli, memory_bytes: memory_mib << 20, extended };
    Pod { namespace: "pods".to_owned(), name: row.to_string(), requests, ..Pod::default() }
}
