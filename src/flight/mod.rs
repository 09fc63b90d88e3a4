//! Flights: a flight is one running generation. It belongs to no client: a task writes events to its log, and any number
//! of readers follow it, each from the start. Pure state; it knows neither nodes nor clients.
//!
//! Two things end a flight early. The last [`Reader`] to leave makes [`Writer::abandoned`] ready, so the task stops within
//! one poll. A [`Writer`] dropped before the end publishes [`Error::Internal`](crate::error::Error::Internal), so no reader ever waits for a task that is
//! gone: cancellation is a state, not a silence.
//!
//! [`Flights`] knows those that can be joined, by what they generate; [`Items`] does the same for what has no events.
//! [`Handles`] lets a client come back to a stream.

mod config;
mod events;
mod flights;
mod handles;
mod items;
mod log;
mod reader;
mod source;

pub use config::{CoalesceConfig, CoalesceMode, CoalesceScope, NoMode};
pub use flights::{Flights, Joined};
pub use handles::{EventId, Handle, Handles, Ids, NoEventId};
pub use items::{Claimed, Duty, Items, Promise};
pub use log::{Keep, Route, Writer, flight, replay};
pub use reader::Reader;
pub use source::Source;
