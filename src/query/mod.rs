//! From a filter to SQL: the one core behind web, exports and status.
