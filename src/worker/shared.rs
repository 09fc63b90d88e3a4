//! [`Shared`]: the state, and the one place where what follows from a change of it is carried out.
//!
//! Every event, from whatever thread, changes the state under one short lock, and its actions are performed before the lock
//! is released: pool and metrics always agree with the state.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus::IntGaugeVec;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, mpsc, watch};

use super::action::{Action, Instruction, Report, Start};
use super::chronicle::{Chronicle, Event};
use super::memory::{Host, Ledger, Scale};
use super::residency::{Residency, Usage};
use super::snapshots;
use crate::library::Model;
use crate::node::{Node, Pool, Signal};
use crate::telemetry::Metrics;

/// Between two looks how much memory there is.
const LOOK: Duration = Duration::from_millis(100);

/// What only the run loop can do, because processes belong to its runtime.
pub(super) enum Order {
    Spawn(Start),
    Instruct(u64, Instruction),
    Weigh(Arc<Model>, Scale),
    Remember(Ledger),
    /// Want the model of this name, if there is one.
    Expect(String),
}

/// What requests and tasks on any thread share with the run loop.
pub(super) struct Shared {
    state: Mutex<State>,
    pool: Arc<Pool>,
    metrics: Arc<Metrics>,
    orders: mpsc::UnboundedSender<Order>,
    /// `wake` is earlier than the run loop knows, or it is time to stop.
    rescheduled: Notify,
    vacant: watch::Sender<bool>,
}

struct State {
    residency: Residency,
    /// When the run loop wakes by itself.
    wake: Option<Instant>,
    /// When it was looked last how much memory there is.
    looked: Option<Instant>,
    chronicle: Chronicle,
}

impl Shared {
    pub(super) fn new(
        residency: Residency,
        pool: Arc<Pool>,
        metrics: Arc<Metrics>,
        orders: mpsc::UnboundedSender<Order>,
    ) -> Self {
        Self {
            state: Mutex::new(State { residency, wake: None, looked: None, chronicle: Chronicle::default() }),
            pool,
            metrics,
            orders,
            rescheduled: Notify::new(),
            vacant: watch::Sender::new(true),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and carries out what follows.
    pub(super) fn update<R>(&self, change: impl FnOnce(&mut Residency, Instant) -> R) -> R {
        let now = Instant::now();
        let mut state = self.lock();
        // A clock before 1970 is as good as none.
        state.residency.tell_time(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        let result = change(&mut state.residency, now);
        state.look(now);
        let actions = state.residency.settle(now);
        if !actions.is_empty() {
            self.tell(state.residency.usage());
        }
        for action in actions {
            state.chronicle.note(&action, SystemTime::now());
            self.perform(action);
        }
        let vacant = state.residency.is_vacant();
        self.vacant.send_if_modified(|was| std::mem::replace(was, vacant) != vacant);
        let next = state.residency.next_wake(now);
        let is_earlier = next.is_some_and(|next| state.wake.is_none_or(|wake| next < wake));
        if is_earlier || state.residency.is_closing() {
            state.wake = next;
            self.rescheduled.notify_one();
        }
        result
    }

    /// Tells metrics what memory may be used for, after that has changed.
    pub(super) fn retell(&self) {
        let usage = self.lock().residency.usage();
        self.tell(usage);
    }

    /// The last things that have happened to models, the latest first.
    pub(super) fn events(&self, count: usize) -> Vec<Event> {
        self.lock().chronicle.last(count)
    }

    /// Tells metrics what memory is used for.
    fn tell(&self, usage: Usage) {
        let set = |family: &IntGaugeVec, labels: &[&str], bytes: u64| {
            family.with_label_values(labels).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        };
        for (device, kind, bytes) in usage.parts {
            set(&self.metrics.memory, &[device, kind], bytes);
        }
        for (device, budget) in usage.budgets {
            set(&self.metrics.memory_budget, &[device], budget);
        }
    }

    /// The run loop's plans may have changed.
    pub(super) fn rescheduled(&self) -> Notified<'_> {
        self.rescheduled.notified()
    }

    /// Waits until no process is left.
    pub(super) async fn vacated(&self) {
        // It fails only without the sender, which `self` owns.
        let _ = self.vacant.subscribe().wait_for(|vacant| *vacant).await;
    }

    /// When the run loop shall wake by itself; far off if nothing is due.
    pub(super) fn schedule(&self) -> tokio::time::Instant {
        const FAR: Duration = Duration::from_secs(24 * 60 * 60);
        let now = Instant::now();
        let mut state = self.lock();
        state.wake = state.residency.next_wake(now);
        state.wake.unwrap_or(now + FAR).into()
    }

    pub(super) fn is_closed(&self) -> bool {
        let state = self.lock();
        state.residency.is_closing() && state.residency.is_vacant()
    }

    /// What a look at the worker behind `node` found; routing and metrics learn of it while the worker serves.
    pub(super) fn report(&self, node: &Node, report: Report) {
        let told = match &report {
            Report::Vitals(vitals) => {
                let used = vitals.kv_used as f64 / vitals.kv_total.max(1) as f64;
                Some((Signal::from(&**vitals), used, vitals.pauses))
            }
            Report::Missed => None,
        };
        self.update(|residency, now| {
            let is_serving = residency.report(node.incarnation, report, now);
            if let Some((signal, used, pauses)) = told.filter(|_| is_serving) {
                node.set_signal(Signal { at: Some(now), ..signal });
                self.metrics.kv_used.with_label_values(&[&*node.name]).set(used);
                let counted = self.metrics.pauses.with_label_values(&[&*node.name]);
                counted.inc_by(pauses.saturating_sub(counted.get()));
            }
        });
    }

    fn perform(&self, action: Action) {
        let metrics = &self.metrics;
        match action {
            Action::Spawn(start) => {
                let (worker, model) = (&start.node.name, &start.model.name);
                tracing::info!(%worker, model, "loading model");
                if !start.node.cut.is_none() {
                    let rung = start.node.cut;
                    tracing::warn!(%worker, %rung, "no room for the model as configured; it is loaded with less");
                }
                self.order(Order::Spawn(start));
            }
            Action::Progressed(model, progress) => {
                tracing::info!(model = model.name, progress, "loading model");
            }
            Action::Swapped(model) => metrics.model_swaps.with_label_values(&[&model.name]).inc(),
            Action::Instruct(incarnation, instruction) => {
                self.order(Order::Instruct(incarnation, instruction));
            }
            Action::Admit(Start { model, node, .. }) => {
                metrics.node_up.with_label_values(&[&*node.name]).set(1);
                metrics.model_loaded.with_label_values(&[&model.name]).inc();
                self.pool.add(&model.name, node);
            }
            Action::Withdraw(Start { model, node, .. }) => {
                self.pool.remove(&model.name, &node);
                metrics.node_up.with_label_values(&[&*node.name]).set(0);
                metrics.kv_used.with_label_values(&[&*node.name]).set(0.0);
                // Its successor counts from 0 again.
                metrics.pauses.with_label_values(&[&*node.name]).reset();
                metrics.model_loaded.with_label_values(&[&model.name]).dec();
            }
            Action::Loaded(Start { model, node, .. }, took) => {
                metrics.model_load.with_label_values(&[&model.name]).observe(took.as_secs_f64());
                let rungs = node.cut.rungs();
                rungs.for_each(|rung| metrics.model_rungs.with_label_values(&[&model.name, rung]).inc());
                tracing::info!(worker = %node.name, took_ms = took.as_millis() as u64, "worker is ready");
            }
            Action::Refused(model, error) => tracing::error!(model = model.name, "{error}"),
            Action::LoadFailed(start, error) => tracing::error!(worker = %start.node.name, "{error}"),
            Action::Lost(start, ending, reason) => {
                metrics.worker_restarts.with_label_values(&[ending.as_str()]).inc();
                tracing::error!(worker = %start.node.name, "worker lost: {reason}");
            }
            Action::Expect(prediction) => {
                tracing::info!(
                    model = prediction.model,
                    probability = prediction.probability,
                    reason = prediction.reason(),
                    "a model is likely to be asked for"
                );
                self.order(Order::Expect(prediction.model));
            }
            Action::Preloaded(model, what) => {
                metrics.preloads.with_label_values(&[&*model.name, what.as_str()]).inc();
                tracing::info!(model = model.name, result = what.as_str(), "a model is loaded ahead");
            }
            Action::Weigh(model, scale) => self.order(Order::Weigh(model, scale)),
            Action::Remember(ledger) => self.order(Order::Remember(ledger)),
            Action::Snapshots(model, counts) => snapshots::count(metrics, &model.name, counts),
            Action::Evicted(model, eviction) => {
                metrics.model_evictions.with_label_values(&[eviction.as_str()]).inc();
                tracing::info!(model = model.name, reason = eviction.as_str(), "unloading model");
            }
        }
    }

    fn order(&self, order: Order) {
        // Without a receiver the run has ended, and with it every worker.
        let _ = self.orders.send(order);
    }
}

impl State {
    /// Looks how much memory there is, where somebody waits for some. Other processes are not that quick.
    fn look(&mut self, now: Instant) {
        let is_old = self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK);
        if is_old && self.residency.waits_for_memory(now) {
            self.residency.look(Host::read());
            self.looked = Some(now);
        }
    }
}

/// However the run loop ends, no worker is believed alive after it, and nobody waits for one.
pub(super) struct Abandon<'a>(pub(super) &'a Shared);

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        self.0.update(|residency, _| residency.abandon());
    }
}
