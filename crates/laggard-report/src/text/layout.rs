//! Lines that fit the page: wrapping, indenting, cutting, colour. Knows nothing of what it prints.

use super::{Glyphs, Style};

/// Columns before the value of a field.
const FIELD_INDENT: usize = 25;
/// Columns before the label of a finding's field, and before its value.
const SUBFIELD_LABEL: usize = 5;
const SUBFIELD_INDENT: usize = 17;

/// How a piece of text stands out where colour is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Strong,
    Faint,
    Warning,
    Good,
    Bad,
}

impl Tone {
    const fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Strong => Some("1"),
            Self::Faint => Some("2"),
            Self::Warning => Some("1;33"),
            Self::Good => Some("36"),
            Self::Bad => Some("33"),
        }
    }
}

/// A page that is being written.
pub(super) struct Page {
    out: String,
    style: Style,
}

impl Page {
    pub(super) fn new(style: Style) -> Self {
        let width = style.width.max(Style::MIN_WIDTH);
        Self {
            out: String::new(),
            style: Style { width, ..style },
        }
    }

    pub(super) const fn width(&self) -> usize {
        self.style.width
    }

    pub(super) const fn glyphs(&self) -> Glyphs {
        self.style.glyphs
    }

    pub(super) fn finish(self) -> String {
        self.out
    }

    pub(super) fn blank(&mut self) {
        self.out.push('\n');
    }

    /// A line of pieces that are known to fit, made with [`Page::clean`] text.
    pub(super) fn line(&mut self, pieces: &[(&str, Tone)]) {
        let start = self.out.len();
        for (text, tone) in pieces {
            match tone
                .code()
                .filter(|_| self.style.color && !text.trim().is_empty())
            {
                Some(code) => {
                    self.out.extend(["\u{1b}[", code, "m", text, "\u{1b}[0m"]);
                }
                None => self.out.push_str(text),
            }
        }
        let end = start + self.out[start..].trim_end().len();
        self.out.truncate(end);
        self.out.push('\n');
    }

    pub(super) fn paragraph(&mut self, text: &str, tone: Tone) {
        self.wrapped("", text, tone);
    }

    /// A heading after an empty line, with a remark in smaller voice.
    pub(super) fn heading(&mut self, title: &str, remark: &str) {
        self.blank();
        if remark.is_empty() {
            self.line(&[(title, Tone::Strong)]);
        } else {
            let remark = self.clean(remark);
            let whole = format!("{title}: {remark}");
            if whole.chars().count() <= self.width() {
                self.line(&[
                    (title, Tone::Strong),
                    (": ", Tone::Plain),
                    (&remark, Tone::Faint),
                ]);
            } else {
                self.line(&[(title, Tone::Strong)]);
                self.wrapped("  ", &remark, Tone::Faint);
            }
        }
    }

    /// `  label      value`, with the value wrapped under itself.
    pub(super) fn field(&mut self, label: &str, value: &str) {
        self.labelled(2, FIELD_INDENT, label, value);
    }

    /// A field below an item.
    pub(super) fn subfield(&mut self, label: &str, value: &str) {
        self.labelled(SUBFIELD_LABEL, SUBFIELD_INDENT, label, value);
    }

    /// `  1. text`, wrapped under itself.
    pub(super) fn item(&mut self, mark: &str, text: &str, tone: Tone) {
        self.wrapped(&format!("  {mark} "), text, tone);
    }

    /// Text in faint voice, indented.
    pub(super) fn note(&mut self, text: &str) {
        self.wrapped("  ", text, Tone::Faint);
    }

    fn labelled(&mut self, from: usize, to: usize, label: &str, value: &str) {
        let lead = format!("{:from$}{label}", "");
        self.wrapped(&format!("{lead:<to$}"), value, Tone::Plain);
    }

    fn wrapped(&mut self, lead: &str, text: &str, tone: Tone) {
        let indent = lead.chars().count();
        let text = self.clean(text);
        for (at, line) in wrap(&text, self.width() - indent).iter().enumerate() {
            let blank = " ".repeat(indent);
            self.line(&[
                (if at == 0 { lead } else { &blank }, Tone::Plain),
                (line, tone),
            ]);
        }
    }

    /// Foreign text made safe for a terminal: one line, no control characters, and ASCII alone if
    /// the style asks for it.
    pub(super) fn clean(&self, text: &str) -> String {
        let replacement = if self.glyphs() == Glyphs::Ascii {
            '?'
        } else {
            '\u{fffd}'
        };
        let safe = |c: char| match c {
            '\n' | '\t' => ' ',
            c if c.is_control() => replacement,
            c if self.glyphs() == Glyphs::Ascii && !c.is_ascii() => replacement,
            c => c,
        };
        text.chars().map(safe).collect()
    }
}

/// Lines of at most `width` characters; words that are longer are broken.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in words(text) {
        let size = word.chars().count();
        if used > 0 && used + 1 + size > width {
            lines.push(String::new());
            used = 0;
        }
        let line = lines.last_mut().expect("there is always a line");
        if used > 0 {
            line.push(' ');
            used += 1;
        }
        if size <= width {
            line.push_str(&word);
            used += size;
            continue;
        }
        for c in word.chars() {
            if used == width {
                lines.push(String::new());
                used = 0;
            }
            lines.last_mut().expect("there is always a line").push(c);
            used += 1;
        }
    }
    lines
}

/// Words, where a number keeps its percent sign or unit and an interval stays in one piece.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let joins = words.last().is_some_and(|last| {
            let number = last.ends_with(|c: char| c.is_ascii_digit());
            let unit = matches!(
                word.trim_end_matches([',', ';', '.', ')', ':']),
                "%" | "ms" | "s" | "us"
            );
            (number && unit)
                || (last.starts_with('[') && last.ends_with(',') && word.ends_with(']'))
        });
        match words.last_mut().filter(|_| joins) {
            Some(last) => last.extend([" ", word]),
            None => words.push(word.to_owned()),
        }
    }
    words
}

/// The text in exactly this many characters, cut with a mark if it is longer.
pub(super) fn fit(text: &str, width: usize, glyphs: Glyphs) -> String {
    let size = text.chars().count();
    if size <= width {
        return format!("{text:<width$}");
    }
    let mark = if glyphs == Glyphs::Ascii { '~' } else { '…' };
    text.chars()
        .take(width.saturating_sub(1))
        .chain([mark])
        .take(width)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_wraps_at_words_and_breaks_words_that_are_too_long() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
        assert_eq!(
            wrap("costs 38.2 % [37.9, 38.5] now", 13),
            ["costs 38.2 %", "[37.9, 38.5]", "now"]
        );
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn cut_text_has_the_width_and_a_mark() {
        assert_eq!(fit("host-17", 5, Glyphs::Unicode), "host…");
        assert_eq!(fit("host-17", 5, Glyphs::Ascii), "host~");
        assert_eq!(fit("ab", 4, Glyphs::Ascii), "ab  ");
    }
}
