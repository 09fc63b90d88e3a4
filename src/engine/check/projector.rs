//! Checks a projector before llama.cpp sees it: that it is one, for images, and that its sizes can be computed with. Each of the many
//! kinds has tensors of its own, whose shapes only computing with them tells: [`crate::engine::vision`] does so behind a trap.

use std::path::Path;

use serde_json::Value;

use super::{MAX_LAYERS, check_epsilons, number};
use crate::gguf::Header;

/// Pixels of a side, numbers in a vector, and whatever else a size can be at most: no projector comes near it.
const MOST: u64 = 1 << 20;

/// Those that make of an image what depends on where in the prompt it stands, or which of all it is.
const UNSUPPORTED: [&str; 2] = ["deepseek4v", "hunyuanvl"];

/// Checks the file at `path`. The error says what is wrong with it.
pub fn check(path: &Path) -> Result<(), String> {
    let header = super::read(path)?;
    fits(&header).map_err(|reason| format!("bad projector: {}: {reason}", path.display()))
}

fn fits(header: &Header) -> Result<(), String> {
    let text = |key: &str| header.metadata.get(key).and_then(Value::as_str).unwrap_or_default();
    match text("general.architecture") {
        "clip" => {}
        other => return Err(format!("not a projector, but a file of the architecture {other:?}")),
    }
    if header.metadata.get("clip.has_vision_encoder") != Some(&Value::Bool(true)) {
        return Err("not for images".to_owned());
    }
    let kinds = [text("clip.projector_type"), text("clip.vision.projector_type")];
    if let Some(kind) = kinds.into_iter().find(|kind| UNSUPPORTED.contains(kind)) {
        return Err(format!("projectors of the type {kind} are not supported"));
    }
    let own = |name: &str| number(header, &format!("clip.vision.{name}"));
    for (name, most) in [
        ("image_size", MOST),
        ("patch_size", MOST),
        ("embedding_length", MOST),
        ("projection_dim", MOST),
        ("attention.head_count", MOST),
        ("block_count", MAX_LAYERS),
    ] {
        // What is missing llama.cpp says, where it needs it. Some kinds have no layers and no vectors of one length.
        let least = u64::from(matches!(name, "image_size" | "patch_size"));
        if let Some(size) = own(name).filter(|size| !(least..=most).contains(size)) {
            return Err(format!("clip.vision.{name} is {size}; {least} to {most} is possible"));
        }
    }
    check_epsilons(header)?;
    let (image, patch) = (own("image_size"), own("patch_size"));
    if image.zip(patch).is_some_and(|(image, patch)| patch > image) {
        return Err("its patches are larger than its images".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::writer::Writer;
    use crate::gguf::{self, Detail};

    fn refusal(writer: Writer) -> Result<(), String> {
        let file = writer.finish();
        fits(&gguf::read(file.as_slice(), file.len() as u64, Detail::Brief).unwrap())
    }

    fn clip() -> Writer {
        Writer::default().string("general.architecture", "clip").pair("clip.has_vision_encoder", 7, &[1])
    }

    #[test]
    fn a_projector_is_for_images_and_of_sizes_that_can_be() {
        let sizes =
            |image, patch| clip().u32("clip.vision.image_size", image).u32("clip.vision.patch_size", patch);
        assert_eq!(refusal(sizes(336, 14)), Ok(()));
        for (writer, words) in [
            (Writer::default().string("general.architecture", "llama"), "of the architecture \"llama\""),
            (Writer::default().string("general.architecture", "clip"), "not for images"),
            (clip().string("clip.projector_type", "deepseek4v"), "deepseek4v are not supported"),
            (sizes(0, 14), "clip.vision.image_size is 0"),
            (sizes(336, 0), "clip.vision.patch_size is 0"),
            (sizes(14, 336), "patches are larger"),
            (
                clip().pair("clip.vision.attention.layer_norm_epsilon", 6, &(-1.0_f32).to_le_bytes()),
                "layer_norm_epsilon is -1",
            ),
            (clip().u32("clip.vision.block_count", 513), "clip.vision.block_count is 513; 0 to 512"),
        ] {
            let refusal = refusal(writer).unwrap_err();
            assert!(refusal.contains(words), "{refusal}");
        }
    }
}
