//! The waterfall as bars of characters.

use super::Glyphs;
use super::layout::{Page, Tone, fit};
use crate::figure;
use crate::waterfall::{self, Bar, Kind};
use crate::what_if;
use laggard_analyze::Analysis;

/// The narrowest and the widest bars worth drawing, in characters.
const NARROWEST: usize = 12;
const WIDEST: usize = 50;

/// Characters for a share in percent.
const VALUE: usize = 7;

/// How a line is divided.
struct Widths {
    label: usize,
    /// Nothing where there is no room for intervals.
    interval: usize,
    /// Nothing where there is no room for bars.
    bar: usize,
}

/// The bars below a heading; nothing if there is no waterfall.
pub(super) fn print(page: &mut Page, analysis: &Analysis) {
    let waterfall = waterfall::waterfall(analysis);
    if waterfall.bars.is_empty() {
        return;
    }
    let (title, top) = match waterfall::is_of_time(analysis) {
        true => ("where the time goes", "step"),
        false => ("where the capacity goes", "peak"),
    };
    page.heading(title, waterfall::whole(analysis));
    let widths = Widths::divide(page.width(), &waterfall.bars);
    let full = draw(0.0, 1.0, widths.bar, page.glyphs());
    print_line(page, &widths, [top, "100.0 %", ""], (&full, Tone::Faint));
    for bar in &waterfall.bars {
        let tone = match bar.kind {
            Kind::Straggler => Tone::Bad,
            Kind::Loss => Tone::Faint,
            Kind::Result => Tone::Good,
        };
        let value = figure::percent(bar.share.value);
        let interval = figure::percent_interval(&bar.share);
        let drawn = draw(bar.from, bar.to, widths.bar, page.glyphs());
        print_line(
            page,
            &widths,
            [bar.label, &value, &interval],
            (&drawn, tone),
        );
    }
    if let Some(parts) = what_if::exposed(analysis) {
        page.note(&format!("exposed communication is {parts}"));
    }
    if !waterfall.folded.is_empty() {
        page.note(&format!(
            "below 0.05 % each: {}",
            waterfall.folded.join(", ")
        ));
    }
}

impl Widths {
    /// Labels are cut, then intervals are left out, then bars.
    fn divide(page_width: usize, bars: &[Bar]) -> Self {
        let interval = |bar: &Bar| figure::percent_interval(&bar.share).len() + 1;
        let interval = bars.iter().map(interval).max().unwrap_or(0);
        let label = bars.iter().map(|bar| bar.label.len()).max().unwrap_or(0);
        let label = label.min(page_width.saturating_sub(VALUE + 3));
        let room = page_width.saturating_sub(label + VALUE + 5);
        let interval = if room >= NARROWEST + interval {
            interval
        } else {
            0
        };
        let room = room.saturating_sub(interval);
        let bar = if room >= NARROWEST {
            room.min(WIDEST)
        } else {
            0
        };
        Self {
            label,
            interval,
            bar,
        }
    }
}

fn print_line(page: &mut Page, widths: &Widths, texts: [&str; 3], bar: (&str, Tone)) {
    let [label, value, interval] = texts;
    let label = fit(label, widths.label, page.glyphs());
    let interval = if widths.interval > 0 {
        format!(" {interval}")
    } else {
        String::new()
    };
    let interval = format!("{interval:<width$}", width = widths.interval);
    page.line(&[
        (&format!("  {label} {value:>VALUE$}"), Tone::Plain),
        (&interval, Tone::Faint),
        (&format!("  {}", bar.0), bar.1),
    ]);
}

/// The bar at its place among `width` characters; at least a hairline. Its left end is exact to a
/// character, its length to an eighth of one.
fn draw(from: f64, to: f64, width: usize, glyphs: Glyphs) -> String {
    if width == 0 {
        return String::new();
    }
    let scale = width as f64;
    let start = ((from * scale).floor() as usize).min(width - 1);
    if glyphs == Glyphs::Ascii {
        let end = ((to * scale).round() as usize).clamp(start, width);
        let body = if end > start {
            "#".repeat(end - start)
        } else {
            "|".to_owned()
        };
        return format!("{:start$}{body}", "");
    }
    let eighths = (((to * scale - start as f64) * 8.0).round() as usize).max(1);
    let eighths = eighths.min((width - start) * 8);
    let mut body = "█".repeat(eighths / 8);
    body.extend(
        [" ▏▎▍▌▋▊▉"]
            .iter()
            .filter_map(|part| part.chars().nth(eighths % 8))
            .filter(|c| *c != ' '),
    );
    format!("{:start$}{body}", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(from: f64, to: f64, glyphs: Glyphs, expect: &str) {
        assert_eq!(draw(from, to, 8, glyphs), expect);
    }

    #[test]
    fn bars_stand_where_their_share_is() {
        check(0.0, 1.0, Glyphs::Unicode, "████████");
        check(0.5, 0.75, Glyphs::Unicode, "    ██");
        check(0.5, 0.5625, Glyphs::Unicode, "    ▌");
        check(1.0, 1.0, Glyphs::Unicode, "       █");
        check(0.25, 0.25, Glyphs::Unicode, "  ▏");
        check(0.5, 0.75, Glyphs::Ascii, "    ##");
        check(0.25, 0.25, Glyphs::Ascii, "  |");
    }
}
