//! `POST /api/generate`: parsing.

use super::answer::Shape;
use super::request::Shared;
use crate::dialect::image::Image;
use crate::dialect::json::{self, object};
use crate::dialect::{Call, Capability};
use crate::error::Error;
use crate::generation::Input;

object! {
    struct Body {
        "prompt" => prompt: String,
        "suffix" => suffix: String,
        "system" => system: String,
        "template" => template: String,
        "context" => context: Vec<u32>,
        "raw" => raw: bool,
        "images" => images: Vec<Image>,
        ..shared: Shared,
    }
}

pub(in crate::dialect) fn parse(body: &[u8]) -> Result<Call, Error> {
    let body: Body = json::read(body)?;
    let settings = body.shared.check()?;
    if settings.model.is_empty() {
        return Err(Error::ModelNotFound { name: String::new() });
    }
    let raw = body.raw.unwrap_or(false);
    let suffix = body.suffix.unwrap_or_default();
    let system = body.system.filter(|text| !text.is_empty());
    let template = body.template.filter(|text| !text.is_empty());
    let context = body.context.unwrap_or_default();

    let mut needs = Vec::new();
    if settings.thinks {
        needs.push(settings.need(Capability::Thinking, "thinking"));
    }
    needs.push(settings.need(Capability::Completion, "generate"));
    if !suffix.is_empty() {
        needs.push(settings.need(Capability::Insert, "insert"));
    }
    if !body.images.unwrap_or_default().is_empty() {
        needs.push(settings.need(Capability::Vision, "vision"));
    }
    let objection = (raw && (template.is_some() || system.is_some() || !context.is_empty()))
        .then(|| Error::invalid_param("raw", "raw mode does not support template, system, or context"));

    let input = body.prompt.filter(|prompt| !prompt.is_empty()).map(|prompt| match raw {
        true => Input::Raw { prompt },
        // The model's own tokens frame the gap, so neither a template nor a system text has a place.
        false if !suffix.is_empty() => Input::Infill { prefix: prompt, suffix },
        false => Input::Prompt { prompt, system, template, context },
    });
    Ok(settings.call(input, needs, objection, Shape::Generate))
}
