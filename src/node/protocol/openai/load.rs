//! How loaded the servers are that speak OpenAI's API. Each has its own way; what one does not have it answers with a 404.
//!
//! - llama-server: `/slots` (on by default) and, with `--metrics`, `/metrics`
//!   (<https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md>)
//! - vLLM: `/metrics` (<https://docs.vllm.ai/en/latest/usage/metrics.html>)
//! - SGLang: `/metrics` with `--enable-metrics` (<https://docs.sglang.ai/references/production_metrics.html>)

use bytes::Bytes;
use serde::Deserialize;

use crate::node::Signal;
use crate::node::protocol::{Request, prometheus};

pub(super) fn ask() -> Vec<Request> {
    vec![Request::get("/metrics"), Request::get("/slots")]
}

pub(super) fn signal(answers: &[Option<Bytes>]) -> Signal {
    let page = answers.first().and_then(Option::as_deref).and_then(|page| std::str::from_utf8(page).ok());
    let told = page.map(metrics).unwrap_or_default();
    let slots = answers.get(1).and_then(Option::as_deref);
    let Some(slots) = slots.and_then(|body| serde_json::from_slice::<Vec<Slot>>(body).ok()) else {
        return told;
    };
    let active = slots.iter().filter(|slot| slot.is_processing).count() as u64;
    let keeps = slots.iter().map(|slot| slot.n_ctx).sum();
    Signal { active: told.active.or(Some(active)), keeps: Some(keeps).filter(|keeps| *keeps > 0), ..told }
}

/// A slot keeps the cells of its last request.
#[derive(Deserialize)]
struct Slot {
    #[serde(default)]
    is_processing: bool,
    /// Tokens that it has room for.
    #[serde(default)]
    n_ctx: u64,
}

/// The families of each server, which have names of their own.
fn metrics(page: &str) -> Signal {
    let count = |families: [&str; 3]| {
        let found = families.into_iter().find_map(|family| prometheus::sum(page, family));
        found.map(|count| count.max(0.0) as u64)
    };
    let ratios = [
        "vllm:kv_cache_usage_perc",
        "vllm:gpu_cache_usage_perc",
        "sglang:token_usage",
        "llamacpp:kv_cache_usage_ratio",
    ];
    let kv = ratios.into_iter().find_map(|family| prometheus::max(page, family));
    Signal {
        active: count([
            "vllm:num_requests_running",
            "sglang:num_running_reqs",
            "llamacpp:requests_processing",
        ]),
        queue: count(["vllm:num_requests_waiting", "sglang:num_queue_reqs", "llamacpp:requests_deferred"]),
        kv: kv.map(|ratio| ratio.clamp(0.0, 1.0)),
        ..Signal::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(page: &str, slots: Option<&str>) -> Signal {
        signal(&[Some(Bytes::from(page.to_owned())), slots.map(|slots| Bytes::from(slots.to_owned()))])
    }

    #[test]
    fn each_server_is_understood() {
        let vllm = "vllm:num_requests_running{model_name=\"m\"} 3.0\nvllm:num_requests_waiting{model_name=\"m\"} 2.0\n\
                    vllm:kv_cache_usage_perc{engine=\"0\"} 0.25\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.5\n";
        let sglang = "sglang:num_running_reqs{} 3.0\nsglang:num_queue_reqs{} 2.0\nsglang:token_usage{} 0.5\n";
        let llama = "llamacpp:requests_processing 3\nllamacpp:requests_deferred 2\nllamacpp:kv_cache_usage_ratio 0.5\n";
        for page in [vllm, sglang, llama] {
            let signal = told(page, None);
            assert_eq!((signal.active, signal.queue, signal.kv), (Some(3), Some(2), Some(0.5)), "{page}");
        }
    }

    #[test]
    fn slots_tell_what_runs_and_who_tells_nothing_is_unknown() {
        let slots =
            r#"[{"id":0,"n_ctx":512,"is_processing":true},{"id":1,"n_ctx":512,"is_processing":false}]"#;
        let busy = told("", Some(slots));
        assert_eq!((busy.active, busy.keeps), (Some(1), Some(1024)));
        assert_eq!(told("", Some(r#"[{"id":0}]"#)).keeps, None);
        assert_eq!(told("", Some("{\"error\":{}}")), Signal::default());
        assert_eq!(signal(&[None, None]), Signal::default());
    }
}
