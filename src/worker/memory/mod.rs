//! The model cache: what models take of memory, measured or estimated, how much there is, and who leaves when it is short.
//!
//! `estimate` works out from a file's header (`facts`) what a worker will take, its `need`, and `ladder` what it will take with less;
//! `weigh` reads the header, `ledger` remembers what it took in the end. `host` says how much there is, `limits` how much of that may be
//! taken; `room` decides from all that who comes, who leaves and who waits, by the `policy`, and `forecast` says how long that will take;
//! `foresight` says what is likely to be asked for. All of it but `weigh`, `host` and the file of the ledger is pure. Residency asks; uses
//! `gguf` and `library`.

mod config;
mod estimate;
mod facts;
mod forecast;
mod foresight;
mod host;
mod ladder;
mod ledger;
mod limits;
mod need;
mod policy;
mod room;
mod weigh;

use std::time::Duration;

use crate::units::share::Share;

pub use config::MemoryConfig;
pub use forecast::{Departure, remaining, room_in};
pub use foresight::{Prediction, PreloadConfig};
pub use host::Host;
pub use ladder::Rung;
pub use ledger::Ledger;
pub use limits::Limits;
pub use need::Need;
pub use policy::{Clock, Cost, Policy, Record};
pub use room::{Moves, Occupant, Refusal, Standing, Waiting, plan};
pub use weigh::{Scale, Step, Weight, weigh};

/// Whether there may be a GPU, as long as no worker has told.
const MAY_HAVE_GPU: bool =
    cfg!(any(feature = "cuda", feature = "vulkan", feature = "metal", feature = "dynamic-backends"));
/// Bytes that a disk delivers in a second, where no load was measured yet: an ordinary SSD.
const DISK: u64 = 500 << 20;

/// What is in memory, as far as it is the same for all models.
pub struct Memory {
    /// The section.
    pub config: MemoryConfig,
    /// What was measured.
    pub ledger: Ledger,
    /// The policy's.
    pub clock: Clock,
    /// How much there was when somebody looked last; `None`: it is not known.
    pub host: Option<Host>,
}

/// What a worker of a model claims.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Where the model stands: as configured, until there is no room for that.
    pub step: Step,
    /// All the rungs that it has, see [`Weight::steps`].
    pub steps: Vec<Step>,
    /// See [`Weight::before_eviction`].
    pub before_eviction: usize,
    /// What loading it takes.
    pub load: Duration,
}

impl Memory {
    /// Under `config`, with what is remembered.
    pub fn new(config: MemoryConfig, ledger: Ledger) -> Self {
        Self { config, ledger, clock: Clock::default(), host: None }
    }

    /// Without limits, and nothing stays for longer than it has to.
    pub fn unlimited() -> Self {
        let config = MemoryConfig {
            budget: Share::Off,
            devices: Share::Off,
            min_residency: Duration::ZERO,
            ..MemoryConfig::default()
        };
        Self::new(config, Ledger::default())
    }

    /// By what models are weighed.
    pub fn scale(&self) -> Scale {
        let has_gpu = self.ledger.devices().map_or(MAY_HAVE_GPU, |bytes| bytes > 0);
        Scale { ladder: self.config.ladder.clone(), has_gpu }
    }

    /// What a worker of this weight will take, by what is known of its like.
    pub fn claim(&self, weight: Weight) -> Claim {
        let correct = |step: Step| Step { need: self.ledger.correct(&step.key, step.need), ..step };
        let steps: Vec<_> = weight.steps.into_iter().map(correct).collect();
        let step = steps.first().cloned().unwrap_or_default();
        let bytes = step.need.host().saturating_add(step.need.device);
        let measured = self.load(&step.key);
        let load = measured.unwrap_or_else(|| Duration::from_secs_f64(bytes as f64 / DISK as f64));
        Claim { step, steps, before_eviction: weight.before_eviction, load }
    }

    /// What loading was measured to take.
    pub fn load(&self, key: &str) -> Option<Duration> {
        self.ledger.get(key).map(|measured| Duration::from_millis(measured.load_ms))
    }

    /// Whether bytes count at all.
    pub fn counts(&self) -> bool {
        self.config.budget != Share::Off || self.config.devices != Share::Off
    }

    /// How much there may be of everything: at most `count` models, and on the host what is there beside the `private` memory that
    /// workers have already.
    pub fn limits(&self, count: usize, private: u64) -> Limits {
        let devices = self.ledger.devices().filter(|total| *total > 0);
        let gpus = self.ledger.gpus().iter();
        let of = |total: u64| self.config.devices.of(Some(total)).map(|limit| limit.min(total));
        let has_budget = self.config.budget != Share::Off;
        Limits {
            count,
            budget: self.config.budget.of(self.host.map(|host| host.total)),
            room: self
                .host
                .filter(|_| has_budget)
                .map(|host| host.available.saturating_add(private).saturating_sub(self.config.margin)),
            device: devices.and_then(|total| self.config.devices.of(Some(total))),
            gpus: gpus.filter_map(|(gpu, total)| Some((*gpu, of(*total)?))).collect(),
        }
    }
}
