//! How data leaves: a table for people, JSON or CSV for programs, always on stdout and nothing else there.
//!
//! A reader that went away (`purser job list | head`) is no error.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::presets;
use serde::Serialize;

use super::error::CliError;

/// The form of a command's data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns for people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// Comma-separated values with a header row.
    Csv,
}

/// Rows under named columns, and the total that stands under them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
    total: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Column {
    name: String,
    numeric: bool,
}

impl Table {
    /// Column names; one that begins with `>` holds numbers and is aligned to the right.
    pub fn new(columns: &[&str]) -> Table {
        let column = |name: &&str| match name.strip_prefix('>') {
            Some(name) => Column { name: name.to_owned(), numeric: true },
            None => Column { name: (*name).to_owned(), numeric: false },
        };
        Table { columns: columns.iter().map(column).collect(), ..Table::default() }
    }

    pub fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// The row under the rule; shown in tables only, since programs sum by themselves.
    pub fn total<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.total = Some(cells.into_iter().map(Into::into).collect());
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Aligned columns, a rule above the total.
    pub fn text(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        // Long cells are wrapped to the terminal; what goes into a file or a pipe keeps its lines.
        table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
        table.set_header(self.columns.iter().map(|column| column.name.to_uppercase()));
        table.add_rows(&self.rows);
        if let Some(total) = &self.total {
            let widths: Vec<usize> = table.column_max_content_widths().into_iter().map(usize::from).collect();
            let width = |(index, cell): (usize, &String)| widths.get(index).copied().unwrap_or(0).max(cell.chars().count());
            table.add_row(total.iter().enumerate().map(width).map(|width| "-".repeat(width)));
            table.add_row(total);
        }
        for (column, shown) in self.columns.iter().zip(table.column_iter_mut()) {
            shown.set_padding((0, 2));
            if column.numeric {
                shown.set_cell_alignment(comfy_table::CellAlignment::Right);
            }
        }
        let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        lines.join("\n") + "\n"
    }

    pub fn csv(&self) -> Result<String, CliError> {
        let broken = |error: csv::Error| CliError::failed("could not write CSV").because(error);
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(self.columns.iter().map(|column| &column.name)).map_err(broken)?;
        for row in &self.rows {
            writer.write_record(row).map_err(broken)?;
        }
        let bytes = writer.into_inner().map_err(|error| CliError::failed("could not write CSV").because(error.into_error()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Writes the same data in the form asked for: `table` for people and CSV, `data` for JSON.
pub fn emit(format: Format, table: &Table, data: &impl Serialize) -> Result<(), CliError> {
    match format {
        Format::Table => print(&table.text()),
        Format::Json => print_json(data),
        Format::Csv => print(&table.csv()?),
    }
}

pub fn print_json(data: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(data).map_err(|error| CliError::failed("could not write JSON").because(error))?;
    print(&(text + "\n"))
}

/// Text on stdout.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::failed("could not write to stdout").because(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_stands_under_what_it_sums() {
        let mut table = Table::new(&["experiment", ">cost"]);
        table.row(["vision", "12.50"]);
        table.row(["speech", "3.25"]);
        table.total(["total", "15.75"]);
        assert_eq!(table.text(), "EXPERIMENT   COST\nvision      12.50\nspeech       3.25\n----------  -----\ntotal       15.75\n");
        assert_eq!(table.csv().unwrap(), "experiment,cost\nvision,12.50\nspeech,3.25\n");
    }
}
