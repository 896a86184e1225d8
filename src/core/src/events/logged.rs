//! A record of a log as rules see it: in that log's own fields.

use std::borrow::Cow;

use rsigma_eval::{Event, EventValue};

use super::{Actor, RuleEvent, value, visit_strings, word};
use crate::logged::Logged;
use crate::observation::Os;
use crate::process::Process;
use crate::rules::fields::Source;

/// A record of a log. What its fields lack is the actor's.
pub struct LoggedEvent<'a> {
    os: Os,
    record: &'a Logged,
    /// Texts with a line break, without it, by their place among the fields: see [`joined`].
    unbroken: Vec<(usize, String)>,
    actor: Actor<'a>,
}

impl<'a> LoggedEvent<'a> {
    /// `actor` is the process that the record names.
    pub fn new(record: &'a Logged, os: Os, actor: Option<&'a Process>) -> Self {
        let texts = record.fields.iter().enumerate();
        let unbroken = texts.filter_map(|(place, (_, value))| {
            let text = value.as_text()?.as_str();
            let broken = memchr::memchr2(b'\n', b'\r', text.as_bytes()).is_some();
            broken.then(|| (place, text.replace(['\n', '\r'], " ")))
        });
        Self { os, record, unbroken: unbroken.collect(), actor: Actor::new(actor, None) }
    }

    fn field(&self, name: &str) -> Option<EventValue<'_>> {
        // Splunk writes `containers{}` and jq `containers[]` where a path goes through a list.
        let bare = if name.contains(['{', '[']) {
            Cow::Owned(name.replace("{}", "").replace("[]", "").replace("[*]", ""))
        } else {
            Cow::Borrowed(name)
        };
        let mut fields = self.record.fields.iter().enumerate();
        match fields.find(|(_, (known, _))| *known == bare) {
            Some((place, (_, found))) => {
                Some(self.unbroken(place).map_or_else(|| value(found), word))
            }
            None => self.actor.field(name),
        }
    }

    fn unbroken(&self, place: usize) -> Option<&str> {
        let found = self.unbroken.iter().find(|(broken, _)| *broken == place);
        found.map(|(_, text)| text.as_str())
    }

    /// What the record itself says: keywords are not sought in what is known of its process.
    fn values(&self) -> impl Iterator<Item = (&str, EventValue<'_>)> {
        self.record.fields.iter().enumerate().map(|(place, (name, found))| {
            (name, self.unbroken(place).map_or_else(|| value(found), word))
        })
    }
}

rule_event!(LoggedEvent, |event| Source::of_log(event.record.log), |event| event.os);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logged::{Log, Value};

    fn record() -> Logged {
        let mut record = Logged::new(Log::PsScript, Some("alice".into()), "script".into());
        record.fields.push("ScriptBlockText", Value::text("New-NetEventSession\r\nStart"));
        record.fields.push("EventID", Value::Number(4104));
        record.fields.push("spec.containers.image", Value::texts(["a", "b\nc"]));
        record
    }

    #[test]
    fn fields_of_the_log_come_first_and_then_those_of_its_process() {
        let record = record();
        let actor = Process { image: Some("/x".into()), ..Process::from_pid(4) };
        let event = LoggedEvent::new(&record, Os::Windows, Some(&actor));
        assert_eq!((event.source(), event.os()), (Source::PsScript, Os::Windows));
        assert_eq!(event.get_field("EventID"), Some(EventValue::Int(4104)));
        assert_eq!(event.get_field("ProcessId"), Some(EventValue::Int(4)));
        assert_eq!(event.get_field("Nothing"), None);
        for spelled in
            ["spec.containers{}.image", "spec.containers[].image", "spec.containers.image"]
        {
            assert!(
                matches!(event.get_field(spelled), Some(EventValue::Array(list)) if list.len() == 2)
            );
        }
        // Keywords are sought in the record alone.
        assert!(event.any_string_value(&|text| text == "a"));
        assert!(!event.any_string_value(&|text| text == "/x"));
    }

    #[test]
    fn a_line_break_hides_nothing() {
        let record = record();
        let event = LoggedEvent::new(&record, Os::Windows, None);
        let Some(EventValue::Str(text)) = event.get_field("ScriptBlockText") else {
            panic!("none")
        };
        assert_eq!(text, "New-NetEventSession  Start");
    }
}
