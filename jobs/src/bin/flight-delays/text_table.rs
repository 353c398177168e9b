//! Tables in plain text.

/// Which side of its column a cell keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table whose columns are as wide as their widest cell.
pub struct TextTable {
    columns: Vec<Align>,
    lines: Vec<Vec<String>>,
}

impl TextTable {
    /// A table with these columns.
    pub fn new(columns: &[(&str, Align)]) -> TextTable {
        TextTable {
            columns: columns.iter().map(|(_, align)| *align).collect(),
            lines: vec![columns.iter().map(|(name, _)| (*name).to_owned()).collect()],
        }
    }

    /// Adds a line with one cell for each column.
    pub fn push<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.columns.len());
        self.lines.push(cells.into());
    }

    /// The lines of the table, the header first, two spaces before each and between columns.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let width = |column: usize| {
            let cells = self.lines.iter().map(|line| line[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        self.lines.iter().map(move |line| {
            let mut text = String::new();
            for ((cell, align), width) in line.iter().zip(&self.columns).zip(&widths) {
                let cell = match align {
                    Align::Left => format!("  {cell:<width$}"),
                    Align::Right => format!("  {cell:>width$}"),
                };
                text.push_str(&cell);
            }
            text.trim_end().to_owned()
        })
    }
}

/// A count with commas between thousands.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// At most so many characters of a text, with an ellipsis in place of what is left out.
pub fn clipped(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width - 1).collect();
    format!("{}…", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = TextTable::new(&[("name", Align::Left), ("n", Align::Right)]);
        table.push(["Zoë".to_owned(), "1,234".to_owned()]);
        table.push(["Alexander".to_owned(), "5".to_owned()]);
        let lines: Vec<String> = table.lines().collect();
        assert_eq!(
            lines,
            [
                "  name           n",
                "  Zoë        1,234",
                "  Alexander      5"
            ]
        );
    }

    #[test]
    fn numbers_are_grouped_and_texts_clipped() {
        let groups = [0, 999, 1_000, 336_776, 1_001_615].map(grouped);
        assert_eq!(groups, ["0", "999", "1,000", "336,776", "1,001,615"]);
        assert_eq!(clipped("Newark", 6), "Newark");
        assert_eq!(clipped("Newark Liberty", 8), "Newark…");
    }
}
