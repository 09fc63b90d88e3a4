//! Speculation: the tokens that a sequence is going to say are guessed, and decoded in one step with the one that is certain. Each
//! is then sampled as if nothing had been guessed, and what was guessed right has already been computed: the output is the same,
//! sooner. Guesses come from earlier text ([`lookup`], [`guesser`]) or a second model ([`draft`]); whether they are worth their
//! price is measured ([`worth`]).

mod draft;
mod guesser;
mod lookup;
mod odds;
mod worth;

use std::time::{Duration, Instant};

pub use draft::{DraftModel, Drafter};
pub use guesser::Guesser;

use super::sequence::Sequence;
use super::slot::Slot;
use crate::generation::seam::{SpeculateMode, SpeculateSettings};
use draft::Wanted;
use guesser::Source;
use worth::{Chance, Shape, Worth};

/// Weight of a new measurement of the time that a draft model takes.
const WEIGHT: f64 = 0.25;

/// What guesses for all sequences of a worker.
pub struct Speculation<'a> {
    settings: SpeculateSettings,
    worth: Worth,
    drafter: Option<Drafter<'a>>,
    /// Seconds that a draft model takes for a token.
    draft_cost: f64,
}

/// What a sequence could guess, and with what.
struct Offer {
    source: Source,
    chance: Chance,
}

impl<'a> Speculation<'a> {
    /// Guesses as `settings` say; `drafter` is what their draft model drafts with.
    pub fn new(settings: SpeculateSettings, drafter: Option<Drafter<'a>>) -> Self {
        Self { settings, worth: Worth::default(), drafter, draft_cost: 0.0 }
    }

    /// The same, never.
    pub fn off() -> Self {
        let settings = SpeculateSettings { mode: SpeculateMode::Off, ..SpeculateSettings::default() };
        Self::new(settings, None)
    }

    /// Guesses for a step in which these slots generate and nobody reads, at most `room` tokens.
    pub fn guess(&mut self, slots: &mut [Slot], generating: &[usize], room: usize) {
        let offers: Vec<Offer> = match self.settings.mode {
            SpeculateMode::Off => return,
            _ => generating.iter().map(|&slot| self.offer(&mut slots[slot])).collect(),
        };
        let lengths = match self.settings.mode {
            SpeculateMode::Auto => {
                self.worth.plan(&offers.iter().map(|offer| offer.chance).collect::<Vec<_>>(), room)
            }
            _ => {
                let most = room / generating.len().max(1);
                offers.iter().map(|offer| offer.chance.most.min(most)).collect()
            }
        };
        let mut wanted = Vec::new();
        for ((&index, offer), &most) in generating.iter().zip(&offers).zip(&lengths) {
            let slot = &mut slots[index];
            if offer.source == Source::Draft && most > 0 {
                let unfed = slot.sequence.as_ref().map_or(&[][..], Sequence::unfed);
                let text = [slot.cells(), unfed].concat();
                wanted.push(Wanted { sequence: index, text, most, guess: Vec::new() });
            } else if let Some(sequence) = &mut slot.sequence {
                let (guesser, text) = sequence.guessing();
                guesser.look_up(text, most);
            }
        }
        self.draft(slots, wanted);
    }

    /// What a sequence could guess.
    fn offer(&self, slot: &mut Slot) -> Offer {
        let used = slot.used();
        let likeliest = slot.sequence.as_mut().and_then(|sequence| {
            let room = sequence.room(used);
            let (source, odds) = sequence.guessing().0.likeliest(self.drafter.is_some())?;
            Some((source, odds, room))
        });
        let (source, odds, room) = likeliest.unwrap_or((Source::Lookup, 0.0, 0));
        let cost = if source == Source::Draft { self.draft_cost } else { 0.0 };
        Offer { source, chance: Chance { odds, most: room.min(self.settings.tokens as usize), cost } }
    }

    /// Has the draft model guess. One that fails is not asked again: the answers do not depend on it.
    fn draft(&mut self, slots: &mut [Slot], mut wanted: Vec<Wanted>) {
        let Some(most) = wanted.iter().map(|want| want.most).max() else { return };
        let Some(drafter) = &mut self.drafter else { return };
        let from = Instant::now();
        match drafter.draft(&mut wanted) {
            Ok(true) => {
                let took = from.elapsed().as_secs_f64() / most as f64;
                let known = if self.draft_cost > 0.0 { self.draft_cost } else { took };
                self.draft_cost = known + WEIGHT * (took.min(2.0 * known) - known);
            }
            Ok(false) => {}
            Err(reason) => {
                tracing::warn!(reason, "goes on without the draft model");
                self.drafter = None;
            }
        }
        for Wanted { sequence, guess, .. } in wanted {
            if let Some(sequence) = &mut slots[sequence].sequence {
                sequence.guesser.set(Source::Draft, guess);
            }
        }
    }

    /// A step with a token of each stream, and so many guessed for each, took this long.
    pub fn observe(&mut self, guessed: impl Iterator<Item = usize> + Clone, took: Duration) {
        let mut lengths = guessed.clone().filter(|&length| length > 0);
        let length = lengths.next().unwrap_or(0);
        // Others are computed in pieces that tell little.
        if lengths.clone().all(|other| other == length) {
            let guessing = usize::from(length > 0) + lengths.count();
            self.worth.observe(Shape { streams: guessed.count(), guessing, length }, took);
        }
    }
}
