//! What a model's section is once it was [`Cut`].

use super::ModelConfig;
use super::config::LEAST_CELLS;
use crate::generation::seam::Cut;

impl ModelConfig {
    /// The section by which workers are run that do without what `cut` says.
    pub fn cut(&self, cut: &Cut) -> Self {
        let parallel = cut.parallel.unwrap_or(self.parallel);
        let context = cut.context.unwrap_or(self.context);
        // Each sequence that is left keeps its part of a pool, and any may need all of its context.
        let part = |all: u32| u64::from(all) * u64::from(parallel) / u64::from(self.parallel.max(1));
        let part = u32::try_from(part(self.cells)).unwrap_or(self.cells);
        Self {
            parallel,
            context,
            cells: if self.cells == 0 { 0 } else { part.max(context).max(LEAST_CELLS) },
            kv_type: cut.kv_type.unwrap_or(self.kv_type),
            gpu_layers: cut.gpu_layers.map_or(self.gpu_layers, |layers| i32::try_from(layers).unwrap_or(-1)),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::seam::KvType;

    #[test]
    fn what_is_not_cut_is_as_configured() {
        let config = ModelConfig { cells: 4096, ..ModelConfig::at("builtin:demo") };
        assert_eq!(config.cut(&Cut::default()), config);
        let cut = Cut { kv_type: Some(KvType::Q8_0), gpu_layers: Some(0), ..Cut::default() };
        assert_eq!(config.cut(&cut), ModelConfig { kv_type: KvType::Q8_0, gpu_layers: 0, ..config.clone() });
    }

    #[test]
    fn a_pool_shrinks_with_the_sequences_that_share_it_to_what_one_may_need() {
        let config =
            ModelConfig { cells: 4096, context: 2048, parallel: 4, ..ModelConfig::at("builtin:demo") };
        let cells = |parallel, context| config.cut(&Cut { parallel, context, ..Cut::default() }).cells;
        assert_eq!((cells(Some(2), None), cells(Some(1), None)), (2048, 2048));
        assert_eq!((cells(Some(1), Some(1024)), cells(None, Some(512))), (1024, 4096));
    }
}
