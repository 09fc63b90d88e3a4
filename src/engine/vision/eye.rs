//! [`Eye`]: the thread that encodes pictures, one after the other, while the scheduler goes on computing text.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use tokio::sync::mpsc::{UnboundedSender, WeakUnboundedSender};

use super::Picture;
use crate::engine::command::Command;
use crate::engine::model::Model;
use crate::generation::Event;

/// Bytes of vectors that are kept, so that an image that comes again after its cells are gone is not encoded again. A picture takes
/// some megabytes.
const KEPT: usize = 128 << 20;

/// Where pictures are sent to be encoded.
pub struct Eye(Sender<Look>);

struct Look {
    slot: usize,
    job: u64,
    picture: Arc<Picture>,
    /// Gone once nobody waits for it any more.
    listener: WeakUnboundedSender<Event>,
}

/// A picture that was looked at.
pub struct Seen {
    /// The slot that asked.
    pub slot: usize,
    /// For which of its jobs.
    pub job: u64,
    /// Whether it has its vectors now; else why not, in words.
    pub result: Result<(), String>,
}

impl Eye {
    /// Starts the thread, which tells what it has done through `commands`. `None`: the model sees nothing.
    pub fn open(model: &Arc<Model>, commands: Sender<Command>) -> Result<Option<Self>, String> {
        if model.vision.is_none() {
            return Ok(None);
        }
        let (orders, received) = channel();
        let model = model.clone();
        crate::engine::spawn("eye", move || watch(&model, &received, &commands))?;
        Ok(Some(Self(orders)))
    }

    /// Has a picture encoded for a slot, to whose sequence somebody listens. Whether that is under way.
    pub fn look(
        &self,
        slot: usize,
        job: u64,
        picture: Arc<Picture>,
        listener: &UnboundedSender<Event>,
    ) -> bool {
        let listener = listener.downgrade();
        self.0.send(Look { slot, job, picture, listener }).is_ok()
    }
}

/// Encodes until nobody asks any more.
fn watch(model: &Model, orders: &Receiver<Look>, commands: &Sender<Command>) {
    let mut kept = Memory::default();
    while let Ok(Look { slot, job, picture, listener }) = orders.recv() {
        let is_awaited = listener.upgrade().is_some_and(|listener| !listener.is_closed());
        let result = if is_awaited { see(model, &picture, &mut kept) } else { Ok(()) };
        if commands.send(Command::Seen(Seen { slot, job, result })).is_err() {
            return;
        }
    }
}

fn see(model: &Model, picture: &Picture, kept: &mut Memory) -> Result<(), String> {
    if picture.vectors().is_some() {
        return Ok(());
    }
    let vectors = match kept.recall(picture.identity()) {
        Some(vectors) => vectors,
        None => {
            let Some(vision) = &model.vision else { return Err("the model does not see images".to_owned()) };
            let vectors: Arc<[f32]> = vision.projector.encode(picture.chunk())?.into();
            kept.keep(*picture.identity(), vectors.clone());
            vectors
        }
    };
    picture.encoded(vectors);
    Ok(())
}

/// What was encoded last, by identity; the latest used last.
#[derive(Default)]
struct Memory(VecDeque<([u8; 32], Arc<[f32]>)>);

impl Memory {
    fn recall(&mut self, identity: &[u8; 32]) -> Option<Arc<[f32]>> {
        let place = self.0.iter().position(|(own, _)| own == identity)?;
        let entry = self.0.remove(place)?;
        let vectors = entry.1.clone();
        self.0.push_back(entry);
        Some(vectors)
    }

    /// Keeps `vectors`, and of the others what fits beside them.
    fn keep(&mut self, identity: [u8; 32], vectors: Arc<[f32]>) {
        self.0.push_back((identity, vectors));
        let bytes = |entries: &VecDeque<([u8; 32], Arc<[f32]>)>| {
            entries.iter().map(|(_, vectors)| size_of_val(&**vectors)).sum::<usize>()
        };
        while self.0.len() > 1 && bytes(&self.0) > KEPT {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_is_forgotten_first() {
        let third: Arc<[f32]> = vec![0.0; KEPT / 4 / 3].into();
        let mut memory = Memory::default();
        for id in 1..=3 {
            memory.keep([id; 32], third.clone());
        }
        assert!(memory.recall(&[1; 32]).is_some());
        memory.keep([4; 32], third.clone());
        assert!(memory.recall(&[2; 32]).is_none());
        assert!([1, 3, 4].iter().all(|&id| memory.recall(&[id; 32]).is_some()));
        memory.keep([5; 32], vec![0.0; KEPT].into());
        assert!(memory.recall(&[5; 32]).is_some(), "the latest stays however large");
        assert!(memory.recall(&[4; 32]).is_none());
    }
}
