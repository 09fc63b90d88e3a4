//! [`Command`]: what the tasks that answer requests ask of the thread that computes.

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::embed::EmbedJob;
use super::job::Job;
use super::snapshot::Kept;
use super::vision::Seen;
use crate::generation::seam::{Change, Saved, Settings};
use crate::generation::{Embeddings, Event, Failure};

/// One order. A receiver that is dropped cancels it.
pub enum Command {
    /// Run a job and send its events.
    Generate(Box<Job>, UnboundedSender<Event>),
    /// Embed.
    Embed(EmbedJob, oneshot::Sender<Result<Embeddings, Failure>>),
    /// Change what can be changed; nothing, to learn what is in force.
    Set(Change, oneshot::Sender<Result<Settings, Failure>>),
    /// Save to disk what sequences hold.
    Save(oneshot::Sender<Result<Saved, Failure>>),
    /// What the thread that reads and writes snapshots has done.
    Kept(Kept),
    /// What the thread that encodes images has done.
    Seen(Seen),
    /// End at once; what runs is cut off.
    Stop,
}
