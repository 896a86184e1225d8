//! What the daemon tells of itself: in the log, to the service manager, in heartbeats and notices, and as
//! the status that others read.

use std::sync::Arc;
use std::time::Instant;

use bpfwatch_core::finding::{Heartbeat, Level, Line, Notice, NoticeEvent};
use bpfwatch_core::platform::{CheckState, ServiceState};

use super::Daemon;
use super::status::Status;
use crate::output;
use crate::wiring::{now, rules};

impl Daemon {
    /// Start and reload in the log, with what of them is not as wanted.
    pub(super) fn announce(&self, what: &str) {
        rules::warn(&self.plan.rules);
        let sinks: Vec<String> = self.sinks.health().into_iter().map(|sink| sink.name).collect();
        let version = env!("CARGO_PKG_VERSION");
        output::note(&format!(
            "{what}: version {version}, pid {}; sensors {}; {} rules, {} refused; sinks {}",
            std::process::id(),
            self.live.sensors.names().join(", "),
            self.plan.rules.set.rules().len(),
            self.plan.rules.refused(),
            sinks.join(", ")
        ));
        if self.reload.is_none() {
            for check in self.hardening.iter().filter(|check| check.state > CheckState::Info) {
                output::warn(&format!("{}: {}", check.name, check.detail));
            }
        }
        let refused = rules::refused(&self.plan.rules);
        if !refused.is_empty() {
            let detail = format!("rules left out: {}", refused.join("; "));
            self.notice(Level::Medium, NoticeEvent::RulesRefused, detail);
        }
    }

    pub(super) fn notice(&self, level: Level, event: NoticeEvent, detail: String) {
        let host = Arc::clone(&self.host);
        self.sinks.send(Line::Notice(Box::new(Notice { time: now(), host, level, event, detail })));
    }

    pub(super) fn tell(&self, state: ServiceState<'_>) {
        if let Some(manager) = &self.manager {
            manager.tell(state);
        }
    }

    /// For the service manager's status line.
    pub(super) fn in_short(&self) -> String {
        let health = self.live.sensors.health();
        let running = health.iter().filter(|sensor| sensor.running).count();
        let counters = self.live.pipeline.counters();
        let coverage = self.sources.coverage();
        format!(
            "{running} of {} sensors, {} sources blind, {} rules, {} findings, {} lost",
            health.len(),
            coverage.blind,
            self.plan.rules.set.rules().len(),
            counters.findings,
            counters.lost
        )
    }

    pub(super) fn heartbeat(&mut self) {
        self.beat = Instant::now();
        self.sinks.send(Line::Heartbeat(Box::new(self.health())));
    }

    pub(super) fn health(&self) -> Heartbeat {
        let counters = self.live.pipeline.counters();
        let rules = &self.plan.rules;
        Heartbeat {
            time: now(),
            host: Arc::clone(&self.host),
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: self.started.elapsed().as_secs(),
            sensors: self.live.sensors.health(),
            rules_loaded: rules.set.rules().len() as u64,
            rules_refused: rules.refused() as u64,
            observations: counters.observations,
            findings: counters.findings,
            withheld: counters.withheld,
            folded: counters.folded,
            forgotten: counters.forgotten,
            lost: counters.lost,
            backlog_bytes: self.live.outlet.backlog() as u64,
            lag_ms: u64::try_from(self.live.lag().as_millis()).unwrap_or(u64::MAX),
            coverage: self.sources.coverage(),
            reload: self.reload.clone(),
            sinks: self.sinks.health(),
        }
    }

    pub(super) fn publish(&mut self) {
        self.published = Some(Instant::now());
        self.board.put(Status {
            pid: std::process::id(),
            started: self.started_at,
            files: self.plan.files.iter().map(|file| file.display().to_string()).collect(),
            health: self.health(),
            backlog_limit_bytes: Status::BACKLOG_LIMIT,
            sources: self.sources.checks().to_vec(),
            hardening: self.hardening.clone(),
            withheld_by: self.live.pipeline.withheld(),
            refused_rules: rules::refused(&self.plan.rules),
            reloads_taken: self.reloads.0,
            reloads_refused: self.reloads.1,
        });
    }
}
