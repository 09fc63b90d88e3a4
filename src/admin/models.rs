//! `/admin/v1/models`: which models take how much memory, and who leaves next.

use serde_json::{Value, json};

use crate::worker::{Footprint, Supervisor};

/// Events that are shown.
const EVENTS: usize = 50;
/// Predictions that are shown.
const PREDICTIONS: usize = 10;

/// `{models: [{name, state, bytes: {mapped, private, reserved, device}, rung, loading: {state, progress, eta_seconds}, load_seconds, uses, worth,
/// stays, preloaded}], next_victim: {name, reason}, predictions: [{name, probability, reason}], events: [{number, unix_seconds, model, event,
/// reason, progress, seconds}]}`: who is worth least first, what is most likely first, and what has happened last first. State is `resident`,
/// `hushed` (it gets no new requests, because another waits for its room), `loading`, `waiting` or `leaving`; `rung` says what its workers do
/// without, because all of it has no room; `stays` says why it cannot leave, and is null where it can; `preloaded` is what nobody has asked for
/// yet. What is not known is null.
pub fn models(supervisor: &Supervisor) -> Value {
    let footprints = supervisor.footprints();
    let mut can_go = footprints.iter().filter(|it| it.stays.is_none());
    let victim = can_go.find(|it| it.state == "resident" || it.is_foreseen);
    let next_victim = victim.map(|it| {
        let reason = match it.is_foreseen {
            true => "it was loaded ahead, and nobody has asked for it".to_owned(),
            false => {
                format!("nobody uses it, and {} makes it worth least ({:.3})", supervisor.policy(), it.worth)
            }
        };
        json!({ "name": it.model.name, "reason": reason })
    });
    let predictions = supervisor
        .predictions()
        .into_iter()
        .take(PREDICTIONS)
        .map(|it| json!({ "name": it.model, "probability": it.probability, "reason": it.reason() }));
    json!({
        "models": footprints.iter().map(describe).collect::<Vec<_>>(),
        "next_victim": next_victim,
        "predictions": predictions.collect::<Vec<_>>(),
        "events": supervisor.events(EVENTS),
    })
}

fn describe(footprint: &Footprint) -> Value {
    let bytes = footprint.need.as_ref().map(|need| {
        json!({
            "mapped": need.mapped.values().sum::<u64>(),
            "private": need.private,
            "reserved": need.compute,
            "device": need.device,
        })
    });
    json!({
        "name": footprint.model.name,
        "state": footprint.state,
        "bytes": bytes,
        "rung": (!footprint.cut.is_none()).then(|| footprint.cut.to_string()),
        "loading": footprint.loading,
        "load_seconds": footprint.load.as_secs_f64(),
        "uses": footprint.uses,
        "worth": footprint.worth,
        "stays": footprint.stays,
        "preloaded": footprint.is_foreseen,
    })
}
