//! Correlations through the correlator: order, groups, windows, chains, bounds.

mod common;

use std::sync::Arc;

use bpfwatch_core::events::ProcessEvent;
use bpfwatch_core::observation::Os;
use bpfwatch_core::process::ProcessKey;
use bpfwatch_core::rules::correlate::{Correlated, Correlator, Moment};
use bpfwatch_core::rules::{RuleKind, RuleSet};
use bpfwatch_core::time::Timestamp;
use common::{documents, file, load_clean, process, refused, rule, uuid};

const LOGSOURCE: &str = "product: linux, category: process_creation";

/// A base rule for each of these images: `/a` is rule 1, `/b` rule 2 ...
fn bases(count: u32) -> Vec<String> {
    let image = |id: u32| "abc".chars().nth(id as usize - 1).unwrap_or('z');
    (1..=count)
        .map(|id| {
            rule(id, "low", LOGSOURCE, &format!("s: {{Image: /{}}}\ncondition: s", image(id)))
        })
        .collect()
}

fn correlation(id: u32, head: &str, body: &str) -> String {
    let body = body.replace('\n', "\n  ");
    format!(
        "title: Correlation {id}\nid: {}\nlevel: high\n{head}correlation:\n  {body}\n",
        uuid(id)
    )
}

/// `rules:` with these ids.
fn rules(ids: &[u32]) -> String {
    let ids: Vec<String> = ids.iter().map(|id| uuid(*id)).collect();
    format!("rules: [{}]", ids.join(", "))
}

struct Bench {
    set: Arc<RuleSet>,
    correlator: Correlator,
    seq: u64,
}

impl Bench {
    fn new(texts: &[String]) -> Self {
        let set = Arc::new(load_clean(&[file("rules.yml", &documents(texts))]));
        Self { correlator: Correlator::new(Arc::clone(&set)), set, seq: 0 }
    }

    /// Executes the image at this millisecond, in this lineage.
    fn at(&mut self, millis: i64, image: &str, lineage: Option<u32>) -> Vec<Correlated> {
        let process = process(image, &[image, "x"]);
        let lineage = lineage.map(|pid| ProcessKey { pid, start: Some(1) });
        let event = ProcessEvent::new(&process, Os::Linux, lineage);
        let verdict = self.set.evaluate(&event);
        self.seq += 1;
        let at = Timestamp::from_nanos(1_700_000_000_000_000_000 + millis * 1_000_000);
        let moment = Moment { at, seq: self.seq, what: image };
        self.correlator.feed(&event, moment, &verdict.correlated)
    }

    fn fires(&mut self, millis: i64, image: &str, lineage: u32) -> bool {
        !self.at(millis, image, Some(lineage)).is_empty()
    }
}

fn ordered() -> Bench {
    let mut texts = bases(3);
    let body = format!(
        "type: temporal_ordered\n{}\ngroup-by: [LineageId]\ntimespan: 1m",
        rules(&[1, 2, 3])
    );
    texts.push(correlation(10, "", &body));
    Bench::new(&texts)
}

#[test]
fn an_order_within_one_second_counts() {
    let mut bench = ordered();
    assert!(!bench.fires(1, "/a", 1));
    assert!(!bench.fires(2, "/b", 1));
    let fired = bench.at(3, "/c", Some(1));
    assert_eq!(fired.len(), 1);
    assert_eq!(fired[0].hit.rule.title, "Correlation 10");
    assert_eq!(bench.set.rules()[fired[0].hit.index].kind, RuleKind::Correlation);
    assert_eq!(fired[0].group, [("LineageId".to_owned(), "1:1".to_owned())]);
    let seen: Vec<(u64, &str)> =
        fired[0].contributions.iter().map(|one| (one.seq, &*one.what)).collect();
    assert_eq!(seen, [(1, "/a"), (2, "/b"), (3, "/c")]);

    let mut bench = ordered();
    for (millis, image) in [(1, "/c"), (2, "/b"), (3, "/a")] {
        assert!(!bench.fires(millis, image, 1), "{image}");
    }
    // b and c come again, after the a.
    assert!(!bench.fires(4, "/b", 1));
    assert!(bench.fires(5, "/c", 1));
}

#[test]
fn equal_times_are_ordered_by_their_place() {
    let mut bench = ordered();
    assert!(!bench.fires(0, "/a", 1));
    assert!(!bench.fires(0, "/b", 1));
    assert!(bench.fires(0, "/c", 1));
    let mut bench = ordered();
    for image in ["/b", "/a", "/c"] {
        assert!(!bench.fires(0, image, 1), "{image}");
    }
}

#[test]
fn one_event_is_not_two_steps() {
    let mut texts = bases(1);
    texts.push(rule(2, "low", LOGSOURCE, "s: {CommandLine|contains: x}\ncondition: s"));
    let body =
        format!("type: temporal_ordered\n{}\ngroup-by: LineageId\ntimespan: 1m", rules(&[1, 2]));
    texts.push(correlation(10, "", &body));
    let mut bench = Bench::new(&texts);
    assert!(!bench.fires(0, "/a", 1));
    assert!(bench.fires(1, "/a", 1));
}

#[test]
fn many_hits_between_do_not_hide_an_order() {
    let mut bench = ordered();
    assert!(!bench.fires(0, "/a", 1));
    assert!(!bench.fires(1, "/b", 1));
    for millis in 2..5_000 {
        assert!(!bench.fires(millis, "/a", 1));
    }
    let fired = bench.at(6_000, "/c", Some(1));
    assert_eq!(fired.len(), 1);
    assert_eq!(fired[0].contributions.len(), 16);
}

#[test]
fn the_window_ends() {
    let mut bench = ordered();
    assert!(!bench.fires(0, "/a", 1));
    assert!(!bench.fires(30_000, "/b", 1));
    assert!(!bench.fires(60_001, "/c", 1));
    assert!(!bench.fires(60_002, "/a", 1));
    assert!(!bench.fires(60_003, "/b", 1));
    assert!(bench.fires(60_004, "/c", 1));
    // It has said so; the next time is a minute later.
    assert!(!bench.fires(60_005, "/c", 1));
    assert!(!bench.fires(120_005, "/a", 1));
    assert!(!bench.fires(120_006, "/b", 1));
    assert!(bench.fires(120_007, "/c", 1));
}

#[test]
fn groups_are_apart_and_a_missing_one_is_none() {
    let mut bench = ordered();
    assert!(!bench.fires(0, "/a", 1));
    assert!(!bench.fires(1, "/b", 2));
    assert!(!bench.fires(2, "/c", 1));
    assert!(!bench.fires(3, "/c", 2));
    for image in ["/a", "/b", "/c"] {
        assert_eq!(bench.at(4, image, None), [], "{image}");
    }
}

#[test]
fn temporal_asks_for_all_rules_in_any_order() {
    let mut texts = bases(2);
    let body = format!("type: temporal\n{}\ngroup-by: [LineageId]\ntimespan: 10s", rules(&[1, 2]));
    texts.push(correlation(10, "", &body));
    let mut bench = Bench::new(&texts);
    assert!(!bench.fires(0, "/a", 1));
    assert!(!bench.fires(1, "/a", 1));
    assert!(!bench.fires(11_000, "/b", 1));
    assert!(bench.fires(12_000, "/a", 1));

    let body = format!(
        "type: temporal\n{}\ngroup-by: [LineageId]\ntimespan: 10s\ncondition: '{} and not {}'",
        rules(&[1, 2]),
        "base_b",
        "base_a"
    );
    let texts: Vec<String> = bases(2)
        .iter()
        .zip(["base_a", "base_b"])
        .map(|(text, name)| format!("name: {name}\n{text}"))
        .chain([correlation(10, "", &body.replace(&rules(&[1, 2]), "rules: [base_a, base_b]"))])
        .collect();
    let mut bench = Bench::new(&texts);
    assert!(!bench.fires(0, "/a", 1));
    assert!(!bench.fires(1, "/b", 1));
    assert!(bench.fires(2, "/b", 2));
}

#[test]
fn counts_count_and_say_so_once() {
    let mut texts = bases(1);
    let body = format!(
        "type: event_count\n{}\ngroup-by: [LineageId]\ntimespan: 10s\ncondition: {{gte: 3}}",
        rules(&[1])
    );
    texts.push(correlation(10, "", &body));
    let mut bench = Bench::new(&texts);
    let fired: Vec<bool> = (0..40).map(|second| bench.fires(second * 1_000, "/a", 1)).collect();
    let when: Vec<usize> = (0..40).filter(|second| fired[*second]).collect();
    assert_eq!(when, [2, 12, 22, 32]);
    let slow: Vec<bool> = (0..9).map(|n| bench.fires(100_000 + n * 6_000, "/a", 1)).collect();
    assert!(!slow.contains(&true), "{slow:?}");
}

#[test]
fn distinct_values_are_counted_and_missing_ones_are_not() {
    let mut texts = vec![rule(1, "low", LOGSOURCE, "s: {CommandLine|contains: x}\ncondition: s")];
    let body = format!(
        "type: value_count\n{}\ntimespan: 10s\ncondition: {{gte: 3, field: LineageId}}",
        rules(&[1])
    );
    texts.push(correlation(10, "", &body));
    let mut bench = Bench::new(&texts);
    let values = [Some(1), Some(1), None, Some(2), None, Some(1), Some(3)];
    let fired: Vec<usize> =
        values.iter().map(|lineage| bench.at(0, "/a", *lineage).len()).collect();
    assert_eq!(fired, [0, 0, 0, 0, 0, 0, 1]);
}

#[test]
fn a_rule_that_only_correlations_use_is_silent() {
    let body = format!("type: event_count\n{}\ntimespan: 10s\ncondition: {{gte: 2}}", rules(&[1]));
    for (head, reports) in [("", false), ("generate: true\n", true)] {
        let mut texts = bases(2);
        texts.push(correlation(10, head, &body));
        let bench = Bench::new(&texts);
        for (image, hits, correlated) in
            [("/a", usize::from(reports), 1), ("/b", 1, 0), ("/c", 0, 0)]
        {
            let process = process(image, &["x"]);
            let verdict = bench.set.evaluate(&ProcessEvent::new(&process, Os::Linux, None));
            assert_eq!(verdict.hits.len(), hits, "{image} {head}");
            assert_eq!(verdict.correlated.len(), correlated, "{image} {head}");
        }
    }
}

#[test]
fn a_correlation_over_correlations_sees_their_group() {
    let mut texts = bases(2);
    for (id, base) in [(10, 1), (11, 2)] {
        let body = format!(
            "type: event_count\n{}\ngroup-by: [LineageId]\ntimespan: 10s\ncondition: {{gte: 2}}",
            rules(&[base])
        );
        texts.push(correlation(id, "", &body));
    }
    let body = format!(
        "type: temporal_ordered\n{}\ngroup-by: [LineageId]\ntimespan: 1m",
        rules(&[10, 11])
    );
    texts.push(correlation(12, "", &body));
    let mut bench = Bench::new(&texts);
    for (millis, image, lineage) in
        [(0, "/a", 1), (1, "/a", 1), (2, "/b", 1), (3, "/a", 2), (4, "/b", 2), (5, "/b", 2)]
    {
        // 10 and 11 are silent: only 12 uses them, and it does not say `generate`.
        assert_eq!(bench.at(millis, image, Some(lineage)), [], "{millis}");
    }
    let fired = bench.at(6, "/b", Some(1));
    assert_eq!(fired.len(), 1);
    assert_eq!(fired[0].hit.rule.title, "Correlation 12");
}

#[test]
fn aliases_name_each_rules_field() {
    let mut texts = bases(2);
    let body = format!(
        "type: temporal\n{}\naliases:\n  who:\n    {}: LineageId\n    {}: LineageId\n\
         group-by: [who]\ntimespan: 10s",
        rules(&[1, 2]),
        uuid(1),
        uuid(2)
    );
    texts.push(correlation(10, "", &body));
    let mut bench = Bench::new(&texts);
    assert!(!bench.fires(0, "/a", 1));
    assert!(!bench.fires(1, "/b", 2));
    assert_eq!(bench.at(2, "/b", Some(1))[0].group[0].0, "who");
}

#[test]
fn what_cannot_be_done_is_refused() {
    let base = bases(2).join("---\n");
    let cases = [
        ("type: event_count\nRULES\ntimespan: 10s\ncondition: {lt: 5}", "lower bound"),
        ("type: event_count\nRULES\ntimespan: 10s\ncondition: {gte: 5000}", "no more than"),
        ("type: event_count\nRULES\ntimespan: 400d\ncondition: {gte: 5}", "time span"),
        ("type: value_count\nRULES\ntimespan: 10s\ncondition: {gte: 5}", "field"),
        ("type: value_count\nRULES\ntimespan: 10s\ncondition: {gte: 5, field: Imgae}", "Imgae"),
        ("type: temporal\nRULES\ngroup-by: [Lineage]\ntimespan: 10s", "Lineage"),
        ("type: temporal\nRULES\ngroup-by: [AncestorImages]\ntimespan: 10s", "list"),
        ("type: temporal\nrules: [no-such]\ntimespan: 10s", "no-such"),
        ("type: temporal\nrules: []\ntimespan: 10s", "rules"),
        ("type: temporal\nRULES\ntimespan: 10s\ncondition: a and b", "not in `rules`"),
        ("type: temporal_ordered\nRULES\ntimespan: 10s\nwindow: tumbling", "sliding"),
        ("type: temporal\nrules: [SELF]\ntimespan: 10s", "refers back"),
        ("type: sideways\nRULES\ntimespan: 10s", "sideways"),
    ];
    for (body, expected) in cases {
        let body = body.replace("RULES", &rules(&[1, 2])).replace("SELF", &uuid(10));
        let text = format!("{base}---\n{}", correlation(10, "", &body));
        let problems = refused(&[file("rules.yml", &text)]);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].what.contains(expected), "{expected}: {:?}", problems[0]);
        assert!(problems[0].line.is_some_and(|line| line > 20), "{:?}", problems[0]);
    }
    let below = "type: event_count\nrules: [R1]\ntimespan: 10s\ncondition: {gte: 2}";
    let above = "type: temporal\nrules: [R10]\ngroup-by: [LineageId]\ntimespan: 10s";
    let put = |text: &str| text.replace("R10", &uuid(10)).replace("R1", &uuid(1));
    let texts = [base, correlation(10, "", &put(below)), correlation(11, "", &put(above))];
    let problems = refused(&[file("rules.yml", &documents(&texts))]);
    assert!(problems[0].what.contains("below it does not"), "{problems:?}");
}

#[test]
fn the_same_hits_give_the_same_correlations() {
    let run = || {
        let mut bench = ordered();
        let mut state = 7u32;
        let mut all = Vec::new();
        // More groups than are kept, so that some are forgotten.
        for millis in 0..25_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let image = ["/a", "/b", "/c"][(state >> 16) as usize % 3];
            all.extend(bench.at(millis / 10, image, Some((state >> 8) % 15_000)));
        }
        assert!(bench.correlator.forgotten() > 0);
        assert!(!all.is_empty());
        all
    };
    let first = run();
    assert_eq!(run(), first);
}
