//! [`Cut`]: what of a model's settings its workers do without, so that it fits into memory.

use std::fmt;

use super::KvType;

/// What is `None` is as configured. Shown as `sequences=1, kv=q8_0, context=2048, gpu_layers=12`; with no layer left on a GPU as `cpu`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Requests decoded together, fewer than configured.
    pub parallel: Option<u32>,
    /// A smaller number format of the KV cache.
    pub kv_type: Option<KvType>,
    /// A shorter context per sequence, in tokens.
    pub context: Option<u32>,
    /// Fewer layers on GPUs; 0: none.
    pub gpu_layers: Option<u32>,
}

impl Cut {
    /// Whether everything is as configured.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether answers may be others than those of the model as it is configured.
    pub fn changes_answers(&self) -> bool {
        self.kv_type.is_some() || self.context.is_some()
    }

    /// What was cut, by the names of metrics, with how far.
    fn parts(&self) -> impl Iterator<Item = (&'static str, Option<String>)> {
        let parts = [
            self.parallel.map(|parallel| ("sequences", Some(parallel.to_string()))),
            self.kv_type.map(|kv_type| ("kv", Some(kv_type.as_str().to_owned()))),
            self.context.map(|context| ("context", Some(context.to_string()))),
            self.gpu_layers.map(|layers| match layers {
                0 => ("cpu", None),
                layers => ("gpu_layers", Some(layers.to_string())),
            }),
        ];
        parts.into_iter().flatten()
    }

    /// What was cut, by the names of metrics.
    pub fn rungs(&self) -> impl Iterator<Item = &'static str> {
        self.parts().map(|(rung, _)| rung)
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (rung, value)) in self.parts().enumerate() {
            let separator = if number == 0 { "" } else { ", " };
            match value {
                Some(value) => write!(f, "{separator}{rung}={value}")?,
                None => write!(f, "{separator}{rung}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_is_told_in_one_line() {
        assert_eq!(Cut::default().to_string(), "");
        let some = Cut { parallel: Some(2), gpu_layers: Some(0), ..Cut::default() };
        assert_eq!(some.to_string(), "sequences=2, cpu");
        let all =
            Cut { parallel: Some(1), kv_type: Some(KvType::Q8_0), context: Some(2048), gpu_layers: Some(12) };
        assert_eq!(all.to_string(), "sequences=1, kv=q8_0, context=2048, gpu_layers=12");
    }

    #[test]
    fn how_many_run_together_and_where_changes_no_answer() {
        let fewer = Cut { parallel: Some(1), gpu_layers: Some(3), ..Cut::default() };
        assert!(!fewer.changes_answers() && !fewer.is_none() && Cut::default().is_none());
        assert!(Cut { kv_type: Some(KvType::Q4_0), ..Cut::default() }.changes_answers());
        assert!(Cut { context: Some(256), ..Cut::default() }.changes_answers());
    }
}
