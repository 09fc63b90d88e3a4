//! What every request pays before a node sees it, and every token after: parsing, the canonical key, routing, rendering.

mod pool;

use std::hint::black_box;
use std::time::Instant;

use arriero::dialect::{self, Endpoint, Spent, Work};
use arriero::flight::Flights;
use arriero::generation::{Delta, Event, FoldConfig, Generation, Identity, Options, Scope};
use arriero::routing::{Digest, Order, StrategyName};
use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// A chat of about `bytes` bytes in either dialect: the fields are the same.
fn chat(bytes: usize) -> Vec<u8> {
    let turn = "The quick brown llama carries forty kilos over the pass and does not complain. ";
    let content = turn.repeat(bytes / turn.len() / 4 + 1);
    let message = |role: &str| serde_json::json!({ "role": role, "content": content });
    let messages = [message("system"), message("user"), message("assistant"), message("user")];
    serde_json::json!({ "model": "demo", "messages": messages, "temperature": 0.2, "stream": true })
        .to_string()
        .into_bytes()
}

fn parsing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    for (name, endpoint) in [("ollama_chat", Endpoint::Chat), ("openai_chat", Endpoint::ChatCompletions)] {
        for size in [500, 8 << 10, 256 << 10] {
            let body = chat(size);
            group.throughput(Throughput::Bytes(body.len() as u64));
            group.bench_function(format!("{name}/{size}"), |bencher| {
                bencher.iter(|| dialect::parse(&endpoint, black_box(&body)).map(drop));
            });
        }
    }
    group.finish();
}

fn hashing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("key");
    for size in [500, 8 << 10] {
        let Ok(call) = dialect::parse(&Endpoint::Chat, &chat(size)) else { return };
        let Work::Generate(generations) = call.work else { return };
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("chat/{size}"), |bencher| {
            bencher.iter(|| Identity::of(black_box(&generations[0]), Scope::default()))
        });
    }
    group.finish();
}

/// What coalescing costs a request that shares with nobody, and one that follows.
fn coalescing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("coalesce");
    let Ok(call) = dialect::parse(&Endpoint::ChatCompletions, &chat(8 << 10)) else { return };
    let Work::Generate(mut generations) = call.work else { return };
    let (fold, defaults) = (FoldConfig::default(), Options::default());
    let mut identify = || {
        let identify = |folded: &Generation| Identity::of(folded, Scope::default());
        fold.folded(black_box(&mut generations[0]), Some(&defaults), identify)
    };
    group.bench_function("fold_and_identify/8192", |bencher| bencher.iter(&mut identify));
    let Ok(identity) = identify() else { return };
    let flights = Flights::default();
    group.bench_function("lead_and_end", |bencher| bencher.iter(|| drop(flights.join(Some(&identity)))));
    let _leader = flights.join(Some(&identity));
    group.bench_function("follow_and_leave", |bencher| bencher.iter(|| drop(flights.join(Some(&identity)))));
    group.finish();
}

fn rendering(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("render_token");
    let event = Event::Delta(Delta { text: " llama".into(), tokens: vec![42], ..Delta::default() });
    let spent = Spent { total: 1_000_000, load: 1, now: time::OffsetDateTime::UNIX_EPOCH };
    for (name, endpoint) in [("ollama_chat", Endpoint::Chat), ("openai_chat", Endpoint::ChatCompletions)] {
        let Ok(mut call) = dialect::parse(&endpoint, &chat(500)) else { return };
        let mut out = BytesMut::with_capacity(4096);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                call.render.event(0, black_box(&event), &spent, &mut out);
                black_box(out.len())
            });
        });
    }
    group.finish();
}

fn digesting(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("digest");
    for size in [500, 8 << 10, 256 << 10] {
        let Ok(call) = dialect::parse(&Endpoint::Chat, &chat(size)) else { return };
        let Work::Generate(generations) = call.work else { return };
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("chat/{size}"), |bencher| {
            bencher.iter(|| Digest::of(black_box(&generations[0])))
        });
    }
    group.finish();
}

/// A decision among 1,000 candidates. `cargo bench --no-default-features --bench simulate -- --decisions` has the quantiles.
fn routing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route_1000");
    let (nodes, digests) = (pool::nodes(1000), pool::digests());
    for name in StrategyName::ALL {
        let strategy = pool::taught(name, &nodes, &digests);
        let (mut order, mut turn) = (Order::default(), digests.iter().cycle());
        group.bench_function(name.as_str(), |bencher| {
            bencher.iter(|| {
                let digest = turn.next()?;
                strategy.rank(black_box(digest), black_box(&nodes), Instant::now(), &mut order);
                black_box(order.take())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, parsing, hashing, coalescing, digesting, routing, rendering);
criterion_main!(benches);
