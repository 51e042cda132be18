//! A plot of bars as SVG. Pure.

use std::fmt::Write as _;

/// One bar.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bar {
    pub(crate) label: String,
    /// What stands at its end.
    pub(crate) value: String,
    /// Its length, of the whole width.
    pub(crate) share: f64,
    /// Where a line crosses it.
    pub(crate) mark: Option<f64>,
}

const ROW: f64 = 22.0;
const LABELS: f64 = 400.0;
/// The width of a share of 1.
const WHOLE: f64 = 420.0;
const VALUES: f64 = 130.0;
/// Longer bars are cut: they would leave no room for the others.
const SHARE_MAX: f64 = 1.2;

/// The plot, with bars from above to below.
pub(crate) fn bars(title: &str, bars: &[Bar]) -> String {
    let (width, height) = (LABELS + WHOLE * SHARE_MAX + VALUES, ROW * (bars.len() as f64 + 2.0));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let mut put = |element: String| {
        let _ = writeln!(svg, "{element}");
    };
    put(label(LABELS, ROW * 0.7, "start", title));
    for (row, bar) in bars.iter().enumerate() {
        let top = ROW * (row as f64 + 1.0);
        let (middle, length) = (top + ROW * 0.7, WHOLE * bar.share.clamp(0.0, SHARE_MAX));
        put(label(LABELS - 8.0, middle, "end", &bar.label));
        put(rect((LABELS, top + 3.0), (length, ROW - 6.0), "#4a7fb5"));
        if let Some(mark) = bar.mark {
            put(rect((LABELS + WHOLE * mark - 1.0, top + 1.0), (2.0, ROW - 2.0), "#c0392b"));
        }
        let value = format!("{:.0} % · {}", 100.0 * bar.share, bar.value);
        put(label(LABELS + length + 8.0, middle, "start", &value));
    }
    let bottom = ROW * (bars.len() as f64 + 1.0);
    put(rect((LABELS + WHOLE, ROW), (1.0, bottom - ROW), "#888"));
    put(label(LABELS + WHOLE, bottom + ROW * 0.7, "middle", "100 % of the limit; red: the target"));
    svg.push_str("</svg>\n");
    svg
}

fn label(x: f64, y: f64, anchor: &str, text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!("<text x=\"{x:.0}\" y=\"{y:.0}\" text-anchor=\"{anchor}\">{text}</text>")
}

fn rect((x, y): (f64, f64), (width, height): (f64, f64), fill: &str) -> String {
    format!(
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{fill}\"/>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(share: f64, mark: Option<f64>) -> Bar {
        Bar { label: "deposit <4 KiB>".into(), value: "3000/s".into(), share, mark }
    }

    #[test]
    fn a_bar_is_as_long_as_its_share_and_bears_its_mark() {
        let svg = bars("A & B", &[bar(0.5, Some(0.6)), bar(9.0, None)]);
        assert!(svg.contains("width=\"210.0\""), "half of the whole: {svg}");
        assert!(svg.contains("x=\"651.0\""), "a mark at 60 %: {svg}");
        assert!(svg.contains("width=\"504.0\"") && svg.contains("900 % · 3000/s"), "{svg}");
    }

    #[test]
    fn no_text_ends_an_element() {
        let svg = bars("A & B", &[bar(0.5, None)]);
        assert!(svg.contains("A &amp; B") && svg.contains("deposit &lt;4 KiB&gt;"));
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }
}
