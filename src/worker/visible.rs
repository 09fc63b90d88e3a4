//! Which GPUs a worker sees: it is told by the variables that CUDA and llama.cpp's Vulkan backend go by, before it starts.

use crate::units::Indices;

/// CUDA's takes names of devices (UUIDs) too, but always in the order in which they are counted then.
const VARIABLES: [&str; 2] = ["CUDA_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES"];

/// The variables by which a worker sees only `gpus`, counted as this process does: where its own environment, read by `own`, leaves it
/// some GPUs only, they are the first ones of those.
pub(super) fn variables(
    gpus: &Indices,
    own: impl Fn(&str) -> Option<String>,
) -> impl Iterator<Item = (&'static str, String)> {
    VARIABLES.into_iter().map(move |name| (name, chosen(gpus, own(name).as_deref())))
}

/// A number that is not there hides every device behind it from CUDA; so what is not among those left names none.
fn chosen(gpus: &Indices, left: Option<&str>) -> String {
    let left: Option<Vec<&str>> = left.map(|left| left.split(',').map(str::trim).collect());
    let name = |gpu: usize| match &left {
        Some(left) => left.get(gpu).map(|name| (*name).to_owned()),
        None => Some(gpu.to_string()),
    };
    gpus.iter().filter_map(name).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(gpus: &str, own: Option<&str>) -> Vec<(&'static str, String)> {
        let own = |name: &str| own.filter(|_| name == VARIABLES[0]).map(str::to_owned);
        variables(&gpus.parse().unwrap(), own).collect()
    }

    #[test]
    fn a_worker_is_told_its_gpus_by_each_backends_variable() {
        assert_eq!(told("0,2", None), VARIABLES.map(|name| (name, "0,2".to_owned())));
    }

    #[test]
    fn what_this_process_is_left_is_counted_from_the_start() {
        let cuda = |gpus, own| told(gpus, Some(own)).swap_remove(0).1;
        assert_eq!(cuda("1", "4,5,6"), "5");
        assert_eq!(cuda("0-1", "GPU-a, GPU-b"), "GPU-a,GPU-b");
        assert_eq!(cuda("1-2", "4,5"), "5", "the worker will say that one is missing");
        assert_eq!(told("1", Some("4,5"))[1].1, "1", "the other variable has its own");
    }
}
