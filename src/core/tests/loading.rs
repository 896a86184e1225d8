//! Loading: places, problems, expected filters, hostile files.

mod common;

use bpfwatch_core::events::ProcessEvent;
use bpfwatch_core::finding::Level;
use bpfwatch_core::observation::Os;
use bpfwatch_core::process::Process;
use bpfwatch_core::rules::{FILE_LIMIT, Problem, RuleFile, RuleKind, RuleSet, Verdict};
use common::{detection, documents, file, filter, load_clean, process, refused, rule, uuid};

const LINUX: &str = "product: linux, category: process_creation";

fn evaluate(set: &RuleSet, process: &Process) -> Verdict {
    set.evaluate(&ProcessEvent::new(process, Os::Linux, None))
}

#[test]
fn rules_know_where_they_come_from() {
    let b = rule(2, "low", LINUX, "s: {Image: /b}\ncondition: s");
    let a = rule(1, "high", LINUX, "s: {Image: /a}\ncondition: s");
    let page = "## Response\n1. Look.\n2. Ask.\n";
    let files = [
        file("z.yml", &documents(&[b, a])),
        RuleFile {
            page: Some(page.to_owned()),
            ..file("a.yml", &rule(3, "medium", LINUX, "s: {Image: /c}\ncondition: s"))
        },
    ];
    let set = load_clean(&files);
    let places: Vec<(&str, usize, &str)> =
        set.rules().iter().map(|rule| (&*rule.path, rule.line, &*rule.shown.title)).collect();
    assert_eq!(places, [("a.yml", 1, "Rule 3"), ("z.yml", 1, "Rule 2"), ("z.yml", 11, "Rule 1")]);
    let first = &set.rules()[0];
    assert_eq!(first.response, ["Look.", "Ask."]);
    assert_eq!(first.page.as_deref(), Some(page));
    assert_eq!(first.logsource, "linux/process_creation");
    assert_eq!(first.status.as_deref(), Some("test"));
    assert_eq!(first.shown.author.as_deref(), Some("A. Author"));
    assert_eq!((first.kind, first.shown.level), (RuleKind::Detection, Level::Medium));
}

#[test]
fn the_highest_level_that_hangs_on_promiscuous_mode_is_known() {
    let capture = "category: packet_capture";
    let level = |detection: &str| {
        let texts = [
            rule(1, "critical", capture, "s: {Stage: attached}\ncondition: s"),
            rule(2, "high", capture, detection),
            rule(3, "medium", capture, "s: {Promiscuous: true}\ncondition: s"),
        ];
        load_clean(&[file("rules.yml", &documents(&texts))]).promiscuous()
    };
    let other = "s: {Image: /a}\ncondition: s";
    assert_eq!(level(other), Some(Level::Medium));
    for detection in [
        "s: {Image: /a}\nnot_yet: {Promiscuous: false}\ncondition: s and not not_yet",
        "s:\n  - {Image: /a}\n  - {Promiscuous: true, Image: /b}\ncondition: s",
        "s: ['yes']\ncondition: s",
    ] {
        assert_eq!(level(detection), Some(Level::High), "{detection}");
    }
}

#[test]
fn rules_can_be_loaded_for_one_system() {
    let logsource = |product: &str| format!("{product}category: process_creation");
    let texts = ["product: linux, ", "product: windows, ", ""].map(logsource);
    let texts: Vec<String> = (1..)
        .zip(&texts)
        .map(|(id, logsource)| rule(id, "low", logsource, "s: {Image: /a}\ncondition: s"))
        .collect();
    let (set, problems) = RuleSet::load_for(Os::Linux, &[file("rules.yml", &documents(&texts))]);
    assert_eq!(problems, []);
    let hits = |os| {
        let verdict = set.evaluate(&ProcessEvent::new(&process("/a", &[]), os, None));
        verdict.hits.iter().map(|hit| hit.rule.title.clone()).collect::<Vec<_>>()
    };
    assert_eq!(hits(Os::Linux), ["Rule 1", "Rule 3"]);
    assert!(hits(Os::Windows).is_empty());
    assert_eq!(set.rules().len(), 3);
}

#[test]
fn hits_come_by_level_then_place() {
    let levels = ["low", "critical", "medium", "critical", "informational"];
    let texts: Vec<String> = (1..)
        .zip(levels)
        .map(|(id, level)| rule(id, level, LINUX, "s: {Image: /a}\ncondition: s"))
        .collect();
    let set = load_clean(&[file("rules.yml", &documents(&texts))]);
    for _ in 0..20 {
        let titles: Vec<String> = evaluate(&set, &process("/a", &[]))
            .hits
            .iter()
            .map(|hit| hit.rule.title.clone())
            .collect();
        assert_eq!(titles, ["Rule 2", "Rule 4", "Rule 3", "Rule 1", "Rule 5"]);
    }
}

/// The one problem of this text.
fn problem(text: &str) -> Problem {
    let problems = refused(&[file("site.yml", text)]);
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.into_iter().next().unwrap_or_else(|| unreachable!("refused is not empty"))
}

#[test]
fn a_bad_rule_is_named_with_file_line_and_reason() {
    let capture = "category: packet_capture";
    let cases: &[(String, usize, &str)] = &[
        (rule(1, "low", capture, "s: {Interfaces: lo}\ncondition: s"), 8, "`Interface`"),
        (rule(1, "low", LINUX, "s:\n  Imgae|endswith: /a\ncondition: s"), 9, "`Image`"),
        (rule(1, "low", LINUX, "s: {Qwertyuiop: 1}\ncondition: s"), 8, "no field"),
        (
            rule(1, "low", LINUX, "s:\n  Image: a\nall:\n  Image: b\ncondition: 1 of them"),
            10,
            "`all` is a word of conditions",
        ),
        (
            rule(1, "low", LINUX, "s:\n  CommandLine|base64offset|contains: a\ncondition: s"),
            9,
            "base64offset",
        ),
        (rule(1, "low", LINUX, "k:\n  '|all': [a, b]\ncondition: k"), 1, "|all"),
        (rule(1, "low", LINUX, "s: {Image|expand: '%x%'}\ncondition: s"), 8, "expand"),
        (rule(1, "low", LINUX, "s: {Image|fieldref: Imgae}\ncondition: s"), 8, "`Image`"),
        (rule(1, "low", LINUX, "s: {Image|contians: a}\ncondition: s"), 1, "contians"),
        (rule(1, "low", LINUX, "s: {Image|re: '('}\ncondition: s"), 1, "regex"),
        (rule(1, "low", LINUX, "s: {Image: a}\ncondition: s and t"), 9, "`t`"),
        (rule(1, "low", LINUX, "s: {Image: a}\ncondition: s and not 1 of f_*"), 9, "`f_*`"),
        (rule(1, "low", LINUX, "s: {Image: a}\ncondition: s and"), 9, "Condition"),
        (rule(1, "low", LINUX, "s: {Image: a}"), 1, "condition"),
        (
            rule(1, "low", "product: windows, category: registry_set", "s: {a: b}\ncondition: s"),
            6,
            "no source for logsource windows/registry_set",
        ),
        (
            rule(1, "low", "product: linux, service: cron", "s: {a: b}\ncondition: s"),
            6,
            "no source for logsource linux/cron",
        ),
        ("title: x\nid: [\n".to_owned(), 2, "no YAML"),
        ("- a\n- b\n".to_owned(), 1, "mapping"),
        ("id: x\nlogsource: {}\n".to_owned(), 1, "title"),
        ("# nothing\n".to_owned(), 0, "no rule"),
    ];
    for (text, line, what) in cases {
        let problem = problem(text);
        assert_eq!(problem.path, "site.yml");
        assert!(problem.what.contains(what), "{what}: {problem:?}");
        if *what == "no YAML" {
            assert!(problem.line.is_some_and(|at| at >= *line), "{problem:?}\n{text}");
        } else {
            assert_eq!(problem.line.unwrap_or(0), *line, "{problem:?}\n{text}");
        }
    }
}

#[test]
fn one_bad_rule_leaves_the_others() {
    let bad = rule(1, "low", LINUX, "s: {Imgae: a}\ncondition: s");
    let good = rule(2, "low", LINUX, "s: {Image: /a}\ncondition: s");
    let (set, problems) = RuleSet::load(&[file("r.yml", &documents(&[bad, good]))]);
    assert_eq!((set.rules().len(), problems.len()), (1, 1));
    assert_eq!(problems[0].rule.as_deref(), Some("Rule 1"));
    assert_eq!(evaluate(&set, &process("/a", &[])).hits.len(), 1);
}

#[test]
fn an_id_stands_once() {
    let text = detection("linux", "s: {Image: /a}\ncondition: s");
    let problems = refused(&[file("b.yml", &text), file("a.yml", &text)]);
    assert_eq!(problems.len(), 1);
    assert_eq!((problems[0].path.as_str(), problems[0].line), ("b.yml", Some(2)));
    assert!(problems[0].what.contains("a.yml:1"), "{problems:?}");
}

#[test]
fn what_is_odd_but_works_is_a_remark() {
    let text = detection("linux", "s: {Image: /a}\ncondition: s");
    let bare = text
        .replace(&format!("id: {}\n", uuid(1)), "")
        .replace("level: medium\n", "")
        .replace("status: test", "status: tset");
    let (set, problems) = RuleSet::load(&[file("r.yml", &bare)]);
    assert!(problems.iter().all(|problem| !problem.refused), "{problems:?}");
    let said = problems.iter().map(|problem| problem.what.as_str()).collect::<Vec<_>>().join("; ");
    for what in ["no id", "no level", "tset"] {
        assert!(said.contains(what), "{said}");
    }
    let shown = &set.rules()[0].shown;
    assert_eq!(shown.level, Level::Medium);
    assert_eq!(&shown.id[14..15], "8");
    let again = RuleSet::load(&[file("r.yml", &bare)]).0;
    assert_eq!(again.rules()[0].shown.id, shown.id);
    let elsewhere = RuleSet::load(&[file("s.yml", &bare)]).0;
    assert_ne!(elsewhere.rules()[0].shown.id, shown.id);
}

fn pack() -> Vec<String> {
    vec![
        rule(1, "high", LINUX, "s: {Image|endswith: dump}\ncondition: s"),
        rule(2, "low", LINUX, "s: {Image|startswith: /}\ncondition: s"),
        rule(3, "low", "category: process_creation", "s: {Image: /dump}\ncondition: s"),
        rule(4, "low", "category: packet_capture", "s: {Image: /dump}\ncondition: s"),
    ]
}

fn with_filter(logsource: &str, rules: &str, body: &str) -> Vec<String> {
    let mut texts = pack();
    texts.push(filter(9, logsource, rules, body));
    texts
}

#[test]
fn a_filter_withholds_what_it_names_and_says_so() {
    let rules = format!("[{}]", uuid(1));
    let texts = with_filter(LINUX, &rules, "who: {User: ids}\ncondition: not who");
    let set = load_clean(&[file("r.yml", &documents(&texts))]);
    assert_eq!(set.rules()[4].kind, RuleKind::Filter);
    let mut expected = process("/dump", &[]);
    expected.user = Some("ids".into());
    let verdict = evaluate(&set, &expected);
    let titles = |verdict: &Verdict| -> Vec<String> {
        verdict.hits.iter().map(|hit| hit.rule.title.clone()).collect()
    };
    assert_eq!(titles(&verdict), ["Rule 2", "Rule 3"]);
    assert_eq!(verdict.withheld.len(), 1);
    assert_eq!(verdict.withheld[0].filter.id, uuid(9));
    assert_eq!(verdict.withheld[0].hit.rule.id, uuid(1));
    assert_eq!(verdict.expected_by.map(|rule| rule.id.clone()), Some(uuid(9)));

    let verdict = evaluate(&set, &process("/dump", &[]));
    assert_eq!(titles(&verdict), ["Rule 1", "Rule 2", "Rule 3"]);
    assert_eq!((verdict.withheld.len(), verdict.expected_by), (0, None));

    // It matches and no rule does: expected all the same.
    let mut quiet = process("relative", &[]);
    quiet.user = Some("ids".into());
    let verdict = evaluate(&set, &quiet);
    assert_eq!((verdict.hits.len(), verdict.withheld.len()), (0, 0));
    assert!(verdict.expected_by.is_some());
}

#[test]
fn any_means_the_rules_of_the_logsource() {
    let texts = with_filter(LINUX, "any", "a: {User: x}\nb: {User: y}\ncondition: not (a or b)");
    let set = load_clean(&[file("r.yml", &documents(&texts))]);
    for (user, hits) in [("x", 0), ("y", 0), ("z", 3)] {
        let mut process = process("/dump", &[]);
        process.user = Some(user.into());
        let verdict = evaluate(&set, &process);
        assert_eq!((verdict.hits.len(), verdict.withheld.len()), (hits, 3 - hits), "{user}");
        // It is for Linux: the rule for every system still speaks elsewhere.
        let elsewhere = set.evaluate(&ProcessEvent::new(&process, Os::Freebsd, None));
        assert_eq!(elsewhere.hits.len(), 1);
    }
}

#[test]
fn a_filter_may_name_a_rule_by_its_name() {
    let mut texts = with_filter(LINUX, "[dumper]", "a: {User: x}\ncondition: not a");
    texts[0] = format!("name: dumper\n{}", texts[0]);
    let set = load_clean(&[file("r.yml", &documents(&texts))]);
    let mut process = process("/dump", &[]);
    process.user = Some("x".into());
    assert_eq!(evaluate(&set, &process).withheld.len(), 1);
}

#[test]
fn a_filter_that_would_fail_silently_is_refused() {
    let one = format!("[{}]", uuid(1));
    let other = format!("[{}]", uuid(4));
    let both = format!("[{}, {}]", uuid(1), uuid(4));
    let body = "a: {User: x}\ncondition: not a";
    let cases: &[(&str, &str, &str, &str)] = &[
        (LINUX, "[no-such]", body, "no-such"),
        (LINUX, &other, body, "does not fit"),
        (LINUX, &both, body, "does not fit"),
        ("product: macos, category: process_creation", &one, body, "does not fit"),
        ("product: macos, category: capture_posture", "any", body, "no rule has"),
        ("product: linux, service: cron", &one, body, "no source"),
        (LINUX, &one, "a: {User: x}\ncondition: a", "`not NAME`"),
        (LINUX, &one, "a: {User: x}\ncondition: not 1 of a*", "`not NAME`"),
        (LINUX, &one, "a: {User: x}\nb: {User: y}\ncondition: not a and not b", "`not NAME`"),
        (LINUX, &one, "a: {User: x}\ncondition: not b", "not defined"),
        (LINUX, &one, "a: {User: x}\nb: {User: y}\ncondition: not a", "does not name `b`"),
        (LINUX, &one, "a: {Usre: x}\ncondition: not a", "`User`"),
        (LINUX, "[]", body, "list of ids"),
        (LINUX, "{a: b}", body, "list of ids"),
    ];
    for (logsource, rules, body, what) in cases {
        let text = documents(&with_filter(logsource, rules, body));
        let problem = problem(&text);
        assert!(problem.what.contains(what), "{what}: {problem:?}");
        assert!(problem.line.is_some_and(|line| line > 40), "{problem:?}");
    }
    let without = documents(&with_filter(LINUX, &one, body)).replace("  rules: [00", "  rule: [00");
    assert!(problem(&without).what.contains("list of ids"));
}

#[test]
fn hostile_files_end_in_an_error() {
    let nested = |open: &str, close: &str, depth: usize| {
        format!(
            "title: x\ndetection:\n  s: {}1{}\n  condition: s\n",
            open.repeat(depth),
            close.repeat(depth)
        )
    };
    let condition =
        |text: String| detection("linux", "s: {Image: a}\ncondition: X").replace('X', &text);
    let texts = [
        "a".repeat(FILE_LIMIT + 1),
        nested("[", "]", 200),
        nested("[", "]", 100_000),
        nested("{a: ", "}", 200),
        "- ".repeat(50_000),
        "a:\n".to_owned()
            + &(0..2_000)
                .map(|depth| format!("{}b:\n", " ".repeat(depth % 500 + 1)))
                .collect::<String>(),
        condition("(".repeat(8_000)),
        condition(format!("{}s", "not ".repeat(2_000))),
        condition(format!("{}s{}", "(".repeat(31), ")".repeat(30))),
        condition("1 of ".repeat(1_000)),
        "\u{0}\u{1}\u{2}".to_owned(),
        "%YAML 9.9\n--- !<tag:x> &a !!binary |\n  ====\n".to_owned(),
        "title: &a [*a]\n".to_owned(),
        "---\n".repeat(200_000),
        "a: b\n---\n".repeat(100_000),
        detection("linux", "s: {Image|re: '(((a{1000}){1000}){1000})'}\ncondition: s"),
        detection("linux", &format!("s: {{Image|re: '{}'}}\ncondition: s", "(".repeat(10_000))),
    ];
    for text in &texts {
        refused(&[file("hostile.yml", text)]);
    }
    // Many needles are no crime.
    let many = (0..2_000).map(|n| format!("n{n}")).collect::<Vec<_>>().join(", ");
    let set = load_clean(&[file(
        "r.yml",
        &detection("linux", &format!("s: {{Image|contains: [{many}]}}\ncondition: s")),
    )]);
    assert_eq!(evaluate(&set, &process("/n1999", &[])).hits.len(), 1);
}
