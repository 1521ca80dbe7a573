//! What a benchmark prints.

use serde::Serialize;

/// How much work a benchmark does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// As the bars are stated.
    Full,
    /// All in two minutes, to see that they run; their figures mean little.
    Small,
}

impl Scale {
    /// `SCALE=small` or none.
    pub fn from_env() -> Self {
        match std::env::var("SCALE").as_deref() {
            Ok("small") => Self::Small,
            _ => Self::Full,
        }
    }

    /// One of two amounts.
    pub fn of(self, full: usize, small: usize) -> usize {
        if self == Self::Full { full } else { small }
    }
}

/// The same work done by a raw engine, in the same run.
#[derive(Debug, Serialize)]
pub struct Baseline {
    /// What did it.
    pub name: &'static str,
    /// In the unit of the figure.
    pub value: f64,
}

/// One benchmark's figure.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Name of the benchmark.
    pub name: &'static str,
    /// The figure.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// What it is compared with.
    pub baseline: Baseline,
    /// Figure divided by baseline.
    pub ratio: f64,
    /// Processor seconds of all processes measured.
    pub cpu_seconds: f64,
    /// The largest resident memory of the operator, bytes.
    pub max_rss_bytes: u64,
    /// How many things were done.
    pub n: usize,
}

impl Report {
    /// Prints it as one line of JSON.
    pub fn print(mut self) {
        self.ratio = self.value / self.baseline.value;
        println!("{}", serde_json::to_string(&self).unwrap());
    }
}
