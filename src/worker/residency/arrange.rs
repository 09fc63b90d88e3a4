//! Who comes, who leaves and who waits: carries out what [`plan`] decides for all models together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Residency;
use crate::error::Error;
use crate::library::Model;
use crate::worker::action::{Action, Eviction};
use crate::worker::memory::{Host, Limits, Moves, Occupant, Refusal, Standing, Waiting, Weight, plan};
use crate::worker::replica::Replica;
use crate::worker::resident::Resident;

/// Other processes give memory back without saying so.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Residency {
    /// Some model waits for room, and how much there is decides.
    pub(in crate::worker) fn waits_for_memory(&self, now: Instant) -> bool {
        self.memory.counts() && self.residents.values().any(|resident| is_waiting(resident, now))
    }

    /// There is so much memory now.
    pub(in crate::worker) fn look(&mut self, host: Option<Host>) {
        self.memory.host = host;
    }

    /// A model weighs so much; `None`: that cannot be said.
    pub(in crate::worker) fn weighed(&mut self, model: &Arc<Model>, weight: Option<Weight>) {
        if let Some(resident) = self.residents.get_mut(&model.edition()) {
            resident.stake.weighed(weight, &self.memory);
            // Only now it is known what it takes.
            self.is_tight |= resident.is_live();
        }
    }

    /// Wants a model in memory, if it fits, because it was there at the last shutdown.
    pub(in crate::worker) fn warm(&mut self, model: &Arc<Model>, now: Instant) {
        let resident = self.resident(model);
        if resident.wanted.is_none() {
            resident.wanted = Some(now);
            resident.stake.is_warm = true;
        }
    }

    /// Takes note of which models are in memory now that it ends.
    pub(in crate::worker) fn remember_hot(&mut self, now: Instant) {
        let mut hot: Vec<_> =
            self.residents.values().filter(|it| it.is_settled() && !it.is_retired()).collect();
        hot.sort_by(|a, b| b.stake.uses(now).total_cmp(&a.stake.uses(now)));
        let names = hot.into_iter().map(|resident| resident.model.name.clone()).collect();
        self.memory.ledger.set_hot(names);
        self.out.push(Action::Remember(self.memory.ledger.clone()));
    }

    /// Starts what has room, and sends away whom it has to wait for.
    pub(super) fn arrange(&mut self, now: Instant) {
        // Workers that were lost have a claim already.
        for resident in self.residents.values_mut().filter(|it| it.is_staying() && it.can_start(now)) {
            resident.fill(&self.runtime, &mut self.incarnations, now, &mut self.out);
        }
        self.shed(now);
        // Every request comes by here, and hardly ever is there anything to decide.
        if !self.residents.values().any(|it| is_waiting(it, now) || it.stake.is_hushed) {
            return;
        }
        self.weigh(now);
        let (occupants, waiting, limits) = (self.occupants(now), self.waiting(now), self.limits());
        let moves = plan(&occupants, &waiting, &limits);
        if !moves.evict.is_empty() {
            self.note_swaps(&occupants, &waiting, &limits);
        }
        self.carry_out(&moves, now);
    }

    /// Has those weighed that wait and were not.
    fn weigh(&mut self, now: Instant) {
        let (counts, scale) = (self.memory.counts(), self.memory.scale());
        for resident in self.residents.values_mut().filter(|resident| is_waiting(resident, now)) {
            let is_news = resident.stake.must_be_weighed(now);
            if is_news && counts {
                self.out.push(Action::Weigh(Arc::clone(&resident.model), scale.clone()));
            } else if is_news || resident.stake.weighed_by().is_some_and(|end| end <= now) {
                resident.stake.weighed(None, &self.memory);
            }
        }
    }

    pub(super) fn limits(&self) -> Limits {
        let replicas = self.residents.values().flat_map(|resident| &resident.replicas);
        let private = replicas.map(Replica::private).sum();
        self.memory.limits(self.config.loaded_limit(self.memory.counts()), private)
    }

    pub(super) fn occupants(&self, now: Instant) -> Vec<Occupant<u64>> {
        let live = self.residents.iter().filter(|(_, resident)| resident.is_live());
        live.map(|(key, resident)| Occupant {
            key: *key,
            need: resident.need().unwrap_or_default(),
            standing: self.standing(resident, now),
            worth: resident.stake.worth(self.memory.config.policy, resident.replicas.len(), now),
        })
        .collect()
    }

    fn standing(&self, resident: &Resident, now: Instant) -> Standing {
        let is_used = resident.holds > 0;
        let stays = resident.stake.stays_until(self.memory.config.min_residency, is_used);
        if !resident.is_staying() {
            Standing::Leaving
        } else if resident.is_pinned() {
            Standing::Pinned
        } else if resident.stake.is_foreseen {
            // Nobody has asked for it, so nobody waits for its load to end either.
            Standing::Idle
        } else if !resident.is_settled() || stays.is_some_and(|end| end > now) {
            Standing::Fixed
        } else if !is_used || resident.is_silent() {
            Standing::Idle
        } else if resident.stake.is_hushed {
            Standing::Hushed
        } else {
            Standing::Busy
        }
    }

    pub(super) fn waiting(&self, now: Instant) -> Vec<Waiting<u64>> {
        let weighed =
            |(_, resident): &(&u64, &Resident)| is_waiting(resident, now) && resident.stake.is_weighed();
        let mut waiting: Vec<_> = self.residents.iter().filter(weighed).collect();
        waiting.sort_by_key(|(_, it)| (it.stake.is_warm && it.holds == 0, it.wanted));
        let due = |resident: &Resident| {
            resident.wanted.and_then(|since| since.checked_add(self.memory.config.max_wait))
        };
        let waiting = waiting.into_iter().map(|(key, resident)| {
            let (needs, before_eviction) = resident.needs();
            Waiting {
                key: *key,
                needs,
                before_eviction,
                is_due: due(resident).is_some_and(|due| due <= now),
                is_pressed: resident.stake.is_pressed,
                is_modest: resident.stake.is_warm && resident.holds == 0,
            }
        });
        waiting.collect()
    }

    fn carry_out(&mut self, moves: &Moves<u64>, now: Instant) {
        let etas: BTreeMap<_, _> = moves.refuse.iter().map(|(key, _)| (*key, self.eta(*key, now))).collect();
        let policy = self.memory.config.policy;
        let live = self.residents.values().filter(|resident| resident.is_live()).count();
        let is_full = live >= self.config.loaded_limit(self.memory.counts());
        let eviction = if is_full { Eviction::Limit } else { Eviction::Memory };
        for (key, resident) in &mut self.residents {
            let config = &self.config;
            if let Some((_, refusal)) = moves.refuse.iter().find(|(refused, _)| refused == key) {
                let eta = etas.get(key).copied().unwrap_or_default();
                resident.refuse(error(resident, refusal, eta), config, &mut self.out);
                // One that is wanted all the same begins to wait anew.
                resident.wanted = resident.wanted.map(|_| now);
            } else if let Some((_, rung)) = moves.start.iter().find(|(started, _)| started == key) {
                if std::mem::take(&mut resident.stake.has_displaced) {
                    self.out.push(Action::Swapped(Arc::clone(&resident.model)));
                }
                resident.stake.stands_on(*rung);
                resident.fill(&self.runtime, &mut self.incarnations, now, &mut self.out);
            } else if moves.evict.contains(key) {
                let worth = resident.stake.worth(policy, resident.replicas.len(), now);
                self.memory.clock.left(policy, worth);
                resident.evict(eviction, config, now, &mut self.out);
            } else {
                resident.hush(moves.hush.contains(key), &mut self.out);
            }
            // It came for nobody, or not at all.
            resident.stake.is_warm &= resident.is_live() || !resident.stake.is_weighed();
        }
    }

    /// When time alone will change who can come.
    pub(super) fn next_moves(&self, now: Instant) -> impl Iterator<Item = Instant> {
        let rules = &self.memory.config;
        let is_short = self.is_tight || self.residents.values().any(|resident| is_waiting(resident, now));
        let dues = self.residents.values().filter(move |it| is_short && is_waiting(it, now));
        let dues = dues.filter_map(|resident| resident.wanted?.checked_add(rules.max_wait));
        let there = self.residents.values().filter(move |it| is_short && it.is_settled());
        let stays = there.filter_map(|it| it.stake.stays_until(rules.min_residency, it.holds > 0));
        let weighed = self.residents.values().filter_map(|resident| resident.stake.weighed_by());
        let looks = (is_short && self.memory.counts()).then(|| now + LOOK_AGAIN);
        dues.chain(stays).chain(weighed).chain(looks)
    }
}

/// It is to come and nothing of it is there.
pub(super) fn is_waiting(resident: &Resident, now: Instant) -> bool {
    !resident.is_live() && resident.can_start(now)
}

fn error(resident: &Resident, refusal: &Refusal, eta: Duration) -> Error {
    let model = resident.model.name.clone();
    match refusal {
        Refusal::Never(reason) => Error::LoadFailed { model, reason: reason.clone() },
        Refusal::Later(reason) => Error::NoRoom { model, reason: reason.clone(), eta },
    }
}
