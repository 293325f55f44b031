//! Lines of a page of text.

use std::fmt::Write;

/// Columns of a sentence.
pub(crate) const WIDTH: usize = 100;

/// Lines of text.
#[derive(Default)]
pub(crate) struct Page(String);

impl Page {
    /// A line as it is.
    pub(crate) fn line(&mut self, text: &str) {
        // Writing to a string cannot fail.
        _ = writeln!(self.0, "{}", text.trim_end());
    }

    /// A sentence, broken between words, further lines indented like the first.
    pub(crate) fn sentence(&mut self, indent: usize, text: &str) {
        let mut line = String::new();
        for word in text.split_whitespace() {
            if !line.is_empty() && indent + line.chars().count() + word.chars().count() >= WIDTH {
                self.line(&format!("{:indent$}{line}", ""));
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        self.line(&format!("{:indent$}{line}", ""));
    }

    /// The line above a part.
    pub(crate) fn heading(&mut self, text: &str) {
        self.line("");
        self.line(text);
    }

    /// All lines.
    pub(crate) fn text(self) -> String {
        self.0
    }
}
