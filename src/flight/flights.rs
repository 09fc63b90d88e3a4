//! [`Flights`]: the flights that can be joined, by what they generate.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::log::{Log, Writer, flight};
use super::reader::Reader;
use crate::generation::Identity;

/// The flights that can be joined. A flight is in here until its writer is gone; one that has ended, or whose last reader has left, is not
/// joined any more, and the next request for the same takes its place.
///
/// One lock for all: it is held for a look-up and a comparison of bytes, half a microsecond for a chat of 8 KB.
#[derive(Clone, Default)]
pub struct Flights(Arc<Mutex<HashMap<Identity, Arc<Log>>>>);

/// How a request takes part in a flight.
pub enum Joined {
    /// It is the first: whoever asked writes.
    Leader(Writer, Reader),
    /// The answer is on its way.
    Follower(Reader),
}

/// A flight's entry in [`Flights`]; dropping it takes the entry out.
pub(super) struct Berth {
    flights: Flights,
    identity: Identity,
    log: Arc<Log>,
}

impl Flights {
    /// Joins the flight that generates the same, or starts one; `None`: one that nobody joins.
    pub fn join(&self, identity: Option<&Identity>) -> Joined {
        let Some(identity) = identity else {
            let (writer, reader) = flight();
            return Joined::Leader(writer, reader);
        };
        let mut flights = self.lock();
        if let Some(reader) = flights.get(identity).and_then(Reader::join) {
            return Joined::Follower(reader);
        }
        let (identity, log) = (identity.clone(), Arc::new(Log::default()));
        let reader = Reader::new(Arc::clone(&log));
        flights.insert(identity.clone(), Arc::clone(&log));
        drop(flights);
        let berth = Berth { flights: self.clone(), identity, log: Arc::clone(&log) };
        Joined::Leader(Writer::new(log, Some(berth)), reader)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identity, Arc<Log>>> {
        // A panic cannot leave the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Berth {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        // Its place may be another's by now.
        if flights.get(&self.identity).is_some_and(|log| Arc::ptr_eq(log, &self.log)) {
            flights.remove(&self.identity);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt as _;
    use proptest::prelude::*;

    use super::*;
    use crate::error::Error;
    use crate::generation::{Delta, Done, Event, Generation, Scope};

    fn identity(prompt: &str) -> Identity {
        let request = serde_json::json!({ "model": "m", "input": { "kind": "raw", "prompt": prompt } });
        let generation: Generation = serde_json::from_value(request).unwrap();
        Identity::of(&generation, Scope::default()).unwrap()
    }

    fn delta(text: &str) -> Event {
        Event::Delta(Delta { text: text.into(), ..Delta::default() })
    }

    fn leader(joined: Joined) -> (Writer, Reader) {
        match joined {
            Joined::Leader(writer, reader) => (writer, reader),
            Joined::Follower(_) => panic!("a follower"),
        }
    }

    fn follower(joined: Joined) -> Reader {
        match joined {
            Joined::Follower(reader) => reader,
            Joined::Leader(..) => panic!("a leader"),
        }
    }

    #[test]
    fn equal_requests_share_a_flight_until_it_has_ended() {
        let (flights, same) = (Flights::default(), identity("a"));
        let (writer, _reader) = leader(flights.join(Some(&same)));
        writer.append(delta("x"));
        let mut late = follower(flights.join(Some(&same)));
        assert!(late.next().now_or_never().unwrap().unwrap().is_some(), "it replays from the start");
        let (_other, _its_reader) = leader(flights.join(Some(&identity("b"))));
        writer.append(Event::Done(Done::default()));
        let (next, _its_reader) = leader(flights.join(Some(&same)));
        drop(writer);
        let _follower = follower(flights.join(Some(&same)));
        drop(next);
        assert_eq!(flights.len(), 1, "that of b");
    }

    #[test]
    fn who_has_no_identity_flies_alone() {
        let flights = Flights::default();
        let _first = leader(flights.join(None));
        let _second = leader(flights.join(None));
        assert!(flights.is_empty());
    }

    #[test]
    fn a_flight_that_its_last_reader_has_left_is_not_joined() {
        let (flights, same) = (Flights::default(), identity("a"));
        let (writer, reader) = leader(flights.join(Some(&same)));
        let follower = follower(flights.join(Some(&same)));
        drop(reader);
        assert!(writer.abandoned().now_or_never().is_none(), "the leader's leaving changes nothing");
        drop(follower);
        let (_next, _its_reader) = leader(flights.join(Some(&same)));
        assert!(writer.abandoned().now_or_never().is_some(), "for good");
        drop(writer);
        assert_eq!(flights.len(), 1, "the first takes only its own entry with it");
    }

    /// Threads that come and go as they like: whoever follows gets a whole answer, for nobody cancels what it reads.
    #[test]
    fn a_follower_is_never_left_alone_whoever_comes_and_goes() {
        let (flights, same, led) = (Flights::default(), identity("a"), AtomicUsize::new(0));
        let start = Barrier::new(4);
        let run = |thread: usize| {
            start.wait();
            for turn in 0..2_000 {
                let leaves = (turn * 7 + thread).is_multiple_of(3);
                match flights.join(Some(&same)) {
                    Joined::Leader(writer, reader) => {
                        led.fetch_add(1, Ordering::Relaxed);
                        writer.append(delta("x"));
                        if leaves {
                            drop(reader);
                        }
                        // As the task of a flight does it.
                        if writer.abandoned().now_or_never().is_none() {
                            writer.append(Event::Done(Done::default()));
                        }
                    }
                    Joined::Follower(reader) if leaves => drop(reader),
                    Joined::Follower(reader) => {
                        let answer = futures::executor::block_on(whole(reader));
                        assert_eq!(answer, Ok("x".to_owned()));
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || run(thread));
            }
        });
        assert!(led.into_inner() > 0 && flights.is_empty());
    }

    async fn whole(mut reader: Reader) -> Result<String, Error> {
        let mut text = String::new();
        while let Some(event) = reader.next().await? {
            if let Event::Delta(delta) = &*event {
                text += &delta.text;
            }
        }
        Ok(text)
    }

    #[derive(Clone, Debug)]
    enum Step {
        Join(usize),
        Leave(prop::sample::Index),
        End(prop::sample::Index),
        Drop(prop::sample::Index),
    }

    proptest! {
        /// Against a list of the flights with those who read them.
        #[test]
        fn one_joins_what_runs_and_is_read_and_nothing_else(steps in prop::collection::vec(prop_oneof![
            4 => (0usize..3).prop_map(Step::Join),
            2 => any::<prop::sample::Index>().prop_map(Step::Leave),
            1 => any::<prop::sample::Index>().prop_map(Step::End),
            1 => any::<prop::sample::Index>().prop_map(Step::Drop),
        ], 0..60)) {
            struct Model { which: usize, writer: Option<Writer>, has_ended: bool, readers: Vec<Reader> }
            let flights = Flights::default();
            let identities = ["a", "b", "c"].map(identity);
            let mut models: Vec<Model> = Vec::new();
            for step in steps {
                match step {
                    Step::Join(which) => {
                        let running = models.iter_mut().find(|model| {
                            model.which == which && !model.has_ended && !model.readers.is_empty()
                        });
                        match (flights.join(Some(&identities[which])), running) {
                            (Joined::Follower(reader), Some(model)) => {
                                prop_assert!(Arc::ptr_eq(reader.log(), model.readers[0].log()));
                                model.readers.push(reader);
                            }
                            (Joined::Leader(writer, reader), None) => models.push(Model {
                                which, writer: Some(writer), has_ended: false, readers: vec![reader],
                            }),
                            (Joined::Follower(_), None) => prop_assert!(false, "joined what does not run"),
                            (Joined::Leader(..), Some(_)) => prop_assert!(false, "did not join what runs"),
                        }
                    }
                    Step::Leave(index) if !models.is_empty() => {
                        let model = index.get(&models).which;
                        let with_readers = models.iter_mut().find(|m| m.which == model && !m.readers.is_empty());
                        with_readers.and_then(|model| model.readers.pop());
                    }
                    Step::End(index) if !models.is_empty() => {
                        let at = index.index(models.len());
                        if let Some(writer) = &models[at].writer {
                            writer.append(Event::Done(Done::default()));
                            models[at].has_ended = true;
                        }
                    }
                    Step::Drop(index) if !models.is_empty() => {
                        let at = index.index(models.len());
                        models[at].writer = None;
                        models[at].has_ended = true;
                    }
                    _ => {}
                }
            }
            models.iter_mut().for_each(|model| model.writer = None);
            prop_assert!(flights.is_empty());
        }
    }
}
