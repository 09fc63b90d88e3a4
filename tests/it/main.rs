//! Integration tests: one binary, which runs the shipped executable. What needs a model to run is left out of a build
//! without the engine.
#![expect(clippy::expect_used, clippy::panic, reason = "what helps a test fails like a test")]

mod cli;
mod executable;
#[cfg(feature = "engine")]
mod lab;
mod layers;
mod packaging;

#[cfg(feature = "engine")]
mod adapters;
#[cfg(feature = "engine")]
mod arrivals;
#[cfg(feature = "engine")]
mod bindings;
#[cfg(feature = "engine")]
mod burst;
#[cfg(feature = "engine")]
mod cache;
#[cfg(feature = "vision")]
mod clients;
#[cfg(feature = "engine")]
mod coalesce;
#[cfg(feature = "engine")]
mod conf;
#[cfg(feature = "engine")]
mod drills;
#[cfg(feature = "engine")]
mod engine_loads_fixtures;
#[cfg(feature = "engine")]
mod extras;
#[cfg(feature = "engine")]
mod fallbacks;
#[cfg(feature = "engine")]
mod fault_lab;
#[cfg(feature = "engine")]
mod faults;
#[cfg(feature = "engine")]
mod fixture;
#[cfg(feature = "engine")]
mod harness;
#[cfg(feature = "engine")]
mod hedges;
#[cfg(feature = "engine")]
mod hostile_files;
#[cfg(feature = "engine")]
mod hostile_templates;
#[cfg(feature = "engine")]
mod http;
#[cfg(feature = "engine")]
mod ladder;
#[cfg(feature = "engine")]
mod likeness;
#[cfg(feature = "vision")]
mod llama_server;
#[cfg(feature = "engine")]
mod load;
#[cfg(feature = "engine")]
mod loops;
#[cfg(feature = "engine")]
mod metrics;
#[cfg(feature = "vision")]
mod mixed_pool;
#[cfg(feature = "engine")]
mod model_cache;
#[cfg(feature = "engine")]
mod nodes;
#[cfg(feature = "engine")]
mod ollama_api;
#[cfg(feature = "engine")]
mod openai_api;
#[cfg(feature = "vision")]
mod png;
#[cfg(feature = "engine")]
mod pool;
#[cfg(feature = "engine")]
mod port;
#[cfg(feature = "engine")]
mod prefetch;
#[cfg(feature = "engine")]
mod readme;
#[cfg(feature = "engine")]
mod reload;
#[cfg(feature = "engine")]
mod resume;
#[cfg(feature = "engine")]
mod sandbox;
#[cfg(feature = "engine")]
mod scheduling;
#[cfg(feature = "engine")]
mod schemas;
#[cfg(feature = "engine")]
mod snapshots;
#[cfg(feature = "engine")]
mod speculation;
#[cfg(feature = "engine")]
mod tools;
#[cfg(feature = "engine")]
mod unknown_fields;
#[cfg(feature = "engine")]
mod valkey;
#[cfg(feature = "vision")]
mod vision;
