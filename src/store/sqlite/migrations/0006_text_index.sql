-- Segments of which it is still to be written down which texts they may have (src/store/text_index.rs). One that was
-- deleted meanwhile is found to be gone: a foreign key would have whoever deletes wait for whoever indexes, and the other
-- way round.
CREATE TABLE log_segments_to_index (
    segment_id INTEGER PRIMARY KEY
) STRICT;
