//! Prometheus' text format, as far as sums of samples need it.

use std::collections::BTreeMap;

/// The sum of each metric over all its labels; buckets of histograms aside.
pub fn sums(text: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name_ends = line.find(['{', ' ']).unwrap_or(line.len());
        let (name, rest) = line.split_at(name_ends);
        // Label values may hold anything but an unescaped quote; the value follows the last bracket.
        let rest = rest.rfind('}').map_or(rest, |at| &rest[at + 1..]);
        let value = rest
            .split_whitespace()
            .next()
            .and_then(|value| value.parse::<f64>().ok());
        if let Some(value) = value.filter(|value| value.is_finite())
            && !name.ends_with("_bucket")
        {
            *sums.entry(name.to_owned()).or_default() += value;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_added_up_over_their_labels() {
        let text = "# HELP a x\n# TYPE a counter\na_total{reason=\"x } 7\"} 2\na_total{reason=\"y\"} 3\nlag 0.5\n\
            h_bucket{le=\"1\"} 4\nh_count 4\nodd NaN\n# EOF\n";
        let found = sums(text);
        assert_eq!(found["a_total"].to_bits(), 5.0_f64.to_bits());
        assert_eq!(found["lag"].to_bits(), 0.5_f64.to_bits());
        assert_eq!(found["h_count"].to_bits(), 4.0_f64.to_bits());
        assert!(!found.contains_key("h_bucket") && !found.contains_key("odd"));
    }
}
