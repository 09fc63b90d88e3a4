//! A modelled node: continuous batching in steps, as llama.cpp workers and vLLM have it. A step takes a token of every sequence that
//! generates and reads a piece of the prompts that wait, in their order.

use std::collections::VecDeque;

use crate::cache::Cache;
use crate::traffic::Request;

/// Tokens of prompts that are read per second by a node that does nothing else.
pub const READ_RATE: f64 = 2000.0;
/// Seconds of a step, and what each sequence that generates adds.
pub const STEP: f64 = 0.025;
pub const STEP_PER_SEQUENCE: f64 = 0.002;
/// Tokens of prompts that a step reads at most.
const BATCH: f64 = 512.0;
/// Tokens of finished prompts that a node keeps.
pub const REMEMBERED: f64 = 80_000.0;
/// Seconds that a model takes to load.
pub const LOAD: f64 = 8.0;

/// One running request.
pub struct Sequence {
    pub request: usize,
    /// Tokens of its prompt that are not read yet.
    pub unread: f64,
    /// Tokens still to generate.
    pub left: u32,
    /// Whether the step that runs generates a token.
    generates: bool,
    /// Tokens of its prompt that the step that runs reads.
    reads: f64,
}

/// What a step brought about.
pub enum Progress {
    FirstToken(usize),
    Done(usize),
}

pub struct Node {
    pub slowness: f64,
    pub places: usize,
    pub cache: Cache,
    pub running: Vec<Sequence>,
    pub waiting: VecDeque<usize>,
    pub is_up: bool,
    pub is_resident: bool,
    pub is_stepping: bool,
    /// What ended before a failure is no news after it.
    pub incarnation: u64,
    pub busy: f64,
}

impl Node {
    pub fn new(slowness: f64, places: usize, is_resident: bool) -> Self {
        Self {
            slowness,
            places,
            cache: Cache::new(REMEMBERED),
            running: Vec::new(),
            waiting: VecDeque::new(),
            is_up: true,
            is_resident,
            is_stepping: false,
            incarnation: 0,
            busy: 0.0,
        }
    }

    /// Begins a step and says how long it takes; `None` while there is nothing to do.
    pub fn begin(&mut self, requests: &mut [Request]) -> Option<f64> {
        while self.running.len() < self.places {
            let Some(request) = self.waiting.pop_front() else { break };
            self.running.push(self.sequence(request, requests));
        }
        let mut budget = BATCH;
        let mut generating = 0.0;
        for sequence in &mut self.running {
            sequence.generates = sequence.unread <= 0.0;
            sequence.reads = sequence.unread.min(budget).max(0.0);
            budget -= sequence.reads;
            generating += f64::from(u8::from(sequence.generates));
        }
        if self.running.is_empty() {
            return None;
        }
        let reading = (BATCH - budget) / READ_RATE;
        let takes = (STEP + STEP_PER_SEQUENCE * generating + reading) * self.slowness;
        self.is_stepping = true;
        self.busy += takes;
        Some(takes)
    }

    fn sequence(&self, request: usize, requests: &mut [Request]) -> Sequence {
        let asked = &mut requests[request];
        let reused = asked.tokens * self.cache.share(&asked.digest.prefix);
        asked.reused = reused;
        // The last token is always computed, for its logits.
        let unread = (asked.tokens - reused).max(1.0);
        Sequence { request, unread, left: asked.answer, generates: false, reads: 0.0 }
    }

    /// Ends the step.
    pub fn end(&mut self, requests: &[Request]) -> Vec<Progress> {
        self.is_stepping = false;
        let mut progress = Vec::new();
        for sequence in &mut self.running {
            if sequence.reads > 0.0 {
                sequence.unread -= sequence.reads;
                if sequence.unread > 0.0 {
                    continue;
                }
                let request = &requests[sequence.request];
                self.cache.keep(&request.digest.prefix, request.tokens);
                progress.push(Progress::FirstToken(sequence.request));
            } else if !sequence.generates {
                continue;
            }
            sequence.left -= 1;
            if sequence.left == 0 {
                progress.push(Progress::Done(sequence.request));
            }
        }
        self.running.retain(|sequence| sequence.left > 0);
        progress
    }

    /// Dies; who was on it.
    pub fn die(&mut self) -> Vec<usize> {
        self.is_up = false;
        self.is_stepping = false;
        self.incarnation += 1;
        self.cache = Cache::new(REMEMBERED);
        let waiting = self.waiting.drain(..);
        self.running.drain(..).map(|sequence| sequence.request).chain(waiting).collect()
    }

    /// Part of its time, at this moment, that a step for `sequences` sequences takes for itself rather than for reading.
    pub fn step(&self, sequences: f64) -> f64 {
        (STEP + STEP_PER_SEQUENCE * sequences) * self.slowness
    }
}
