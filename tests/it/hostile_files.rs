//! Model files as an attacker would make them: whatever is done to a sound one, the worker loads it or says in words why not,
//! and the proxy lives on.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use arriero::generation::seam::{State, Vitals};
use arriero::gguf::{self, Detail, Header};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::executable::arriero;
use crate::fixture::Fixture;
use crate::harness::{Server, until};
use crate::http::{Address, Request};

/// Damaged files that the real worker is given. `PROPTEST_CASES` asks for more, as it does where proptest runs.
const CASES: u64 = 60;
/// Workers at once; those that fail wait a second before they end.
const AT_ONCE: usize = 6;

/// Numbers that a reader may not expect.
const ODD: [u32; 12] = [0, 1, 2, 3, 5, 7, 8, 255, 65_536, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];

fn path_of(fixture: Fixture) -> PathBuf {
    fixture.file_in(env!("CARGO_TARGET_TMPDIR").as_ref()).expect("the fixture can be written")
}

fn sound(fixture: Fixture) -> (Vec<u8>, Header) {
    let bytes = std::fs::read(path_of(fixture)).expect("the fixture");
    let header = gguf::read(bytes.as_slice(), bytes.len() as u64, Detail::Full).expect("a sound file");
    (bytes, header)
}

/// Where what follows the name of a key or a tensor begins: the type of the value, the number of dimensions.
fn place_of(file: &[u8], name: &str) -> Option<usize> {
    let mut written = (name.len() as u64).to_le_bytes().to_vec();
    written.extend(name.as_bytes());
    Some(file.windows(written.len()).position(|window| window == written)? + written.len())
}

/// Changes one thing.
fn damage(file: &mut Vec<u8>, header: &Header, random: &mut StdRng) {
    let data = header.tensors[0].place.start as usize;
    let at = random.random_range(0..data);
    match random.random_range(0..8) {
        0 => file.truncate(random.random_range(0..file.len())),
        1 => file[at] = random.random(),
        2 => {
            let inserted: Vec<u8> = (0..random.random_range(1..9)).map(|_| random.random()).collect();
            file.splice(at..at, inserted);
        }
        3 => {
            let at = random.random_range(data..file.len());
            file[at] = random.random();
        }
        // Dimensions or type of a tensor.
        4 => {
            let tensor = &header.tensors[random.random_range(0..header.tensors.len())];
            let number = random.random_range(0..2 * tensor.shape.len() + 2);
            overwrite(file, &tensor.name, 4 * number, random);
        }
        // Of a key the value's type, or else the value.
        kind => {
            let keys: Vec<&String> = header.metadata.keys().collect();
            overwrite(file, keys[random.random_range(0..keys.len())], if kind == 5 { 0 } else { 4 }, random);
        }
    }
}

/// Puts an odd number `offset` bytes behind a name, unless that is gone already.
fn overwrite(file: &mut [u8], name: &str, offset: usize, random: &mut StdRng) {
    let number = ODD[random.random_range(0..ODD.len())];
    if let Some(place) = place_of(file, name)
        && let Some(bytes) = file.get_mut(place + offset..place + offset + 4)
    {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
}

/// A GIF of one pixel.
const IMAGE: &str = "R0lGODlhAQABAIAAAAAAAP///yH5BAAAAAAALAAAAAABAAEAAAIBRAA7";

/// A worker with nobody above it.
struct Lone {
    process: Child,
    socket: PathBuf,
}

impl Lone {
    /// `more` is of the seam's specification.
    fn start(folder: &Path, model: &Path, more: Value) -> Self {
        let socket = folder.join("sock");
        let mut spec = json!({
            "name": "lone-0", "path": model, "socket": socket, "context": 128, "parallel": 2, "threads": 1, "batch": 64,
            "kv_type": "f16", "gpu_layers": 0, "mmap": true,
        });
        spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let mut command = arriero();
        command.args(["worker", "--spec", &spec.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        Self { process: command.spawn().expect("arriero starts"), socket }
    }

    /// Runs it to its end: one that loads is asked for a few tokens first.
    fn outcome(mut self) -> (ExitStatus, String) {
        let address = Address::Unix(self.socket.clone());
        let ended = until("it loads or ends", || {
            if let Some(status) = self.process.try_wait().expect("it can be waited for") {
                return Some(Some(status));
            }
            let response = Request::get("/health").send(&address).ok()?;
            let health: Vitals = serde_json::from_value(response.json().ok()?).ok()?;
            (health.state == State::Ready).then_some(None)
        });
        if ended.is_none() {
            // What has no projector refuses the image, and is asked without.
            for images in [json!([{ "data": IMAGE }]), json!([])] {
                let ask = json!({
                    "model": "lone", "input": { "kind": "raw", "prompt": "Hello, llama", "images": images },
                    "options": { "num_predict": 4 },
                });
                // Whether it answers is its own affair; it must not die of it.
                let _ = Request::post("/generate", &ask).send(&address).map(|response| response.text());
            }
        }
        drop(self.process.stdin.take());
        let status = ended.unwrap_or_else(|| self.process.wait().expect("it ends with its leash"));
        let mut words = String::new();
        let _ = self.process.stderr.take().expect("piped").read_to_string(&mut words);
        (status, words)
    }
}

/// Why a worker that was given the file of this seed, made of a sound one of `fixture`, ended as none may, if it did.
fn complaint(seed: u64, fixture: Fixture, (file, header): &(Vec<u8>, Header)) -> Option<String> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut file = file.clone();
    for _ in 0..random.random_range(1..3) {
        // One that was cut short is damaged enough.
        if file.len() > header.tensors[0].place.start as usize {
            damage(&mut file, header, &mut random);
        }
    }
    let folder = tempfile::tempdir().expect("a temporary directory");
    let damaged = folder.path().join("damaged.gguf");
    std::fs::write(&damaged, file).expect("a file");
    let worker = match fixture {
        Fixture::TinyAdapter => {
            let adapter = json!({ "name": "damaged", "path": damaged, "scale": 1.0, "default": true });
            Lone::start(folder.path(), &path_of(Fixture::TinyLlama), json!({ "adapters": [adapter] }))
        }
        Fixture::TinyProjector => {
            Lone::start(folder.path(), &path_of(Fixture::TinyLlama), json!({ "projector": damaged }))
        }
        _ => Lone::start(folder.path(), &damaged, json!({})),
    };
    let (status, words) = worker.outcome();
    let is_fine = match status.code() {
        Some(0) => true,
        Some(3) => words.lines().last().is_some_and(|line| line.starts_with("arriero worker: ")),
        _ => false,
    };
    (!is_fine).then(|| format!("seed {seed}: {status}: {words}"))
}

/// Gives workers as many damaged files as asked for.
fn damage_many(fixture: Fixture) {
    let sound = sound(fixture);
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let next = AtomicU64::new(0);
    let seeds =
        || std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < cases));
    let complaints: Vec<String> = thread::scope(|scope| {
        let runs = || seeds().filter_map(|seed| complaint(seed, fixture, &sound)).collect::<Vec<_>>();
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(runs)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a verdict")).collect()
    });
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn a_worker_loads_a_damaged_file_or_says_why_not_but_never_dies_of_it() {
    damage_many(Fixture::TinyLlama);
}

#[test]
fn a_worker_loads_a_damaged_adapter_or_says_why_not_but_never_dies_of_it() {
    damage_many(Fixture::TinyAdapter);
}

#[cfg(feature = "vision")]
#[test]
fn a_worker_loads_a_damaged_projector_or_says_why_not_but_never_dies_of_it() {
    damage_many(Fixture::TinyProjector);
}

/// One file per thing that can be wrong, with words of the error that the client gets.
fn broken(file: &[u8], header: &Header) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let at = |name: &str| place_of(file, name).expect("it is in the file");
    let with = |at: usize, bytes: &[u8]| {
        let mut file = file.to_vec();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let first = header.tensors[0].place.start as usize;
    let second = at(&header.tensors[1].name);
    let dimensions = header.tensors[1].shape.len();
    let offset = second + 4 + 8 * dimensions + 4;
    vec![
        ("cut-magic", file[..3].to_vec(), "not a GGUF file"),
        ("cut-counts", file[..20].to_vec(), "inside the counts, at byte 16"),
        ("cut-pairs", file[..300].to_vec(), "truncated: "),
        ("cut-vocabulary", file[..at("tokenizer.ggml.tokens") + 200].to_vec(), "truncated: "),
        ("cut-tensors", file[..second].to_vec(), "truncated: "),
        ("cut-data", file[..first + 100].to_vec(), "truncated: the data of tensor"),
        ("cut-end", file[..file.len() - 1].to_vec(), "truncated: the data of tensor"),
        ("many-tensors", with(8, &u64::MAX.to_le_bytes()), "truncated: "),
        ("many-pairs", with(16, &(1_u64 << 40).to_le_bytes()), "truncated: "),
        ("long-key", with(24, &(1_u64 << 63).to_le_bytes()), "truncated: "),
        ("strange-value", with(at("general.architecture"), &99_u32.to_le_bytes()), "a value of type 99"),
        ("strange-tensor", with(offset - 4, &99_u32.to_le_bytes()), "the unknown type 99"),
        ("huge-tensor", with(second + 4, &(1_u64 << 62).to_le_bytes()), "an impossible size"),
        ("overlapping", with(offset, &0_u64.to_le_bytes()), "begins at byte 0 of the data"),
        ("unaligned", with(offset, &7_u64.to_le_bytes()), "begins at byte 7 of the data"),
        ("far", with(offset, &(1_u64 << 50).to_le_bytes()), "of the data instead of"),
        ("layers", with(at("llama.block_count") + 4, &u32::MAX.to_le_bytes()), "4294967295 layers"),
    ]
}

#[test]
fn what_is_wrong_with_a_file_is_told_to_the_client_and_the_others_are_served() {
    let (file, header) = sound(Fixture::TinyLlama);
    let folder = tempfile::tempdir().expect("a temporary directory");
    let broken = broken(&file, &header);
    let mut models = "models: { demo: { path: \"builtin:demo\" }".to_owned();
    for (name, bytes, _) in &broken {
        let path = folder.path().join(format!("{name}.gguf"));
        std::fs::write(&path, bytes).expect("a file");
        models += &format!(", {name}: {{ path: \"{}\" }}", path.display());
    }
    let server = Server::start(&format!("{models} }}"));
    for (name, _, words) in &broken {
        let ask = json!({ "model": name, "prompt": "Hello", "options": { "num_predict": 1 } });
        let response = server.post("/api/generate", &ask);
        assert_eq!(response.status, 500, "{name}");
        let error: Value = response.json().expect("JSON");
        let error = error["error"].as_str().expect("a text");
        assert!(error.contains(&format!("{name}.gguf")) && error.contains(words), "{name}: {error}");
    }
    let ask = json!({ "model": "demo", "prompt": "Hello", "options": { "num_predict": 4 } });
    assert!(!server.generate(&ask).is_empty(), "the others are served");
    assert!(
        server.workers().iter().all(|worker| worker.is_of("demo")),
        "none of them got a process that stays"
    );
}
