//! Results as a table that fits into a document.

/// Prints `rows` below `head`, the first column to the left and the others to the right.
pub(crate) fn print(head: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .chain([head[column].chars().count()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        format!("| {} |", padded.collect::<Vec<_>>().join(" | "))
    };
    println!("{}", line(head.to_vec()));
    let rule: Vec<_> = widths.iter().map(|width| "-".repeat(*width)).collect();
    println!("{}", line(rule.iter().map(String::as_str).collect()));
    for row in rows {
        println!("{}", line(row.iter().map(String::as_str).collect()));
    }
}
