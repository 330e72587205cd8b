//! Rules and code: `docs/protocol.md` numbers the rules, comments cite them as `§7.3(4)`.
//!
//! Every citation names a section or a rule that exists. Every rule of §2 to §11 is cited above the
//! code that obeys it and at the test that shows it, on the line of its attribute or directly above,
//! except for the known gaps in `rules.txt`. That list may only shrink: a new gap fails the test, and
//! so does a listed rule that is now cited.
//!
//! Names and code: `docs/architecture.md` names only functions, types and modules that exist.

#![expect(clippy::disallowed_methods, reason = "reads the sources")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Sections whose rules are held to both: code and test.
const HELD: [&str; 10] = ["2", "3", "4", "5", "6", "7", "8", "9", "10", "11"];
/// A section sign behind one of these is of another document.
const OTHERS: [&str; 3] = ["RFC", "FIPS", "design"];

/// A section, and a rule in it: ("7.3", "4"). No rule: the section as a whole.
type Rule = (String, Option<String>);

/// The sections and numbered rules of the protocol. A lettered part of a rule, `§10.2(6a)`, is kept
/// with the rule it belongs to.
#[derive(Default)]
struct Protocol {
    sections: BTreeSet<String>,
    rules: BTreeMap<(String, String), String>,
}

impl Protocol {
    fn read(text: &str) -> Self {
        let mut protocol = Self::default();
        let (mut section, mut rule) = (String::new(), String::new());
        for line in text.lines() {
            if let Some(title) = line.strip_prefix("## ").or(line.strip_prefix("# ")) {
                section = title.split(' ').next().unwrap_or_default().to_owned();
                rule.clear();
                protocol.sections.insert(section.clone());
                continue;
            }
            let Some((label, _)) = line.split_once(". ") else {
                continue;
            };
            let part = label.trim_start();
            if part.len() == label.len() && is_rule_label(label) {
                rule = label.to_owned();
                protocol
                    .rules
                    .insert((section.clone(), rule.clone()), rule.clone());
            } else if label.len() == 4 && part.len() == 1 && !rule.is_empty() {
                protocol
                    .rules
                    .insert((section.clone(), format!("{rule}{part}")), rule.clone());
            }
        }
        protocol
    }

    /// The rules of the sections that are held to code and test, in order.
    fn held(&self) -> impl Iterator<Item = (&str, &str)> {
        self.rules
            .iter()
            .filter(|((_, label), rule)| label == *rule)
            .map(|((section, label), _)| (section.as_str(), label.as_str()))
            .filter(|(section, _)| HELD.contains(&section.split('.').next().unwrap_or_default()))
    }
}

/// A number, perhaps with one letter behind it: `9`, `9a`.
fn is_rule_label(label: &str) -> bool {
    let digits = label.trim_end_matches(|c: char| c.is_ascii_lowercase());
    !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_digit())
        && label.len() - digits.len() <= 1
}

/// One citation of a file.
struct Citation {
    line: usize,
    place: Place,
    rule: Result<Rule, String>,
}

/// Where a citation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the code of proto, relay or client.
    Code,
    /// At a test's attribute, or in the comment directly above it: that test shows the rule.
    Test,
    /// Elsewhere among tests, or in the simulator: nobody is held to the rule there.
    Elsewhere,
}

/// Reads every `§` of a text that is not of another document.
fn citations(path: &Path, text: &str) -> Vec<Citation> {
    let code_ends = if is_test_file(path) {
        0
    } else {
        text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len())
    };
    text.match_indices('§')
        .filter(|(at, _)| !is_of_another_document(&text[..*at]))
        .map(|(at, sign)| {
            let place = if at < code_ends {
                Place::Code
            } else if is_at_test(text, at) {
                Place::Test
            } else {
                Place::Elsewhere
            };
            Citation {
                line: text[..at].matches('\n').count() + 1,
                place,
                rule: parse(&text[at + sign.len()..]),
            }
        })
        .collect()
}

/// Whether a test's attribute is on this line, or on the first line below that is no comment.
fn is_at_test(text: &str, at: usize) -> bool {
    let line_start = text[..at].rfind('\n').map_or(0, |end| end + 1);
    text[line_start..]
        .lines()
        .map(str::trim_start)
        .find(|line| !line.starts_with("//"))
        .is_some_and(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
}

/// The two words before the sign name another document: "RFC 8032 §".
fn is_of_another_document(before: &str) -> bool {
    before
        .rsplit([' ', '\n'])
        .skip(1)
        .take(2)
        .any(|word| OTHERS.contains(&word.trim_matches('(')))
}

/// The one form: `7`, `7.3`, `7.3(4)`, with nothing behind it that continues a list of rules.
fn parse(text: &str) -> Result<Rule, String> {
    let wrong = || text.chars().take(16).collect::<String>();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let section = text[..end].trim_end_matches('.');
    let section = if section.is_empty() && text.starts_with(['A', 'B', 'C', 'D']) {
        &text[..1]
    } else {
        section
    };
    let rest = &text[section.len()..];
    let (rule, rest) = match rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        Some((rule, rest)) if is_rule_label(rule) => (Some(rule.to_owned()), rest),
        _ => (None, rest),
    };
    let continues = [", (", " and (", " to (", "-("]
        .iter()
        .any(|list| rest.starts_with(list));
    if section.is_empty() || rest.starts_with('(') || continues {
        return Err(wrong());
    }
    Ok((section.to_owned(), rule))
}

/// Files that hold tests, or what tests need, and nothing else.
fn is_test_file(path: &Path) -> bool {
    let name = path
        .file_stem()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    path.components().any(|part| part.as_os_str() == "tests")
        || name == "tests"
        || name == "testing"
        || name.ends_with("_tests")
}

/// All Rust sources of the four packages, each as its path from the root and its text.
fn sources() -> io::Result<Vec<(PathBuf, String)>> {
    let mut folders: Vec<PathBuf> = ["proto", "relay", "client", "tests"]
        .map(PathBuf::from)
        .into();
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push((path, fs::read_to_string(entry.path())?));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn root() -> PathBuf {
    PathBuf::from("..")
}

fn protocol_text() -> io::Result<String> {
    fs::read_to_string(root().join("docs/protocol.md"))
}

#[test]
fn every_citation_has_the_one_form_and_names_a_rule_that_exists() {
    let text = protocol_text().unwrap();
    let protocol = Protocol::read(&text);
    let mut wrong = Vec::new();
    for (path, text) in sources().unwrap() {
        if path.ends_with("tests/rules.rs") {
            continue; // shows the form, and forms that are none
        }
        for citation in citations(&path, &text) {
            let at = format!("{}:{}", path.display(), citation.line);
            match citation.rule {
                Err(text) => wrong.push(format!("{at}: not a citation: §{text}")),
                Ok((section, _)) if !protocol.sections.contains(&section) => {
                    wrong.push(format!("{at}: no section §{section}"));
                }
                Ok((section, Some(rule)))
                    if !protocol
                        .rules
                        .contains_key(&(section.clone(), rule.clone())) =>
                {
                    wrong.push(format!("{at}: no rule §{section}({rule})"));
                }
                Ok(_) => {}
            }
        }
    }
    assert!(wrong.is_empty(), "cite as §7.3(4):\n{}", wrong.join("\n"));
}

#[test]
fn a_rule_without_code_or_test_is_a_known_gap_and_the_list_only_shrinks() {
    let text = protocol_text().unwrap();
    let protocol = Protocol::read(&text);
    let (mut in_code, mut in_tests) = (BTreeSet::new(), BTreeSet::new());
    for (path, text) in sources().unwrap() {
        if path.ends_with("tests/rules.rs") {
            continue;
        }
        for citation in citations(&path, &text) {
            let Ok((section, Some(label))) = citation.rule else {
                continue;
            };
            let Some(rule) = protocol.rules.get(&(section.clone(), label)) else {
                continue;
            };
            let cited = match citation.place {
                Place::Code => &mut in_code,
                Place::Test => &mut in_tests,
                Place::Elsewhere => continue,
            };
            cited.insert((section, rule.clone()));
        }
    }
    let mut gaps = BTreeSet::new();
    for (section, rule) in protocol.held() {
        let key = (section.to_owned(), rule.to_owned());
        for (kind, cited) in [("code", &in_code), ("test", &in_tests)] {
            if !cited.contains(&key) {
                gaps.insert(format!("§{section}({rule}) {kind}"));
            }
        }
    }
    let list = fs::read_to_string(root().join("tests/rules.txt")).unwrap();
    let known: BTreeSet<String> = list
        .lines()
        .filter(|line| line.starts_with('§'))
        .map(str::to_owned)
        .collect();
    let new: Vec<&String> = gaps.difference(&known).collect();
    let closed: Vec<&String> = known.difference(&gaps).collect();
    assert!(
        new.is_empty(),
        "cite these rules above the code, and at a test: {new:#?}"
    );
    assert!(
        closed.is_empty(),
        "no gaps any more, take them out of tests/rules.txt: {closed:#?}"
    );
}

#[test]
fn only_a_citation_at_a_test_counts_as_shown_by_one() {
    let text = "// §2(1)\nfn code() {}\n#[cfg(test)]\nmod tests {\n// §2(2)\n// and on\n#[test]\n\
                fn a() {} // §2(3)\n#[tokio::test] // §2(4)\n";
    let places = |path: &str| -> Vec<Place> {
        let all = citations(Path::new(path), text).into_iter();
        all.map(|citation| citation.place).collect()
    };
    use Place::{Code, Elsewhere, Test};
    assert_eq!(places("proto/src/x.rs"), [Code, Test, Elsewhere, Test]);
    let simulator = places("tests/src/shells/x.rs");
    assert_eq!(simulator, [Elsewhere, Test, Elsewhere, Test]);
}

#[test]
fn a_citation_is_a_section_or_one_rule_of_it() {
    let whole = |section: &str| Ok((section.to_owned(), None));
    let rule = |section: &str, rule: &str| Ok((section.to_owned(), Some(rule.to_owned())));
    assert_eq!(parse("7"), whole("7"));
    assert_eq!(parse("7.3. Then"), whole("7.3"));
    assert_eq!(parse("7.3(4), §7.1"), rule("7.3", "4"));
    assert_eq!(parse("8.3(9a))"), rule("8.3", "9a"));
    for wrong in [
        "",
        "x",
        "6.4(6), (9)",
        "6.4(6) and (9)",
        "6.4(six)",
        "6.4(6",
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}

/// The names in backticks that are paths, `a::b` or `a::{b, c}`, each as its segments.
fn paths(text: &str) -> Vec<Vec<&str>> {
    let code = text.split('`').skip(1).step_by(2);
    let code = code.filter(|code| !code.contains('\n')); // a diagram
    let mut paths = Vec::new();
    for (parent, last) in code.filter_map(|code| code.rsplit_once("::")) {
        let names = last.trim_matches(['{', '}']).split(", ");
        paths.extend(names.map(|name| parent.split("::").chain([name]).collect()));
    }
    paths
}

/// Whether a file belongs to the package, module or type of this name.
fn is_of(path: &Path, text: &str, name: &str) -> bool {
    let name = name.strip_prefix("umbel_").unwrap_or(name);
    let is_type = name.starts_with(|c: char| c.is_ascii_uppercase());
    if is_type {
        return ["struct", "enum", "trait", "impl"].iter().any(|kind| {
            let lines = text.lines().map(str::trim_start);
            let mut heads = lines.filter(|line| line.split(' ').any(|word| word.starts_with(kind)));
            heads.any(|line| words(line).any(|word| word == name))
        });
    }
    let mut parts = path.with_extension("");
    parts.push("");
    parts.components().any(|part| part.as_os_str() == name)
}

/// Whether a text defines this function, type, variant or module.
fn defines(text: &str, name: &str) -> bool {
    text.lines().map(str::trim_start).any(|line| {
        // A call begins like a variant, but for its first letter.
        let is_variant = name.starts_with(char::is_uppercase)
            && line
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with([',', '(']) || rest.starts_with(" {"));
        let mut pair = words(line).zip(words(line).skip(1));
        is_variant
            || pair.any(|(kind, word)| {
                word == name && ["fn", "struct", "enum", "trait", "mod", "type"].contains(&kind)
            })
    })
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

#[test]
fn the_architecture_names_what_exists() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let sources = sources().unwrap();
    let exists = |parent: &str, name: &str| {
        let mut files = sources
            .iter()
            .filter(|(path, text)| is_of(path, text, parent));
        files.any(|(path, text)| is_of(path, "", name) || defines(text, name))
    };
    let paths = paths(&text);
    assert!(paths.len() > 50, "{paths:?}");
    assert!(exists("Half", "pass") && !exists("Half", "hand_over"));
    let is_wrong = |path: &&Vec<&str>| path.windows(2).any(|pair| !exists(pair[0], pair[1]));
    let wrong: Vec<String> = paths
        .iter()
        .filter(is_wrong)
        .map(|path| path.join("::"))
        .collect();
    assert!(wrong.is_empty(), "no such names: {wrong:#?}");
}

/// File paths in backquotes, in a document.
fn files_named(text: &str) -> impl Iterator<Item = &str> {
    let is_file = |it: &&str| {
        let begins = ["proto/", "relay/", "client/", "tests/", "docs/"];
        let ends = [".rs", ".md", ".toml", ".txt"];
        begins.iter().any(|begin| it.starts_with(begin))
            && ends.iter().any(|end| it.ends_with(end))
            && !it.contains(['{', '*', ' '])
    };
    text.split('`').skip(1).step_by(2).filter(is_file)
}

#[test]
fn documents_name_files_that_exist() {
    let mut named = 0;
    for document in documents().unwrap() {
        let text = fs::read_to_string(&document).unwrap();
        for file in files_named(&text) {
            named += 1;
            assert!(
                root().join(file).is_file(),
                "{} names {file}",
                document.display()
            );
        }
    }
    assert!(named > 20, "{named}");
}

#[test]
fn decisions_have_one_form() {
    let mut count = 0;
    for file in fs::read_dir(root().join("docs/decisions")).unwrap() {
        let file = file.unwrap().path();
        let text = fs::read_to_string(&file).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        let mut lines = text.lines();
        let title = lines.next().unwrap();
        assert!(title.starts_with(&format!("# {}: ", &name[..3])), "{name}");
        let (_, facts) = (lines.next(), lines.next().unwrap());
        let [date, commit, state, ..] = facts.split(" · ").collect::<Vec<_>>()[..] else {
            panic!("{name}: {facts}")
        };
        assert!(
            date.ends_with(" 2026") && commit.len() == 9,
            "{name}: {facts}"
        );
        assert!(state.starts_with("in force"), "{name}: {facts}");
        let begin = |word: &str| text.lines().any(|line| line.starts_with(word));
        let is_bare = WITHOUT_ALTERNATIVES.contains(&&name[..3]);
        assert!(
            is_bare || (begin("**Alternatives") && begin("**Revisit")),
            "{name}"
        );
        count += 1;
    }
    assert!(count > 20, "{count}");
}

/// Decisions that were made before the form was, or that leave nothing to choose. The list may shrink
/// only.
const WITHOUT_ALTERNATIVES: [&str; 3] = ["009", "013", "022"];

/// README and the pages of docs, without decisions, which say what was true when they were made.
fn documents() -> io::Result<Vec<PathBuf>> {
    let mut all = vec![root().join("README.md")];
    for page in fs::read_dir(root().join("docs"))? {
        let page = page?.path();
        all.extend(page.is_file().then_some(page));
    }
    Ok(all)
}
