//! Script blocks that came in parts: PowerShell cuts a long one into several events (`MessageNumber` of
//! `MessageTotal`), and what a rule seeks may lie across the cut.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bpfwatch_core::decoder::Sequence;
use bpfwatch_core::logged::{Log, Logged, VALUE_LIMIT, Value};
use bpfwatch_core::observation::{Kind, Observation};
use bpfwatch_core::text::Text;

use super::decode::script_message;

/// Script blocks that wait for their parts; over it the oldest comes out as it is.
const MAX_BLOCKS: usize = 64;
/// Bytes kept of one, a little more than a rule sees of it.
const MAX_BYTES: usize = VALUE_LIMIT + 64 * 1024;

/// A script block in the making.
struct Block {
    /// The first part that came, for all but the text.
    first: Observation,
    parts: BTreeMap<i64, String>,
    total: i64,
    bytes: usize,
}

/// Puts script blocks together. One for each host.
#[derive(Default)]
pub(super) struct Parts {
    blocks: HashMap<String, Block>,
    order: VecDeque<String>,
}

impl Sequence for Parts {
    fn pass(&mut self, observation: Observation, out: &mut Vec<Observation>) {
        let Some((id, number, total, text)) = part(&observation) else {
            return out.push(observation);
        };
        if let Some(block) = self.blocks.get_mut(&id) {
            block.add(number, text);
        } else {
            if self.blocks.len() >= MAX_BLOCKS
                && let Some(oldest) = self.order.pop_front()
                && let Some(block) = self.blocks.remove(&oldest)
            {
                out.push(block.whole());
            }
            let mut block = Block { first: observation, parts: BTreeMap::new(), total, bytes: 0 };
            block.add(number, text);
            self.order.push_back(id.clone());
            self.blocks.insert(id.clone(), block);
        }
        let done = self.blocks.get(&id).is_some_and(Block::is_done);
        if done && let Some(block) = self.blocks.remove(&id) {
            self.order.retain(|known| *known != id);
            out.push(block.whole());
        }
    }

    fn flush(&mut self, out: &mut Vec<Observation>) {
        let order = std::mem::take(&mut self.order);
        out.extend(order.iter().filter_map(|id| self.blocks.remove(id)).map(Block::whole));
    }
}

impl Block {
    fn add(&mut self, number: i64, text: String) {
        // What is over the limit is counted as come, and left out.
        let text = if self.bytes + text.len() > MAX_BYTES { String::new() } else { text };
        self.bytes += text.len();
        self.parts.entry(number).or_insert(text);
    }

    fn is_done(&self) -> bool {
        i64::try_from(self.parts.len()).is_ok_and(|count| count >= self.total)
    }

    fn whole(self) -> Observation {
        let Self { mut first, parts, .. } = self;
        let Kind::Logged { record } = &first.kind else { return first };
        let text: String = parts.into_values().collect();
        let mut joined = Logged::new(Log::PsScript, record.subject.clone(), Text::from(""));
        joined.fields.push("ScriptBlockText", Value::text(text));
        for (name, value) in record.fields.iter() {
            joined.fields.push(name.to_owned(), value.clone());
        }
        joined.message = script_message(&joined);
        first.kind = Kind::Logged { record: Arc::new(joined) };
        first
    }
}

/// Id, number, total and text of a part; `None` for what is whole.
fn part(observation: &Observation) -> Option<(String, i64, i64, String)> {
    let Kind::Logged { record } = &observation.kind else { return None };
    if record.log != Log::PsScript {
        return None;
    }
    let text = |name| record.fields.get(name).and_then(Value::as_text).map(Text::as_str);
    let number = |name| match record.fields.get(name)? {
        Value::Number(number) => Some(*number),
        Value::Text(text) => text.as_str().parse().ok(),
        _ => None,
    };
    let total = number("MessageTotal").filter(|total| (2..=10_000).contains(total))?;
    let number = number("MessageNumber").filter(|number| (1..=total).contains(number))?;
    Some((text("ScriptBlockId")?.to_owned(), number, total, text("ScriptBlockText")?.to_owned()))
}
