//! Findings as people and programs read them: text for a terminal, JSON, Markdown for a ticket, one
//! self-contained HTML page. Knows how results look, and nothing of how they were found.

pub mod html;
pub mod json;
pub mod markdown;
pub mod text;

mod figure;
mod ranks;
mod subject;
mod waterfall;
mod what_if;

#[cfg(test)]
mod examples;
