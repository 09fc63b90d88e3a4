use serde_json::{Value, json};

use super::*;
use crate::generation::seam::{State, Vitals};
use crate::library::Library;
use crate::worker::action::{Ending, Instruction};

const SECOND: Duration = Duration::from_secs(1);

/// A residency, its clock, and what happened.
struct Stage {
    residency: Residency,
    now: Instant,
    events: Vec<String>,
    /// The node of each spawn, by name.
    nodes: BTreeMap<String, Arc<Node>>,
}

impl Stage {
    fn new(config: WorkersConfig) -> Self {
        Self {
            residency: Residency::new(config, PathBuf::from("/run/x")),
            now: Instant::now(),
            events: Vec::new(),
            nodes: BTreeMap::new(),
        }
    }

    fn after(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self.act(|_, _| ())
    }

    fn act(&mut self, act: impl FnOnce(&mut Residency, Instant)) -> &mut Self {
        act(&mut self.residency, self.now);
        for action in self.residency.settle(self.now) {
            let event = match action {
                Action::Spawn(start) => {
                    let name = start.node.name.to_string();
                    self.nodes.insert(name.clone(), start.node);
                    format!("spawn {name}")
                }
                Action::Instruct(incarnation, instruction) => {
                    let node = self.nodes.values().find(|node| node.incarnation == incarnation);
                    let verb = match instruction {
                        Instruction::Stop(_) => "stop",
                        Instruction::Kill => "kill",
                        Instruction::Probe => "probe",
                    };
                    format!("{verb} {}", node.unwrap().name)
                }
                Action::Admit(start) => format!("admit {}", start.node.name),
                Action::Withdraw(start) => format!("withdraw {}", start.node.name),
                Action::Lost(_, ending, _) => format!("lost {}", ending.as_str()),
                Action::Evicted(model, eviction) => format!("evict {} {}", model.name, eviction.as_str()),
                Action::Loaded(..) | Action::LoadFailed(..) | Action::Snapshots(..) => continue,
                Action::Weigh(..) | Action::Remember(_) | Action::Refused(..) => continue,
                Action::Progressed(..) | Action::Swapped(_) | Action::Expect(_) | Action::Preloaded(..) => {
                    continue;
                }
            };
            self.events.push(event);
        }
        self
    }

    fn ask(&mut self, model: &Arc<Model>, failures: Option<u64>) -> Answer {
        let mut answer = None;
        self.act(|residency, now| answer = Some(residency.ask(model, failures, now)));
        answer.unwrap()
    }

    /// A request that uses the model from now on.
    fn request(&mut self, model: &Arc<Model>) -> &mut Self {
        self.act(|residency, _| residency.hold(model, None));
        self.ask(model, None);
        self
    }

    fn release(&mut self, model: &Arc<Model>) -> &mut Self {
        self.act(|residency, now| residency.release(model, true, now))
    }

    fn incarnation(&self, worker: &str) -> u64 {
        self.nodes[worker].incarnation
    }

    fn report(&mut self, worker: &str, report: Report) -> &mut Self {
        let incarnation = self.incarnation(worker);
        self.act(|residency, now| {
            residency.report(incarnation, report, now);
        })
    }

    fn vitals(&mut self, worker: &str, state: State, progress: f32) -> &mut Self {
        self.report(worker, Report::Vitals(Box::new(Vitals { state, progress, ..Vitals::default() })))
    }

    fn ready(&mut self, worker: &str) -> &mut Self {
        self.vitals(worker, State::Ready, 1.0)
    }

    fn gone(&mut self, worker: &str) -> &mut Self {
        self.ended(worker, Ending::Killed, "killed")
    }

    fn gave_up(&mut self, worker: &str) -> &mut Self {
        self.ended(worker, Ending::Exited, "bad file")
    }

    fn ended(&mut self, worker: &str, ending: Ending, reason: &str) -> &mut Self {
        let incarnation = self.incarnation(worker);
        let exit = Exit { ending, reason: reason.to_owned() };
        self.act(|residency, now| residency.gone(incarnation, exit, now))
    }

    /// What happened since the last call.
    fn events(&mut self) -> String {
        std::mem::take(&mut self.events).join(", ")
    }
}

fn model(name: &str, section: Value) -> Arc<Model> {
    let mut config = json!({"path": "/m.gguf"});
    config.as_object_mut().unwrap().extend(section.as_object().unwrap().clone());
    let library = Library::open([(name.to_owned(), serde_json::from_value(config).unwrap())], "/".as_ref());
    library.resolve(name).unwrap().unwrap().model
}

fn at_work(busy: usize, last_decode_ms: Option<u64>, work: u64) -> Report {
    let vitals =
        Vitals { state: State::Ready, progress: 1.0, busy, last_decode_ms, work, ..Vitals::default() };
    Report::Vitals(Box::new(vitals))
}

fn plain(name: &str) -> Arc<Model> {
    model(name, json!({}))
}

#[test]
fn two_simultaneous_first_requests_load_once() {
    let (m, mut stage) = (plain("m"), Stage::new(WorkersConfig::default()));
    stage.request(&m).request(&m);
    assert_eq!(stage.events(), "spawn m-0");
    stage.ready("m-0");
    assert_eq!(stage.events(), "admit m-0");
    assert!(matches!(stage.ask(&m, Some(0)), Answer::Ready));
}

#[test]
fn a_client_that_leaves_does_not_abort_its_load() {
    let (m, mut stage) = (plain("m"), Stage::new(WorkersConfig::default()));
    stage.request(&m).release(&m).after(SECOND).ready("m-0");
    assert_eq!(stage.events(), "spawn m-0, admit m-0");
    stage.after(300 * SECOND);
    assert_eq!(stage.events(), "evict m idle, withdraw m-0, stop m-0");
}

#[test]
fn a_load_that_fails_reaches_all_who_wait_and_those_who_come_during_the_hold_off() {
    let (m, mut stage) = (plain("m"), Stage::new(WorkersConfig::default()));
    stage.request(&m);
    let Answer::Wait { failures, changed } = stage.ask(&m, None) else { panic!("must wait") };
    stage.gave_up("m-0");
    assert!(changed.has_changed().unwrap());
    let expected = Error::LoadFailed { model: "m".to_owned(), reason: "bad file".to_owned() };
    assert!(matches!(stage.ask(&m, Some(failures)), Answer::Failed(error) if error == expected));
    assert!(matches!(stage.ask(&m, None), Answer::Failed(error) if error == expected));
    assert_eq!(stage.events(), "spawn m-0");
    stage.after(Duration::from_millis(500));
    assert_eq!(stage.events(), "", "nobody asked");
    assert!(matches!(stage.ask(&m, None), Answer::Wait { .. }));
    assert_eq!(stage.events(), "spawn m-0");
    stage.gave_up("m-0").after(Duration::from_millis(999));
    assert!(matches!(stage.ask(&m, None), Answer::Failed(_)), "the hold-off has doubled");
}

#[test]
fn a_worker_killed_once_while_it_loads_is_replaced_and_killed_again_it_fails() {
    let (m, mut stage) = (plain("m"), Stage::new(WorkersConfig::default()));
    stage.request(&m).gone("m-0");
    assert!(matches!(stage.ask(&m, Some(0)), Answer::Wait { .. }));
    assert_eq!(stage.events(), "spawn m-0, lost killed, spawn m-0");
    stage.gone("m-0");
    assert!(matches!(stage.ask(&m, Some(0)), Answer::Failed(Error::LoadFailed { .. })));
}

#[test]
fn a_worker_killed_while_it_served_and_its_replacement_while_it_loads_come_back_all_the_same() {
    let (m, mut stage) = (plain("m"), Stage::new(WorkersConfig::default()));
    stage.request(&m).ready("m-0").gone("m-0").gone("m-0");
    assert!(matches!(stage.ask(&m, Some(0)), Answer::Wait { .. }));
    stage.after(SECOND / 2).ready("m-0");
    assert!(matches!(stage.ask(&m, Some(0)), Answer::Ready));
    stage.gone("m-0").after(SECOND).gone("m-0");
    assert!(matches!(stage.ask(&m, Some(0)), Answer::Wait { .. }), "it was ready in between");
}

#[test]
fn a_worker_that_gives_a_reason_is_not_tried_again_for_those_who_wait() {
    let (m, mut stage) = (plain("m"), Stage::new(WorkersConfig::default()));
    stage.request(&m).gave_up("m-0");
    assert!(matches!(stage.ask(&m, Some(0)), Answer::Failed(Error::LoadFailed { .. })));
    assert_eq!(stage.events(), "spawn m-0");
}

#[test]
fn a_load_times_out_only_without_progress() {
    let (m, mut stage) = (plain("m"), Stage::new(WorkersConfig::default()));
    stage.request(&m);
    for step in 1..=3 {
        stage.after(299 * SECOND).vitals("m-0", State::Loading, step as f32 / 10.0);
    }
    assert_eq!(stage.residency.next_wake(stage.now), Some(stage.now + 300 * SECOND));
    stage.after(299 * SECOND).vitals("m-0", State::Loading, 0.3);
    assert_eq!(stage.events(), "spawn m-0");
    stage.after(SECOND);
    assert_eq!(stage.events(), "kill m-0");
    stage.gone("m-0");
    assert!(matches!(stage.ask(&m, Some(0)), Answer::Failed(Error::LoadTimeout { .. })));
}

#[test]
fn a_load_without_a_timeout_takes_as_long_as_it_takes() {
    let config = WorkersConfig { load_timeout: Duration::ZERO, ..WorkersConfig::default() };
    let (m, mut stage) = (plain("m"), Stage::new(config));
    stage.request(&m).after(100_000 * SECOND);
    assert_eq!(stage.events(), "spawn m-0");
    assert_eq!(stage.residency.next_wake(stage.now), None);
}

#[test]
fn a_worker_in_use_that_dies_is_replaced_at_once_and_then_with_backoff() {
    let (m, mut stage) = (plain("m"), Stage::new(WorkersConfig::default()));
    stage.request(&m).ready("m-0");
    let first = stage.incarnation("m-0");
    stage.gone("m-0");
    assert_eq!(stage.events(), "spawn m-0, admit m-0, withdraw m-0, lost killed, spawn m-0");
    assert_ne!(stage.incarnation("m-0"), first);
    stage.ready("m-0").gone("m-0");
    assert_eq!(stage.events(), "admit m-0, withdraw m-0, lost killed");
    assert!(matches!(stage.ask(&m, None), Answer::Wait { .. }), "half a second is worth waiting");
    assert_eq!(stage.residency.next_wake(stage.now), Some(stage.now + SECOND / 2));
    stage.after(SECOND / 2);
    assert_eq!(stage.events(), "spawn m-0");
    stage.ready("m-0").after(30 * SECOND).gone("m-0");
    assert_eq!(stage.events(), "admit m-0, withdraw m-0, lost killed, spawn m-0", "it had lived long enough");
}

#[test]
fn a_worker_that_keeps_dying_is_reported_to_those_who_wait() {
    let (m, mut stage) = (plain("m"), Stage::new(WorkersConfig::default()));
    stage.request(&m);
    for _ in 0..5 {
        assert!(matches!(stage.ask(&m, Some(0)), Answer::Wait { .. }));
        stage.ready("m-0").gone("m-0").after(4 * SECOND);
    }
    let Answer::Failed(error) = stage.ask(&m, Some(0)) else { panic!("must fail") };
    assert_eq!(error.to_string(), "model 'm' failed to load: its worker keeps dying: killed");
}

#[test]
fn an_idle_worker_that_dies_comes_back_by_itself_only_if_the_model_is_kept() {
    for (section, expected) in
        [(json!({}), ""), (json!({"pin": true}), ", spawn m-0"), (json!({"preload": true}), ", spawn m-0")]
    {
        let (m, mut stage) = (model("m", section), Stage::new(WorkersConfig::default()));
        stage.request(&m).ready("m-0").release(&m).events();
        stage.gone("m-0");
        assert_eq!(stage.events(), format!("withdraw m-0, lost killed{expected}"));
        stage.request(&m);
        assert_eq!(stage.incarnation("m-0"), 2);
    }
}

#[test]
fn a_suspect_takes_nothing_until_a_probe_clears_it() {
    let (m, mut stage) = (plain("m"), Stage::new(WorkersConfig::default()));
    stage.request(&m).ready("m-0").events();
    let node = Arc::clone(&stage.nodes["m-0"]);
    stage.act(|residency, _| residency.suspect(&node));
    assert_eq!(stage.events(), "withdraw m-0, probe m-0");
    assert!(matches!(stage.ask(&m, None), Answer::Wait { .. }));
    stage.ready("m-0");
    assert_eq!(stage.events(), "admit m-0");
    stage.act(|residency, _| residency.suspect(&node)).report("m-0", Report::Missed);
    assert_eq!(stage.events(), "withdraw m-0, probe m-0, kill m-0");
    stage.gone("m-0");
    assert_eq!(stage.events(), "lost unresponsive, spawn m-0");
    stage.ready("m-0").events();
    stage.act(|residency, _| residency.suspect(&node));
    assert_eq!(stage.events(), "", "the replacement is not the suspect");
}

#[test]
fn three_missed_probes_in_a_row_are_the_end() {
    let (m, mut stage) = (plain("m"), Stage::new(WorkersConfig::default()));
    stage.request(&m).report("m-0", Report::Missed).ready("m-0").events();
    stage.report("m-0", Report::Missed).report("m-0", Report::Missed).ready("m-0");
    stage.report("m-0", Report::Missed).report("m-0", Report::Missed);
    assert_eq!(stage.events(), "");
    stage.report("m-0", Report::Missed);
    assert_eq!(stage.events(), "withdraw m-0, kill m-0");
}

#[test]
fn a_worker_with_work_that_decodes_nothing_for_a_minute_is_replaced() {
    let (m, mut stage) = (plain("m"), Stage::new(WorkersConfig::default()));
    // It computes all the time.
    let mut work = 0;
    let mut vitals = |busy, last_decode_ms| {
        work += 60_000;
        at_work(busy, last_decode_ms, work)
    };
    stage.request(&m).ready("m-0").events();
    stage.after(100 * SECOND).report("m-0", vitals(0, Some(100_000)));
    stage.after(SECOND).report("m-0", vitals(1, Some(101_000)));
    stage.after(59 * SECOND).report("m-0", vitals(1, Some(160_000)));
    assert_eq!(stage.events(), "", "idle time does not count");
    stage.after(SECOND).report("m-0", vitals(1, Some(100)));
    stage.after(59 * SECOND).report("m-0", vitals(1, Some(59_100)));
    assert_eq!(stage.events(), "", "it has decoded in between");
    stage.after(SECOND).report("m-0", vitals(1, Some(60_100)));
    assert_eq!(stage.events(), "withdraw m-0, kill m-0");
    stage.gone("m-0");
    assert_eq!(stage.events(), "lost unresponsive, spawn m-0");
    stage.ready("m-0").report("m-0", vitals(1, None)).after(60 * SECOND).events();
    stage.report("m-0", vitals(1, None));
    assert_eq!(stage.events(), "withdraw m-0, kill m-0", "a first decode that never ends");
}

#[test]
fn a_worker_with_work_that_does_not_even_compute_is_replaced_within_seconds() {
    let (m, mut stage) = (plain("m"), Stage::new(WorkersConfig::default()));
    stage.request(&m).ready("m-0").events();
    for second in 1..20 {
        stage.after(SECOND).report("m-0", at_work(1, Some(1000 * second), 100 * second));
    }
    assert_eq!(stage.events(), "", "a long step");
    for second in 20..25 {
        stage.after(SECOND).report("m-0", at_work(1, Some(1000 * second), 1900 + second));
    }
    assert_eq!(stage.events(), "");
    stage.after(SECOND).report("m-0", at_work(1, Some(25_000), 1925));
    assert_eq!(stage.events(), "withdraw m-0, kill m-0");
}

#[test]
fn keep_alive_counts_from_the_last_hold_and_takes_the_last_value_named() {
    let m = model("m", json!({}));
    let mut stage = Stage::new(WorkersConfig::default());
    let keep = KeepAlive::For(10 * SECOND);
    stage.act(|residency, _| residency.hold(&m, Some(keep))).request(&m).ready("m-0").events();
    stage.after(100 * SECOND).release(&m).after(100 * SECOND);
    assert_eq!(stage.events(), "", "one hold is left");
    stage.release(&m).after(9 * SECOND);
    assert_eq!(stage.events(), "");
    assert_eq!(stage.residency.next_wake(stage.now), Some(stage.now + SECOND));
    stage.after(SECOND);
    assert_eq!(stage.events(), "evict m idle, withdraw m-0, stop m-0");
    stage.request(&m);
    assert_eq!(stage.events(), "", "one process at a time");
    stage.gone("m-0").ready("m-0").release(&m).after(299 * SECOND);
    assert_eq!(stage.events(), "spawn m-0, admit m-0", "the value named was for one stay");
}

#[test]
fn unload_waits_for_the_last_hold_and_means_nothing_to_a_model_that_is_not_there() {
    let (m, mut stage) = (plain("m"), Stage::new(WorkersConfig::default()));
    stage.act(|residency, now| residency.unload(&m, now)).request(&m).ready("m-0");
    stage.act(|residency, now| residency.unload(&m, now));
    assert_eq!(stage.events(), "spawn m-0, admit m-0");
    stage.release(&m);
    assert_eq!(stage.events(), "evict m manual, withdraw m-0, stop m-0");
}

#[test]
fn what_is_loaded_ahead_of_all_requests_waits_for_one() {
    let m = model("m", json!({"preload": true, "keep_alive": 0}));
    let mut stage = Stage::new(WorkersConfig::default());
    stage.act(|residency, now| residency.preload(&m, now)).ready("m-0").after(SECOND);
    assert_eq!(stage.events(), "spawn m-0, admit m-0");
    stage.request(&m).release(&m);
    assert_eq!(stage.events(), "evict m manual, withdraw m-0, stop m-0");
    stage.gone("m-0").act(|residency, now| residency.preload(&m, now)).ready("m-0").events();
    stage.act(|residency, now| residency.unload(&m, now));
    assert_eq!(stage.events(), "evict m manual, withdraw m-0, stop m-0", "unless it is told to go");
}

#[test]
fn a_model_for_which_there_will_never_be_room_is_refused() {
    let config = WorkersConfig { max_loaded: 1, ..WorkersConfig::default() };
    let (pinned, other) = (model("pinned", json!({"pin": true})), plain("other"));
    let mut stage = Stage::new(config);
    stage.request(&pinned).ready("pinned-0");
    stage.act(|residency, _| residency.hold(&other, None));
    let Answer::Wait { failures, changed } = stage.ask(&other, None) else { panic!("must wait") };
    assert!(changed.has_changed().unwrap());
    let Answer::Failed(error) = stage.ask(&other, Some(failures)) else { panic!("must fail") };
    assert_eq!(error.to_string(), "model 'other' failed to load: every place is taken by a pinned model");
    assert_eq!(stage.events(), "spawn pinned-0, admit pinned-0");
}

#[test]
fn a_pinned_model_never_leaves() {
    let config = WorkersConfig { max_loaded: 1, ..WorkersConfig::default() };
    let (m, mut stage) = (model("m", json!({"pin": true})), Stage::new(config));
    stage.request(&m).ready("m-0").release(&m).after(1000 * SECOND);
    stage.act(|residency, now| residency.unload(&m, now)).request(&plain("other"));
    assert_eq!(stage.events(), "spawn m-0, admit m-0");
}

#[test]
fn the_idle_model_with_the_shortest_remaining_life_makes_room() {
    let config = WorkersConfig { max_loaded: 2, ..WorkersConfig::default() };
    let mut stage = Stage::new(config);
    let long = model("long", json!({}));
    let short = model("short", json!({}));
    stage.act(|residency, _| residency.hold(&long, Some(KeepAlive::Forever)));
    stage.request(&long).ready("long-0").request(&short).ready("short-0").events();
    let new = plain("new");
    stage.request(&new);
    assert_eq!(stage.events(), "", "all are busy: it waits");
    stage.release(&long).release(&long);
    assert_eq!(stage.events(), "evict long limit, withdraw long-0, stop long-0");
    stage.release(&short);
    assert_eq!(stage.events(), "", "one place is enough");
    stage.gone("long-0");
    assert_eq!(stage.events(), "spawn new-0");
    stage.after(SECOND).ready("new-0").release(&new).request(&long);
    assert_eq!(stage.events(), "admit new-0, evict short limit, withdraw short-0, stop short-0");
}

#[test]
fn a_load_that_never_began_is_dropped_with_its_last_client() {
    let config = WorkersConfig { max_loaded: 1, ..WorkersConfig::default() };
    let (a, b, mut stage) = (plain("a"), plain("b"), Stage::new(config));
    stage.request(&a).ready("a-0").request(&b).release(&b).release(&a).after(SECOND);
    assert_eq!(stage.events(), "spawn a-0, admit a-0");
}

#[test]
fn one_replica_that_cannot_load_does_not_fail_the_model() {
    let (m, mut stage) = (model("m", json!({"replicas": 2})), Stage::new(WorkersConfig::default()));
    stage.request(&m).gave_up("m-1");
    assert!(matches!(stage.ask(&m, Some(0)), Answer::Wait { .. }));
    stage.ready("m-0").after(SECOND / 2);
    assert_eq!(stage.events(), "spawn m-0, spawn m-1, admit m-0, spawn m-1");
}

#[test]
fn replicas_that_cannot_load_do_not_hide_each_other() {
    let (m, mut stage) = (model("m", json!({"replicas": 2})), Stage::new(WorkersConfig::default()));
    stage.request(&m).gave_up("m-1").after(SECOND / 2);
    assert_eq!(stage.events(), "spawn m-0, spawn m-1, spawn m-1");
    stage.gave_up("m-0");
    assert!(matches!(stage.ask(&m, Some(0)), Answer::Failed(Error::LoadFailed { .. })));
}

#[test]
fn closing_stops_all_and_starts_none() {
    let (m, mut stage) = (model("m", json!({"preload": true})), Stage::new(WorkersConfig::default()));
    stage.act(|residency, now| residency.preload(&m, now)).ready("m-0").events();
    stage.act(|residency, _| residency.close(SECOND));
    assert_eq!(stage.events(), "withdraw m-0, stop m-0");
    assert!(matches!(stage.ask(&m, None), Answer::Failed(Error::ShuttingDown)));
    assert!(!stage.residency.is_vacant());
    stage.gone("m-0");
    assert!(stage.residency.is_vacant());
    assert_eq!(stage.events(), "");
}

proptest::proptest! {
    /// Whatever happens in whatever order: never more models than allowed, a serving worker is in the pool and no other
    /// is, and the next wake lies ahead.
    #[test]
    fn the_invariants_hold_in_any_order(steps in proptest::collection::vec((0..8_u8, 0..3_usize, 0..40_u64), 0..120)) {
        let config = WorkersConfig { max_loaded: 2, ..WorkersConfig::default() };
        let mut stage = Stage::new(config);
        let models = [model("a", json!({"replicas": 2})), plain("b"), model("c", json!({"preload": true}))];
        let workers = ["a-0", "b-0", "c-0"];
        let mut pool = std::collections::BTreeSet::new();
        for (what, which, seconds) in steps {
            let (m, worker) = (&models[which], workers[which]);
            match what {
                0 | 1 => { stage.request(m); }
                2 => { stage.release(m); }
                3 => { stage.after(Duration::from_secs(seconds * 10)); }
                4 | 5 if stage.nodes.contains_key(worker) => { stage.ready(worker); }
                6 if stage.nodes.contains_key(worker) => { stage.gone(worker); }
                7 if stage.nodes.contains_key(worker) => { stage.report(worker, Report::Missed); }
                _ => {}
            }
            for event in std::mem::take(&mut stage.events) {
                match event.split_once(' ').unwrap() {
                    ("admit", node) => proptest::prop_assert!(pool.insert(node.to_owned())),
                    ("withdraw", node) => proptest::prop_assert!(pool.remove(node)),
                    _ => {}
                }
            }
            let serving = stage.residency.residents().flat_map(|r| &r.replicas).filter(|r| r.is_serving()).count();
            proptest::prop_assert_eq!(pool.len(), serving);
            proptest::prop_assert!(stage.residency.residents().filter(|r| r.is_live()).count() <= 2);
            proptest::prop_assert!(stage.residency.next_wake(stage.now).is_none_or(|wake| wake > stage.now));
        }
    }
}
