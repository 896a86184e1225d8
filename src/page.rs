//! A rule and its ADS page for the terminal.
//!
//! The page is Markdown of a simple kind: headings, lists, paragraphs, links, code. Headings are set in
//! bold, paragraphs are wrapped, a link shows its address; everything else reads as it is.

use bpfwatch_core::rules::Rule;
use bpfwatch_delivery::style::{Paint, Style};
use bpfwatch_delivery::visible;

/// Columns of the facts' keys.
const KEYS: usize = 10;
/// Lines are no longer than this, however wide the terminal is.
const WIDEST: usize = 100;

/// The rule's facts, then its page; where it has none, its description.
pub fn render(rule: &Rule, kind: &str, style: &Style) -> String {
    let mut out = String::new();
    style.push(&mut out, Paint::Bold, &visible::escaped(&rule.shown.title));
    out.push('\n');
    let mut fact = |key: &str, paint: Paint, value: &str| {
        if value.is_empty() {
            return;
        }
        let width = style.width.map_or(usize::MAX, |width| width.min(WIDEST));
        let value = visible::escaped(value);
        let pieces = visible::wrap(&value, width.saturating_sub(KEYS).max(20));
        for (index, piece) in pieces.iter().enumerate() {
            let key = if index == 0 { key } else { "" };
            style.push(&mut out, Paint::Dim, &format!("{key:<KEYS$}"));
            style.push(&mut out, paint, piece);
            out.push('\n');
        }
    };
    let plain = Paint::Plain;
    let level = rule.shown.level;
    fact("id", plain, &rule.shown.id);
    fact("level", Paint::of_level(level), level.as_str());
    fact("kind", plain, kind);
    fact("logsource", plain, &rule.logsource);
    fact("status", plain, rule.status.as_deref().unwrap_or_default());
    fact("tags", plain, &rule.shown.tags.join(", "));
    fact("author", plain, rule.shown.author.as_deref().unwrap_or_default());
    fact("license", plain, rule.shown.license.as_deref().unwrap_or_default());
    fact("file", plain, &format!("{}:{}", rule.path, rule.line));
    if let Some(field) = &rule.never_here {
        fact("here", Paint::Yellow, &format!("never matches: this system has no {field}"));
    }
    out.push('\n');
    match &rule.page {
        Some(page) => push_markdown(&mut out, style, without_title(page, &rule.shown.title)),
        None => {
            push_markdown(&mut out, style, rule.description.as_deref().unwrap_or_default());
            if !rule.falsepositives.is_empty() {
                out.push('\n');
                push_heading(&mut out, style, "False Positives");
                for item in &rule.falsepositives {
                    push_wrapped(&mut out, style, "- ", item);
                }
            }
            out.push('\n');
            style.push(&mut out, Paint::Dim, "This rule has no page beside its file.");
            out.push('\n');
        }
    }
    out
}

/// The page without its first heading where that says the title again.
fn without_title<'a>(page: &'a str, title: &str) -> &'a str {
    match page.trim_start().split_once('\n') {
        Some((first, rest)) if heading(first) == Some(title) => rest.trim_start(),
        _ => page,
    }
}

fn push_heading(out: &mut String, style: &Style, text: &str) {
    style.push(out, Paint::Bold, &visible::escaped(text));
    out.push('\n');
}

fn push_markdown(out: &mut String, style: &Style, text: &str) {
    let mut in_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
            continue;
        }
        let bare = line.trim_start();
        let indent = &line[..line.len() - bare.len()];
        if in_code || bare.starts_with('|') {
            let lead = if in_code { "    " } else { "" };
            out.push_str(lead);
            out.push_str(&visible::escaped(line));
            out.push('\n');
        } else if let Some(heading) = heading(line) {
            push_heading(out, style, heading);
        } else {
            let marker = marker(bare);
            let lead = format!("{indent}{marker}");
            let text = unlinked(&bare[marker.len()..]);
            push_wrapped(out, style, &visible::escaped(&lead), &text);
        }
    }
}

fn heading(line: &str) -> Option<&str> {
    let rest = line.trim_start_matches('#');
    let depth = line.len() - rest.len();
    if (1..=6).contains(&depth) { rest.strip_prefix(' ') } else { None }
}

/// The list marker that a line begins with, its space included.
fn marker(line: &str) -> &str {
    let digits = line.len() - line.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    if line.starts_with("- ") || line.starts_with("* ") {
        &line[..2]
    } else if digits > 0 && line[digits..].starts_with(". ") {
        &line[..digits + 2]
    } else {
        ""
    }
}

/// `[text](address)` as `text (address)`.
fn unlinked(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, link)) = rest.split_once('[') {
        let whole = link.split_once("](").and_then(|(text, after)| {
            let (address, after) = after.split_once(')')?;
            (!text.contains('[') && !address.contains(' ')).then_some((text, address, after))
        });
        out += before;
        match whole {
            Some((text, address, after)) => {
                out += &format!("{text} ({address})");
                rest = after;
            }
            None => {
                out.push('[');
                rest = link;
            }
        }
    }
    out + rest
}

fn push_wrapped(out: &mut String, style: &Style, lead: &str, text: &str) {
    let width = style.width.map_or(usize::MAX, |width| width.min(WIDEST));
    let text = visible::escaped(text);
    for (index, piece) in visible::wrap(&text, width.saturating_sub(lead.len())).iter().enumerate()
    {
        if index == 0 {
            out.push_str(lead);
        } else {
            out.extend(std::iter::repeat_n(' ', lead.len()));
        }
        out.push_str(piece);
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_shows_its_address() {
        assert_eq!(unlinked("- [T1](https://a/) and [b] (c)"), "- T1 (https://a/) and [b] (c)");
        assert_eq!(unlinked("a[0](x y) [[b](c)"), "a[0](x y) [b (c)");
    }

    #[test]
    fn the_title_is_said_once() {
        assert_eq!(without_title("# A\n\n## Goal\n", "A"), "## Goal\n");
        assert_eq!(without_title("# B\n\n## Goal\n", "A"), "# B\n\n## Goal\n");
    }

    #[test]
    fn markdown_is_wrapped_and_cannot_steer_the_terminal() {
        let style = Style { width: Some(24), ..Style::default() };
        let mut out = String::new();
        let text = "## Goal\n\n1. First of several steps to take\n- a\u{1b}[2J\n```\nlong line of code, left as it is\n```\n";
        push_markdown(&mut out, &style, text);
        assert_eq!(
            out,
            "Goal\n\n1. First of several\n   steps to take\n- a\\x1b[2J\n    long line of code, left as it is\n"
        );
    }
}
