//! JSON as the mirrored servers read and write it: Go's `encoding/json`, whose leniency clients rely on.
//!
//! `read` parses a body, `object!` declares what is in it; `write` has the escaping writer. Uses `error` and nothing else.

mod object;
mod read;
mod rest;
mod write;

pub(super) use object::{Integer, Object, deserialize, object};
pub(super) use read::read;
pub(super) use rest::Rest;
pub(super) use write::{Time, finite, list, number, numbers, optional, string, time, to_vec, value};
