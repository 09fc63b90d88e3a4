//! `POST /api/generate`: parsing.

use super::answer::Shape;
use super::request::Shared;
use crate::dialect::image::{self, Image};
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
    let images = image::in_front(body.images);
    if !images.is_empty() {
        needs.push(settings.need(Capability::Vision, "vision"));
    }
    let objection = if raw && (template.is_some() || system.is_some() || !context.is_empty()) {
        Some(Error::invalid_param("raw", "raw mode does not support template, system, or context"))
    } else if !suffix.is_empty() && !raw && !images.is_empty() {
        Some(Error::invalid_param("images", "a prompt with a suffix does not support images"))
    } else {
        None
    };

    let input = body.prompt.filter(|prompt| !prompt.is_empty()).map(|prompt| match raw {
        true => Input::Raw { prompt, images },
        // The model's own tokens frame the gap, so neither a template nor a system text has a place.
        false if !suffix.is_empty() => Input::Infill { prefix: prompt, suffix, extra: Vec::new() },
        false => Input::Prompt { prompt, system, template, context, images },
    });
    Ok(settings.call(input, needs, objection, Shape::Generate))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dialect::testing::{call, event, generation, logprob, needs, refused, spent, whole};
    use crate::dialect::{Endpoint, Whole, Work};
    use crate::generation::{Delta, Event, Format, Think};
    use crate::units::KeepAlive;

    fn generate(body: Value) -> Call {
        call(Endpoint::Generate, body)
    }

    fn refusal(body: Value) -> String {
        let error = refused(Endpoint::Generate, body);
        assert_eq!(error.status(), 400);
        error.to_string()
    }

    #[test]
    fn a_prompt_is_wrapped_in_the_models_template() {
        let call = generate(json!({
            "model": "m", "prompt": "p", "system": "s", "template": "t", "context": [1, 2], "truncate": false,
            "shift": false
        }));
        let generation = generation(&call);
        let prompt = Input::Prompt {
            prompt: "p".into(),
            system: Some("s".into()),
            template: Some("t".into()),
            context: vec![1, 2],
            images: Vec::new(),
        };
        assert_eq!(generation.input, prompt);
        assert_eq!((generation.model.as_str(), generation.truncate, generation.shift), ("m", false, false));
    }

    #[test]
    fn raw_takes_the_prompt_as_it_is_and_objects_to_what_would_change_it() {
        let plain = generate(json!({"model": "m", "prompt": "p", "raw": true, "template": "", "system": ""}));
        assert_eq!(generation(&plain).input, Input::Raw { prompt: "p".into(), images: Vec::new() });
        assert_eq!(plain.objection, None);
        for more in [json!({"template": "t"}), json!({"system": "s"}), json!({"context": [1]})] {
            let mut body = json!({"model": "m", "prompt": "p", "raw": true});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let objection = generate(body).objection.unwrap();
            assert_eq!(objection.to_string(), "raw mode does not support template, system, or context");
            assert_eq!(objection.status(), 400);
        }
    }

    #[test]
    fn a_suffix_makes_it_fill_in_the_middle_without_a_template() {
        let call = generate(json!({"model": "m", "prompt": "a", "suffix": "b", "template": "t"}));
        assert_eq!(
            generation(&call).input,
            Input::Infill { prefix: "a".into(), suffix: "b".into(), extra: Vec::new() }
        );
        assert!(needs(&call).contains(&(
            Capability::Insert,
            "registry.ollama.ai/library/m:latest does not support insert".into()
        )));
    }

    #[test]
    fn what_the_model_must_be_able_to_do_is_listed_in_ollamas_order() {
        let call = generate(json!({
            "model": "m", "prompt": "a", "suffix": "b", "think": true, "images": ["aGk="]
        }));
        let needs = needs(&call);
        assert_eq!(
            needs.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(),
            [
                "\"m\" does not support thinking",
                "\"m\" does not support generate",
                "registry.ollama.ai/library/m:latest does not support insert",
                "registry.ollama.ai/library/m:latest does not support vision"
            ]
        );
    }

    #[test]
    fn without_a_model_it_is_not_found() {
        let error = refused(Endpoint::Generate, json!({"prompt": "p"}));
        assert_eq!((error.to_string().as_str(), error.status().as_u16()), ("model '' not found", 404));
    }

    #[test]
    fn formats_are_json_a_schema_or_an_error() {
        let format = |value: Value| {
            generation(&generate(json!({"model": "m", "prompt": "p", "format": value}))).format.clone()
        };
        assert_eq!(format(json!("json")), Format::Json);
        assert_eq!(format(json!({"type": "object"})), Format::Schema(json!({"type": "object"})));
        assert_eq!(
            refusal(json!({"model": "m", "prompt": "p", "format": "xml"})),
            r#"invalid format: "xml"; expected "json" or a valid JSON Schema object"#
        );
        assert!(
            refusal(json!({"model": "m", "prompt": "p", "format": true}))
                .starts_with("invalid format: true;")
        );
    }

    #[test]
    fn think_is_a_switch_or_a_level() {
        let think = |value: Value| {
            let call = generate(json!({"model": "m", "prompt": "p", "think": value}));
            let thinks = needs(&call).iter().any(|(capability, _)| *capability == Capability::Thinking);
            (generation(&call).think.clone(), thinks)
        };
        assert_eq!(think(json!(true)), (Some(Think::Switch(true)), true));
        assert_eq!(think(json!(false)), (Some(Think::Switch(false)), false));
        assert_eq!(think(json!("max")), (Some(Think::Level("max".into())), true));
        assert_eq!(
            refusal(json!({"model": "m", "prompt": "p", "think": "hard"})),
            r#"invalid think value: "hard" (must be "high", "medium", "low", "max", true, or false)"#
        );
        assert_eq!(
            refusal(json!({"model": "m", "prompt": "p", "think": 1})),
            r#"think must be a boolean or string ("high", "medium", "low", "max", true, or false)"#
        );
    }

    #[test]
    fn logprobs_are_off_unless_asked_for_and_limited_to_twenty() {
        let logprobs = |value: Value| generation(&generate(value)).logprobs;
        assert_eq!(logprobs(json!({"model": "m", "prompt": "p", "top_logprobs": 3})), None);
        assert_eq!(logprobs(json!({"model": "m", "prompt": "p", "logprobs": true})), Some(0));
        assert_eq!(
            logprobs(json!({"model": "m", "prompt": "p", "logprobs": true, "top_logprobs": 20})),
            Some(20)
        );
        for top in [-1, 21] {
            let body = json!({"model": "m", "prompt": "p", "top_logprobs": top});
            assert_eq!(refusal(body), "top_logprobs must be between 0 and 20");
        }
    }

    #[test]
    fn keep_alive_is_a_number_of_seconds_or_a_go_duration() {
        let keep_alive =
            |value: Value| generate(json!({"model": "m", "prompt": "p", "keep_alive": value})).keep_alive;
        assert_eq!(keep_alive(json!(1.5)), Some(KeepAlive::For(std::time::Duration::from_millis(1500))));
        assert_eq!(keep_alive(json!("5m")), Some(KeepAlive::For(std::time::Duration::from_secs(300))));
        assert_eq!(keep_alive(json!(-1)), Some(KeepAlive::Forever));
        assert_eq!(keep_alive(json!("0")), Some(KeepAlive::Unload));
        for (value, message) in [
            (json!("30"), r#"time: missing unit in duration "30""#),
            (json!("5 minutes"), r#"time: unknown unit " minutes" in duration "5 minutes""#),
            (json!(true), r#"keep_alive must be a number of seconds or a duration such as "5m""#),
        ] {
            assert_eq!(refusal(json!({"model": "m", "prompt": "p", "keep_alive": value})), message);
        }
    }

    #[test]
    fn a_prompt_with_keep_alive_zero_runs_and_an_empty_one_unloads() {
        let run = generate(json!({"model": "m", "prompt": "p", "keep_alive": 0}));
        assert!(matches!(run.work, Work::Generate(_)));
        let unload = generate(json!({"model": "m", "prompt": "", "keep_alive": "0s", "think": true}));
        assert!(matches!(unload.work, Work::Unload));
        assert!(unload.needs.is_empty());
    }

    #[test]
    fn images_stand_in_front_of_the_prompt_but_have_no_place_before_a_gap() {
        let call = generate(json!({"model": "m", "prompt": "p", "images": ["aGk="]}));
        let Input::Prompt { images, .. } = &generation(&call).input else { panic!() };
        assert_eq!((images[0].at, &*images[0].data), (0, "aGk="));
        let call = generate(json!({"model": "m", "prompt": "p", "suffix": "s", "images": ["aGk="]}));
        let objection = call.objection.expect("an objection").to_string();
        assert_eq!(objection, "a prompt with a suffix does not support images");
    }

    #[test]
    fn images_must_be_base64() {
        let text = refusal(json!({"model": "m", "prompt": "p", "images": ["%%%"]}));
        assert_eq!(text, "json: cannot unmarshal images[0]: illegal base64 data");
    }

    #[test]
    fn lines_have_exactly_ollamas_fields() {
        let mut call = generate(json!({"model": "m<", "prompt": "p"}));
        let delta =
            Delta { text: "a".into(), thinking: "b".into(), tokens: vec![1], logprobs: vec![logprob("a")] };
        assert_eq!(
            event(&mut *call.render, 0, &Event::Delta(delta)),
            concat!(
                r#"{"model":"m\u003c","created_at":"2025-01-02T03:04:05.600000000Z","response":"a","thinking":"b","#,
                r#""done":false,"logprobs":[{"token":"a","logprob":-0.5,"bytes":[97],"#,
                r#""top_logprobs":[{"token":"a","logprob":-0.5,"bytes":[97]}]}]}"#,
                "\n"
            )
        );
        let end = crate::generation::Done { context: vec![5, 6], ..crate::dialect::testing::done() };
        assert_eq!(
            event(&mut *call.render, 0, &Event::Done(end)),
            concat!(
                r#"{"model":"m\u003c","created_at":"2025-01-02T03:04:05.600000000Z","response":"","done":true,"#,
                r#""done_reason":"stop","context":[5,6],"total_duration":100,"load_duration":1,"#,
                r#""prompt_eval_count":7,"prompt_eval_duration":20,"eval_count":2,"eval_duration":30}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_whole_answer_has_everything_in_one_object() {
        let mut call = generate(json!({"model": "m", "prompt": "p", "stream": false}));
        let mut done = crate::dialect::testing::done();
        done.reason = crate::generation::DoneReason::Length;
        let answer = whole(
            &mut *call.render,
            &[Whole { text: "t".into(), logprobs: vec![logprob("t")], done, ..Whole::default() }],
        );
        assert_eq!((&answer["response"], &answer["done_reason"]), (&json!("t"), &json!("length")));
        assert_eq!(answer["logprobs"][0]["token"], "t");
        assert_eq!(answer["eval_count"], 2);
        assert!(answer.get("thinking").is_none());
        assert_eq!(answer["total_duration"], spent().total);
    }
}
