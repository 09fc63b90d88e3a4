//! Changing settings while sequences run.

use super::Scheduler;
use crate::engine::settings;
use crate::generation::seam::{Change, Settings};
use crate::generation::{Failure, FailureCode};

impl Scheduler<'_> {
    /// Changes settings; those in force then. Nothing is changed where something cannot be.
    pub(super) fn change(&mut self, change: Change) -> Result<Settings, Failure> {
        let next = settings::changed(&self.settings, change, &self.allocated)?;
        let threads = |settings: &Settings| (settings.threads, settings.prefill_threads);
        if threads(&next) != threads(&self.settings) {
            let moved = self.move_to_new_context(threads(&next));
            moved.map_err(|message| Failure { code: FailureCode::Unavailable, message })?;
        }
        self.pace.adjust(next.pace.clone(), next.batch as usize);
        self.status.set(&next);
        self.settings = next;
        Ok(self.settings.clone())
    }

    /// llama-cpp-2 gives a context its threads when it is made. All that runs goes on in a new one; what idle slots held is lost.
    fn move_to_new_context(&mut self, threads: (u32, u32)) -> Result<(), String> {
        let context = self.model.context(threads)?;
        for index in 0..self.slots.len() {
            self.set_aside(index, self.slots[index].turn);
            self.slots[index].clear(&mut self.context);
        }
        self.context = context;
        self.adapter = None;
        Ok(())
    }
}
