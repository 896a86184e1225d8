//! The ADS page beside a rule: finding its response steps.

/// Items of the list under the heading `Response`, in order, each as one line of text.
pub fn response(page: &str) -> Vec<String> {
    let mut steps: Vec<String> = Vec::new();
    let mut inside = false;
    let mut open = false;
    for line in page.lines() {
        if let Some(heading) = heading(line) {
            inside = heading.eq_ignore_ascii_case("response");
            open = false;
            continue;
        }
        if !inside {
            continue;
        }
        let text = line.trim();
        if let Some(item) = item(text) {
            steps.push(item.to_owned());
            open = true;
        } else if text.is_empty() {
            open = false;
        } else if open && let Some(last) = steps.last_mut() {
            last.push(' ');
            last.push_str(text);
        }
    }
    steps
}

/// Text of a heading of the first or second level; deeper ones are part of their section.
fn heading(line: &str) -> Option<&str> {
    let text = line.strip_prefix("##").or_else(|| line.strip_prefix('#'))?;
    text.strip_prefix(' ').map(|text| text.trim().trim_end_matches('#').trim_end())
}

fn item(text: &str) -> Option<&str> {
    if let Some(item) = ["- ", "* ", "+ "].into_iter().find_map(|mark| text.strip_prefix(mark)) {
        return Some(item.trim());
    }
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    if rest.len() == text.len() {
        return None;
    }
    rest.strip_prefix(". ").or_else(|| rest.strip_prefix(") ")).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_list_of_the_section() {
        let page = "# Rule\n\n## Goal\n\n- not this\n\n## Response\n\nFirst look:\n\n\
                    1. Find the user\n   and ask.\n2. Isolate the jail.\n- Keep the file.\n\n\
                    A closing word.\n\n### Notes\n* too\n\n## References\n- nor this\n";
        let expected = ["Find the user and ask.", "Isolate the jail.", "Keep the file.", "too"];
        assert_eq!(response(page), expected);
        assert!(response("").is_empty());
        assert!(response("## Response\nnothing").is_empty());
    }
}
