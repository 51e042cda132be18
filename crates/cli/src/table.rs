//! Tables for a terminal: each column as wide as its widest cell. Pure.

/// Spaces between columns.
const GAP: &str = "  ";

/// On which side a column's cells begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A head and rows of as many cells.
#[derive(Debug)]
pub(crate) struct Table {
    aligns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this head.
    pub(crate) fn new<const COLUMNS: usize>(head: [(&str, Align); COLUMNS]) -> Self {
        let (head, aligns) = head.iter().map(|(name, align)| ((*name).to_owned(), *align)).unzip();
        Self { aligns, rows: vec![head] }
    }

    /// Adds a row. What strangers wrote may stand in a cell: what would steer the terminal is made visible.
    pub(crate) fn row<const COLUMNS: usize>(&mut self, cells: [String; COLUMNS]) {
        self.rows.push(cells.iter().map(|cell| printable(cell)).collect());
    }

    /// The lines, each with its end.
    pub(crate) fn render(&self) -> String {
        let width =
            |column: usize| self.rows.iter().map(|row| length(&row[column])).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.aligns.len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).zip(&self.aligns);
            let cells: Vec<String> = cells
                .map(|((cell, width), align)| {
                    let padding = " ".repeat(width - length(cell));
                    match align {
                        Align::Left => format!("{cell}{padding}"),
                        Align::Right => format!("{padding}{cell}"),
                    }
                })
                .collect();
            text.push_str(cells.join(GAP).trim_end());
            text.push('\n');
        }
        text
    }
}

/// The text on one line, with control characters as visible escapes.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// The same for a text whose lines are meant: they stay lines.
pub(crate) fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

fn length(cell: &str) -> usize {
    cell.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_begin_on_the_left_and_numbers_end_on_the_right() {
        let mut table = Table::new([("mailbox", Align::Left), ("waiting", Align::Right)]);
        table.row(["a.example".to_owned(), "7".to_owned()]);
        table.row(["é".to_owned(), "1200000".to_owned()]);
        assert_eq!(table.render(), "mailbox    waiting\na.example        7\né          1200000\n");
    }

    #[test]
    fn a_stranger_can_not_steer_the_terminal() {
        let mut table = Table::new([("note", Align::Left)]);
        table.row(["\u{1b}[2J\nnext".to_owned()]);
        assert_eq!(table.render(), "note\n\\u{1b}[2J\\nnext\n");
    }

    #[test]
    fn lines_stay_lines_and_hold_no_escapes() {
        assert_eq!(printable_lines("a\u{1b}[2J\n\n  ^ b\r"), "a\\u{1b}[2J\n\n  ^ b\\r");
    }
}
