//! A table of plain columns that fits the terminal.
//!
//! Where the natural widths do not fit, columns take their short forms, the one that gains most first;
//! then the gaps become narrower and the widest columns shrink towards their least width; only then
//! are whole lines cut.

use std::borrow::Cow;

use crate::style::{Paint, Style};
use crate::visible::{cut_end, cut_middle, cut_start, width, wrap};

/// Columns between two columns, and where there is little room.
const GAP: usize = 2;
const NARROW_GAP: usize = 1;

/// What happens to a cell that is wider than its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Its end is cut.
    CutEnd,
    /// Its beginning is cut: the end of a path tells most.
    CutStart,
    /// Its middle is cut.
    CutMiddle,
    /// It goes on below itself. For prose, and best for the last column alone.
    Wrap,
}

/// One column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Heading.
    pub title: &'static str,
    /// Heading where there is little room.
    pub short_title: &'static str,
    /// Numbers are set to the right.
    pub right: bool,
    /// Columns below which it does not shrink.
    pub least: usize,
    /// What happens to a cell that is wider.
    pub fit: Fit,
}

impl Column {
    /// A column of text set to the left, its end cut where it must be.
    pub const fn new(title: &'static str, least: usize) -> Self {
        Self { title, short_title: title, right: false, least, fit: Fit::CutEnd }
    }

    /// With a heading for when there is little room.
    pub const fn short(mut self, title: &'static str) -> Self {
        self.short_title = title;
        self
    }

    /// Set to the right.
    pub const fn right(mut self) -> Self {
        self.right = true;
        self
    }

    /// With another way to fit.
    pub const fn fit(mut self, fit: Fit) -> Self {
        self.fit = fit;
        self
    }
}

/// One cell. Its text must be free of controls already, see [`visible`](crate::visible).
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    short: Option<String>,
    paint: Paint,
}

impl Cell {
    /// Plain text.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), short: None, paint: Paint::Plain }
    }

    /// With a form for when there is little room.
    pub fn short(mut self, short: impl Into<String>) -> Self {
        self.short = Some(short.into());
        self
    }

    /// Painted.
    pub fn paint(mut self, paint: Paint) -> Self {
        self.paint = paint;
        self
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn shown(&self, short: bool) -> &str {
        match &self.short {
            Some(text) if short => text,
            _ => &self.text,
        }
    }
}

/// A table.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

/// How a table is laid out: for each column its width, and whether its cells are short.
struct Layout {
    widths: Vec<usize>,
    short: Vec<bool>,
    gap: usize,
}

impl Layout {
    fn total(&self) -> usize {
        self.widths.iter().sum::<usize>() + self.gap * self.widths.len().saturating_sub(1)
    }
}

impl Table {
    /// An empty table.
    pub fn new(columns: Vec<Column>) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row. Cells that it lacks stay empty; cells beyond the last column are not shown.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Columns that it takes when nothing is shortened.
    pub fn natural_width(&self) -> usize {
        self.layout(None).total()
    }

    /// Takes out each column for which every cell satisfies `unwanted`, and gives their titles.
    pub fn drop_columns(&mut self, unwanted: impl Fn(&Cell) -> bool) -> Vec<&'static str> {
        let mut dropped = Vec::new();
        for at in (0..self.columns.len()).rev() {
            let mut cells = self.rows.iter().filter_map(|row| row.get(at));
            if self.rows.iter().all(|row| row.len() > at) && cells.all(&unwanted) {
                dropped.push(self.columns.remove(at).title);
                for row in &mut self.rows {
                    row.remove(at);
                }
            }
        }
        dropped.reverse();
        dropped
    }

    /// Appends headings and rows.
    pub fn render(&self, style: &Style, out: &mut String) {
        let layout = self.layout(style.width);
        let titles: Vec<Cell> = self
            .columns
            .iter()
            .map(|column| Cell::new(column.title).short(column.short_title).paint(Paint::Dim))
            .collect();
        self.push_row(style, out, &layout, &titles);
        for row in &self.rows {
            self.push_row(style, out, &layout, row);
        }
    }

    fn layout(&self, limit: Option<usize>) -> Layout {
        let count = self.columns.len();
        let mut layout =
            Layout { widths: Vec::with_capacity(count), short: vec![false; count], gap: GAP };
        for at in 0..count {
            layout.widths.push(self.column_width(at, false));
        }
        let Some(limit) = limit else { return layout };
        while layout.total() > limit {
            // The column that gains most takes its short form.
            let gains = (0..count)
                .filter(|&at| !layout.short[at])
                .map(|at| (layout.widths[at].saturating_sub(self.column_width(at, true)), at));
            match gains.max_by_key(|&(gain, at)| (gain, std::cmp::Reverse(at))) {
                Some((gain, at)) if gain > 0 => {
                    layout.widths[at] -= gain;
                    layout.short[at] = true;
                }
                _ => break,
            }
        }
        if layout.total() > limit {
            layout.gap = NARROW_GAP;
            layout.short.fill(true);
            layout.widths = (0..count).map(|at| self.column_width(at, true)).collect();
        }
        while layout.total() > limit {
            let shrinkable =
                (0..count).filter(|&at| layout.widths[at] > self.columns[at].least.max(1));
            match shrinkable.max_by_key(|&at| layout.widths[at]) {
                Some(at) => layout.widths[at] -= 1,
                None => break,
            }
        }
        layout
    }

    fn column_width(&self, at: usize, short: bool) -> usize {
        let column = &self.columns[at];
        let title = width(if short { column.short_title } else { column.title });
        let cells = self.rows.iter().filter_map(|row| row.get(at));
        cells.map(|cell| width(cell.shown(short))).fold(title, usize::max)
    }

    fn push_row(&self, style: &Style, out: &mut String, layout: &Layout, row: &[Cell]) {
        let pieces: Vec<Vec<Cow<'_, str>>> = row
            .iter()
            .zip(&self.columns)
            .enumerate()
            .map(|(at, (cell, column))| {
                let (text, room) = (cell.shown(layout.short[at]), layout.widths[at]);
                match column.fit {
                    Fit::CutEnd => vec![cut_end(text, room)],
                    Fit::CutStart => vec![cut_start(text, room)],
                    Fit::CutMiddle => vec![cut_middle(text, room)],
                    Fit::Wrap => wrap(text, room).into_iter().map(Cow::Borrowed).collect(),
                }
            })
            .collect();
        let lines = pieces.iter().map(Vec::len).max().unwrap_or(0);
        for line in 0..lines {
            // Blanks are only written once something follows them.
            let mut blanks = 0;
            let mut left = style.width.unwrap_or(usize::MAX);
            for (at, cell) in row.iter().take(self.columns.len()).enumerate() {
                let piece = pieces[at].get(line).map_or("", |piece| piece);
                let pad = layout.widths[at].saturating_sub(width(piece));
                let (before, after) = if self.columns[at].right { (pad, 0) } else { (0, pad) };
                blanks += before;
                let piece = cut_end(piece, left.saturating_sub(blanks));
                if !piece.is_empty() {
                    out.extend(std::iter::repeat_n(' ', blanks));
                    style.push(out, cell.paint, &piece);
                    left = left.saturating_sub(blanks + width(&piece));
                    blanks = 0;
                }
                blanks += after + layout.gap;
            }
            out.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(vec![
            Column::new("NAME", 4),
            Column::new("PID", 3).right(),
            Column::new("PATH", 6).fit(Fit::CutStart),
            Column::new("WHAT", 10).fit(Fit::Wrap),
        ]);
        table.row(vec![
            Cell::new("tcpdump"),
            Cell::new("42"),
            Cell::new("/usr/bin/tcpdump").short("tcpdump"),
            Cell::new("sees all that there is"),
        ]);
        table.row(vec![Cell::new("漢字"), Cell::new("7"), Cell::new("/x"), Cell::new("")]);
        table
    }

    fn render(width: Option<usize>) -> String {
        let mut out = String::new();
        table().render(&Style { color: false, width, verbose: false }, &mut out);
        out
    }

    #[test]
    fn takes_its_natural_width_where_it_may() {
        let wide = "\
NAME     PID  PATH              WHAT
tcpdump   42  /usr/bin/tcpdump  sees all that there is
漢字       7  /x
";
        assert_eq!(render(None), wide);
        assert_eq!(render(Some(54)), wide);
        assert_eq!(table().natural_width(), 54);
    }

    #[test]
    fn shortens_then_shrinks_then_cuts() {
        assert_eq!(
            render(Some(45)),
            "\
NAME     PID  PATH     WHAT
tcpdump   42  tcpdump  sees all that there is
漢字       7  /x
"
        );
        assert_eq!(
            render(Some(33)),
            "\
NAME    PID PATH    WHAT
tcpdump  42 tcpdump sees all that
                    there is
漢字      7 /x
"
        );
        for columns in 1..60 {
            for line in render(Some(columns)).lines() {
                assert!(width(line) <= columns, "{columns}: {line}");
                assert!(!line.ends_with(' '), "{columns}: {line:?}");
            }
        }
    }

    #[test]
    fn drops_columns_that_say_nothing() {
        let mut table = table();
        assert!(table.drop_columns(|cell| cell.text() == "42").is_empty());
        assert_eq!(table.drop_columns(|cell| cell.text().len() <= 2), ["PID"]);
    }
}
