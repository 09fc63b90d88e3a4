//! The event loop: requests come, wait for a place in front of the pool as they do in Arriero, are routed by the shipped strategy
//! code, and run on modelled nodes.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use arriero::routing::{
    Candidate, Order, Outcome as Heard, Pick, Residency, RoutingConfig, Signals, Strategy, build_seeded,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::node::{LOAD, Node, Progress, REMEMBERED};
use crate::oracle;
use crate::scenario::{Chooser, Scenario};
use crate::traffic::Request;

/// Whoever waits longer in front of the pool is turned away, as by default.
const PATIENCE: f64 = 60.0;
/// A dead node is asked until its breaker opens.
const DETECTED: f64 = 1.0;
/// Seconds that a dead node is away.
const AWAY: f64 = 20.0;
/// How long it may fill only a part of its places then, and which.
const SLOW_START: (f64, f32) = (10.0, 0.25);
/// How old what nodes say of themselves gets.
const PROBE: f64 = 1.0;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives(usize),
    StepEnds { node: usize, incarnation: u64 },
    Loaded(usize),
    Dies(usize),
    Detected(usize),
    Returns(usize),
    Recovered(usize),
    Probe,
}

pub struct World {
    pub requests: Vec<Request>,
    pub nodes: Vec<Node>,
    pub ends: f64,
    chooser: Option<Box<dyn Strategy>>,
    /// Those that are not known to be down, and the number of each.
    candidates: Vec<Candidate>,
    numbers: Vec<usize>,
    /// Where a node is among them.
    positions: Vec<Option<usize>>,
    gate: VecDeque<usize>,
    in_flight: usize,
    order: Order,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    scheduled: u64,
    now: f64,
    start: Instant,
}

impl World {
    pub fn new(scenario: &Scenario, chooser: Chooser, requests: Vec<Request>) -> Self {
        let mut rng = StdRng::seed_from_u64(scenario.seed ^ 0xdead);
        let nodes: Vec<_> = (0..scenario.nodes)
            .map(|node| Node::new(scenario.slowness(node), scenario.places, !rng.random_bool(scenario.cold)))
            .collect();
        let candidates: Vec<_> = nodes
            .iter()
            .enumerate()
            .map(|(number, node)| {
                let residency = if node.is_resident {
                    Residency::Resident
                } else {
                    Residency::Loads(Duration::from_secs_f64(LOAD))
                };
                Candidate { residency, ..candidate(number, node) }
            })
            .collect();
        let config = |strategy| RoutingConfig { strategy, ..RoutingConfig::default() };
        let chooser = match chooser {
            Chooser::Strategy(name) => Some(build_seeded(&config(name), scenario.seed)),
            Chooser::Oracle => None,
        };
        let mut world = Self {
            numbers: (0..nodes.len()).collect(),
            positions: (0..nodes.len()).map(Some).collect(),
            ends: scenario.seconds,
            requests,
            nodes,
            chooser,
            candidates,
            gate: VecDeque::new(),
            in_flight: 0,
            order: Order::default(),
            events: BinaryHeap::new(),
            scheduled: 0,
            now: 0.0,
            start: Instant::now(),
        };
        (0..world.requests.len())
            .for_each(|request| world.schedule(world.requests[request].at, Event::Arrives(request)));
        for node in 0..scenario.nodes {
            if rng.random_bool(scenario.failing) {
                world.schedule(rng.random_range(0.2..0.8) * scenario.seconds, Event::Dies(node));
            }
        }
        world.schedule(PROBE, Event::Probe);
        world
    }

    /// Until the last request has come; what runs then is not waited for.
    pub fn run(&mut self) {
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            self.now = at as f64 / 1e9;
            if self.now > self.ends {
                return;
            }
            match event {
                Event::Arrives(request) => {
                    self.gate.push_back(request);
                    self.dispatch();
                }
                Event::StepEnds { node, incarnation } if incarnation == self.nodes[node].incarnation => {
                    self.step_ends(node);
                }
                Event::StepEnds { .. } => {}
                Event::Loaded(node) => self.loaded(node),
                Event::Dies(node) => self.dies(node),
                Event::Detected(node) => self.remove(node),
                Event::Returns(node) => self.returns(node),
                Event::Recovered(node) => self.change(node, |candidate| candidate.slow_start = 1.0),
                Event::Probe => self.probe(),
            }
        }
    }

    fn schedule(&mut self, at: f64, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse(((at * 1e9) as u64, self.scheduled, event)));
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_secs_f64(self.now)
    }

    /// Sends those that wait while there are places.
    fn dispatch(&mut self) {
        let places: usize = self.numbers.len() * self.nodes.first().map_or(0, |node| node.places);
        while self.in_flight < places {
            let Some(request) = self.gate.pop_front() else { return };
            let is_patient = self.now - self.requests[request].at <= PATIENCE;
            if is_patient && !self.route(request) {
                return;
            }
        }
    }

    /// Sends a request to a node, if there is one.
    fn route(&mut self, request: usize) -> bool {
        let Some(position) = self.choose(request) else {
            // Every node has failed it: it waits for something to change.
            self.requests[request].failed_on.clear();
            self.gate.push_front(request);
            return false;
        };
        let pick = self.order.pick(position, &self.candidates).unwrap_or_else(|| self.unscored(position));
        let node = self.numbers[position];
        self.tell(request, &pick, Heard::Sent);
        let unread = pick.unread(&self.requests[request].digest);
        let tokens = self.tokens(request);
        self.change(node, |candidate| {
            candidate.in_flight += 1;
            candidate.tokens_in_flight += tokens;
            candidate.tokens_unread += unread;
        });
        self.in_flight += 1;
        self.requests[request].sent = self.now;
        self.requests[request].pick = Some(pick);
        let Node { is_up, is_resident, is_stepping, waiting, .. } = &mut self.nodes[node];
        if !*is_up {
            self.fails(request, node);
            return true;
        }
        waiting.push_back(request);
        let is_first = waiting.len() == 1;
        if *is_resident && !*is_stepping {
            self.step_begins(node);
        } else if !*is_resident && is_first {
            self.schedule(self.now + LOAD, Event::Loaded(node));
        }
        true
    }

    /// The place among the candidates of the best one that has not failed this request, or of the best one.
    fn choose(&mut self, request: usize) -> Option<usize> {
        let (now, asked) = (self.instant(), &self.requests[request]);
        let may = |node: usize| !asked.failed_on.contains(&node);
        let Some(chooser) = &self.chooser else {
            let up = |node: usize| self.positions[node].is_some();
            let best = oracle::choose(&self.nodes, asked, &self.requests, |node| up(node) && may(node));
            return best.and_then(|node| self.positions[node]);
        };
        chooser.rank(&asked.digest, &self.candidates, now, &mut self.order);
        let first = self.order.take()?;
        if may(self.numbers[first]) {
            return Some(first);
        }
        std::iter::from_fn(|| self.order.take()).find(|position| may(self.numbers[*position]))
    }

    /// The oracle's pick.
    fn unscored(&self, position: usize) -> Pick {
        let candidate = self.candidates[position].clone();
        Pick { strategy: Default::default(), candidate, reuse: 0, expected: None, confidence: 0.0 }
    }

    /// Tokens that a request counts on its node.
    fn tokens(&self, request: usize) -> u64 {
        let digest = &self.requests[request].digest;
        u64::from(digest.prompt_tokens) + u64::from(digest.expected_tokens)
    }

    fn tell(&self, request: usize, pick: &Pick, heard: Heard) {
        if let Some(chooser) = &self.chooser {
            chooser.observe(&self.requests[request].digest, pick, &heard, self.instant());
        }
    }

    fn change(&mut self, node: usize, change: impl FnOnce(&mut Candidate)) {
        if let Some(position) = self.positions[node] {
            change(&mut self.candidates[position]);
        }
    }

    fn step_begins(&mut self, node: usize) {
        if let Some(takes) = self.nodes[node].begin(&mut self.requests) {
            let incarnation = self.nodes[node].incarnation;
            self.schedule(self.now + takes, Event::StepEnds { node, incarnation });
        }
    }

    fn step_ends(&mut self, node: usize) {
        for progress in self.nodes[node].end(&self.requests) {
            match progress {
                Progress::FirstToken(request) => self.first_token(node, request),
                Progress::Done(request) => self.done(node, request),
            }
        }
        // A place that has become free may be taken in this very step.
        self.dispatch();
        if !self.nodes[node].is_stepping {
            self.step_begins(node);
        }
    }

    fn first_token(&mut self, node: usize, request: usize) {
        self.read(node, request);
        let asked = &mut self.requests[request];
        // An answer that goes on elsewhere has had its first token.
        asked.first_token.get_or_insert(self.now);
        let after = Duration::from_secs_f64(self.now - asked.sent);
        if let Some(pick) = &self.requests[request].pick {
            self.tell(request, pick, Heard::FirstToken { after });
        }
        self.requests[request].read_at = self.now;
    }

    fn done(&mut self, node: usize, request: usize) {
        let asked = &self.requests[request];
        let after = Duration::from_secs_f64(self.now - asked.sent);
        let ttft = Duration::from_secs_f64(asked.read_at - asked.sent);
        if let Some(pick) = &asked.pick {
            self.tell(request, pick, Heard::Done { after, ttft, tokens: asked.answer.into() });
        }
        self.leaves(node, request);
        self.requests[request].is_done = true;
    }

    /// Its prompt is no more to be read.
    fn read(&mut self, node: usize, request: usize) {
        let asked = &self.requests[request];
        let unread = asked.pick.as_ref().map_or(0, |pick| pick.unread(&asked.digest));
        self.change(node, |candidate| {
            candidate.tokens_unread = candidate.tokens_unread.saturating_sub(unread)
        });
    }

    fn leaves(&mut self, node: usize, request: usize) {
        let tokens = self.tokens(request);
        self.change(node, |candidate| {
            candidate.in_flight = candidate.in_flight.saturating_sub(1);
            candidate.tokens_in_flight = candidate.tokens_in_flight.saturating_sub(tokens);
        });
        self.in_flight -= 1;
    }

    /// The node is gone; the request goes on elsewhere.
    fn fails(&mut self, request: usize, node: usize) {
        let asked = &self.requests[request];
        let after = Duration::from_secs_f64(self.now - asked.sent);
        if let Some(pick) = &asked.pick {
            self.tell(request, pick, Heard::Failed { after });
        }
        self.read(node, request);
        self.leaves(node, request);
        self.requests[request].failed_on.push(node);
        self.route(request);
    }

    fn dies(&mut self, node: usize) {
        let lost = self.nodes[node].die();
        self.schedule(self.now + DETECTED, Event::Detected(node));
        self.schedule(self.now + AWAY, Event::Returns(node));
        lost.into_iter().for_each(|request| self.fails(request, node));
    }

    fn remove(&mut self, node: usize) {
        if let Some(position) = self.positions[node].take() {
            self.candidates.swap_remove(position);
            self.numbers.swap_remove(position);
            if let Some(moved) = self.numbers.get(position) {
                self.positions[*moved] = Some(position);
            }
        }
    }

    fn returns(&mut self, node: usize) {
        self.nodes[node].is_up = true;
        let back = &self.nodes[node];
        let fresh = candidate(node, back);
        self.positions[node] = Some(self.candidates.len());
        self.numbers.push(node);
        self.candidates.push(Candidate { incarnation: back.incarnation, slow_start: SLOW_START.1, ..fresh });
        self.schedule(self.now + SLOW_START.0, Event::Recovered(node));
        self.dispatch();
    }

    fn loaded(&mut self, node: usize) {
        self.nodes[node].is_resident = true;
        self.change(node, |candidate| candidate.residency = Residency::Resident);
        self.step_begins(node);
    }

    /// What nodes say of themselves.
    fn probe(&mut self) {
        for (candidate, node) in self.candidates.iter_mut().zip(&self.numbers) {
            let node = &self.nodes[*node];
            candidate.signals = Signals {
                cpu: Some(f32::from(u8::from(node.is_stepping))),
                kv: Some(node.running.len() as f32 / node.places as f32),
                queue: Some(node.waiting.len() as f32),
                ..Signals::default()
            };
        }
        self.schedule(self.now + PROBE, Event::Probe);
    }
}

/// A node that nothing runs on.
fn candidate(number: usize, node: &Node) -> Candidate {
    Candidate { keeps: Some(REMEMBERED as u64), ..Candidate::new(format!("node-{number}"), node.places) }
}
