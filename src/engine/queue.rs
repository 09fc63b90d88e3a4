//! [`Queue`]: who waits for a slot: requests that came, and sequences that were paused. Pure state.

use tokio::sync::mpsc::UnboundedSender;

use super::adapters::Adapter;
use super::job::Job;
use super::paused::Paused;
use super::sampling::Token;
use crate::generation::{Event, Priority};
use crate::units::line::{Line, Next, Turn};

/// Beginnings are told apart in pieces of so many tokens: what all prompts of a model begin with makes no group.
const PIECE: usize = 32;

/// One that waits.
pub enum Waiting {
    /// A request that has not run yet, and where its events go.
    New(Box<Job>, UnboundedSender<Event>),
    /// A sequence that ran.
    Paused(Box<Paused>),
}

impl Waiting {
    /// What its cells have to hold before it generates.
    pub fn prompt(&self) -> &[Token] {
        match self {
            Self::New(job, _) => &job.prompt.tokens,
            Self::Paused(paused) => paused.tokens(),
        }
    }

    /// What they are computed with.
    pub fn adapter(&self) -> Option<Adapter> {
        match self {
            Self::New(job, _) => job.adapter,
            Self::Paused(paused) => paused.sequence.adapter(),
        }
    }

    fn is_abandoned(&self) -> bool {
        match self {
            Self::New(_, events) => events.is_closed(),
            Self::Paused(paused) => paused.sequence.is_abandoned(),
        }
    }
}

/// The most urgent first; among those, whose prompt begins like what is in memory; then the oldest. [`Line`] lets nobody starve.
#[derive(Default)]
pub struct Queue(Line<Priority, Waiting>);

impl Queue {
    /// A request has come.
    pub fn push(&mut self, job: Box<Job>, events: UnboundedSender<Event>) {
        self.0.push(job.priority, Waiting::New(job, events));
    }

    /// A sequence was paused.
    pub fn put_back(&mut self, turn: Turn<Priority>, paused: Paused) {
        self.0.put_back(turn, Waiting::Paused(Box::new(paused)));
    }

    /// Who is next. `held` says how many tokens of its prompt are in memory or about to be.
    pub fn next(&self, held: impl Fn(&Waiting) -> usize) -> Option<(Next, &Waiting)> {
        self.0.next(|waiting| held(waiting) / PIECE)
    }

    /// Takes who is next out of the queue.
    pub fn take(&mut self, next: Next) -> Option<(Turn<Priority>, Waiting)> {
        self.0.take(next)
    }

    /// Forgets those to whom nobody listens any more.
    pub fn forget_abandoned(&mut self) {
        self.0.retain(|waiting| !waiting.is_abandoned());
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Nobody waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    fn push(queue: &mut Queue, priority: &str, prompt: &[Token]) -> UnboundedReceiver<Event> {
        let (events, received) = unbounded_channel();
        let job = Job { priority: priority.parse().unwrap(), ..Job::of(prompt) };
        queue.push(Box::new(job), events);
        received
    }

    fn take(queue: &mut Queue, held: &[Token]) -> Vec<Token> {
        let common = |waiting: &Waiting| {
            waiting.prompt().iter().zip(held).take_while(|(one, other)| one == other).count()
        };
        let next = queue.next(common).unwrap().0;
        queue.take(next).unwrap().1.prompt().to_vec()
    }

    #[test]
    fn of_equally_urgent_ones_those_that_begin_like_what_is_held_go_together() {
        let (one, other): (Vec<Token>, Vec<Token>) = ((0..100).collect(), (500..600).collect());
        let mut queue = Queue::default();
        let _events: Vec<_> =
            [("low", &other), ("normal", &other), ("normal", &one), ("normal", &other), ("normal", &one)]
                .map(|(priority, prompt)| push(&mut queue, priority, prompt))
                .into();
        let order: Vec<_> = (0..5).map(|_| take(&mut queue, &one)).collect();
        assert_eq!(order, [&one, &one, &other, &other, &other].map(Vec::clone));
        assert!(queue.is_empty());
    }

    #[test]
    fn what_every_prompt_begins_with_changes_no_order() {
        let mut queue = Queue::default();
        let _events = [[1, 2], [1, 3]].map(|prompt| push(&mut queue, "normal", &prompt));
        assert_eq!(take(&mut queue, &[1, 3]), [1, 2]);
    }

    #[test]
    fn who_left_waits_no_more() {
        let mut queue = Queue::default();
        drop(push(&mut queue, "normal", &[1]));
        let _stays = push(&mut queue, "normal", &[2]);
        queue.forget_abandoned();
        assert_eq!(take(&mut queue, &[]), [2]);
        assert!(queue.is_empty());
    }
}
