//! [`weigh`]: reads the headers of a model's files and estimates what a worker of it will take, as configured and on each rung of the
//! ladder.

use std::io::BufReader;
use std::path::{Path, PathBuf};

use super::estimate::{Estimate, Plan};
use super::ladder::{Rung, Uncut, descend};
use super::need::Need;
use crate::dialect::Capability;
use crate::generation::seam::{Cut, Draft, KvType, SpeculateMode};
use crate::gguf::{self, Detail, Header};
use crate::library::{Model, ModelConfig};

/// Tokens of a step of a draft model, as the engine has it.
const DRAFT_BATCH: u32 = 64;
/// Hex digits of a digest in a key: enough that no two models share one.
const DIGEST: usize = 32;

/// By what a model is weighed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// What may be done so that it fits.
    pub ladder: Vec<Rung>,
    /// There are GPUs, and as many of its layers are there as the config says.
    pub has_gpu: bool,
}

/// What a worker of a model will take, by estimate.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weight {
    /// On each rung that it has, the first as it is configured.
    pub steps: Vec<Step>,
    /// So many of them come before anybody has to leave.
    pub before_eviction: usize,
}

/// A rung that a model can stand on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// What is done without.
    pub cut: Cut,
    /// Everything that the need depends on: the model's files, and the settings that cost memory.
    pub key: String,
    /// Of one worker.
    pub need: Need,
}

/// Weighs a model. Blocks on the disk. Errors in words.
pub fn weigh(model: &Model, scale: &Scale) -> Result<Weight, String> {
    let (config, parts) = (&model.config, Parts::read(model)?);
    let uncut = parts.uncut(config, scale.has_gpu);
    let descent = descend(&scale.ladder, &uncut, |cut| parts.need(&config.cut(cut), scale.has_gpu));
    let step = |(cut, need)| Step { key: parts.key(&config.cut(&cut)), cut, need };
    let steps = descent.steps.into_iter().map(step).collect();
    Ok(Weight { steps, before_eviction: descent.before_eviction })
}

/// What a model is made of, as far as it costs memory.
struct Parts {
    digest: String,
    completes: bool,
    own: (Header, PathBuf),
    draft: Option<(Header, Draft)>,
    /// Bytes of files that are read as a whole: adapters and a projector.
    whole: u64,
}

impl Parts {
    fn read(model: &Model) -> Result<Self, String> {
        let (card, config, file) = (model.card()?, &model.config, model.file()?);
        let adapters = config.adapters.values().map(|adapter| Path::new(&adapter.path));
        let whole = adapters.chain(config.projector.as_deref()).map(size).sum::<Result<u64, String>>()?;
        let speculate = model.speculate()?;
        let draft = speculate.draft.filter(|_| speculate.mode != SpeculateMode::Off);
        let draft = draft.map(|draft| Ok::<_, String>((header(&draft.path)?, draft))).transpose()?;
        Ok(Self {
            digest: card.digest.clone(),
            completes: card.capabilities.contains(&Capability::Completion),
            own: (header(&file)?, file),
            draft,
            whole,
        })
    }

    fn plan(&self, config: &ModelConfig) -> Plan {
        Plan {
            context: config.context,
            parallel: config.parallel.max(1),
            cells: config.cells,
            kv_type: config.kv_type,
            batch: config.batch,
            mmap: config.mmap,
            completes: self.completes,
        }
    }

    fn estimate(&self, plan: &Plan) -> Estimate {
        let (header, file) = &self.own;
        Estimate::new(header, file, plan)
    }

    fn uncut(&self, config: &ModelConfig, has_gpu: bool) -> Uncut {
        let estimate = self.estimate(&self.plan(config));
        let layers = estimate.layers();
        Uncut {
            parallel: config.parallel.max(1),
            kv_type: config.kv_type,
            quantizes: estimate.quantizes,
            context: estimate.context,
            floor: config.context_floor,
            gpu_layers: if has_gpu {
                u32::try_from(config.gpu_layers).unwrap_or(layers).min(layers)
            } else {
                0
            },
            has_sibling: config.sibling.is_some(),
        }
    }

    /// What a worker of this section takes.
    fn need(&self, config: &ModelConfig, has_gpu: bool) -> Need {
        let layers = |layers: i32| if has_gpu { layers } else { 0 };
        let plan = self.plan(config);
        let mut need = self.estimate(&plan).need(layers(config.gpu_layers));
        if layers(config.gpu_layers) == 0 {
            need.private = need.private.saturating_add(self.whole);
        } else {
            need.device = need.device.saturating_add(self.whole);
        }
        match &self.draft {
            None => need,
            Some((header, draft)) => {
                // Its cells are not quantised, and no sequences share them.
                let plan = Plan { cells: 0, kv_type: KvType::F16, batch: DRAFT_BATCH, ..plan };
                need.with(Estimate::new(header, &draft.path, &plan).need(layers(draft.gpu_layers)))
            }
        }
    }

    /// Readable, for whoever looks into the file.
    fn key(&self, config: &ModelConfig) -> String {
        let Plan { context, parallel, cells, kv_type, batch, mmap, .. } = self.plan(config);
        let draft = config.speculate.draft.as_ref().map(|draft| draft.path.display().to_string());
        let digest = self.digest.get(..DIGEST).unwrap_or(&self.digest);
        format!(
            "{digest} context={context} parallel={parallel} cells={cells} kv={kv_type:?} batch={batch} mmap={mmap} gpu={} adapters={} \
             draft={}",
            config.gpu_layers,
            config.adapters.len(),
            draft.unwrap_or_default(),
        )
    }
}

fn header(path: &Path) -> Result<Header, String> {
    let in_words = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(|error| in_words(&error))?;
    let length = file.metadata().map_err(|error| in_words(&error))?.len();
    let reader = BufReader::with_capacity(1 << 20, file);
    gguf::read(reader, length, Detail::Layers).map_err(|error| in_words(&error))
}

fn size(path: &Path) -> Result<u64, String> {
    path.metadata().map(|facts| facts.len()).map_err(|error| format!("{}: {error}", path.display()))
}
