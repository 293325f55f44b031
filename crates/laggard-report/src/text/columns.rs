//! Tables of aligned columns that give up columns, then characters, to fit the page.

use super::layout::{Page, Tone, fit};

/// A column and its cells.
pub(super) struct Column {
    title: String,
    cells: Vec<String>,
    numbers: bool,
    keep: Keep,
}

/// What happens to a column on a narrow page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    Always,
    /// Left out if there is no room; the later column first.
    IfRoom,
}

impl Column {
    /// Numbers, aligned to the right.
    pub(super) fn numbers(title: impl Into<String>, keep: Keep, cells: Vec<String>) -> Self {
        Self {
            title: title.into(),
            cells,
            numbers: true,
            keep,
        }
    }

    /// Names, aligned to the left, cut if there is no room.
    pub(super) fn names(title: impl Into<String>, keep: Keep, cells: Vec<String>) -> Self {
        Self {
            title: title.into(),
            cells,
            numbers: false,
            keep,
        }
    }

    fn width(&self) -> usize {
        self.cells
            .iter()
            .chain([&self.title])
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    }
}

const GAP: usize = 2;
const NARROWEST_NAME: usize = 10;

/// Prints the columns below one another; `marked` rows stand out.
pub(super) fn print(page: &mut Page, mut columns: Vec<Column>, marked: &[bool]) {
    for column in &mut columns {
        for cell in &mut column.cells {
            *cell = page.clean(cell);
        }
    }
    let widths = shrink(&mut columns, page.width());
    let row = |cell: &dyn Fn(&Column) -> String| -> String {
        let mut text = String::new();
        for (column, &width) in columns.iter().zip(&widths) {
            let cell = fit(&cell(column), width, page.glyphs());
            let cell = if column.numbers {
                format!("{:>width$}", cell.trim())
            } else {
                cell
            };
            text.extend([" ".repeat(GAP).as_str(), &cell]);
        }
        text
    };
    let head = row(&|column| column.title.clone());
    let rows = columns.first().map_or(0, |column| column.cells.len());
    let body: Vec<String> = (0..rows)
        .map(|at| row(&|column| column.cells[at].clone()))
        .collect();
    page.line(&[(&head, Tone::Faint)]);
    for (at, text) in body.iter().enumerate() {
        let marked = marked.get(at).copied().unwrap_or(false);
        page.line(&[(text, if marked { Tone::Bad } else { Tone::Plain })]);
    }
}

/// Leaves columns out, then narrows names, until all fits; gives the widths.
fn shrink(columns: &mut Vec<Column>, page_width: usize) -> Vec<usize> {
    let total = |widths: &[usize]| widths.iter().map(|width| width + GAP).sum::<usize>();
    loop {
        let mut widths: Vec<usize> = columns.iter().map(Column::width).collect();
        while total(&widths) > page_width {
            let widest = (0..columns.len())
                .filter(|&at| !columns[at].numbers && widths[at] > NARROWEST_NAME)
                .max_by_key(|&at| widths[at]);
            let Some(widest) = widest else { break };
            widths[widest] -= 1;
        }
        let fits = total(&widths) <= page_width;
        let last = columns
            .iter()
            .rposition(|column| column.keep == Keep::IfRoom);
        match last.filter(|_| !fits) {
            Some(last) => drop(columns.remove(last)),
            None if fits => return widths,
            None => {
                columns.pop();
            }
        }
    }
}
