//! Warm artifacts: what sequences hold is saved to disk when the worker ends, or on request, and restored when a prompt begins
//! like it, also by another process.
//!
//! ```text
//! scheduler ── state (llama.cpp's bytes) ──► Snapshots ── orders ──► keeper, a thread ── store ── format ──► files
//!     ▲                                                                  │                 └ budget
//!     └──────────────────────────── Command::Kept ◄──────────────────────┘
//! ```
//!
//! The thread that computes only copies bytes out of the context and into it. A sequence whose beginning is being loaded waits,
//! as it does for a donor, and the others run.

mod budget;
mod format;
mod key;
mod state;
mod store;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

pub use state::{put, take};

use super::command::Command;
use super::health::Status;
use super::log;
use super::model::Model;
use super::sampling::Token;
use crate::generation::seam::Spec;
use format::Key;
use store::{Found, Store};

/// The weights, in mebibytes, that are computed with for each token: a measure of what reading it costs.
const UNIT: u64 = 1 << 20;

/// What the scheduler knows of snapshots.
pub struct Snapshots {
    store: Arc<Store>,
    orders: Sender<Order>,
}

/// What the keeper is told.
enum Order {
    Load { slot: usize, job: u64, found: Found },
    Save { tokens: Vec<Token>, state: Vec<u8> },
}

/// What the keeper has done.
pub enum Kept {
    /// It has looked for a state.
    Loaded(Loaded),
    /// It has written a snapshot: its tokens and bytes, unless that failed.
    Saved(Option<(u64, u64)>),
}

/// A state for a slot.
pub struct Loaded {
    /// The slot that asked.
    pub slot: usize,
    /// For which of its jobs.
    pub job: u64,
    /// What the state is of.
    pub tokens: Arc<[Token]>,
    /// `None`: it was refused, or is gone.
    pub state: Option<Vec<u8>>,
}

/// The key of what a worker's context will hold, being found out.
pub struct Keying(Receiver<Result<Key, String>>);

impl Keying {
    /// Looks at the model's files in a thread of its own, while the model is loaded. `None`: nothing is to be saved.
    pub fn start(spec: &Spec) -> Option<Self> {
        spec.snapshots.as_ref()?;
        let (send, receive) = channel();
        let spec = spec.clone();
        let look = move || drop(send.send(key::key(&spec)));
        super::spawn("snapshot key", look).ok()?;
        Some(Self(receive))
    }
}

impl Snapshots {
    /// Opens the folder and starts the keeper, which tells what it has done through `commands`. `None`, with a line in the log:
    /// without snapshots.
    pub fn open(model: &Model, key: Keying, status: &Arc<Status>, commands: Sender<Command>) -> Option<Self> {
        let settings = model.spec.snapshots.clone()?;
        let folder = settings.folder.display().to_string();
        let opened = || {
            let key = key.0.recv().map_err(|error| error.to_string())??;
            let cost = model.weights().div_ceil(UNIT);
            let store = Store::open(settings, key, cost, model.can_cut(), status.clone());
            let store = Arc::new(store.map_err(|error| error.to_string())?);
            let (orders, received) = channel();
            let (kept, counted) = (store.clone(), status.clone());
            super::spawn("snapshots", move || keep(&kept, &counted, &received, &commands))?;
            Ok::<_, String>(Self { store, orders })
        };
        let opened = opened();
        if let Err(reason) = &opened {
            log::warn(&format!("no snapshots in {folder}: {reason}"));
        }
        opened.ok()
    }

    /// Has a snapshot loaded for a slot whose sequence starts with `prompt`, if there is one that spares it reading much more than
    /// the `held` tokens that it has or will get otherwise. Whether that is under way.
    pub fn load(&self, slot: usize, job: u64, prompt: &[Token], held: usize) -> bool {
        let found = self.store.find(prompt, held);
        found.is_some_and(|found| self.orders.send(Order::Load { slot, job, found }).is_ok())
    }

    /// Bytes that all snapshots may take.
    pub fn budget(&self) -> u64 {
        self.store.budget()
    }

    /// Whether these cells are worth being saved.
    pub fn lacks(&self, cells: &[Token]) -> bool {
        self.store.lacks(cells)
    }

    /// Has a state saved. Whether that is under way.
    pub fn save(&self, tokens: Vec<Token>, state: Vec<u8>) -> bool {
        self.orders.send(Order::Save { tokens, state }).is_ok()
    }
}

/// Makes the folder that snapshots go to, before the worker gives up the right to. Where that fails it does without.
pub fn prepare(spec: &mut Spec) {
    if let Some(settings) = &spec.snapshots
        && let Err(error) = store::make(&settings.folder)
    {
        log::warn(&format!("no snapshots: cannot make {}: {error}", settings.folder.display()));
        spec.snapshots = None;
    }
}

/// The keeper: reads and writes until nobody gives orders any more.
fn keep(store: &Store, status: &Status, orders: &Receiver<Order>, commands: &Sender<Command>) {
    status.snapshots(|counts| counts.bytes = store.bytes());
    while let Ok(order) = orders.recv() {
        let kept = match order {
            Order::Load { slot, job, found } => {
                let state = store.load(&found);
                Kept::Loaded(Loaded { slot, job, tokens: found.tokens, state })
            }
            Order::Save { tokens, state } => Kept::Saved(save(store, status, &tokens, &state)),
        };
        if commands.send(Command::Kept(kept)).is_err() {
            return;
        }
    }
}

fn save(store: &Store, status: &Status, tokens: &[Token], state: &[u8]) -> Option<(u64, u64)> {
    match store.save(tokens, state) {
        Ok(bytes) => {
            let taken = store.bytes();
            status.snapshots(|counts| {
                counts.saved += 1;
                counts.bytes = taken;
            });
            Some((tokens.len() as u64, bytes))
        }
        Err(error) => {
            status.snapshots(|counts| counts.failed += 1);
            log::warn(&format!("{} tokens are not saved: {error}", tokens.len()));
            None
        }
    }
}
