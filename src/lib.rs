//! Arriero: a sidecar in front of co-located llama.cpp workers, and a drop-in for Ollama-style and OpenAI-style endpoints.
//!
//! The way of a request, the layers and the words are in ARCHITECTURE.md. The library exists for the binary, the tests and
//! the benches; it makes no promise of a stable API.

pub mod admin;
pub mod admission;
pub mod breaker;
pub mod cache;
pub mod cli;
pub mod config;
pub mod dialect;
pub mod dispatch;
#[cfg(feature = "engine")]
pub mod engine;
pub mod error;
pub mod flight;
pub mod generation;
pub mod gguf;
pub mod library;
pub mod node;
pub mod proxy;
pub mod routing;
pub mod server;
pub mod telemetry;
pub mod units;
pub mod upstream;
pub mod worker;
