//! CSV files of runs and log lines: pure writing, and the files on the volume.
