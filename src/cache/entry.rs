//! [`Entry`]: a complete answer that is kept, and what it takes to answer with it again.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::generation::{DoneReason, Event, Identity};

/// What an entry takes beside its events and its identity: itself, its names, its place in a tier.
const OVERHEAD: usize = 512;

/// A complete answer.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it answers.
    pub identity: Identity,
    /// The model's configured name.
    pub model: Arc<str>,
    /// Whose answer it is: as in [`crate::generation::Scope`].
    pub tenant: Arc<str>,
    /// The node that gave it.
    pub node: Arc<str>,
    /// When it was complete.
    pub created: SystemTime,
    /// When it is no answer any more.
    pub expires: SystemTime,
    /// All of it, `Done` at the end.
    pub events: Arc<[Arc<Event>]>,
    /// When each of them came, from the first.
    pub times: Arc<[Duration]>,
}

impl Entry {
    /// Bytes that it takes in memory, roughly.
    pub fn size(&self) -> usize {
        let events: usize = self.events.iter().map(|event| event.size() + size_of::<Duration>()).sum();
        OVERHEAD + self.identity.bytes().len() + events
    }

    /// What it says.
    pub fn text(&self) -> String {
        let text = |event: &Arc<Event>| match &**event {
            Event::Delta(delta) => delta.text.clone(),
            _ => String::new(),
        };
        self.events.iter().map(text).collect()
    }

    /// How old it is.
    pub fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.created).unwrap_or_default()
    }

    /// How long it is an answer yet.
    pub fn remaining(&self, now: SystemTime) -> Duration {
        self.expires.duration_since(now).unwrap_or_default()
    }
}

/// A request for an entry.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// What is asked.
    pub identity: &'a Identity,
    /// The model's configured name.
    pub model: &'a str,
    /// Who asks.
    pub tenant: &'a str,
    /// The time.
    pub now: SystemTime,
    /// How old the answer may be; `None`: as old as it is kept.
    pub max_age: Option<Duration>,
}

impl Wanted<'_> {
    /// Whether `entry` answers it. The bytes decide, never the hash alone.
    pub fn takes(&self, entry: &Entry) -> bool {
        entry.identity == *self.identity
            && !entry.remaining(self.now).is_zero()
            && self.max_age.is_none_or(|most| entry.age(self.now) <= most)
    }
}

/// Whether these events are a whole answer to a request that asked for at most `limit` tokens, so that it may be given again. One that the
/// context cut off is not: with more room it would have gone on. One that ended at the request's own limit is.
pub fn is_whole(events: &[Arc<Event>], limit: Option<i64>, with_tool_calls: bool) -> bool {
    let Some((last, before)) = events.split_last() else { return false };
    let Event::Done(done) = &**last else { return false };
    let ended = match done.reason {
        DoneReason::Stop => true,
        DoneReason::Length => {
            let limit = limit.and_then(|limit| u64::try_from(limit).ok());
            limit.is_some_and(|limit| done.completion_tokens >= limit)
        }
    };
    let is_fit = |event: &Arc<Event>| match **event {
        Event::Delta(_) => true,
        Event::ToolCall { .. } => with_tool_calls,
        Event::Done(_) | Event::Error(_) => false,
    };
    ended && before.iter().all(is_fit)
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;
    use crate::generation::{Delta, Done, Generation, Scope};

    pub(in crate::cache) const START: SystemTime = SystemTime::UNIX_EPOCH;
    pub(in crate::cache) const TTL: Duration = Duration::from_secs(300);

    pub(in crate::cache) fn identity(prompt: &str) -> Identity {
        let request = json!({ "model": "m", "input": { "kind": "raw", "prompt": prompt } });
        let generation: Generation = serde_json::from_value(request).unwrap();
        Identity::of(&generation, Scope::default()).unwrap()
    }

    /// An answer to `prompt` that was given at [`START`] and is kept for [`TTL`].
    pub(in crate::cache) fn entry(prompt: &str, text: &str) -> Entry {
        let delta = Event::Delta(Delta { text: text.to_owned(), tokens: vec![1, 2], ..Delta::default() });
        let done = Event::Done(Done { completion_tokens: 2, ..Done::default() });
        Entry {
            identity: identity(prompt),
            model: "m".into(),
            tenant: "t".into(),
            node: "m-0".into(),
            created: START,
            expires: START + TTL,
            events: [delta, done].map(Arc::new).into(),
            times: [Duration::ZERO, Duration::from_millis(7)].into(),
        }
    }

    pub(in crate::cache) fn wanted(identity: &Identity) -> Wanted<'_> {
        Wanted { identity, model: "m", tenant: "t", now: START, max_age: None }
    }

    fn answer(reason: DoneReason, tokens: u64) -> Vec<Arc<Event>> {
        let done = Done { reason, completion_tokens: tokens, ..Done::default() };
        vec![Arc::new(Event::Delta(Delta::default())), Arc::new(Event::Done(done))]
    }

    #[test]
    fn an_answer_is_whole_if_the_model_or_the_request_ended_it() {
        for (limit, reason, tokens, is_kept) in [
            (None, DoneReason::Stop, 3, true),
            (None, DoneReason::Length, 3, false),
            (Some(-1), DoneReason::Length, 3, false),
            (Some(5), DoneReason::Length, 5, true),
            (Some(5), DoneReason::Length, 4, false),
        ] {
            assert_eq!(
                is_whole(&answer(reason, tokens), limit, false),
                is_kept,
                "{limit:?} {reason:?} {tokens}"
            );
        }
        let cut = &answer(DoneReason::Stop, 3)[..1];
        assert!(!is_whole(cut, None, false) && !is_whole(&[], None, false));
    }

    #[test]
    fn tool_calls_are_kept_only_where_that_is_asked_for() {
        let mut events = answer(DoneReason::Stop, 3);
        events.insert(1, Arc::new(Event::ToolCall { call: json!({}), tokens: Vec::new() }));
        assert!(is_whole(&events, None, true) && !is_whole(&events, None, false));
    }

    #[test]
    fn an_entry_answers_its_own_request_while_it_is_young_enough() {
        let (entry, own, other) = (entry("p", "x"), identity("p"), identity("q"));
        let at = |seconds| START + Duration::from_secs(seconds);
        assert!(wanted(&own).takes(&entry) && !wanted(&other).takes(&entry));
        let late = |seconds| Wanted { now: at(seconds), ..wanted(&own) };
        assert!(late(299).takes(&entry) && !late(300).takes(&entry));
        let picky = Wanted { max_age: Some(Duration::from_secs(10)), ..late(10) };
        assert!(picky.takes(&entry) && !Wanted { now: at(11), ..picky }.takes(&entry));
    }
}
