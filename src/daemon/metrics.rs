//! The status as Prometheus text (exposition format 0.0.4), by its naming conventions: base units,
//! `_total` for counters, one family a `HELP` and a `TYPE`.

use std::fmt::Write as _;

use bpfwatch_core::time::Timestamp;

use super::status::Status;

/// The content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes families.
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"", if index == 0 { "{" } else { "," });
            for c in text.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }
}

fn seconds(at: Timestamp) -> f64 {
    // To the millisecond, which a double holds exactly enough.
    (at.nanos() / 1_000_000) as f64 / 1000.0
}

/// The whole text.
pub fn render(status: &Status) -> String {
    let mut text = Text(String::with_capacity(4096));
    let health = &status.health;
    text.family("bpfwatch_build_info", "gauge", "Version of bpfwatch; always 1.");
    text.sample("bpfwatch_build_info", &[("version", health.version)], 1);
    text.gauge(
        "bpfwatch_start_time_seconds",
        "When the daemon started, in seconds since 1970.",
        seconds(status.started),
    );
    text.gauge(
        "bpfwatch_status_time_seconds",
        "When these figures were taken, in seconds since 1970.",
        seconds(health.time),
    );
    sensors(&mut text, status);
    engine(&mut text, status);
    sinks(&mut text, status);
    configuration(&mut text, status);
    text.0
}

fn sensors(text: &mut Text, status: &Status) {
    let health = &status.health;
    text.family("bpfwatch_sensor_up", "gauge", "Whether the sensor watches.");
    for sensor in &health.sensors {
        text.sample("bpfwatch_sensor_up", &[("sensor", &sensor.name)], u8::from(sensor.running));
    }
    text.family("bpfwatch_sources", "gauge", "Sources by how much of them is seen.");
    let coverage = &health.coverage;
    for (state, count) in
        [("ok", coverage.ok), ("partial", coverage.partial), ("blind", coverage.blind)]
    {
        text.sample("bpfwatch_sources", &[("state", state)], count);
    }
    text.counter(
        "bpfwatch_observations_total",
        "Observations of all sensors.",
        health.observations,
    );
    text.counter(
        "bpfwatch_lost_events_total",
        "Events that sensors missed; a loss of unknown size counts as one.",
        health.lost,
    );
}

fn engine(text: &mut Text, status: &Status) {
    let health = &status.health;
    text.gauge(
        "bpfwatch_backlog_bytes",
        "Bytes of observations that wait for the engine.",
        health.backlog_bytes,
    );
    text.gauge(
        "bpfwatch_backlog_limit_bytes",
        "Bytes of observations that may wait before they are shed.",
        status.backlog_limit_bytes,
    );
    text.gauge(
        "bpfwatch_lag_seconds",
        "Age of the oldest observation that the engine took last.",
        health.lag_ms as f64 / 1000.0,
    );
    text.counter("bpfwatch_findings_total", "Findings, updates included.", health.findings);
    text.counter(
        "bpfwatch_findings_folded_total",
        "Findings that were folded into an earlier one.",
        health.folded,
    );
    text.counter(
        "bpfwatch_findings_withheld_total",
        "Matches that an expected filter withheld.",
        health.withheld,
    );
    text.counter(
        "bpfwatch_correlations_forgotten_total",
        "Times that correlations let go of state early, for there was too much of it.",
        health.forgotten,
    );
    text.family("bpfwatch_filter_withheld_total", "counter", "Matches withheld by this filter.");
    for filter in &status.withheld_by {
        text.sample("bpfwatch_filter_withheld_total", &[("filter", &filter.id)], filter.count);
    }
    text.family("bpfwatch_rules", "gauge", "Rules by whether they could be loaded.");
    for (state, count) in [("loaded", health.rules_loaded), ("refused", health.rules_refused)] {
        text.sample("bpfwatch_rules", &[("state", state)], count);
    }
}

fn sinks(text: &mut Text, status: &Status) {
    // Two sinks may have the same name, one series may not.
    let mut names: Vec<String> = Vec::new();
    for (index, sink) in status.health.sinks.iter().enumerate() {
        let before = &status.health.sinks[..index];
        let count = before.iter().filter(|other| other.name == sink.name).count();
        let again = if count > 0 { format!(" ({})", count + 1) } else { String::new() };
        names.push(format!("{}{again}", sink.name));
    }
    let each = || names.iter().zip(&status.health.sinks);
    text.family("bpfwatch_sink_written_total", "counter", "Lines that the sink wrote.");
    for (name, sink) in each() {
        text.sample("bpfwatch_sink_written_total", &[("sink", name)], sink.written);
    }
    text.family("bpfwatch_sink_dropped_total", "counter", "Lines that the sink had to drop.");
    for (name, sink) in each() {
        text.sample("bpfwatch_sink_dropped_total", &[("sink", name)], sink.dropped);
    }
    text.family("bpfwatch_sink_queue_length", "gauge", "Lines that wait for the sink.");
    for (name, sink) in each() {
        text.sample("bpfwatch_sink_queue_length", &[("sink", name)], sink.queued);
    }
    text.family(
        "bpfwatch_sink_spool_lines",
        "gauge",
        "Lines that the sink took and that wait for their receiver.",
    );
    for (name, sink) in each() {
        if let Some(spooled) = sink.spooled {
            text.sample("bpfwatch_sink_spool_lines", &[("sink", name)], spooled);
        }
    }
    text.family(
        "bpfwatch_sink_last_delivery_timestamp_seconds",
        "gauge",
        "When the sink last wrote a line, in seconds since 1970.",
    );
    for (name, sink) in each() {
        if let Some(at) = sink.last_delivery {
            let family = "bpfwatch_sink_last_delivery_timestamp_seconds";
            text.sample(family, &[("sink", name)], seconds(at));
        }
    }
}

fn configuration(text: &mut Text, status: &Status) {
    text.family("bpfwatch_reloads_total", "counter", "Configurations read while running.");
    for (result, count) in [("taken", status.reloads_taken), ("refused", status.reloads_refused)] {
        text.sample("bpfwatch_reloads_total", &[("result", result)], count);
    }
    let reload = status.health.reload.as_ref();
    text.gauge(
        "bpfwatch_last_reload_successful",
        "Whether the last configuration that was read is in force.",
        u8::from(reload.is_none_or(|reload| reload.taken)),
    );
    if let Some(reload) = reload {
        text.gauge(
            "bpfwatch_last_reload_timestamp_seconds",
            "When the configuration was last read again, in seconds since 1970.",
            seconds(reload.time),
        );
    }
}
