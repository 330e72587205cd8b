//! An experiment's page: Markdown for people, with what was expected beside what came out.

use super::{Experiment, Plot, Scale};

/// What an experiment found.
#[derive(Debug)]
pub struct Page {
    /// How it was measured, and by which assumptions: paragraphs of Markdown.
    pub method: String,
    /// What was expected, and what came out.
    pub findings: Vec<Finding>,
    /// The figures.
    pub tables: Vec<Table>,
    /// The figures that are seen better than read.
    pub plot: Plot,
}

/// An expectation, and what came out.
#[derive(Debug)]
pub struct Finding {
    /// The expectation, as a sentence.
    pub expected: String,
    /// What was measured.
    pub measured: String,
    /// Whether that is what was expected.
    pub is_met: bool,
}

/// Figures in rows.
#[derive(Debug)]
pub struct Table {
    /// What they are.
    pub title: String,
    /// The names of the columns.
    pub head: Vec<String>,
    /// The rows, each as long as the head.
    pub rows: Vec<Vec<String>>,
}

impl Finding {
    /// A finding.
    pub(super) fn new(
        expected: impl Into<String>,
        measured: impl Into<String>,
        is_met: bool,
    ) -> Self {
        Self {
            expected: expected.into(),
            measured: measured.into(),
            is_met,
        }
    }
}

impl Page {
    /// The page of an experiment that ran with this scale and seed. Its plot is the file
    /// `NAME.svg` beside it.
    pub fn to_markdown(&self, experiment: &Experiment, scale: Scale, seed: u64) -> String {
        let Experiment { name, question, .. } = experiment;
        let small = match scale {
            Scale::Small => " --small",
            Scale::Whole => "",
        };
        let mut text = format!(
            "# {name}\n\n{question}\n\n```\ncargo run --release -p umbel-tests --bin experiment -- \
             {name}{small} --seed {seed}\n```\n\n## Expected and measured\n\n\
             | expected | measured | |\n|---|---|---|\n"
        );
        for finding in &self.findings {
            let mark = match finding.is_met {
                true => "as expected",
                false => "**not as expected**",
            };
            text.push_str(&row(&[&finding.expected, &finding.measured, mark]));
        }
        text.push_str(&format!("\n![{}]({name}.svg)\n", self.plot.title));
        for table in &self.tables {
            text.push_str(&format!("\n## {}\n\n", table.title));
            text.push_str(&row(&table.head));
            text.push_str(&format!("|{}\n", "---|".repeat(table.head.len())));
            table
                .rows
                .iter()
                .for_each(|cells| text.push_str(&row(cells)));
        }
        text.push_str("\n## Method\n");
        for paragraph in self.method.trim().split("\n\n") {
            text.push_str(&format!("\n{}\n", wrapped(paragraph)));
        }
        text
    }
}

/// The longest line of a paragraph, characters.
const WIDTH: usize = 128;

/// A paragraph in lines.
fn wrapped(paragraph: &str) -> String {
    let (mut text, mut line_len) = (String::new(), 0);
    for word in paragraph.split_whitespace() {
        let word_len = word.chars().count();
        if line_len > 0 && line_len + 1 + word_len > WIDTH {
            text.push('\n');
            line_len = 0;
        } else if line_len > 0 {
            text.push(' ');
            line_len += 1;
        }
        text.push_str(word);
        line_len += word_len;
    }
    text
}

fn row(cells: &[impl AsRef<str>]) -> String {
    let cells: String = cells
        .iter()
        .map(|cell| format!(" {} |", cell.as_ref()))
        .collect();
    format!("|{cells}\n")
}
