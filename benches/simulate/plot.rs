//! Line plots as SVG, by hand: axes, a line per series, a legend that does without colour alone.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
/// Of Okabe and Ito, which people who see fewer colours can tell apart; with dashes.
const STYLES: [(&str, &str); 6] = [
    ("#0072b2", ""),
    ("#d55e00", "8 3"),
    ("#009e73", "3 3"),
    ("#cc79a7", "10 3 2 3"),
    ("#000000", "1 3"),
    ("#e69f00", "6 6"),
];

pub struct Plot<'a> {
    pub title: &'a str,
    pub x: &'a str,
    pub y: &'a str,
    /// Each with its points; y from 0 to 100.
    pub series: Vec<(String, Vec<(f64, f64)>)>,
}

impl Plot<'_> {
    /// The file.
    pub fn svg(&self) -> Result<String, std::fmt::Error> {
        let points = self.series.iter().flat_map(|(_, points)| points);
        let (from, to) = points.fold((f64::MAX, f64::MIN), |(a, b), (x, _)| (a.min(*x), b.max(*x)));
        let at = |x: f64, y: f64| {
            let across = (x - from) / (to - from).max(f64::MIN_POSITIVE);
            (LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y / 100.0 * (HEIGHT - TOP - BOTTOM))
        };
        let mut svg = String::new();
        writeln!(
            svg,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">"#
        )?;
        writeln!(svg, r##"<rect width="100%" height="100%" fill="#ffffff"/>"##)?;
        writeln!(svg, r#"<text x="{LEFT}" y="22" font-size="14">{}</text>"#, self.title)?;
        for step in 0..=5 {
            let y = f64::from(step) * 20.0;
            let ((x1, py), (x2, _)) = (at(from, y), at(to, y));
            writeln!(
                svg,
                r##"<line x1="{x1:.1}" y1="{py:.1}" x2="{x2:.1}" y2="{py:.1}" stroke="#dddddd"/>"##
            )?;
            writeln!(svg, r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{y}</text>"#, x1 - 8.0, py + 4.0)?;
            let x = from + (to - from) * f64::from(step) / 5.0;
            let (px, bottom) = at(x, 0.0);
            writeln!(
                svg,
                r#"<text x="{px:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                bottom + 18.0,
                short(x)
            )?;
        }
        let middle = at((from + to) / 2.0, 50.0);
        writeln!(
            svg,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            middle.0,
            HEIGHT - 10.0,
            self.x
        )?;
        let (x, y) = (16.0, middle.1);
        writeln!(
            svg,
            r#"<text x="{x}" y="{y:.1}" text-anchor="middle" transform="rotate(-90 {x} {y:.1})">{}</text>"#,
            self.y
        )?;
        for (place, (name, points)) in self.series.iter().enumerate() {
            let (colour, dashes) = STYLES[place % STYLES.len()];
            let line: Vec<String> =
                points.iter().map(|(x, y)| at(*x, *y)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let style =
                format!(r#"fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}""#);
            writeln!(svg, r#"<polyline points="{}" {style}/>"#, line.join(" "))?;
            let (x, y) = (WIDTH - RIGHT + 16.0, TOP + 10.0 + place as f64 * 20.0);
            writeln!(svg, r#"<polyline points="{x},{y} {},{y}" {style}/>"#, x + 34.0)?;
            writeln!(svg, r#"<text x="{}" y="{}">{name}</text>"#, x + 42.0, y + 4.0)?;
        }
        svg.push_str("</svg>\n");
        Ok(svg)
    }
}

/// Without digits that say nothing.
fn short(x: f64) -> String {
    let text = format!("{x:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
