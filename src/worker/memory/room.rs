//! [`plan`]: who comes into memory, who leaves it, and who waits: pure, from what each takes, what there may be, and what each
//! is worth.
//!
//! Those that wait are served in their order. What one of them lacks is taken from models that nobody uses, the least worth first,
//! and only if it then fits: nobody leaves in vain. Where that is not enough, and it has waited for long enough, models in use are
//! hushed: they get no new requests, and leave when those that run have ended. Nobody who waits is overtaken by one who would need
//! its room.
//!
//! A model that would not fit though all had left, or, once it has waited for long enough, beside what other processes take, comes on
//! the first rung of its ladder that would. For the room of others it waits: it gets that in full.

use super::limits::{Limits, Total};
use super::need::Need;
use crate::units::size;

/// A model in memory.
#[derive(Clone, Debug)]
pub struct Occupant<K> {
    /// Which.
    pub key: K,
    /// What its workers take together.
    pub need: Need,
    /// Whether it can go.
    pub standing: Standing,
    /// How much it is worth to keep it.
    pub worth: f64,
}

/// Whether a model in memory can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is going.
    Leaving,
    /// It never goes.
    Pinned,
    /// It is loading, or has come a moment ago.
    Fixed,
    /// Nobody uses it.
    Idle,
    /// It is in use.
    Busy,
    /// It is in use, but gets no new requests.
    Hushed,
}

/// A model that wants to be in memory; those that came first are first.
#[derive(Clone, Debug)]
pub struct Waiting<K> {
    /// Which.
    pub key: K,
    /// What its workers will take together on each rung, the first as it is configured.
    pub needs: Vec<Need>,
    /// So many of them are tried before anybody has to leave.
    pub before_eviction: usize,
    /// It has waited for as long as it may.
    pub is_due: bool,
    /// Memory ran out when it was loaded last, so all who can go have to.
    pub is_pressed: bool,
    /// Nobody has asked for it: it comes if there is room, and nobody leaves for it.
    pub is_modest: bool,
}

/// Why a model cannot come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It will never fit, in words.
    Never(String),
    /// It does not fit at the moment, through no model's fault, in words.
    Later(String),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moves<K> {
    /// Fit, each on this rung.
    pub start: Vec<(K, usize)>,
    /// Are to leave.
    pub evict: Vec<K>,
    /// Are to get no new requests; all others are.
    pub hush: Vec<K>,
    /// Cannot come.
    pub refuse: Vec<(K, Refusal)>,
}

/// Decides for those that wait, the first of whom came first.
pub fn plan<K: Clone + PartialEq>(
    occupants: &[Occupant<K>],
    waiting: &[Waiting<K>],
    limits: &Limits,
) -> Moves<K> {
    let mut desk = Desk {
        limits,
        staying: occupants.iter().filter(|occupant| occupant.standing != Standing::Leaving).collect(),
        leaving: occupants.iter().filter(|occupant| occupant.standing == Standing::Leaving).collect(),
        ahead: Vec::new(),
        moves: Moves { start: Vec::new(), evict: Vec::new(), hush: Vec::new(), refuse: Vec::new() },
    };
    waiting.iter().for_each(|waiting| desk.serve(waiting));
    desk.moves
}

struct Desk<'a, K> {
    limits: &'a Limits,
    /// Who is in memory and has not been told to go.
    staying: Vec<&'a Occupant<K>>,
    leaving: Vec<&'a Occupant<K>>,
    /// What those take who were served before.
    ahead: Vec<&'a Need>,
    moves: Moves<K>,
}

impl<'a, K: Clone + PartialEq> Desk<'a, K> {
    fn serve(&mut self, waiting: &'a Waiting<K>) {
        let possible = match self.possible(waiting) {
            Ok(rung) => rung,
            Err(refusal) => {
                self.moves.refuse.push((waiting.key.clone(), refusal));
                return;
            }
        };
        if waiting.is_pressed && !waiting.is_modest {
            let idle = self.staying.iter().filter(|it| it.standing == Standing::Idle);
            idle.map(|it| it.key.clone()).collect::<Vec<_>>().into_iter().for_each(|key| self.evict(&key));
        }
        let rung = self.rung(waiting, possible);
        let Some(need) = waiting.needs.get(rung.unwrap_or(possible)) else { return };
        match rung {
            Some(rung) => self.moves.start.push((waiting.key.clone(), rung)),
            None if waiting.is_modest => return,
            None => self.make_room(waiting, need),
        }
        self.ahead.push(need);
    }

    /// Where it can start at once: on a rung before anybody has to leave, or on the one that is `possible` in any case.
    fn rung(&self, waiting: &'a Waiting<K>, possible: usize) -> Option<usize> {
        if waiting.is_pressed && !self.leaving.is_empty() {
            return None;
        }
        let fits = |rung: &usize| {
            let leaving = self.leaving.iter().map(|it| &it.need);
            let need = waiting.needs.get(*rung);
            need.is_some_and(|need| self.limits.has_room(&self.with(&self.staying, need, leaving)))
        };
        (0..waiting.before_eviction).chain([possible]).find(fits)
    }

    /// Everything that `staying` take, those served before, and `need`.
    fn with<'b>(
        &self,
        staying: &'b [&'a Occupant<K>],
        need: &'b Need,
        more: impl Iterator<Item = &'b Need>,
    ) -> Total
    where
        'a: 'b,
    {
        let staying = staying.iter().map(|occupant| &occupant.need);
        Total::of(staying.chain(self.ahead.iter().copied()).chain([need]).chain(more))
    }

    /// The first rung on which it fits though only those stay that never go. Of what other processes take it is hoped, until it is due,
    /// that they give it back.
    fn possible(&self, waiting: &Waiting<K>) -> Result<usize, Refusal> {
        let pinned = self.staying.iter().filter(|it| it.standing == Standing::Pinned).map(|it| &it.need);
        let pinned: Vec<_> = pinned.collect();
        let least = |need: &Need| Total::of(pinned.iter().copied().chain([need]));
        let could = |need: &Need| match waiting.is_due {
            true => self.limits.has_room(&least(need)),
            false => self.limits.allows(&least(need)),
        };
        let (Some(last), found) = (waiting.needs.last(), waiting.needs.iter().position(could)) else {
            return Ok(0);
        };
        found.ok_or_else(|| match waiting.needs.iter().rfind(|need| self.limits.allows(&least(need))) {
            None => Refusal::Never(self.limits.objection(last, &Total::of(pinned.iter().copied()))),
            Some(need) => {
                let [needed, room] = [least(need).host, self.limits.room.unwrap_or(0)].map(size::rounded);
                Refusal::Later(format!("it needs {needed} of memory, and other processes leave {room}"))
            }
        })
    }

    /// Tells as many to go as have to, unless it would not fit even then.
    fn make_room(&mut self, waiting: &Waiting<K>, need: &Need) {
        let fits = |desk: &Self, staying: &[&Occupant<K>]| {
            desk.limits.has_room(&desk.with(staying, need, std::iter::empty()))
        };
        if fits(self, &self.staying) {
            // Those that are leaving are enough.
            return;
        }
        let mut candidates: Vec<_> =
            self.staying.iter().copied().filter(|it| self.can_go(it, waiting)).collect();
        // Who was told before stays told.
        let rank = |standing| match standing {
            Standing::Idle => 0,
            Standing::Hushed => 1,
            _ => 2,
        };
        candidates.sort_by(|a, b| rank(a.standing).cmp(&rank(b.standing)).then(a.worth.total_cmp(&b.worth)));
        let mut staying = self.staying.clone();
        let mut chosen: Vec<&Occupant<K>> = Vec::new();
        for candidate in candidates {
            staying.retain(|it| it.key != candidate.key);
            chosen.push(candidate);
            if fits(self, &staying) {
                break;
            }
        }
        if !fits(self, &staying) {
            return;
        }
        // A large one that had to go in the end may have made the going of small ones needless.
        for candidate in chosen.clone().into_iter().rev() {
            staying.push(candidate);
            if fits(self, &staying) {
                chosen.retain(|it| it.key != candidate.key);
            } else {
                staying.pop();
            }
        }
        for it in chosen {
            if it.standing == Standing::Idle { self.evict(&it.key) } else { self.hush(&it.key) }
        }
    }

    /// Those in use go only for one that has waited for long enough; once they were told, for whoever waits.
    fn can_go(&self, occupant: &Occupant<K>, waiting: &Waiting<K>) -> bool {
        match occupant.standing {
            Standing::Idle => true,
            Standing::Hushed | Standing::Busy => waiting.is_due && !self.moves.hush.contains(&occupant.key),
            Standing::Leaving | Standing::Pinned | Standing::Fixed => false,
        }
    }

    fn evict(&mut self, key: &K) {
        if let Some(place) = self.staying.iter().position(|it| it.key == *key) {
            self.leaving.push(self.staying.swap_remove(place));
            self.moves.evict.push(key.clone());
        }
    }

    /// It counts as gone for those who come after.
    fn hush(&mut self, key: &K) {
        if let Some(place) = self.staying.iter().position(|it| it.key == *key) {
            self.leaving.push(self.staying.swap_remove(place));
            self.moves.hush.push(key.clone());
        }
    }
}

#[cfg(test)]
mod tests;
