//! Text for people: columns that line up, numbers with their units. Prints to a terminal or a pipe; a pipe that was
//! closed at the other end is not an error.

use std::fmt::Write as _;
use std::io::Write as _;

/// Rows as lines, each column as wide as its widest cell, two blanks between. What ends a row takes no part: it may be a whole
/// sentence, and pushes nothing aside.
pub(crate) fn table(indent: &str, rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.split_last()?.1.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = indent.to_owned();
        for (cell, width) in row.iter().zip(&widths) {
            let _infallible = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A row of words.
pub(crate) fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|&cell| cell.to_owned()).collect()
}

/// Seconds as people say them.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Writes to standard output at once.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _reader_may_be_gone = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let text = table(" ", &[row(&["name", "n"]), row(&["a longer name", "12"])]);
        assert_eq!(text, " name           n\n a longer name  12\n");
        let rows = [row(&["a", "b", "c"]), row(&["a", "all of the rest"])];
        assert_eq!(table("", &rows), "a  b  c\na  all of the rest\n");
    }

    #[test]
    fn spans_have_two_units_at_most() {
        assert_eq!(span(59), "59 s");
        assert_eq!(span(61), "1 min 1 s");
        assert_eq!(span(90_000), "1 d 1 h");
    }
}
