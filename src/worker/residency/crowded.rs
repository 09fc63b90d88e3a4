//! More models than fit into memory.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::generation::seam::{Cut, State, Vitals};
use crate::library::Library;
use crate::node::InFlight;
use crate::units::share::Share;
use crate::worker::action::{Ending, Eviction, Instruction, Start};
use crate::worker::memory::{Host, Ledger, MemoryConfig, Need, Step, Weight};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
/// How long loads and ends take.
const LOAD: Duration = Duration::from_millis(500);
const END: Duration = Duration::from_millis(50);

/// A residency whose workers load and end by themselves as the time passes, on a machine of ten bytes.
pub(super) struct World {
    pub(super) residency: Residency,
    pub(super) now: Instant,
    /// What a model's workers take.
    sizes: BTreeMap<&'static str, u64>,
    pub(super) models: BTreeMap<&'static str, Arc<Model>>,
    nodes: BTreeMap<u64, Arc<Node>>,
    /// Which worker becomes ready or is gone, and when.
    due: Vec<(Instant, u64, bool)>,
    /// Nodes that take requests.
    pool: Vec<Arc<Node>>,
    events: Vec<String>,
    evictions: Vec<Eviction>,
    spawned: usize,
    pub(super) swaps: usize,
}

impl World {
    pub(super) fn new(config: MemoryConfig, models: &[(&'static str, u64)]) -> Self {
        let section = |name: &str| {
            let more = if name == "pinned" { json!({"pin": true}) } else { json!({}) };
            let mut section = json!({"path": "/m.gguf"});
            section.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            (name.to_owned(), serde_json::from_value::<crate::library::ModelConfig>(section).unwrap())
        };
        let library = Library::open(models.iter().map(|(name, _)| section(name)), "/".as_ref());
        let model = |name: &'static str| (name, library.resolve(name).unwrap().unwrap().model);
        let mut memory = Memory::new(config, Ledger::default());
        memory.host = Some(Host { total: 10, available: 10 });
        Self {
            residency: Residency::new(WorkersConfig::default(), "/run/x".into()).within(memory),
            now: Instant::now(),
            sizes: models.iter().copied().collect(),
            models: models.iter().map(|(name, _)| model(name)).collect(),
            nodes: BTreeMap::new(),
            due: Vec::new(),
            pool: Vec::new(),
            events: Vec::new(),
            evictions: Vec::new(),
            spawned: 0,
            swaps: 0,
        }
    }

    pub(super) fn act<T>(&mut self, act: impl FnOnce(&mut Residency, Instant) -> T) -> T {
        let result = act(&mut self.residency, self.now);
        self.settle();
        result
    }

    fn settle(&mut self) {
        for action in self.residency.settle(self.now) {
            match action {
                Action::Weigh(model, _) => {
                    let need = Need { private: self.sizes[model.name.as_str()], ..Need::default() };
                    let key = model.name.clone();
                    let half = Need { private: need.private / 2, ..Need::default() };
                    let cut = Cut { parallel: Some(1), ..Cut::default() };
                    let mut steps = vec![Step { key: key.clone(), need, ..Step::default() }];
                    // Only this one can be cut.
                    if key == "shrinks" {
                        steps.push(Step { cut, key: format!("{key} cut"), need: half });
                    }
                    let weight = Weight { steps, before_eviction: 1 };
                    self.act(|residency, _| residency.weighed(&model, Some(weight)));
                }
                Action::Spawn(Start { node, .. }) => {
                    self.spawned += 1;
                    self.events.push(format!("spawn {}", node.name));
                    self.due.push((self.now + LOAD, node.incarnation, true));
                    self.nodes.insert(node.incarnation, node);
                }
                Action::Instruct(incarnation, Instruction::Stop(_) | Instruction::Kill) => {
                    self.due.retain(|(_, known, _)| *known != incarnation);
                    self.due.push((self.now + END, incarnation, false));
                }
                Action::Swapped(_) => self.swaps += 1,
                Action::Expect(prediction) => {
                    self.events.push(format!("expect {}", prediction.model));
                    let model = Arc::clone(&self.models[prediction.model.as_str()]);
                    self.act(|residency, now| residency.expect(&model, now));
                }
                Action::Preloaded(model, what) => {
                    self.events.push(format!("{} {}", what.as_str(), model.name))
                }
                Action::Admit(start) => self.pool.push(start.node),
                Action::Withdraw(start) => {
                    self.pool.retain(|node| node.incarnation != start.node.incarnation);
                }
                Action::Evicted(model, eviction) => {
                    self.evictions.push(eviction);
                    self.events.push(format!("evict {}", model.name));
                }
                _ => {}
            }
        }
        let taken: u64 = self.residency.usage().parts.iter().map(|(.., bytes)| bytes).sum();
        assert!(taken <= 10, "{taken} bytes are taken");
    }

    /// Lets the time pass; workers come and go meanwhile.
    pub(super) fn pass(&mut self, time: Duration) -> &mut Self {
        let end = self.now + time;
        loop {
            let due = self.due.iter().map(|(at, ..)| *at).chain(self.residency.next_wake(self.now)).min();
            let Some(at) = due.filter(|at| *at <= end) else { break };
            self.now = at;
            let (passed, left) = self.due.iter().partition(|(due, ..)| *due <= at);
            self.due = left;
            let passed: Vec<(Instant, u64, bool)> = passed;
            for (_, incarnation, is_ready) in passed {
                let vitals = Vitals { state: State::Ready, progress: 1.0, ..Vitals::default() };
                self.act(|residency, now| match is_ready {
                    true => drop(residency.report(incarnation, Report::Vitals(Box::new(vitals)), now)),
                    false => residency.gone(incarnation, exit(Ending::Exited, "told to"), now),
                });
            }
            self.settle();
        }
        self.now = end;
        self.settle();
        self
    }

    pub(super) fn hold(&mut self, name: &str) -> &mut Self {
        let model = Arc::clone(&self.models[name]);
        self.act(|residency, now| {
            residency.hold(&model, None);
            residency.ask(&model, None, now);
        });
        self
    }

    pub(super) fn release(&mut self, name: &str) -> &mut Self {
        let model = Arc::clone(&self.models[name]);
        self.act(|residency, now| residency.release(&model, true, now));
        self
    }

    /// Begins a request on a worker of the model, which must be there.
    pub(super) fn run(&self, name: &str) -> Option<InFlight> {
        let node =
            self.pool.iter().find(|node| node.name.rsplit_once('-').is_some_and(|(of, _)| of == name))?;
        Some(node.enter(1, 1))
    }

    fn failure(&mut self, name: &str) -> Option<Error> {
        let model = Arc::clone(&self.models[name]);
        match self.act(|residency, now| residency.ask(&model, Some(0), now)) {
            Answer::Failed(error) => Some(error),
            Answer::Ready | Answer::Wait { .. } => None,
        }
    }

    pub(super) fn worker(&self, name: &str) -> u64 {
        let named = |node: &&Arc<Node>| node.name.rsplit_once('-').is_some_and(|(of, _)| of == name);
        self.nodes.values().rfind(named).unwrap().incarnation
    }

    /// What happened since the last call.
    pub(super) fn events(&mut self) -> String {
        std::mem::take(&mut self.events).join(", ")
    }
}

fn exit(ending: Ending, reason: &str) -> Exit {
    Exit { ending, reason: reason.to_owned() }
}

pub(super) fn ten_bytes() -> MemoryConfig {
    MemoryConfig { budget: Share::Bytes(10), margin: 0, ..MemoryConfig::default() }
}

/// Where one that is idle may go at once.
pub(super) fn eager() -> MemoryConfig {
    MemoryConfig { min_residency: Duration::ZERO, ..ten_bytes() }
}

#[test]
fn as_many_come_as_fit_and_then_the_one_that_is_worth_least_leaves() {
    let mut world = World::new(eager(), &[("a", 3), ("b", 3), ("c", 3), ("d", 2), ("e", 4)]);
    for name in ["a", "b", "c"] {
        world.hold(name).pass(SECOND).release(name);
    }
    world.hold("a").release("a").hold("c").release("c");
    assert_eq!(world.events(), "spawn a-0, spawn b-0, spawn c-0");
    world.hold("d").pass(SECOND);
    assert_eq!(world.events(), "evict b, spawn d-0");
    world.hold("e").pass(SECOND);
    assert_eq!(world.events().matches("evict").count(), 1, "a or c");
}

#[test]
fn a_model_that_has_just_come_stays_for_a_moment_though_nobody_uses_it() {
    let mut world = World::new(ten_bytes(), &[("a", 6), ("b", 6)]);
    world.hold("a").pass(LOAD).release("a").hold("b").pass(999 * MILLISECOND);
    assert_eq!(world.events(), "spawn a-0");
    world.pass(MILLISECOND + END);
    assert_eq!(world.events(), "evict a, spawn b-0");
}

#[test]
fn one_that_waits_gets_its_turn_though_the_other_is_always_in_use() {
    let mut world = World::new(ten_bytes(), &[("a", 6), ("b", 6)]);
    world.hold("a").pass(SECOND);
    let running = world.run("a").unwrap();
    world.hold("b").hold("a").pass(14 * SECOND);
    assert!(world.run("a").is_some(), "new requests are served meanwhile");
    world.pass(SECOND);
    assert!(world.run("a").is_none(), "now there are none");
    world.pass(100 * SECOND);
    assert_eq!(world.events(), "spawn a-0", "but what runs goes on to its end");
    drop(running);
    world.release("a").pass(SECOND);
    assert_eq!(world.events(), "evict a, spawn b-0");
    world.pass(10 * SECOND);
    assert!(world.run("b").is_some());
    assert_eq!(world.events(), "", "nobody runs on b, but it is held");
    world.release("b").pass(SECOND);
    assert_eq!(world.events(), "evict b, spawn a-0", "who still waited for a gets it back");
    assert!(world.run("a").is_some());
}

#[test]
fn if_the_one_that_waits_gives_up_the_other_takes_requests_again() {
    let mut world = World::new(ten_bytes(), &[("a", 6), ("b", 6)]);
    world.hold("a").pass(SECOND);
    let _running = world.run("a").unwrap();
    world.hold("b").pass(16 * SECOND);
    assert!(world.run("a").is_none());
    world.release("b");
    assert!(world.run("a").is_some());
    assert_eq!(world.events(), "spawn a-0");
}

#[test]
fn what_can_never_fit_is_refused_with_the_numbers() {
    let mut world = World::new(ten_bytes(), &[("pinned", 6), ("large", 11), ("medium", 5)]);
    world.hold("pinned").pass(SECOND).hold("large");
    let error = world.failure("large").unwrap();
    assert_eq!(
        error.to_string(),
        "model 'large' failed to load: it needs 11 B of memory, and the budget is 10 B, of which pinned models take 6 B"
    );
    world.hold("medium");
    assert!(matches!(world.failure("medium"), Some(Error::LoadFailed { .. })));
    assert_eq!(world.events(), "spawn pinned-0");
}

#[test]
fn what_would_not_fit_comes_cut_and_its_node_says_so() {
    let mut world = World::new(eager(), &[("a", 6), ("shrinks", 14)]);
    world.hold("a").pass(SECOND).release("a").hold("shrinks").pass(SECOND);
    assert_eq!(world.events(), "spawn a-0, evict a, spawn shrinks-0");
    let node = Arc::clone(&world.nodes[&world.worker("shrinks")]);
    assert_eq!((node.cut.to_string().as_str(), node.parallel), ("sequences=1", 1));
    let shown = world.residency.footprints(world.now);
    let shown = shown.iter().find(|it| it.model.name == "shrinks").unwrap();
    assert_eq!((shown.cut, shown.need.as_ref().unwrap().private), (node.cut, 7));
}

#[test]
fn a_worker_that_dies_is_replaced_by_one_that_is_cut_alike() {
    let mut world = World::new(ten_bytes(), &[("shrinks", 14)]);
    world.hold("shrinks").pass(SECOND);
    let first = world.worker("shrinks");
    world.act(|residency, now| residency.gone(first, exit(Ending::Killed, "killed"), now));
    world.pass(SECOND);
    let second = world.worker("shrinks");
    assert_ne!(first, second);
    assert_eq!(world.nodes[&second].cut, world.nodes[&first].cut);
}

#[test]
fn what_other_processes_have_taken_is_waited_for_and_then_told() {
    let mut world = World::new(ten_bytes(), &[("a", 6)]);
    let look = |world: &mut World, available| {
        world.act(|residency, _| residency.look(Some(Host { total: 10, available })));
    };
    look(&mut world, 5);
    world.hold("a").pass(SECOND);
    look(&mut world, 6);
    assert_eq!(world.events(), "spawn a-0");

    let mut world = World::new(ten_bytes(), &[("a", 6)]);
    look(&mut world, 5);
    world.hold("a").pass(15 * SECOND);
    let error = world.failure("a").unwrap();
    assert_eq!(
        error.to_string(),
        "there is no room for model 'a' at the moment: it needs 6 B of memory, and other processes leave 5 B"
    );
    assert!(error.retry_after().is_some());
}

#[test]
fn when_memory_runs_out_while_loading_the_others_leave_and_it_is_tried_once_more() {
    for (ending, reason) in
        [(Ending::Killed, "killed"), (Ending::Exited, "not enough memory: failed to allocate")]
    {
        let mut world = World::new(eager(), &[("a", 3), ("b", 3)]);
        world.hold("a").pass(SECOND).release("a").hold("b");
        let gone = |world: &mut World| {
            let worker = world.worker("b");
            world.due.clear();
            world.act(|residency, now| residency.gone(worker, exit(ending, reason), now));
        };
        gone(&mut world);
        world.pass(END);
        assert_eq!(world.events(), "spawn a-0, spawn b-0, evict a, spawn b-0");
        gone(&mut world);
        assert!(matches!(world.failure("b"), Some(Error::LoadFailed { .. })), "{reason}");
    }
}

#[test]
fn nobody_leaves_for_one_that_ran_out_of_memory_and_that_nobody_asks_for() {
    let mut world = World::new(eager(), &[("a", 3), ("b", 3)]);
    world.hold("a").pass(SECOND).release("a");
    let b = Arc::clone(&world.models["b"]);
    world.act(|residency, now| residency.warm(&b, now));
    let worker = world.worker("b");
    world.due.clear();
    world.act(|residency, now| residency.gone(worker, exit(Ending::Killed, "killed"), now));
    world.pass(60 * SECOND);
    assert_eq!(world.events(), "spawn a-0, spawn b-0");
}

#[test]
fn what_was_hot_comes_back_only_into_free_room_and_then_is_like_any_other() {
    let mut world = World::new(eager(), &[("a", 6), ("b", 6), ("c", 3)]);
    world.hold("a").pass(SECOND).release("a");
    for name in ["b", "c"] {
        let model = Arc::clone(&world.models[name]);
        world.act(|residency, now| residency.warm(&model, now));
    }
    world.pass(SECOND);
    assert_eq!(world.events(), "spawn a-0, spawn c-0");
    world.hold("b").pass(SECOND);
    assert_eq!(world.events(), "evict a, spawn b-0");
}

#[test]
fn a_request_can_keep_a_model_within_the_bounds_of_the_operator() {
    let mut world = World::new(eager(), &[("a", 6)]);
    world.residency.config.keep_alive_min = KeepAlive::For(10 * SECOND);
    world.residency.config.keep_alive_max = KeepAlive::For(20 * SECOND);
    let model = Arc::clone(&world.models["a"]);
    for (asked, least) in [(KeepAlive::Unload, 10), (KeepAlive::Forever, 20)] {
        world.act(|residency, _| residency.hold(&model, Some(asked)));
        world.hold("a").pass(SECOND).release("a").release("a").events();
        world.pass((least - 1) * SECOND);
        assert_eq!(world.events(), "");
        world.pass(SECOND);
        assert_eq!(world.events(), "evict a");
        world.pass(SECOND);
    }
}

/// Clients that ask for one model after the other, each as soon as it has its answer.
struct Clients {
    /// What each does: how many requests it has left, and the one that runs with its end.
    all: Vec<(usize, Option<(InFlight, Instant)>)>,
    longest_wait: Duration,
    since: Vec<Instant>,
}

/// `clients` make `each` requests that alternate between the models; how often a model was loaded, and the longest wait.
fn alternate(
    world: &mut World,
    names: &[&'static str],
    clients: usize,
    each: usize,
    takes: Duration,
) -> (usize, Duration) {
    let name = |client: usize, left: usize| names[(client + left) % names.len()];
    let now = world.now;
    let mut state = Clients {
        all: (0..clients).map(|_| (each, None)).collect(),
        longest_wait: Duration::ZERO,
        since: vec![now; clients],
    };
    for client in 0..clients {
        world.hold(name(client, each));
    }
    while state.all.iter().any(|(left, _)| *left > 0) {
        for client in 0..clients {
            let (left, running) = &mut state.all[client];
            if *left == 0 {
                continue;
            }
            let wanted = name(client, *left);
            match running {
                None => {
                    let busy = world.pool.iter().map(|node| node.in_flight()).sum::<usize>();
                    *running = world.run(wanted).filter(|_| busy < 4).map(|it| (it, world.now + takes));
                    if running.is_some() {
                        let waited = world.now - state.since[client];
                        state.longest_wait = state.longest_wait.max(waited);
                    } else {
                        assert_eq!(world.failure(wanted), None);
                    }
                }
                Some((_, end)) if *end <= world.now => {
                    *running = None;
                    *left -= 1;
                    let next = *left;
                    if next > 0 {
                        world.hold(name(client, next));
                        state.since[client] = world.now;
                    }
                    world.release(wanted);
                }
                Some(_) => {}
            }
        }
        world.pass(10 * MILLISECOND);
    }
    (world.spawned, state.longest_wait)
}

#[test]
fn twenty_clients_that_alternate_between_two_models_of_which_one_fits_swap_them_at_most_once_per_round() {
    let mut world = World::new(ten_bytes(), &[("a", 6), ("b", 6)]);
    let (loads, longest) = alternate(&mut world, &["a", "b"], 20, 50, 20 * MILLISECOND);
    assert!(world.swaps <= 50, "{} swaps for 1000 requests", world.swaps);
    assert_eq!(world.swaps, loads - 1, "one leaves for each load but the first");
    assert!(longest <= 20 * SECOND, "somebody waited for {longest:?}");
    assert!(world.evictions.iter().all(|eviction| *eviction == Eviction::Memory));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// However many models of whatever sizes and clients there are: nobody is refused, nobody waits for ever, and there is never
    /// more in memory than fits (which `World::settle` checks).
    #[test]
    fn everybody_is_served(sizes in proptest::collection::vec(1..=10_u64, 1..=4), clients in 1..8_usize, takes in 1..400_u64) {
        const NAMES: [&str; 4] = ["a", "b", "c", "d"];
        let models: Vec<_> = NAMES.into_iter().zip(sizes).collect();
        let names: Vec<_> = models.iter().map(|(name, _)| *name).collect();
        let mut world = World::new(ten_bytes(), &models);
        let (_, longest) = alternate(&mut world, &names, clients, 6, Duration::from_millis(takes));
        // Every other model has a turn of 15 s at most, the end of what runs, and a load.
        prop_assert!(longest <= 60 * SECOND, "somebody waited for {longest:?}");
    }
}
