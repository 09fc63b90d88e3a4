//! Canaries: generations of one token, sent to a remote node that has nothing to do. A node that says how loaded it is may be unable
//! to answer all the same; where nobody asks it anything else, this finds out before somebody does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::scout::jittered;
use super::{HealthConfig, Node};
use crate::generation::{Event, Failure, FailureCode, Generation, Input, Message, Options};
use crate::telemetry::Metrics;
use crate::units::duration;
use crate::upstream::{Fault, Upstream};

/// The `canary` of the `health` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CanaryConfig {
    /// Whether there are any.
    pub enabled: bool,
    /// Between two at a node, a tenth more or less.
    #[serde(with = "duration")]
    pub interval: Duration,
    /// What one may take.
    #[serde(with = "duration")]
    pub timeout: Duration,
}

impl Default for CanaryConfig {
    fn default() -> Self {
        Self { enabled: false, interval: Duration::from_secs(30), timeout: Duration::from_secs(10) }
    }
}

/// What there is to find out about a node.
#[derive(Debug, PartialEq)]
enum Due {
    /// It has answered a request of late, which is better evidence.
    Answers,
    /// It has other things to do; what comes of them will tell.
    Later,
    /// None of its models is known to be in its memory, and a canary shall not load one.
    Nothing,
    /// This model, by our name, can be asked.
    Model(String),
}

/// Sends canaries to `node` over and over, while `rules` want any; never ends.
pub(super) async fn keep(
    node: &Arc<Node>,
    upstream: &Upstream,
    rules: impl Fn() -> HealthConfig,
    metrics: &Metrics,
) {
    loop {
        tokio::time::sleep(jittered(rules().canary.interval)).await;
        let health = rules();
        let config = &health.canary;
        if !config.enabled {
            continue;
        }
        let found = match due(node, config.interval, Instant::now()) {
            Due::Later => continue,
            Due::Answers => Some(Ok(())),
            Due::Nothing => None,
            Due::Model(model) => {
                let sung = tokio::time::timeout(config.timeout, sing(node, &model, upstream)).await;
                let found = sung.unwrap_or_else(|_| Err("no token in time".to_owned()));
                let result = if found.is_ok() { "ok" } else { "failed" };
                metrics.canaries.with_label_values(&[&*node.name, result]).inc();
                Some(found)
            }
        };
        let (before, after, reason) = node.health(|known| {
            let before = known.condition();
            known.sung(found, &health);
            (before, known.condition(), known.reason())
        });
        if before != after {
            tracing::warn!(node = %node.name, from = before.as_str(), to = after.as_str(), reason, "health");
            metrics.node_up.with_label_values(&[&node.name]).set(after.is_fit().into());
        }
    }
}

fn due(node: &Node, interval: Duration, now: Instant) -> Due {
    if node.answered_at().is_some_and(|at| now.saturating_duration_since(at) < interval) {
        return Due::Answers;
    }
    let has_work = |count: Option<u64>| count.is_some_and(|count| count > 0);
    let told = node
        .signal(now, |signal| (has_work(signal.active) || has_work(signal.queue), signal.resident.clone()));
    let (is_busy, resident) = told.unwrap_or_default();
    if is_busy || node.in_flight() > 0 || node.condition().is_drained() {
        return Due::Later;
    }
    let model = match resident {
        Some(resident) => resident.iter().find_map(|resident| node.model_of(&resident.name)),
        // Who does not tell has one model, and that in memory.
        None => node.only_model(),
    };
    model.map_or(Due::Nothing, Due::Model)
}

/// Has it say one token. What it refuses with a reason of its own it is there to refuse; the words for the rest.
async fn sing(node: &Arc<Node>, model: &str, upstream: &Upstream) -> Result<(), String> {
    let generation = canary(model);
    let _entered = node.enter(1, 1);
    let answer = async {
        let request = node.protocol.generate(&generation, &node.name_of(model), None);
        let mut exchange = upstream.start(node, request).await?;
        let mut decoder = node.protocol.decoder(&generation);
        loop {
            match exchange.next(&mut *decoder).await? {
                Some(Event::Done(_)) => return Ok(()),
                Some(Event::Error(failure)) => return Err(Fault::Refused(failure)),
                Some(_) => {}
                None => return Err(Fault::Broken("the answer was cut off".to_owned())),
            }
        }
    };
    match answer.await {
        Ok(()) => Ok(()),
        Err(Fault::Refused(Failure { code: FailureCode::Internal, message })) => Err(message),
        Err(fault) if fault.is_answer() => Ok(()),
        Err(fault) => Err(fault.to_string()),
    }
}

fn canary(model: &str) -> Generation {
    let message = Message { content: "Hi".to_owned(), ..Message::default() };
    let options =
        Options { num_predict: Some(1), temperature: Some(0.0), seed: Some(0), ..Options::default() };
    Generation {
        options,
        ..Generation::new(model, Input::Chat { messages: vec![message], tools: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;

    use super::*;
    use crate::node::protocol::Offer;
    use crate::node::{NodeConfig, Resident, Signal};

    const MINUTE: Duration = Duration::from_secs(60);

    /// A node with these models, each of which it calls `their` and the name.
    fn node(models: &[&str]) -> Arc<Node> {
        let config = json!({"name": "box", "url": "http://box", "protocol": "ollama"});
        let config: NodeConfig = serde_json::from_value(config).unwrap();
        let node = Node::remote(&config).unwrap();
        let offer =
            |name: &&str| ((*name).to_owned(), Offer { name: format!("their {name}"), ..Offer::default() });
        node.set_models(models.iter().map(offer).collect::<HashMap<_, _>>());
        Arc::new(node)
    }

    fn signal(resident: Option<&str>, active: u64) -> Signal {
        let resident = resident.map(|name| Resident {
            name: name.into(),
            memory: 0,
            device_memory: 0,
            expires: None,
            context: 0,
        });
        let resident = Some(resident.into_iter().collect());
        Signal { resident, active: Some(active), at: Some(Instant::now()), ..Signal::default() }
    }

    #[test]
    fn a_canary_is_for_a_model_in_memory_of_a_node_without_work() {
        let node = node(&["a", "b"]);
        let due = |signal| {
            node.set_signal(signal);
            super::due(&node, MINUTE, Instant::now())
        };
        assert_eq!(due(signal(Some("their b"), 0)), Due::Model("b".into()));
        assert_eq!(due(signal(Some("their b"), 1)), Due::Later);
        assert_eq!(due(signal(Some("another"), 0)), Due::Nothing);
        assert_eq!(due(signal(None, 0)), Due::Nothing, "nothing is loaded for it");
        assert_eq!(due(Signal::default()), Due::Nothing, "which of two is loaded is not known");
        let running = node.enter(1, 1);
        assert_eq!(due(signal(Some("their b"), 0)), Due::Later);
        drop(running);
        node.answered("a", Duration::ZERO, Instant::now());
        assert_eq!(due(signal(Some("their b"), 0)), Due::Answers);
    }

    #[test]
    fn who_does_not_tell_and_has_one_model_is_asked_for_it() {
        assert_eq!(due(&node(&["a"]), MINUTE, Instant::now()), Due::Model("a".into()));
    }
}
