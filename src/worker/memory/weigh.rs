//! [`weigh`]: reads the headers of a model's files and estimates what a worker of it will take.

use std::io::BufReader;
use std::path::Path;

use super::estimate::{Estimate, Need, Plan};
use crate::dialect::Capability;
use crate::generation::seam::{KvType, SpeculateMode};
use crate::gguf::{self, Detail};
use crate::library::Model;

/// Tokens of a step of a draft model, as the engine has it.
const DRAFT_BATCH: u32 = 64;
/// Hex digits of a digest in a key: enough that no two models share one.
const DIGEST: usize = 32;

/// What a worker of a model will take, by estimate.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weight {
    /// Everything it depends on: the model's files, and the settings that cost memory.
    pub key: String,
    /// Without GPUs.
    pub host: Need,
    /// With as many layers on GPUs as the config says.
    pub split: Need,
}

/// Weighs a model. Blocks on the disk. Errors in words.
pub fn weigh(model: &Model) -> Result<Weight, String> {
    let config = &model.config;
    let card = model.card()?;
    let plan = Plan {
        context: config.context,
        parallel: config.parallel.max(1),
        cells: config.cells,
        kv_type: config.kv_type,
        batch: config.batch,
        mmap: config.mmap,
        completes: card.capabilities.contains(&Capability::Completion),
    };
    let own = estimate(&model.file()?, &plan)?;
    let mut weight = Weight {
        key: key(&card.digest, model, &plan),
        host: own.need(0),
        split: own.need(config.gpu_layers),
    };
    let adapters = config.adapters.values().map(|adapter| Path::new(&adapter.path));
    for file in adapters.chain(config.projector.as_deref()) {
        weight.add_whole(size(file)?, config.gpu_layers != 0);
    }
    let speculate = model.speculate()?;
    if let Some(draft) = speculate.draft.filter(|_| speculate.mode != SpeculateMode::Off) {
        // Its cells are not quantised, and no sequences share them.
        let plan = Plan { cells: 0, kv_type: KvType::F16, batch: DRAFT_BATCH, ..plan };
        let draft_model = estimate(&draft.path, &plan)?;
        weight.host = weight.host.with(draft_model.need(0));
        weight.split = weight.split.with(draft_model.need(draft.gpu_layers));
    }
    Ok(weight)
}

impl Weight {
    /// A file that is read as a whole: an adapter or a projector.
    fn add_whole(&mut self, bytes: u64, on_gpu: bool) {
        let need = Need { private: bytes, ..Need::default() };
        self.host = std::mem::take(&mut self.host).with(need.clone());
        let split = if on_gpu { Need { device: bytes, ..Need::default() } } else { need };
        self.split = std::mem::take(&mut self.split).with(split);
    }
}

fn estimate(path: &Path, plan: &Plan) -> Result<Estimate, String> {
    let in_words = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(|error| in_words(&error))?;
    let length = file.metadata().map_err(|error| in_words(&error))?.len();
    let reader = BufReader::with_capacity(1 << 20, file);
    let header = gguf::read(reader, length, Detail::Layers).map_err(|error| in_words(&error))?;
    Ok(Estimate::new(&header, path, plan))
}

fn size(path: &Path) -> Result<u64, String> {
    path.metadata().map(|facts| facts.len()).map_err(|error| format!("{}: {error}", path.display()))
}

/// Readable, for whoever looks into the file.
fn key(digest: &str, model: &Model, plan: &Plan) -> String {
    let config = &model.config;
    let Plan { context, parallel, cells, kv_type, batch, mmap, .. } = plan;
    let draft = config.speculate.draft.as_ref().map(|draft| draft.path.display().to_string());
    let digest = digest.get(..DIGEST).unwrap_or(digest);
    format!(
        "{digest} context={context} parallel={parallel} cells={cells} kv={kv_type:?} batch={batch} mmap={mmap} gpu={} adapters={} \
         draft={}",
        config.gpu_layers,
        config.adapters.len(),
        draft.unwrap_or_default(),
    )
}
