//! Tables without borders that fit the terminal.

use comfy_table::{Cell, Color, ColumnConstraint, ContentArrangement, TableStyle};

use super::Output;

/// A colour with a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    /// As the terminal has it.
    Plain,
    /// All is well.
    Good,
    /// Under way.
    Busy,
    /// A person should look.
    Bad,
    /// Of less weight.
    Dim,
}

impl Paint {
    /// For `Ready`, `Failed`, `Succeeded`, `True` and the like.
    pub(crate) fn of_word(word: &str) -> Self {
        match word {
            "Ready" | "Succeeded" | "Passed" | "True" | "primary" | "create" | "adopt" => Self::Good,
            "Pending" | "Provisioning" | "Running" | "Degraded" | "Warning" | "Unknown" | "change" | "changing"
            | "DriftRepaired" => Self::Busy,
            "Failed" | "False" | "down" | "unreachable" | "refuse" | "drop" | "Deleted" => Self::Bad,
            "Retained" | "Deleting" | "none" | "retain" => Self::Dim,
            _ => Self::Plain,
        }
    }

    pub(super) fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("32"),
            Self::Busy => Some("33"),
            Self::Bad => Some("31"),
            Self::Dim => Some("90"),
        }
    }

    fn color(self) -> Option<Color> {
        match self {
            Self::Plain => None,
            Self::Good => Some(Color::DarkGreen),
            Self::Busy => Some(Color::DarkYellow),
            Self::Bad => Some(Color::DarkRed),
            Self::Dim => Some(Color::DarkGrey),
        }
    }
}

/// Rows under headings.
#[derive(Debug)]
pub(crate) struct Table {
    headings: Vec<&'static str>,
    optional: &'static [&'static str],
    rows: Vec<Vec<(String, Paint)>>,
}

impl Table {
    /// An empty table.
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), optional: &[], rows: Vec::new() }
    }

    /// Columns that are left out, the first one first, where the terminal is too narrow for all.
    pub(crate) fn optional(mut self, headings: &'static [&'static str]) -> Self {
        self.optional = headings;
        self
    }

    /// Adds a row; words that mean something are coloured.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|text| (Paint::of_word(&text), text)).map(|(paint, text)| (text, paint)).into());
    }

    /// Whether there is no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text, without a line break at its end.
    pub(crate) fn render(&self, output: &Output) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(TableStyle::new()).set_content_arrangement(ContentArrangement::Dynamic);
        match output.width {
            Some(width) => table.set_width(width),
            None => table.set_content_arrangement(ContentArrangement::Disabled),
        };
        if output.color {
            table.enforce_styling()
        } else {
            table.force_no_tty()
        };
        table.set_header(&self.headings);
        for row in &self.rows {
            let cell = |(text, paint): &(String, Paint)| {
                let cell = Cell::new(visible(text));
                match paint.color() {
                    Some(color) => cell.fg(color),
                    None => cell,
                }
            };
            table.add_row(row.iter().map(cell).collect::<Vec<_>>());
        }
        let hidden = self.hidden_columns(output.width);
        let narrow = self.narrow_columns(output.width, &hidden);
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if hidden.contains(&index) {
                column.set_constraint(ColumnConstraint::Hidden);
            } else if narrow.contains(&index) {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        let lines = table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
        lines.join("\n")
    }

    /// Characters of the longest line in a column, and the space after it.
    fn longest(&self, index: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(index));
        let lines = cells.flat_map(|(text, _)| text.lines()).map(|line| line.chars().count());
        lines.chain(self.headings.get(index).map(|heading| heading.len())).max().unwrap_or(0) + 2
    }

    fn hidden_columns(&self, width: Option<u16>) -> Vec<usize> {
        let Some(width) = width.map(usize::from) else { return Vec::new() };
        let last = self.headings.len().saturating_sub(1);
        // The last column has sentences, which may be broken over lines.
        let wanted = |index| if index == last { self.longest(index).min(READABLE) } else { self.longest(index) };
        let mut total: usize = (0..self.headings.len()).map(wanted).sum();
        let mut hidden = Vec::new();
        for index in self.optional.iter().filter_map(|name| self.headings.iter().position(|heading| heading == name)) {
            if total <= width {
                break;
            }
            total -= wanted(index);
            hidden.push(index);
        }
        hidden
    }

    /// Columns that are not broken over lines: short ones, as long as together they leave room for the others.
    fn narrow_columns(&self, width: Option<u16>, hidden: &[usize]) -> Vec<usize> {
        let Some(width) = width.map(usize::from) else { return Vec::new() };
        let shown = (0..self.headings.len()).filter(|index| !hidden.contains(index));
        let mut columns: Vec<(usize, usize)> = shown.map(|index| (self.longest(index), index)).collect();
        columns.sort_unstable();
        let mut used = 0;
        let mut narrow = Vec::new();
        for (position, (column, index)) in columns.iter().enumerate() {
            // What is left must give each wider column a dozen characters.
            let rest = 14 * (columns.len() - position - 1);
            if used + column + rest > width {
                break;
            }
            used += column;
            narrow.push(*index);
        }
        narrow
    }
}

/// Columns in which a sentence can be read.
const READABLE: usize = 30;

/// Control characters, escape sequences among them, would reach the terminal.
fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// Columns of the terminal at standard output.
pub(super) fn terminal_width() -> Option<u16> {
    comfy_table::Table::new().width()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Format;

    fn sample() -> Table {
        let mut table = Table::new(&["NAMESPACE", "NAME", "STATE", "MESSAGE"]);
        let message = "connection to db1.example:5432 was refused; the next try is in 12 seconds, nothing is lost";
        table.row(["idp-dev".into(), "my-db".into(), "Failed".into(), message.into()]);
        table.row(["shop".into(), "orders".into(), "Ready".into(), String::new()]);
        table
    }

    fn output(width: Option<u16>, color: bool) -> Output {
        Output { format: Format::Table, color, width }
    }

    #[test]
    fn a_table_fits_its_width() {
        let text = sample().render(&output(Some(80), false));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.starts_with("NAMESPACE  NAME    STATE   MESSAGE\n"), "{text}");
        assert!(text.contains("idp-dev    my-db   Failed  connection"), "{text}");
        assert!(!text.contains('\x1b') && !text.contains('|'), "{text}");
    }

    #[test]
    fn columns_that_do_not_fit_are_left_out() {
        let table = sample().optional(&["STATE", "NAME"]);
        let shown = |width| table.render(&output(width, false)).lines().next().unwrap_or_default().to_owned();
        assert_eq!(shown(Some(80)), "NAMESPACE  NAME    STATE   MESSAGE");
        assert_eq!(shown(Some(50)), "NAMESPACE  NAME    MESSAGE");
        assert_eq!(shown(Some(40)), "NAMESPACE  MESSAGE");
        assert_eq!(shown(None), "NAMESPACE  NAME    STATE   MESSAGE");
    }

    #[test]
    fn without_a_terminal_a_row_is_a_line() {
        assert_eq!(sample().render(&output(None, false)).lines().count(), 3);
    }

    #[test]
    fn colours_are_there_only_when_asked_for() {
        assert!(sample().render(&output(Some(80), true)).contains('\x1b'));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let mut table = Table::new(&["A"]);
        table.row(["x\x1b[2Jy".into()]);
        assert!(!table.render(&output(None, false)).contains('\x1b'));
    }
}
