//! Models that the configuration has no longer, or otherwise.

use serde_json::{Value, json};

use super::*;
use crate::generation::seam::{State, Vitals};
use crate::library::{Library, ModelConfig};
use crate::worker::action::{Ending, Start};

/// A library with models that come and go, a residency, and what it wants done.
struct Stage {
    library: Library,
    residency: Residency,
    now: Instant,
    events: Vec<String>,
    spawned: Vec<Start>,
}

fn section(more: Value) -> ModelConfig {
    let mut section = json!({"path": "/m.gguf"});
    section.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(section).unwrap()
}

impl Stage {
    /// With the model `m`.
    fn new(config: WorkersConfig) -> Self {
        Self {
            library: Library::open([("m".to_owned(), section(json!({})))], "/".as_ref()),
            residency: Residency::new(config, "/run/x".into()),
            now: Instant::now(),
            events: Vec::new(),
            spawned: Vec::new(),
        }
    }

    fn model(&self) -> Arc<Model> {
        self.library.resolve("m").unwrap().unwrap().model
    }

    /// Another section for `m`; without one it is gone.
    fn renew(&mut self, more: Option<Value>) -> &mut Self {
        let renewed = self.library.renew(more.map(|more| ("m".to_owned(), section(more))));
        self.act(|residency, _| residency.renew(residency.config.clone(), &renewed))
    }

    fn act(&mut self, act: impl FnOnce(&mut Residency, Instant)) -> &mut Self {
        act(&mut self.residency, self.now);
        for action in self.residency.settle(self.now) {
            let event = match action {
                Action::Spawn(start) => {
                    self.spawned.push(start.clone());
                    format!("spawn {}", start.node.name)
                }
                Action::Admit(start) => format!("admit {}", start.node.name),
                Action::Withdraw(start) => format!("withdraw {}", start.node.name),
                Action::Evicted(_, eviction) => format!("evict {}", eviction.as_str()),
                _ => continue,
            };
            self.events.push(event);
        }
        self
    }

    /// A request that holds `model`.
    fn request(&mut self, model: &Arc<Model>) -> &mut Self {
        self.act(|residency, now| {
            residency.hold(model, None);
            residency.ask(model, None, now);
        })
    }

    fn release(&mut self, model: &Arc<Model>) -> &mut Self {
        self.act(|residency, now| residency.release(model, true, now))
    }

    /// The worker that was spawned as this one in order, from 0, is ready.
    fn ready(&mut self, spawned: usize) -> &mut Self {
        let incarnation = self.spawned[spawned].node.incarnation;
        let health = Vitals { state: State::Ready, progress: 1.0, ..Vitals::default() };
        self.act(|residency, now| {
            residency.report(incarnation, Report::Vitals(Box::new(health)), now);
        })
    }

    fn gone(&mut self, spawned: usize) -> &mut Self {
        let incarnation = self.spawned[spawned].node.incarnation;
        let exit = Exit { ending: Ending::Killed, reason: "killed".to_owned() };
        self.act(|residency, now| residency.gone(incarnation, exit, now))
    }

    /// What happened since the last call.
    fn events(&mut self) -> String {
        std::mem::take(&mut self.events).join(", ")
    }
}

#[test]
fn who_holds_the_old_edition_keeps_its_workers_and_others_get_the_new_one() {
    let mut stage = Stage::new(WorkersConfig::default());
    let old = stage.model();
    stage.request(&old).ready(0).renew(Some(json!({"parallel": 2})));
    assert_eq!(stage.events(), "spawn m-0, admit m-0", "the old one stays");
    let new = stage.model();
    stage.request(&new).ready(1);
    assert_eq!(stage.events(), "spawn m-1, admit m-1", "no two workers have one name");
    let editions: Vec<_> = stage.spawned.iter().map(|start| start.node.edition).collect();
    assert_eq!(editions, [old.edition(), new.edition()]);
    stage.release(&old);
    assert_eq!(stage.events(), "evict changed, withdraw m-0");
    stage.gone(0);
    assert_eq!(stage.residency.residents().count(), 1);
    stage.renew(Some(json!({"parallel": 3})));
    let newest = stage.model();
    stage.request(&newest);
    assert_eq!(stage.events(), "spawn m-0", "the number is free again");
}

#[test]
fn an_idle_model_leaves_with_its_section_and_is_not_let_back() {
    let mut stage = Stage::new(WorkersConfig::default());
    let old = stage.model();
    stage.request(&old).ready(0).release(&old).renew(None);
    assert_eq!(stage.events(), "spawn m-0, admit m-0, evict changed, withdraw m-0");
    stage.ready(0).gone(0);
    assert_eq!((stage.events().as_str(), stage.residency.residents().count()), ("", 0));
}

#[test]
fn a_load_that_requests_wait_for_goes_on_and_one_that_nobody_waits_for_ends() {
    let mut stage = Stage::new(WorkersConfig::default());
    let old = stage.model();
    stage.request(&old).renew(None).ready(0);
    assert_eq!(stage.events(), "spawn m-0, admit m-0");
    stage.release(&old).gone(0).renew(Some(json!({"preload": true})));
    let new = stage.model();
    stage.act(|residency, now| residency.preload(&new, now)).renew(None);
    assert_eq!(stage.events(), "evict changed, withdraw m-0, spawn m-0, evict changed");
}

#[test]
fn a_retired_worker_that_dies_is_replaced_for_those_who_hold_it() {
    let mut stage = Stage::new(WorkersConfig::default());
    let old = stage.model();
    stage.request(&old).ready(0).renew(None).gone(0).ready(1);
    assert_eq!(stage.events(), "spawn m-0, admit m-0, withdraw m-0, spawn m-0, admit m-0");
    stage.release(&old).gone(1);
    assert_eq!(stage.residency.residents().count(), 0);
}

#[test]
fn a_pin_and_a_preload_end_with_their_section_and_the_new_edition_waits_for_room() {
    let mut stage = Stage::new(WorkersConfig { max_loaded: 1, ..WorkersConfig::default() });
    stage.renew(Some(json!({"pin": true, "preload": true, "threads": 1})));
    let old = stage.model();
    stage.request(&old).ready(0).renew(Some(json!({"pin": true, "preload": true, "threads": 2}))).events();
    let new = stage.model();
    stage.request(&new);
    assert!(matches!(stage.residency.ask(&new, Some(0), stage.now), Answer::Wait { .. }), "not turned away");
    assert_eq!(stage.events(), "");
    stage.release(&old).gone(0);
    assert_eq!(stage.events(), "evict changed, withdraw m-0, spawn m-1");
}

#[test]
fn what_the_proxy_goes_by_changes_under_a_worker_that_stays() {
    let mut stage = Stage::new(WorkersConfig::default());
    let old = stage.model();
    stage.request(&old).ready(0).release(&old).events();
    stage.renew(Some(json!({"keep_alive": "1h", "aliases": ["other"]})));
    stage.now += Duration::from_secs(3000);
    stage.act(|_, _| ());
    assert_eq!(stage.events(), "");
    let workers = WorkersConfig { keep_alive: KeepAlive::For(Duration::from_secs(1)), ..Default::default() };
    stage.act(|residency, _| residency.renew(workers.clone(), &[]));
    assert_eq!(stage.events(), "", "the model has one of its own");
    stage.renew(Some(json!({})));
    assert_eq!(stage.events(), "evict idle, withdraw m-0");
}
