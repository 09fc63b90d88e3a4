//! What an image file says of its size, before anything is unpacked: a few bytes can claim gigabytes. Pure.

/// Pixels of an image at most; unpacked they take three bytes each, and for a moment twice as much.
const MOST_PIXELS: u64 = 1 << 25;
/// How many times as long as wide an image can be, or as wide as long (Qwen-VL's limit): scaled down, a thread has no width left.
const LONGEST: u64 = 200;

/// Whether the image can be unpacked. The error says in words why not.
pub fn check(file: &[u8]) -> Result<(), String> {
    let (width, height) = size(file)?;
    let (width, height) = (u64::from(width), u64::from(height));
    if width == 0 || height == 0 {
        Err("the image has no pixels".to_owned())
    } else if width * height > MOST_PIXELS {
        Err(format!("the image has {width} x {height} pixels: more than {MOST_PIXELS}"))
    } else if width > LONGEST * height || height > LONGEST * width {
        Err(format!("the image of {width} x {height} pixels is more than {LONGEST} times as long as wide"))
    } else {
        Ok(())
    }
}

/// Width and height.
fn size(file: &[u8]) -> Result<(u32, u32), String> {
    let size = if file.starts_with(b"\x89PNG\r\n\x1a\n") {
        big(file, 16).zip(big(file, 20))
    } else if file.starts_with(b"\xff\xd8") {
        jpeg(file)
    } else if file.starts_with(b"GIF8") {
        Some((u32::from(little(file, 6).unwrap_or(0)), u32::from(little(file, 8).unwrap_or(0))))
    } else if file.starts_with(b"BM") {
        bmp(file)
    } else if file.starts_with(b"RIFF") && file.get(8..12) == Some(b"WEBP") {
        return Err("WebP images are not supported: send PNG or JPEG".to_owned());
    } else {
        return Err("not an image: PNG, JPEG, GIF and BMP are supported".to_owned());
    };
    size.ok_or_else(|| "the image ends before it says its size".to_owned())
}

fn bytes<const N: usize>(file: &[u8], at: usize) -> Option<[u8; N]> {
    file.get(at..)?.first_chunk().copied()
}

fn big(file: &[u8], at: usize) -> Option<u32> {
    bytes(file, at).map(u32::from_be_bytes)
}

fn little(file: &[u8], at: usize) -> Option<u16> {
    bytes(file, at).map(u16::from_le_bytes)
}

/// The oldest header has 16-bit numbers; in the others a negative height means that the top comes first.
fn bmp(file: &[u8]) -> Option<(u32, u32)> {
    match bytes(file, 14).map(u32::from_le_bytes)? {
        12 => Some((little(file, 18)?.into(), little(file, 20)?.into())),
        _ => {
            let number = |at| bytes(file, at).map(|bytes| i32::from_le_bytes(bytes).unsigned_abs());
            number(18).zip(number(22))
        }
    }
}

/// The size is in the frame's header, behind other segments of which each says its length.
fn jpeg(file: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2;
    loop {
        at += file.get(at..)?.iter().position(|&byte| byte == 0xff)?;
        at += file.get(at..)?.iter().position(|&byte| byte != 0xff)?;
        let marker = file[at];
        at += 1;
        match marker {
            // Tables, not frames, although their numbers lie among those of frames.
            0xc4 | 0xc8 | 0xcc => {}
            0xc0..=0xcf => {
                let number = |at| bytes(file, at).map(u16::from_be_bytes).map(u32::from);
                return number(at + 5).zip(number(at + 3));
            }
            // Without a segment.
            0x00 | 0x01 | 0xd0..=0xd9 => continue,
            _ => {}
        }
        at += usize::from(bytes(file, at).map(u16::from_be_bytes)?);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        file.extend(width.to_be_bytes());
        file.extend(height.to_be_bytes());
        file
    }

    #[test]
    fn every_format_says_its_size() {
        let jpeg = [
            &b"\xff\xd8\xff\xe0\0\x04ab\xff\xc4\0\x03x\xff\xff\xc2\0\x11\x08"[..],
            &300_u16.to_be_bytes(),
            &200_u16.to_be_bytes(),
        ];
        let gif = [&b"GIF89a"[..], &200_u16.to_le_bytes(), &300_u16.to_le_bytes()];
        let head = b"BM0123456789ab";
        let bmp = [&head[..], &40_u32.to_le_bytes(), &200_i32.to_le_bytes(), &(-300_i32).to_le_bytes()];
        let old = [&head[..], &12_u32.to_le_bytes(), &200_u16.to_le_bytes(), &300_u16.to_le_bytes()];
        for file in [png(200, 300), jpeg.concat(), gif.concat(), bmp.concat(), old.concat()] {
            assert_eq!(size(&file), Ok((200, 300)), "{file:?}");
            assert!(size(&file[..file.len() - 1]).is_err() || file.starts_with(b"GIF"));
        }
    }

    #[test]
    fn what_is_too_large_or_no_image_is_refused_in_words() {
        let refusal = |file: &[u8]| check(file).unwrap_err();
        assert_eq!(check(&png(4096, 8192)), Ok(()));
        assert_eq!(refusal(&png(4097, 8192)), "the image has 4097 x 8192 pixels: more than 33554432");
        assert_eq!(refusal(&png(u32::MAX, u32::MAX)).split(':').count(), 2);
        assert!(refusal(&png(1, 201)).contains("200 times as long as wide"));
        assert_eq!(refusal(&png(0, 7)), "the image has no pixels");
        assert!(refusal(b"RIFF\0\0\0\0WEBPVP8 ").contains("WebP"));
        assert!(refusal(b"RIFF\0\0\0\0WAVEfmt ").contains("not an image"));
        assert!(refusal(b"").contains("not an image"));
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(start in 0usize..5, rest in proptest::collection::vec(any::<u8>(), 0..64)) {
            let starts: [&[u8]; 5] = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"GIF8", b"BM", b""];
            let _ = check(&[starts[start], &rest].concat());
        }
    }
}
