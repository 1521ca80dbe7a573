//! Which runs a segment may have lines of.

use parquet::bloom_filter::Sbbf;

/// Share of the runs that are not in the set and still seem to be.
const FALSE_POSITIVES: f64 = 0.01;

/// A Bloom filter of run ids (Parquet's split block form): it may say yes of a run that is not there, never no of one
/// that is. It lets a reader of one run's lines leave most segments alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunSet(Vec<u8>);

impl RunSet {
    /// The set of these run ids; `count` of them at most are distinct.
    pub fn new<'a>(
        run_ids: impl Iterator<Item = &'a str>,
        count: usize,
    ) -> Result<Self, super::SegmentError> {
        if count == 0 {
            return Ok(Self::default());
        }
        let mut filter = Sbbf::new_with_ndv_fpp(count as u64, FALSE_POSITIVES)?;
        run_ids.for_each(|id| filter.insert(id));
        let mut bits = Vec::new();
        filter.write_bitset(&mut bits)?;
        Ok(Self(bits))
    }

    /// The set as it was stored; `None` where the bytes can not be one.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let whole = bytes.len().is_multiple_of(32);
        whole.then(|| Self(bytes.to_vec()))
    }

    /// The set as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether lines of this run may be there.
    pub fn may_contain(&self, run_id: &str) -> bool {
        !self.0.is_empty() && Sbbf::new(&self.0).check(run_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_is_there_is_always_found() {
        let ids: Vec<String> = (0..500).map(|n| format!("run_{n}")).collect();
        let set = RunSet::new(ids.iter().map(String::as_str), ids.len()).unwrap();
        let set = RunSet::from_bytes(set.as_bytes()).unwrap();
        assert!(ids.iter().all(|id| set.may_contain(id)));
        let wrong = (500..5_500)
            .filter(|n| set.may_contain(&format!("run_{n}")))
            .count();
        assert!(wrong < 200, "{wrong} of 5000 seem to be there");
        assert!(!RunSet::default().may_contain("run_1"));
    }
}
