//! `POST /v1/completions`: parsing. As in Ollama the model's template is applied.

use serde_json::Value;

use super::completion_answer::CompletionAnswer;
use super::sampling::{Sampling, Task, top_logprobs};
use crate::dialect::json::{self, Integer, object};
use crate::dialect::{Call, Capability};
use crate::error::Error;
use crate::generation::{Input, ToolChoice};

object! {
    struct Body {
        "prompt" => prompt: Value,
        "suffix" => suffix: String,
        "logprobs" => logprobs: Integer,
        "best_of" => best_of: Integer,
        ..sampling: Sampling,
    }
}

pub(in crate::dialect) fn parse(body: &[u8]) -> Result<Call, Error> {
    let body: Body = json::read(body)?;
    let mut settings = body.sampling.check()?;
    let prompt = prompt(body.prompt)?;
    let logprobs = body.logprobs.map(|top| top_logprobs("logprobs", top)).transpose()?;
    let wanted = settings.generate_best_of(body.best_of)?;
    if settings.model.is_empty() {
        return Err(Error::ModelNotFound { name: String::new() });
    }

    let mut needs = vec![settings.need(Capability::Completion, "generate")];
    let input = match body.suffix.filter(|suffix| !suffix.is_empty()) {
        Some(suffix) => {
            needs.push(settings.need(Capability::Insert, "insert"));
            Input::Infill { prefix: prompt, suffix, extra: Vec::new() }
        }
        None => {
            Input::Prompt { prompt, system: None, template: None, context: Vec::new(), images: Vec::new() }
        }
    };
    let render =
        CompletionAnswer::new(&settings.model, settings.include_usage, logprobs.is_some()).with_best(wanted);
    // Which choices are the best is told by the log probabilities of their tokens.
    let logprobs = logprobs.or((settings.choices > wanted).then_some(0));
    let task = Task {
        input,
        format: settings.format(None)?,
        logprobs,
        think: None,
        tool_choice: ToolChoice::Auto,
        parallel_tool_calls: true,
    };
    Ok(settings.call(task, needs, Box::new(render)))
}

/// One text, or a list of one.
fn prompt(value: Option<Value>) -> Result<String, Error> {
    match value {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text),
        Some(Value::Array(mut items)) if items.len() == 1 => match items.pop() {
            Some(Value::String(text)) => Ok(text),
            _ => Err(Error::invalid_param("prompt", "prompt must be a string")),
        },
        Some(_) => {
            Err(Error::invalid_param("prompt", "prompt must be a string; send one request per prompt"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dialect::Endpoint;
    use crate::dialect::testing::{
        call, chunks, done, generation, joined, logprob, needs, refused, stream, whole,
    };
    use crate::dialect::{Whole, Work};
    use crate::generation::{Delta, Event, TokenLogprob};

    fn complete(body: Value) -> Call {
        call(Endpoint::Completions, body)
    }

    #[test]
    fn the_prompt_is_one_text_and_gets_the_template() {
        for prompt in [json!("p"), json!(["p"])] {
            let call = complete(json!({"model": "m", "prompt": prompt, "echo": true, "best_of": 1}));
            let expected = Input::Prompt {
                prompt: "p".into(),
                system: None,
                template: None,
                context: Vec::new(),
                images: Vec::new(),
            };
            assert_eq!(generation(&call).input, expected);
        }
        for prompt in [json!(["a", "b"]), json!([1, 2]), json!([1]), json!(1), json!([])] {
            let error = refused(Endpoint::Completions, json!({"model": "m", "prompt": prompt}));
            assert_eq!((error.status().as_u16(), error.param()), (400, Some("prompt")));
        }
    }

    #[test]
    fn the_best_choices_are_those_with_the_highest_mean_logprob() {
        let mut call = complete(json!({"model": "m", "prompt": "p", "n": 2, "best_of": 3, "seed": 1}));
        let Work::Generate(generations) = &call.work else { panic!() };
        assert_eq!(generations.len(), 3);
        assert!(generations.iter().all(|generation| generation.logprobs == Some(0)));
        let choice = |text: &str, logprobs: &[f32]| {
            let entry = |&mean: &f32| TokenLogprob { logprob: mean, ..logprob(text) };
            Whole {
                text: text.into(),
                logprobs: logprobs.iter().map(entry).collect(),
                done: done(),
                ..Whole::default()
            }
        };
        let choices = [choice("long", &[-1.0; 9]), choice("short", &[-2.0]), choice("good", &[-0.5, -0.7])];
        let answer = whole(&mut *call.render, &choices);
        let text = |index: usize| (&answer["choices"][index]["text"], &answer["choices"][index]["index"]);
        assert_eq!((text(0), text(1)), ((&json!("good"), &json!(0)), (&json!("long"), &json!(1))));
        assert_eq!(answer["choices"].as_array().unwrap().len(), 2);
        assert_eq!(answer["choices"][0]["logprobs"], Value::Null, "nobody asked for them");
        assert_eq!(answer["usage"]["completion_tokens"], 6, "all that was generated");
    }

    #[test]
    fn best_of_is_at_least_n_and_not_for_streams() {
        let refusal = |more: Value| {
            let mut body = json!({"model": "m", "prompt": "p"});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let error = refused(Endpoint::Completions, body);
            assert_eq!((error.status().as_u16(), error.param()), (400, Some("best_of")));
            error.to_string()
        };
        let fewer = refusal(json!({"n": 3, "best_of": 2}));
        assert!(fewer.contains("'n' (currently 3) to be at most 'best_of' (currently 2)"), "{fewer}");
        assert_eq!(refusal(json!({"best_of": 2, "stream": true})), "best_of cannot be used with stream");
        assert_eq!(refusal(json!({"best_of": 17})), "best_of must be between 1 and 16");
        let call = complete(json!({"model": "m", "prompt": "p", "n": 2, "best_of": 2, "stream": true}));
        assert!(call.stream);
    }

    #[test]
    fn a_suffix_makes_it_fill_in_the_middle() {
        let call = complete(json!({"model": "m", "prompt": "a", "suffix": "b"}));
        assert_eq!(
            generation(&call).input,
            Input::Infill { prefix: "a".into(), suffix: "b".into(), extra: Vec::new() }
        );
        assert!(needs(&call).iter().any(|(capability, _)| *capability == Capability::Insert));
    }

    #[test]
    fn logprobs_is_a_number_here() {
        let logprobs =
            |value: Value| generation(&complete(json!({"model": "m", "logprobs": value}))).logprobs;
        assert_eq!((logprobs(json!(null)), logprobs(json!(0)), logprobs(json!(5))), (None, Some(0), Some(5)));
        let error = refused(Endpoint::Completions, json!({"model": "m", "logprobs": 21}));
        assert_eq!(error.to_string(), "logprobs must be between 0 and 20");
    }

    #[test]
    fn a_missing_model_is_not_found() {
        assert_eq!(refused(Endpoint::Completions, json!({"prompt": "p"})).status(), 404);
    }

    fn events() -> Vec<Event> {
        let delta =
            |text: &str| Delta { text: text.into(), logprobs: vec![logprob(text)], ..Delta::default() };
        vec![Event::Delta(delta("é")), Event::Delta(delta("b")), Event::Done(done())]
    }

    #[test]
    fn a_stream_ends_with_the_finish_reason_and_the_end_mark() {
        let mut call = complete(json!({"model": "m", "prompt": "p", "stream": true, "logprobs": 1}));
        let chunks = chunks(&stream(&mut *call.render, &events()));
        assert!(chunks.iter().all(|chunk| chunk["object"] == "text_completion"));
        assert!(chunks[0]["id"].as_str().unwrap().starts_with("cmpl-"));
        assert_eq!(
            chunks[1]["choices"],
            json!([{"index": 0, "text": "b", "finish_reason": null, "logprobs": {
                "tokens": ["b"], "token_logprobs": [-0.5], "top_logprobs": [{"b": -0.5}], "text_offset": [1]}}])
        );
        assert_eq!(
            chunks[2]["choices"],
            json!([{"index": 0, "text": "", "finish_reason": "stop", "logprobs": null}])
        );
    }

    #[test]
    fn a_whole_answer_has_the_logprobs_of_all_tokens() {
        let mut call = complete(json!({"model": "m", "prompt": "p", "logprobs": 1}));
        let answer = whole(&mut *call.render, &[joined(&events())]);
        assert_eq!(answer["choices"][0]["text"], "éb");
        assert_eq!(answer["choices"][0]["logprobs"]["text_offset"], json!([0, 1]));
        assert_eq!(answer["usage"]["total_tokens"], 9);
    }
}
