//! A command line that clap refuses, said in the form of all our errors.

/// Splits clap's message: its first paragraph is the error, the rest is the hint.
pub fn error_and_hint(text: &str) -> (String, String) {
    let joined = |paragraph: &str| paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut paragraphs = text
        .split("\n\n")
        .map(joined)
        .filter(|paragraph| !paragraph.is_empty());
    let error = paragraphs.next().unwrap_or_default();
    let hints: Vec<String> = paragraphs
        .map(|hint| {
            hint.trim_start_matches("tip: ")
                .trim_end_matches('.')
                .replace("Usage: ", "usage: ")
                .replace("For more information, try '--help'", "--help says more")
        })
        .collect();
    let error = error.trim_start_matches("error: ").to_owned();
    (error, hints.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_paragraph_is_the_error_and_the_rest_the_hint() {
        let text = "error: unexpected argument '--sed'\n   found\n\n  tip: a similar argument exists: \
                    '--seed'\n\nUsage: umbel-relay run\n\nFor more information, try '--help'.\n";
        let (error, hint) = error_and_hint(text);
        assert_eq!(error, "unexpected argument '--sed' found");
        assert_eq!(
            hint,
            "a similar argument exists: '--seed'; usage: umbel-relay run; --help says more"
        );
        assert_eq!(error_and_hint(""), (String::new(), String::new()));
    }
}
