//! What a message says: a text, or its parts where there are pictures in it.

use serde_json::{Value, json};

use crate::generation::Image;

/// `content` of a message: a text with each picture before the byte where it stands.
pub(super) fn content(text: &str, images: &[Image]) -> Value {
    if images.is_empty() {
        return text.into();
    }
    let (mut parts, mut from) = (Vec::new(), 0);
    for image in images {
        // A place inside a character, or before the one of the picture before, is none.
        let at = image.at.max(from);
        if let Some(piece) = text.get(from..at).filter(|piece| !piece.is_empty()) {
            parts.push(json!({"type": "text", "text": piece}));
            from = at;
        }
        let url = format!("data:{};base64,{}", kind(&image.data), image.data);
        parts.push(json!({"type": "image_url", "image_url": {"url": url}}));
    }
    if let Some(rest) = text.get(from..).filter(|rest| !rest.is_empty()) {
        parts.push(json!({"type": "text", "text": rest}));
    }
    parts.into()
}

/// The media type, by the first bytes of the file as base64 has them.
fn kind(data: &str) -> &'static str {
    let kinds = [("/9j/", "image/jpeg"), ("R0lG", "image/gif"), ("Qk", "image/bmp")];
    kinds.into_iter().find(|(begin, _)| data.starts_with(begin)).map_or("image/png", |(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(at: usize, data: &str) -> Image {
        Image { at, data: data.into() }
    }

    #[test]
    fn pictures_stand_where_they_stood() {
        assert_eq!(content("hello", &[]), json!("hello"));
        let parts = content("héllo", &[image(0, "iVBORw"), image(3, "/9j/4A"), image(6, "R0lGOD")]);
        let picture = |url: &str| json!({"type": "image_url", "image_url": {"url": url}});
        let expected = json!([
            picture("data:image/png;base64,iVBORw"),
            {"type": "text", "text": "hé"},
            picture("data:image/jpeg;base64,/9j/4A"),
            {"type": "text", "text": "llo"},
            picture("data:image/gif;base64,R0lGOD"),
        ]);
        assert_eq!(parts, expected);
    }

    #[test]
    fn a_place_that_is_none_loses_neither_text_nor_picture() {
        for at in [2, 99] {
            let parts = content("héllo", &[image(at, "Qk")]);
            let text: String =
                parts.as_array().unwrap().iter().filter_map(|part| part["text"].as_str()).collect();
            assert_eq!(text, "héllo", "{at}");
            assert!(parts.to_string().contains("image/bmp"));
        }
    }
}
