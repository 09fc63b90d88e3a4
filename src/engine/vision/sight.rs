//! [`Sight`]: the images of one request. While its texts are put together each image is a mark in them, which templates pass on like
//! any word; then the marks become pictures.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Picture;
use crate::engine::model::Model;
use crate::engine::sampling::Token;
use crate::generation::{Failure, FailureCode, Generation, Image, Input};

/// Images in one request at most. Each is kept unpacked, as tens of megabytes at worst, until the request has ended.
const MOST_IMAGES: usize = 64;

/// What the model reads for an image.
pub enum Part {
    /// Tokens around pictures, such as those that begin and end an image.
    Text(Vec<Token>),
    /// A picture.
    Picture(Arc<Picture>),
}

/// The images of one request, none in most.
#[derive(Default)]
pub struct Sight {
    /// What a mark begins with; nobody who writes a text can know it.
    mark: String,
    images: Vec<Vec<Part>>,
}

/// What ends a mark.
const END: char = 'z';

impl Sight {
    /// Takes the images out of a request and puts marks in their places.
    pub fn take(model: &Model, generation: &mut Generation) -> Result<Self, Failure> {
        let name = format!("arrieroimage{:032x}n", rand::random::<u128>());
        let images = mark(generation, |index| format!("{name}{index}{END}"));
        if images.is_empty() {
            return Ok(Self::default());
        }
        if images.len() > MOST_IMAGES {
            return Err(invalid(format!("the request has {} images: more than {MOST_IMAGES}", images.len())));
        }
        let Some(vision) = &model.vision else {
            let message = "the model does not see images".to_owned();
            return Err(Failure { code: FailureCode::Unsupported, message });
        };
        let most = vision.most(model.batch());
        let look = |(index, image): (usize, &Image)| {
            let number = index + 1;
            let bytes = STANDARD.decode(&*image.data);
            let bytes = bytes.map_err(|_| invalid(format!("image {number} is not base64")))?;
            let parts = vision.look(&bytes).map_err(|reason| invalid(format!("image {number}: {reason}")))?;
            let largest = pictures(&parts).map(|picture| picture.rows()).max().unwrap_or(0);
            if largest > most {
                return Err(invalid(format!(
                    "image {number} takes {largest} tokens that are read at once: more than the model's batch of {most}"
                )));
            }
            Ok(parts)
        };
        let images = images.iter().enumerate().map(look).collect::<Result<_, _>>()?;
        Ok(Self { mark: name, images })
    }

    /// The tokens of a prompt, as [`Model::tokenize_prompt`] has them, with those of the images that are in it.
    pub fn tokenize(&self, model: &Model, text: &str, starts: bool) -> Vec<Token> {
        if self.images.is_empty() {
            return model.tokenize_prompt(text, starts);
        }
        let mut pieces = text.split(&self.mark);
        let mut tokens = model.tokenize_prompt(pieces.next().unwrap_or_default(), starts);
        for piece in pieces {
            let (number, text) = piece.split_once(END).unwrap_or(("", piece));
            for part in
                number.parse().ok().and_then(|index: usize| self.images.get(index)).into_iter().flatten()
            {
                match part {
                    Part::Text(own) => tokens.extend(own),
                    Part::Picture(picture) => tokens.extend(picture.tokens()),
                }
            }
            tokens.extend(model.tokenize(text, false, true));
        }
        tokens
    }

    /// Whether all images are in what a template has made of the whole request; else what the client is told.
    pub fn check(&self, rendered: &str) -> Result<(), Failure> {
        let is_in = |index: usize| rendered.contains(&format!("{}{index}{END}", self.mark));
        match (0..self.images.len()).all(is_in) {
            true => Ok(()),
            false => Err(invalid("the model's chat template leaves out images where they stand".to_owned())),
        }
    }

    /// All that there is to see.
    pub fn pictures(&self) -> Vec<Arc<Picture>> {
        self.images.iter().flat_map(|parts| pictures(parts)).cloned().collect()
    }

    /// Cells that its pictures take beyond the positions that they have.
    pub fn excess(&self) -> usize {
        let excess = |picture: &Arc<Picture>| picture.rows().saturating_sub(picture.tokens().len());
        self.images.iter().flat_map(|parts| pictures(parts)).map(excess).sum()
    }
}

fn pictures(parts: &[Part]) -> impl Iterator<Item = &Arc<Picture>> {
    parts.iter().filter_map(|part| match part {
        Part::Picture(picture) => Some(picture),
        Part::Text(_) => None,
    })
}

/// Takes the images out of a request and puts what `name` says of each in their places; the images in that order.
pub fn mark(generation: &mut Generation, name: impl Fn(usize) -> String) -> Vec<Image> {
    let mut all = Vec::new();
    let mut mark_text = |text: &mut String, images: &mut Vec<Image>| {
        let (mut marked, mut from) = (String::new(), 0);
        for image in images.drain(..) {
            // Those that stand nowhere stand at the end.
            let at = if text.is_char_boundary(image.at) { image.at.max(from) } else { text.len() };
            marked += &text[from..at];
            marked += &name(all.len());
            from = at;
            all.push(image);
        }
        marked += &text[from..];
        *text = marked;
    };
    match &mut generation.input {
        Input::Chat { messages, .. } => {
            messages.iter_mut().for_each(|message| mark_text(&mut message.content, &mut message.images));
        }
        Input::Prompt { prompt, images, .. } | Input::Raw { prompt, images } => mark_text(prompt, images),
        Input::Infill { .. } => {}
    }
    all
}

fn invalid(message: String) -> Failure {
    Failure { code: FailureCode::InvalidRequest, message }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn marked(input: serde_json::Value) -> (Input, Vec<String>) {
        let mut generation = serde_json::from_value(json!({ "model": "m", "input": input })).unwrap();
        let images = mark(&mut generation, |index| format!("<{index}>"));
        (generation.input, images.iter().map(|image| image.data.to_string()).collect())
    }

    #[test]
    fn images_become_marks_in_the_order_in_which_they_stand() {
        let (input, images) = marked(json!({ "kind": "chat", "messages": [
            { "role": "user", "content": "one two", "images": [
                { "data": "a" }, { "at": 3, "data": "b" }, { "at": 3, "data": "c" }, { "at": 7, "data": "d" },
            ] },
            { "role": "assistant", "content": "x" },
            { "role": "user", "content": "", "images": [{ "data": "e" }] },
        ] }));
        let Input::Chat { messages, .. } = input else { panic!() };
        let texts: Vec<_> = messages.iter().map(|message| message.content.as_str()).collect();
        assert_eq!(texts, ["<0>one<1><2> two<3>", "x", "<4>"]);
        assert_eq!(images.concat(), "abcde");
        assert!(messages.iter().all(|message| message.images.is_empty()));
    }

    #[test]
    fn an_image_that_stands_nowhere_stands_at_the_end() {
        for at in [1, 99] {
            let (input, _) =
                marked(json!({ "kind": "raw", "prompt": "é!", "images": [{ "at": at, "data": "a" }] }));
            let Input::Raw { prompt, .. } = input else { panic!() };
            assert_eq!(prompt, "é!<0>");
        }
        let backwards = json!([{ "at": 2, "data": "a" }, { "at": 1, "data": "b" }]);
        let (input, _) = marked(json!({ "kind": "raw", "prompt": "abc", "images": backwards }));
        let Input::Raw { prompt, .. } = input else { panic!() };
        assert_eq!(prompt, "ab<0><1>c");
    }
}
