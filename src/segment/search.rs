//! Looking for text in a segment without making lines of what can not have it.

use std::{
    ops::{ControlFlow, Range},
    sync::Arc,
};

use bytes::Bytes;
use memchr::memmem::Finder;
use parquet::{
    basic::Encoding,
    column::page::{Page, PageReader},
    file::{metadata::RowGroupMetaData, serialized_reader::SerializedPageReader},
};

use super::{LineRef, Needles, SegmentError, scan::scan_groups};

/// Place of the message among the columns.
const MESSAGE: usize = 6;

/// Shows the lines of a segment whose time lies in `range` (microseconds), newest first, until `visit` breaks; of these
/// at least all that have what is wanted. Says whether it came to an end before `is_over` said so.
pub fn search(
    body: &Bytes,
    range: &Range<i64>,
    needles: &Needles,
    is_over: impl Fn() -> bool,
    visit: impl FnMut(LineRef<'_>) -> ControlFlow<()>,
) -> Result<bool, SegmentError> {
    let reader = Arc::new(body.clone());
    let finders: Vec<Vec<Finder<'_>>> = needles
        .0
        .iter()
        .map(|any| any.iter().map(Finder::new).collect())
        .collect();
    let mut scratch = Vec::new();
    let mut finished = true;
    let wanted = |group: &RowGroupMetaData| {
        if is_over() {
            finished = false;
            return Ok(ControlFlow::Break(()));
        }
        let may_have = finders.is_empty() || may_have(&reader, group, &finders, &mut scratch)?;
        Ok(ControlFlow::Continue(may_have))
    };
    scan_groups(body, range, wanted, visit)?;
    Ok(finished)
}

/// Whether messages of a row group may have what is wanted: its pages are searched as they are, before any line is made.
fn may_have(
    body: &Arc<Bytes>,
    group: &RowGroupMetaData,
    finders: &[Vec<Finder<'_>>],
    scratch: &mut Vec<u8>,
) -> Result<bool, SegmentError> {
    let rows = usize::try_from(group.num_rows()).unwrap_or_default();
    let mut pages = SerializedPageReader::new(Arc::clone(body), group.column(MESSAGE), rows, None)?;
    let mut missing: Vec<&Vec<Finder<'_>>> = finders.iter().collect();
    while let Some(page) = pages.get_next_page()? {
        let Some(text) = plain(&page) else {
            return Ok(true);
        };
        scratch.clear();
        scratch.extend(text.iter().map(u8::to_ascii_lowercase));
        missing.retain(|any| !any.iter().any(|finder| finder.find(scratch).is_some()));
        if missing.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The bytes of a page if its values stand there one after the other, as they are.
fn plain(page: &Page) -> Option<&Bytes> {
    match page {
        Page::DataPage { buf, encoding, .. } | Page::DictionaryPage { buf, encoding, .. } => {
            // Numbers of values in a dictionary: the texts were in the page before.
            let numbers = matches!(encoding, Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY);
            (numbers || matches!(encoding, Encoding::PLAIN | Encoding::DELTA_LENGTH_BYTE_ARRAY))
                .then_some(buf)
        }
        Page::DataPageV2 { .. } => None,
    }
}
