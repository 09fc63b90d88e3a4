//! [`Crew`]: the tasks that tend workers. They belong to the run loop: dropping the crew kills every worker.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};

use super::action::{Ending, Exit, Instruction, Start};
use super::memory::{self, Scale, Step};
use super::shared::{Order, Shared};
use super::tend::{self, Manner};
use crate::library::Model;

/// One task per worker.
pub(super) struct Crew {
    shared: Arc<Shared>,
    manner: Manner,
    tasks: JoinSet<Exit>,
    /// Reads the headers of files.
    weighing: JoinSet<()>,
    incarnations: HashMap<Id, u64>,
    instructions: HashMap<u64, mpsc::UnboundedSender<Instruction>>,
}

impl Crew {
    pub(super) fn new(shared: Arc<Shared>, manner: Manner) -> Self {
        Self {
            shared,
            manner,
            tasks: JoinSet::new(),
            weighing: JoinSet::new(),
            incarnations: HashMap::new(),
            instructions: HashMap::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    pub(super) fn carry_out(&mut self, order: Order) {
        match order {
            Order::Spawn(start) => self.spawn(start),
            Order::Weigh(model, scale) => self.weigh(model, scale),
            // The run loop's own.
            Order::Remember(_) | Order::Expect(_) => {}
            Order::Instruct(incarnation, instruction) => {
                if let Some(instructions) = self.instructions.get(&incarnation) {
                    // Its task may have ended a moment ago; then there is nobody to instruct.
                    let _ = instructions.send(instruction);
                }
            }
        }
    }

    fn weigh(&mut self, model: Arc<Model>, scale: Scale) {
        let shared = Arc::clone(&self.shared);
        while self.weighing.try_join_next().is_some() {}
        self.weighing.spawn_blocking(move || {
            let weight = memory::weigh(&model, &scale);
            match &weight {
                Ok(weight) => {
                    if let Some(Step { need, .. }) = weight.steps.first() {
                        tracing::info!(
                            model = model.name,
                            mapped_bytes = need.mapped.values().sum::<u64>(),
                            private_bytes = need.private,
                            reserved_bytes = need.compute,
                            device_bytes = need.device,
                            "what a worker will take, by estimate"
                        );
                    }
                }
                Err(reason) => tracing::debug!(model = model.name, reason, "a model cannot be weighed"),
            }
            shared.update(|residency, _| residency.weighed(&model, weight.ok()));
        });
    }

    fn spawn(&mut self, start: Start) {
        let incarnation = start.node.incarnation;
        let (instructions, receiver) = mpsc::unbounded_channel();
        let (shared, node) = (Arc::clone(&self.shared), Arc::clone(&start.node));
        let report = move |report| shared.report(&node, report);
        let task = tend::tend(start, self.manner.clone(), receiver, report);
        let id = self.tasks.spawn(task).id();
        self.incarnations.insert(id, incarnation);
        self.instructions.insert(incarnation, instructions);
    }

    /// Waits for the next worker to be gone; `None` where there is none.
    pub(super) async fn next_gone(&mut self) -> Option<(u64, Exit)> {
        let (id, exit) = match self.tasks.join_next_with_id().await? {
            Ok(ended) => ended,
            // A panic in the task dropped the process, which killed it.
            Err(error) => {
                let reason = format!("its supervision failed: {error}");
                (error.id(), Exit { ending: Ending::Killed, reason })
            }
        };
        let incarnation = self.incarnations.remove(&id)?;
        self.instructions.remove(&incarnation);
        Some((incarnation, exit))
    }
}
