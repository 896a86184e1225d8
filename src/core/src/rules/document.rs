//! A rule file cut into its YAML documents, with the line where each starts.
//!
//! rsigma's parser knows neither file nor line, so each document is given to it alone. Before that it
//! is looked over for what would cost too much: rules may come from a repository that others write to.

use yaml_serde::Value;

/// Largest file that is read, in bytes. SigmaHQ's largest rule has 30 KiB.
pub const FILE_LIMIT: usize = 1 << 20;
/// Most documents in one file.
const DOCUMENT_LIMIT: usize = 1_000;
/// Deepest nesting of brackets in a document; libyaml takes quadratic time for deep flow collections.
const BRACKET_LIMIT: usize = 256;
/// Most bytes of a condition. rsigma's grammar is recursive without a limit of its own.
const CONDITION_LIMIT: usize = 8 * 1024;
/// Most parentheses, or `not`s, inside one another in a condition.
const CONDITION_DEPTH: usize = 32;

/// One YAML document of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Document<'a> {
    /// Line of the file that `text` starts on, from 1.
    first: usize,
    /// Its text.
    pub text: &'a str,
}

impl Document<'_> {
    /// Line of the file where the document's content starts.
    pub fn line(&self) -> usize {
        let blank = |line: &&str| {
            let line = line.trim();
            line.is_empty() || line.starts_with('#')
        };
        self.first + self.text.lines().take_while(blank).count()
    }

    /// Line of the file of a line of the document, from 1.
    pub fn line_of(&self, line: usize) -> usize {
        // What ends too early is found on the line after the last one.
        let last = self.text.lines().count().max(1);
        self.first + line.clamp(1, last) - 1
    }

    /// First line on which `word` stands as a key, with or without modifiers.
    pub fn line_of_key(&self, word: &str) -> Option<usize> {
        let is_key = |line: &str| {
            line.match_indices(word).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                let after = line[at + word.len()..].chars().next();
                before.is_none_or(|c| " {,-'\"?".contains(c))
                    && after.is_some_and(|c| ":|'\"".contains(c))
            })
        };
        self.text.lines().position(is_key).map(|index| self.first + index)
    }
}

/// Cuts `text` at its document markers. Documents without content are left out.
///
/// # Errors
/// When the file is too large or has too many documents.
pub fn split(text: &str) -> Result<Vec<Document<'_>>, String> {
    if text.len() > FILE_LIMIT {
        return Err(format!("the file has more than {FILE_LIMIT} bytes"));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let (mut start, mut first, mut at) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        // At column 0 this is a marker everywhere, even inside a block scalar (YAML 1.2, 9.1.2).
        let marker = ["---", "..."].into_iter().find(|marker| {
            line.strip_prefix(marker)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
        });
        if let Some(marker) = marker {
            documents.push(Document { first, text: &text[start..at] });
            // What follows the marker on its line belongs to the new document.
            start = at + marker.len();
            first = index + 1;
        }
        at += line.len();
    }
    documents.push(Document { first, text: &text[start..] });
    let content = |document: &Document<'_>| {
        document.text.lines().any(|line| {
            let line = line.trim();
            !line.is_empty() && !line.starts_with('#') && !line.starts_with('%')
        })
    };
    documents.retain(content);
    if documents.len() > DOCUMENT_LIMIT {
        return Err(format!("the file has more than {DOCUMENT_LIMIT} documents"));
    }
    Ok(documents)
}

/// Refuses what would cost too much to parse.
///
/// # Errors
/// What is wrong, and the line of the file where that is known.
pub fn check(document: &Document<'_>) -> Result<(), (Option<usize>, String)> {
    brackets(document)?;
    if let Some(name) = alias(document.text) {
        let what = format!("YAML aliases (`*{name}`) are not taken: write the value out");
        return Err((None, what));
    }
    let value: Value =
        yaml_serde::from_str(document.text).map_err(|error| yaml_error(document, &error))?;
    if value.get("action").is_some() {
        let what = "`action` (rule collections) is not taken: write each rule out";
        return Err((document.line_of_key("action"), what.to_owned()));
    }
    if let Some(what) = targets(&value) {
        return Err((document.line_of_key("rules"), what));
    }
    conditions(&value).map_err(|what| (document.line_of_key("condition"), what))
}

/// rsigma takes a filter without a proper list of rules as one for all rules, and drops from any list
/// what is no text.
fn targets(document: &Value) -> Option<String> {
    let of = |key: &str| document.get(key).map(|section| (key.to_owned(), section.get("rules")));
    let (key, rules) = of("correlation").or_else(|| of("filter"))?;
    let proper = match rules {
        Some(Value::String(_)) => true,
        Some(Value::Sequence(rules)) => !rules.is_empty() && rules.iter().all(Value::is_string),
        _ => false,
    };
    (!proper).then(|| format!("`rules` of a {key} is an id, or a list of ids"))
}

fn yaml_error(document: &Document<'_>, error: &yaml_serde::Error) -> (Option<usize>, String) {
    let line = error.location().map(|place| document.line_of(place.line()));
    // The text names the line within the document, which misleads in a file of several.
    let what = error.to_string();
    let what = what.split(" at line ").next().unwrap_or_default().to_owned();
    (line, format!("no YAML: {what}"))
}

fn brackets(document: &Document<'_>) -> Result<(), (Option<usize>, String)> {
    let mut depth = 0usize;
    for (index, line) in document.text.lines().enumerate() {
        for byte in line.bytes() {
            match byte {
                b'[' | b'{' => depth += 1,
                b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth > BRACKET_LIMIT {
                let what = format!("brackets are nested deeper than {BRACKET_LIMIT}");
                return Err((Some(document.line_of(index + 1)), what));
            }
        }
    }
    Ok(())
}

/// Name of an alias that also has an anchor. A few nested ones make gigabytes out of a page of text.
///
/// Where a name may start and where it ends is as libyaml's scanner has it (`yaml_parser_fetch_next_token`,
/// `yaml_parser_scan_anchor`): within braces a value needs no blank after its colon, and three characters
/// beyond ASCII end a line.
fn alias(text: &str) -> Option<&str> {
    let before =
        |c: char| c.is_ascii_whitespace() || "[]{},:?\u{85}\u{2028}\u{2029}\u{feff}".contains(c);
    let names = |sign: char| {
        text.split(before).filter_map(move |token| {
            let name = token.strip_prefix(sign)?;
            let end = name.find(|c: char| !(c.is_ascii_alphanumeric() || "_-".contains(c)));
            Some(&name[..end.unwrap_or(name.len())])
        })
    };
    let anchors: std::collections::HashSet<&str> =
        names('&').filter(|name| !name.is_empty()).collect();
    if anchors.is_empty() {
        return None;
    }
    names('*').find(|name| anchors.contains(name))
}

/// Bounds each condition, wherever it stands. yaml_serde has bounded the depth of `value` already.
fn conditions(value: &Value) -> Result<(), String> {
    match value {
        Value::Mapping(entries) => entries.iter().try_for_each(|(key, value)| {
            if key.as_str() == Some("condition") {
                match value {
                    Value::String(text) => condition(text)?,
                    Value::Sequence(texts) => {
                        texts.iter().filter_map(Value::as_str).try_for_each(condition)?;
                    }
                    _ => {}
                }
            }
            conditions(value)
        }),
        Value::Sequence(values) => values.iter().try_for_each(conditions),
        Value::Tagged(tagged) => conditions(&tagged.value),
        _ => Ok(()),
    }
}

fn condition(text: &str) -> Result<(), String> {
    if text.len() > CONDITION_LIMIT {
        return Err(format!("the condition has more than {CONDITION_LIMIT} bytes"));
    }
    let mut depth = 0usize;
    for byte in text.bytes() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > CONDITION_DEPTH {
            return Err(format!("the condition nests deeper than {CONDITION_DEPTH} parentheses"));
        }
    }
    let mut nots = 0usize;
    for word in text.split_whitespace() {
        nots = if word == "not" { nots + 1 } else { 0 };
        if nots > CONDITION_DEPTH {
            return Err(format!("the condition has more than {CONDITION_DEPTH} `not` in a row"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<(), (Option<usize>, String)> {
        split(text).unwrap().iter().try_for_each(check)
    }

    #[test]
    fn documents_know_their_line() {
        let text = "# head\ntitle: a\n---\n\ntitle: b\n... \n--- # c\ntitle: c\n---\n# nothing\n";
        let documents = split(text).unwrap();
        let lines: Vec<usize> = documents.iter().map(Document::line).collect();
        assert_eq!(lines, [2, 5, 8]);
        assert_eq!(documents[2].line_of_key("title"), Some(8));
        assert!(split("").unwrap().is_empty());
        assert_eq!(split("---- no marker").unwrap().len(), 1);
    }

    #[test]
    fn a_yaml_error_names_the_line_of_the_file() {
        let (line, what) = checked("title: a\n---\ntitle: b\nx: [1\ny: 2\n").unwrap_err();
        assert!(line.is_some_and(|line| line >= 4), "{line:?}");
        assert!(what.starts_with("no YAML: "), "{what}");
        let (line, _) = checked("title: [a").unwrap_err();
        assert_eq!(line, Some(1));
        assert!(!what.contains("line"), "{what}");
    }

    #[test]
    fn an_alias_is_seen_wherever_yaml_takes_one() {
        let aliases = [
            "a: &a [x]\nb: *a\n",
            "a: &a [x]\nb: {\"k\":*a}\n",
            "a: &a [x]\nb: {?*a : x}\n",
            "a: &a\u{85}  [x]\nb: *a\n",
            "a: &a [x]\nb:\u{2028}  *a\n",
        ];
        for text in aliases {
            let (_, what) = checked(text).unwrap_err();
            assert!(what.starts_with("YAML aliases (`*a`)"), "{text:?}: {what}");
        }
        for text in ["a: '&a'\nb: '*a'\n", "a: &a [x]\nb: '*a'\n", "a: x&a\nb: x*a\n"] {
            assert_eq!(checked(text), Ok(()), "{text:?}");
        }
    }

    #[test]
    fn hostile_documents_end_in_an_error() {
        let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for (name, before) in ('b'..='z').zip('a'..='y') {
            bomb += &format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 9].join(","));
        }
        let cases = [
            bomb,
            "[".repeat(FILE_LIMIT),
            "a: ".to_owned() + &"{b: ".repeat(100_000),
            "- ".repeat(20_000),
            "? ".repeat(20_000),
            format!("condition: {}a", "(".repeat(7_000)),
            format!("condition: {}a", "not ".repeat(1_500)),
            format!("condition: a{}", " or a".repeat(20_000)),
            format!("d:\n  condition: [{}]", "((((".repeat(200)),
            "x: \u{0}".to_owned(),
            "action: global\ntitle: x".to_owned(),
        ];
        for case in &cases {
            assert!(checked(case).is_err(), "{:.40}", case);
        }
        assert!(split(&"a".repeat(FILE_LIMIT + 1)).is_err());
        assert!(split(&"a: b\n---\n".repeat(2_000)).is_err());
    }

    #[test]
    fn ordinary_text_is_no_alias() {
        let text = "d: |\n  * item\n  **bold** &amp; *this*\ne: '*.exe'\nf: 'a && b'\n";
        checked(text).unwrap();
    }
}
