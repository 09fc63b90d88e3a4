//! `/admin/v1/models`: which models take how much memory, and who leaves next.

use serde_json::{Value, json};

use crate::worker::{Footprint, Supervisor};

/// `{models: [{name, state, bytes: {mapped, private, reserved, device}, rung, load_progress, load_seconds, uses, worth, stays}], next_victim}`, who
/// is worth least first. State is `resident`, `hushed` (it gets no new requests, because another waits for its room), `loading`,
/// `waiting` or `leaving`; `rung` says what its workers do without, because all of it has no room; `stays` says why it cannot leave, and is null where it can. What is not known is null.
pub fn models(supervisor: &Supervisor) -> Value {
    let footprints = supervisor.footprints();
    let victim = footprints.iter().find(|it| it.state == "resident" && it.stays.is_none());
    let next_victim = victim.map(|it| {
        let reason =
            format!("nobody uses it, and {} makes it worth least ({:.3})", supervisor.policy(), it.worth);
        json!({ "name": it.model.name, "reason": reason })
    });
    json!({ "models": footprints.iter().map(describe).collect::<Vec<_>>(), "next_victim": next_victim })
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
        "load_progress": footprint.progress,
        "load_seconds": footprint.load.as_secs_f64(),
        "uses": footprint.uses,
        "worth": footprint.worth,
        "stays": footprint.stays,
    })
}
