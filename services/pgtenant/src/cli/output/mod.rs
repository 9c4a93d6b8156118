//! What goes to standard output: tables for people, documents for machines.

mod age;
mod table;

use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;
use serde::Serialize;

pub(crate) use age::{age, time, until};
pub(crate) use table::{Paint, Table};

/// `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    #[value(alias = "text")]
    Table,
    /// The documents of REST; lists as one array.
    Json,
    /// The same as YAML.
    Yaml,
}

/// Where and how to print.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    /// `--output`.
    pub(crate) format: Format,
    /// Whether colours are wanted and can be shown.
    pub(crate) color: bool,
    /// Columns of the terminal; none: lines may have any length.
    pub(crate) width: Option<u16>,
}

impl Output {
    /// Looks at standard output and the environment: `NO_COLOR`, `TERM`, `COLUMNS`.
    pub(crate) fn new(format: Format, no_color: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).filter(|n| *n >= 20);
        let width = columns.or_else(|| terminal.then(table::terminal_width).flatten());
        Self { format, color: terminal && !no_color && !set("NO_COLOR") && !dumb, width }
    }

    /// Prints text as it is, and a line break.
    ///
    /// # Errors
    /// Standard output is closed.
    pub(crate) fn line(&self, text: impl AsRef<str>) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_ref().as_bytes())?;
        out.write_all(b"\n")?;
        out.flush()
    }

    /// Prints a document in the format that was asked for; as JSON if that is a table.
    ///
    /// # Errors
    /// Standard output is closed.
    pub(crate) fn document(&self, document: &impl Serialize) -> io::Result<()> {
        match self.format {
            Format::Yaml => {
                let text = serde_yaml_ng::to_string(document).map_err(io::Error::other)?;
                self.line(text.trim_end())
            }
            Format::Table | Format::Json => {
                let text = serde_json::to_string_pretty(document).map_err(io::Error::other)?;
                self.line(text)
            }
        }
    }

    /// Prints one document of a stream: a line of JSON, or a YAML document after `---`.
    ///
    /// # Errors
    /// Standard output is closed.
    pub(crate) fn streamed(&self, document: &impl Serialize) -> io::Result<()> {
        match self.format {
            Format::Yaml => {
                let text = serde_yaml_ng::to_string(document).map_err(io::Error::other)?;
                self.line(format!("---\n{}", text.trim_end()))
            }
            Format::Table | Format::Json => self.line(serde_json::to_string(document).map_err(io::Error::other)?),
        }
    }

    /// Prints a table; of an empty one, `nothing` on stderr.
    ///
    /// # Errors
    /// Standard output is closed.
    pub(crate) fn table(&self, table: &Table, nothing: &str) -> io::Result<()> {
        if table.is_empty() {
            note(nothing);
            return Ok(());
        }
        self.line(table.render(self))
    }

    /// Whether machines read the output.
    pub(crate) fn is_for_machines(&self) -> bool {
        self.format != Format::Table
    }

    /// Text in a colour, where colours are shown.
    pub(crate) fn paint(&self, text: &str, paint: Paint) -> String {
        match paint.code().filter(|_| self.color) {
            Some(code) => format!("\x1b[{code}m{text}\x1b[0m"),
            None => text.to_owned(),
        }
    }
}

/// Says something on stderr, where it does not disturb what is read from stdout.
pub(crate) fn note(text: &str) {
    // There is nobody left to tell if stderr is gone.
    let _ = writeln!(io::stderr().lock(), "{text}");
}
