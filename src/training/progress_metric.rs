//! Progress as a Prometheus metric: which one a pod exposes, and how to read it.
//!
//! Format: Prometheus text exposition format 0.0.4 (prometheus.io, "Exposition formats").

use std::str::FromStr;

/// `NAME@PORT`, for example `training_progress@9090`: a gauge from 0 to 1 on the pod's `/metrics`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgressMetric {
    pub name: String,
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} names no metric; write NAME@PORT, for example training_progress@9090")]
pub struct ProgressMetricError {
    text: String,
}

impl FromStr for ProgressMetric {
    type Err = ProgressMetricError;

    fn from_str(text: &str) -> Result<Self, ProgressMetricError> {
        let error = || ProgressMetricError { text: text.to_owned() };
        let (name, port) = text.split_once('@').ok_or_else(error)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(error)?;
        let starts_well = name.starts_with(|first: char| first.is_ascii_alphabetic() || "_:".contains(first));
        let is_name = name.len() <= 128 && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_:".contains(letter));
        if starts_well && is_name { Ok(ProgressMetric { name: name.to_owned(), port }) } else { Err(error()) }
    }
}

impl ProgressMetric {
    /// The first sample of the metric, where it is a fraction.
    pub fn read(&self, exposition: &str) -> Option<f64> {
        let samples = exposition.lines().filter_map(|line| line.trim_start().strip_prefix(self.name.as_str()));
        let values = samples.filter_map(|rest| match rest.chars().next()? {
            '{' => rest.rsplit_once('}').map(|(_, values)| values),
            ' ' | '\t' => Some(rest),
            _ => None,
        });
        let fraction: f64 = values.filter_map(|values| values.split_whitespace().next()?.parse().ok()).next()?;
        (0.0..=1.0).contains(&fraction).then_some(fraction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_named_as_prometheus_names_them() {
        assert_eq!("training_progress@9090".parse(), Ok(ProgressMetric { name: "training_progress".into(), port: 9090 }));
        for text in ["", "progress", "progress@", "progress@0", "progress@70000", "@9090", "9lives@9090", "a/b@9090", "a@9090/x", "http://x@9090"] {
            assert!(text.parse::<ProgressMetric>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_first_sample_counts_if_it_is_a_fraction() {
        let metric: ProgressMetric = "progress@9090".parse().unwrap();
        let page = "# HELP progress How far\n# TYPE progress gauge\nprogress_total 7\nprogress{job=\"a} b\",rank=\"0\"} 0.25 1700000000\nprogress 0.5\n";
        assert_eq!(metric.read(page), Some(0.25));
        assert_eq!(metric.read("progress 0.5"), Some(0.5));
        for page in ["", "progress NaN", "progress 42", "progress -0.1", "progress", "progressive 0.5", "progress{"] {
            assert_eq!(metric.read(page), None, "{page}");
        }
    }
}
