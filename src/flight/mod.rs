//! Flights: a flight is one running generation. It belongs to no client: a task writes events to its log, and any number
//! of readers follow it, each from the start. Pure state; it knows neither nodes nor clients.
//!
//! Two things end a flight early. The last [`Reader`] to leave makes [`Writer::abandoned`] ready, so the task stops within
//! one poll. A [`Writer`] dropped before the end publishes [`Error::Internal`](crate::error::Error::Internal), so no reader ever waits for a task that is
//! gone: cancellation is a state, not a silence.

mod events;
mod log;
mod reader;

pub use log::{Keep, Route, Writer, flight, replay};
pub use reader::Reader;
