//! Whether what is to be said about a session can still change a moment from now.
//!
//! A program opens, binds, filters and makes promiscuous in several steps. Where a sensor tells each step in
//! order, only steps that are yet to come can matter: a filter or another protocol, by which a handle may turn
//! out to be an expected one, and promiscuous mode, by which the level may rise. The rules themselves say
//! whether they would: they are asked about the session as it may become.

use std::sync::Arc;

use crate::events::SessionEvent;
use crate::handle::HandleKind;
use crate::rules::{RuleSet, Verdict};
use crate::session::{CaptureSession, SessionChanged};

/// What programs that open a socket for all protocols narrow it to: the protocols of those who hold a packet
/// socket for their daily work.
const NARROWER: [&str; 4] = ["ETH_P_IP", "ETH_P_ARP", "ETH_P_PAE", "ETH_P_LLDP"];

/// Whether nothing that is likely to come would withhold one of the hits or raise their level.
pub fn is_settled(rules: &RuleSet, changed: &SessionChanged, found: &Verdict) -> bool {
    let session = &changed.session;
    let Some(level) = found.hits.first().map(|hit| hit.rule.level) else { return false };
    if session.reached[1].is_none() {
        return false;
    }
    let is_packet =
        matches!(session.handle.kind, HandleKind::PacketSocket | HandleKind::SockPacket);
    let unbound = session.handle.interface.as_ref().is_none_or(|name| name.as_str() == "any");
    let narrower: &[&str] = if is_packet && unbound { &NARROWER } else { &[] };
    let narrows = session.handle.filter != Some(true) || !narrower.is_empty();
    if narrows && rules.withholds(&SessionEvent::narrowed(changed, narrower), &found.hits) {
        return false;
    }
    if is_packet && !session.promiscuous && rules.promiscuous() > Some(level) {
        let mut session = CaptureSession::clone(session);
        session.promiscuous = true;
        session.promiscuous_at = Some(changed.at);
        let promiscuous = SessionChanged { session: Arc::new(session), ..changed.clone() };
        let promiscuous = rules.evaluate(&SessionEvent::new(&promiscuous));
        return promiscuous.hits.first().is_none_or(|hit| hit.rule.level <= level);
    }
    true
}
