//! What llama.cpp computes with, as its own backend registry reports it; nothing here is guessed.
#![expect(unsafe_code, reason = "llama-cpp-2 does not wrap the features of ggml's backends")]

use std::ffi::{CStr, c_char, c_void};

use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::{LlamaBackendDeviceType, list_llama_ggml_backend_devices};
use llama_cpp_sys_2::{
    ggml_backend_get_features_t, ggml_backend_reg_count, ggml_backend_reg_get,
    ggml_backend_reg_get_proc_address, ggml_backend_reg_name, ggml_backend_reg_t,
};

use crate::generation::seam::{Backend, Device};

/// Makes llama.cpp usable in this process. Once per process.
pub fn initialise() -> Result<LlamaBackend, String> {
    load_modules();
    LlamaBackend::init().map_err(|error| error.to_string())
}

/// Loads the backends that are modules of their own, first use only: those beside the binary, as in a release, or those where
/// the build put them.
fn load_modules() {
    #[cfg(feature = "dynamic-backends")]
    {
        use llama_cpp_2::llama_backend::{load_backends, load_backends_from_path};
        static LOADED: std::sync::Once = std::sync::Once::new();
        LOADED.call_once(|| {
            // They report what they find on stderr otherwise.
            super::log::capture();
            let binary = std::env::current_exe().ok();
            if let Some(folder) = binary.as_deref().and_then(std::path::Path::parent) {
                load_backends_from_path(folder);
            }
            if list_llama_ggml_backend_devices().is_empty() {
                load_backends();
            }
        });
    }
}

/// Devices and CPU features.
pub fn describe() -> Backend {
    load_modules();
    Backend {
        devices: list_llama_ggml_backend_devices().into_iter().map(|device| device.name).collect(),
        cpu_features: cpu_features(),
    }
}

/// Bytes in use on these GPUs together, whoever uses them.
pub fn used(gpus: &[Device]) -> u64 {
    gpus.iter().map(|gpu| gpu.total.saturating_sub(gpu.free)).sum()
}

/// The GPUs there are, and what is free on each now.
pub fn gpus() -> Vec<Device> {
    let gpu = [LlamaBackendDeviceType::Gpu, LlamaBackendDeviceType::IntegratedGpu];
    let devices = list_llama_ggml_backend_devices().into_iter();
    let devices = devices.filter(|device| gpu.contains(&device.device_type));
    devices
        .map(|device| Device {
            name: device.name,
            total: device.memory_total as u64,
            free: device.memory_free as u64,
        })
        .collect()
}

/// The features of the CPU backend that are on.
fn cpu_features() -> Vec<String> {
    // SAFETY: the registry is filled before `main` (or by initialising the backend) and only grows; indices below its count are
    // valid, and so is the name of each of its members.
    let cpu = unsafe {
        (0..ggml_backend_reg_count())
            .map(|index| ggml_backend_reg_get(index))
            .find(|&member| text(ggml_backend_reg_name(member)) == "CPU")
    };
    cpu.map(features).unwrap_or_default()
}

fn features(member: ggml_backend_reg_t) -> Vec<String> {
    let mut names = Vec::new();
    // SAFETY: ggml documents `ggml_backend_get_features` to be of type `ggml_backend_get_features_t`, whose answer is a static
    // list that ends with an entry without a name. `Option` of a function pointer is null-pointer optimised, so null is `None`.
    unsafe {
        let address = ggml_backend_reg_get_proc_address(member, c"ggml_backend_get_features".as_ptr());
        let Some(list) = std::mem::transmute::<*mut c_void, ggml_backend_get_features_t>(address) else {
            return names;
        };
        let mut entry = list(member);
        while !entry.is_null() && !(*entry).name.is_null() {
            match text((*entry).value).as_str() {
                "0" => {}
                "1" => names.push(text((*entry).name)),
                value => names.push(format!("{}={value}", text((*entry).name))),
            }
            entry = entry.add(1);
        }
    }
    names
}

/// # Safety
/// `pointer` is null or points to a string that ends with NUL.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_is_always_a_cpu() {
        assert!(super::describe().devices.iter().any(|device| device.starts_with("CPU")));
    }
}
