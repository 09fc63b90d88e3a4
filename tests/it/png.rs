//! Small PNG files, stored without compression.

/// Pixels of a square's side.
const SQUARE: u32 = 8;

/// An image of `width` by `height` pixels, in squares whose colours depend on `seed`.
pub fn png(width: u32, height: u32, seed: u32) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    // Eight bits per colour, three colours.
    header.extend([8, 2, 0, 0, 0]);
    chunk(&mut file, b"IHDR", &header);
    let mut pixels = Vec::new();
    for y in 0..height {
        // Each row begins with how it is filtered: not at all.
        pixels.push(0);
        for (x, colour) in (0..width).flat_map(|x| [(x, 0), (x, 1), (x, 2)]) {
            let square = (x / SQUARE) << 16 | (y / SQUARE) << 8 | colour;
            let mixed = (square ^ seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b);
            pixels.push(((mixed ^ mixed >> 13).wrapping_mul(0xc2b2_ae35) >> 24) as u8);
        }
    }
    chunk(&mut file, b"IDAT", &stored(&pixels));
    chunk(&mut file, b"IEND", b"");
    file
}

/// A zlib stream whose blocks are not compressed.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let mut stream = vec![0x78, 0x01];
    let blocks: Vec<&[u8]> = bytes.chunks(0xffff).collect();
    for (place, block) in blocks.iter().enumerate() {
        let length = block.len() as u16;
        stream.push(u8::from(place + 1 == blocks.len()));
        stream.extend(length.to_le_bytes());
        stream.extend((!length).to_le_bytes());
        stream.extend(*block);
    }
    let sums = bytes.iter().fold((1_u32, 0_u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (a + b) % 65_521)
    });
    stream.extend((sums.1 << 16 | sums.0).to_be_bytes());
    stream
}

fn chunk(file: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    file.extend((data.len() as u32).to_be_bytes());
    let sum = kind.iter().chain(data).fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(sum & 1)))
    });
    file.extend(kind);
    file.extend(data);
    file.extend((!sum).to_be_bytes());
}
