//! Where workers of a model run: the lists `cpus` and `gpus` of its section, dealt out to its replicas.

use super::ModelConfig;
use crate::generation::seam::Binding;
use crate::units::Indices;

/// CPUs that are there and not switched off.
const ONLINE: &str = "/sys/devices/system/cpu/online";

impl ModelConfig {
    /// What the worker in this place, from 0, is bound to.
    pub fn binding(&self, place: usize) -> Binding {
        let dealt = |sets: &[Indices]| sets.get(place.checked_rem(sets.len())?).cloned();
        Binding { cpus: dealt(&self.cpus), gpus: dealt(&self.gpus) }
    }

    /// Lists that have more sets than there are workers to get one, with the key.
    pub(super) fn binding_faults(&self) -> impl Iterator<Item = (&'static str, String)> {
        let (replicas, lists) = (self.replicas, [("cpus", self.cpus.len()), ("gpus", self.gpus.len())]);
        let needless = lists.into_iter().filter(move |(_, sets)| *sets > replicas.max(1));
        needless.map(move |(key, sets)| {
            (key, format!("must have no more sets than there are replicas, {replicas}; found {sets}"))
        })
    }

    /// CPUs that this machine does not have, in words.
    pub(super) fn cpus_fault(&self) -> Option<String> {
        // Where the system does not tell, the worker will.
        let online = std::fs::read_to_string(ONLINE).ok()?.parse().ok()?;
        missing(&self.cpus, &online)
    }
}

fn missing(sets: &[Indices], online: &Indices) -> Option<String> {
    let missing: Vec<_> = sets.iter().filter_map(|set| set.beyond(online)).collect();
    let all = missing.iter().flat_map(Indices::iter).filter_map(|cpu| u16::try_from(cpu).ok());
    let all: Indices = all.collect();
    (!missing.is_empty()).then(|| format!("this machine has the CPUs {online}, and not {all}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(section: serde_json::Value) -> ModelConfig {
        let mut config = json!({ "path": "builtin:demo" });
        config.as_object_mut().unwrap().extend(section.as_object().unwrap().clone());
        serde_json::from_value(config).unwrap()
    }

    fn cpus(config: &ModelConfig) -> Vec<String> {
        (0..3)
            .map(|place| config.binding(place).cpus.map_or("any".to_owned(), |set| set.to_string()))
            .collect()
    }

    #[test]
    fn sets_are_dealt_out_in_turn_and_without_any_nothing_is_bound() {
        assert_eq!(cpus(&config(json!({}))), ["any"; 3]);
        assert_eq!(cpus(&config(json!({ "cpus": ["0-3"] }))), ["0-3"; 3]);
        let two = config(json!({ "replicas": 3, "cpus": ["0-3", 4], "gpus": ["0,1"] }));
        assert_eq!(cpus(&two), ["0-3", "4", "0-3"]);
        assert_eq!(two.binding(2).gpus, Some("0-1".parse().unwrap()));
        assert!(config(json!({})).binding(0).is_none());
    }

    #[test]
    fn a_set_that_nobody_would_get_is_a_mistake() {
        let faults = |section| config(section).faults();
        assert_eq!(faults(json!({ "replicas": 2, "cpus": [0, 1], "gpus": [0] })), []);
        assert_eq!(
            faults(json!({ "gpus": [0, 1] })),
            [("gpus", "must have no more sets than there are replicas, 1; found 2".to_owned())]
        );
    }

    #[test]
    fn cpus_that_are_not_there_are_named() {
        let sets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Indices>>();
        let online = "0-3".parse().unwrap();
        assert_eq!(missing(&sets(&["0-1", "3"]), &online), None);
        let found = missing(&sets(&["2-5", "8"]), &online);
        assert_eq!(found.as_deref(), Some("this machine has the CPUs 0-3, and not 4-5,8"));
    }

    #[test]
    fn workers_are_made_anew_for_another_binding() {
        let has_same = |section| config(section).has_workers_of(&config(json!({})));
        assert!(!has_same(json!({ "cpus": [0] })));
        assert!(has_same(json!({ "sibling": "x", "context_floor": 9 })), "the proxy goes by these");
    }
}
