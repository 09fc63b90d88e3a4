//! [`Items`]: pieces of work that are done once though several wait for them, such as the vector of one text.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::generation::Identity;

/// What is being computed, each piece by one of those who want it. Nobody is answered by somebody else's failure: who waits learns that
/// there will be nothing, and may take the piece on itself.
#[derive(Debug)]
pub struct Items<T>(Arc<Mutex<Begun<T>>>);

type Begun<T> = HashMap<Identity, watch::Receiver<Option<T>>>;

/// Who computes a piece.
pub enum Claimed<T> {
    /// Whoever asked.
    Ours(Duty<T>),
    /// Another one, who has begun.
    Theirs(Promise<T>),
}

/// The duty to compute a piece. Dropping it undone tells those who wait.
pub struct Duty<T> {
    items: Items<T>,
    identity: Identity,
    done: watch::Sender<Option<T>>,
}

/// A piece that another one computes.
pub struct Promise<T>(watch::Receiver<Option<T>>);

impl<T: Clone> Items<T> {
    /// Takes the piece on, unless somebody has.
    pub fn claim(&self, identity: &Identity) -> Claimed<T> {
        match self.lock().entry(identity.clone()) {
            Slot::Occupied(slot) => Claimed::Theirs(Promise(slot.get().clone())),
            Slot::Vacant(slot) => {
                let (done, promise) = watch::channel(None);
                slot.insert(promise);
                Claimed::Ours(Duty { items: self.clone(), identity: identity.clone(), done })
            }
        }
    }
}

impl<T> Items<T> {
    fn lock(&self) -> MutexGuard<'_, Begun<T>> {
        // A panic cannot leave the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Duty<T> {
    /// Hands the piece to all who wait.
    pub fn done(self, piece: T) {
        self.done.send_replace(Some(piece));
    }
}

impl<T> Drop for Duty<T> {
    fn drop(&mut self) {
        self.items.lock().remove(&self.identity);
    }
}

impl<T: Clone> Promise<T> {
    /// The piece, once it is there; `None`: it was given up.
    pub async fn kept(mut self) -> Option<T> {
        let piece = self.0.wait_for(Option::is_some).await.ok()?;
        piece.clone()
    }
}

impl<T> Clone for Items<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Items<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::generation::{Embedding, Scope};

    fn identity(text: &str) -> Identity {
        let request = serde_json::json!({ "model": "m", "inputs": [], "truncate": true });
        let embedding: Embedding = serde_json::from_value(request).unwrap();
        Identity::of_input(&embedding, text, Scope::default()).unwrap()
    }

    fn ours(claimed: Claimed<u32>) -> Duty<u32> {
        match claimed {
            Claimed::Ours(duty) => duty,
            Claimed::Theirs(_) => panic!("another's"),
        }
    }

    fn theirs(claimed: Claimed<u32>) -> Promise<u32> {
        match claimed {
            Claimed::Theirs(promise) => promise,
            Claimed::Ours(_) => panic!("ours"),
        }
    }

    #[test]
    fn a_piece_is_computed_by_one_for_all() {
        let items = Items::default();
        let duty = ours(items.claim(&identity("a")));
        let _other = ours(items.claim(&identity("b")));
        let (early, late) = (theirs(items.claim(&identity("a"))), theirs(items.claim(&identity("a"))));
        let mut early = Box::pin(early.kept());
        assert_eq!((&mut early).now_or_never(), None);
        duty.done(7);
        assert_eq!((early.now_or_never(), late.kept().now_or_never()), (Some(Some(7)), Some(Some(7))));
        let _again = ours(items.claim(&identity("a")));
    }

    #[test]
    fn a_piece_that_was_given_up_is_taken_on_by_one_of_those_who_wait() {
        let items = Items::default();
        let duty = ours(items.claim(&identity("a")));
        let waiting = theirs(items.claim(&identity("a")));
        drop(duty);
        assert_eq!(waiting.kept().now_or_never(), Some(None));
        let _next = ours(items.claim(&identity("a")));
        let _waiting = theirs(items.claim(&identity("a")));
    }
}
