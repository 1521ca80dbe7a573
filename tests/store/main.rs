//! What every store must do, run against each backend.
#![allow(clippy::unwrap_used)] // all of it is tests

mod deployments;
mod endings;
mod failures;
mod figures;
mod filters;
mod ingest;
mod logs;
mod moves;
#[path = "../common/postgres.rs"]
#[allow(dead_code)] // the fault tests use more of it
mod pg;
mod property;
mod replicas;
mod retention;
mod run_records;
mod series;
mod snapshot;
mod support;
mod tail;

/// Each scenario as a test of each backend.
macro_rules! suite {
    ($($module:ident { $($scenario:ident),+ $(,)? })+) => {
        mod sqlite {
            $(backend! { sqlite $module $($scenario)+ })+
        }
        mod postgres {
            $(backend! { postgres $module $($scenario)+ })+
        }
    };
}

/// The scenarios of a module as tests of one backend.
macro_rules! backend {
    ($backend:ident $module:ident $($scenario:ident)+) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                crate::$module::$scenario(&crate::support::$backend()).await;
            })+
        }
    };
}

suite! {
    snapshot {
        a_snapshot_stays_what_it_was_while_everything_changes,
        pages_of_long_rows_end_early,
    }
    tail {
        a_follower_gets_each_line_once,
        a_record_that_ends_late_is_followed,
    }
    deployments {
        versions_only_go_up,
        a_deployment_is_begun_once,
        a_later_deployment_replaces_earlier_ones,
        scripts_are_listed_in_order,
        what_made_a_version_is_kept_once,
        concurrent_edits_never_get_the_same_number,
        an_undeploy_takes_no_number_and_a_failed_attempt_keeps_its_own,
    }
    ingest {
        the_same_bytes_are_stored_once,
        a_store_goes_on_where_it_was_cut_off,
        a_conflict_does_not_touch_other_streams,
        only_streams_of_known_pods_are_opened,
        concurrent_appends_all_arrive,
        hostile_orders_do_not_change_an_ended_run,
        a_record_of_another_script_does_not_close_a_run,
        payloads_come_back,
        payloads_that_were_too_large_are_told_from_none,
        runs_of_a_gone_pod_are_closed,
        a_lost_stream_and_a_backward_position_are_refused,
        a_nul_is_kept_as_a_replacement_character,
    }
    run_records {
        runs_are_those_of_the_model_however_their_records_come,
    }
    endings {
        the_last_word_of_a_stream_is_kept,
        a_pod_whose_log_was_not_read_has_a_gap,
        a_late_end_takes_the_gap_away,
        gaps_are_listed_by_time,
    }
    figures {
        one_failure_of_three_is_33_33_per_cent,
        lifetime_and_versions_add_up,
        many_runs_are_estimated_within_one_per_cent,
        a_window_counts_its_own_rows,
    }
    filters {
        runs_are_what_a_naive_scan_finds,
        lines_are_what_a_naive_scan_finds,
        run_pages_give_each_row_once,
        a_wrong_filter_is_refused,
    }
    failures {
        failed_runs_are_grouped_by_what_failed,
        failed_runs_are_those_of_a_naive_scan,
    }
    series {
        buckets_are_hours_and_days_of_a_zone,
        rollups_say_what_the_rows_say,
        counts_end_at_their_bound,
        a_query_without_time_is_stopped,
    }
    property {
        every_answer_is_that_of_a_naive_model,
        pages_are_stable_under_inserts,
    }
    logs {
        pages_across_overlapping_segments_give_each_line_once,
        lines_of_one_moment_are_ordered_by_their_ids,
        merging_keeps_every_line,
        lines_of_one_run_are_found,
    }
    retention {
        ended_runs_go_by_age_and_status,
        a_late_end_does_not_bring_a_deleted_run_back,
        lines_past_their_limit_are_not_shown_and_soon_gone,
        by_bytes_logs_go_first_and_the_oldest_of_each,
        a_forgotten_stream_never_begins_anew,
        a_purged_script_leaves_its_highest_version,
        pages_go_on_while_rows_are_deleted,
    }
}

/// What is true of the SQLite file alone.
mod sqlite_file {
    use scriptscope::store::{self, StoreError};

    use std::time::{Duration, Instant};

    use scriptscope::ingest::record::Record;
    use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

    use crate::support::{Backend, Feed, at, line, script, sqlite};

    #[tokio::test]
    async fn small_segments_become_few() {
        let backend = sqlite();
        let store = backend.open().await;
        let mut feed = Feed::open(&store, &script("a"), "u", 1).await;
        for n in 0..300 {
            feed.send(vec![Record::Line(line(feed.offset, n, "x"))]).await;
        }
        let options = SqliteConnectOptions::new()
            .filename(&backend.path)
            .read_only(true);
        let mut file = SqliteConnection::connect_with(&options).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let (segments, lines): (i64, i64) =
                sqlx::query_as("SELECT count(*), sum(lines) FROM log_segments")
                    .fetch_one(&mut file)
                    .await
                    .unwrap();
            assert_eq!(lines, 300);
            // 300 is 1 * 256 + 2 * 16 + 12.
            if segments == 15 {
                break;
            }
            assert!(Instant::now() < deadline, "{segments} segments are left");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        file.close().await.unwrap();
    }

    #[tokio::test]
    async fn numbers_go_on_after_an_older_copy_was_put_back() {
        let backend = sqlite();
        let (a, known) = (script("a"), [1, 2, 3]);
        let copy = backend.path.with_extension("copy");
        let options = SqliteConnectOptions::new().filename(&backend.path);
        for version in known {
            let store = backend.open().await;
            let begun = store.begin_deployment(&a, &version.to_string(), 0, at(0)).await;
            assert_eq!(begun.unwrap().version, version);
            store.close().await;
            drop(store);
            if version == 1 {
                // What is in the log beside the file belongs to the copy as well.
                let mut file = SqliteConnection::connect_with(&options).await.unwrap();
                let into = sqlx::query("VACUUM INTO ?1").bind(copy.to_str().unwrap());
                into.execute(&mut file).await.unwrap();
                file.close().await.unwrap();
            }
        }
        for beside in ["db-wal", "db-shm"] {
            let _ = std::fs::remove_file(backend.path.with_extension(beside));
        }
        std::fs::rename(&copy, &backend.path).unwrap();
        let store = backend.open().await;
        assert_eq!(
            store.deployments(&a, 9).await.unwrap().len(),
            1,
            "the copy is older"
        );
        // The object's status still knows of version 3, and what runs has not changed since.
        let begun = store.begin_deployment(&a, "3", 3, at(1)).await.unwrap();
        assert_eq!(begun.version, 4);
        let again = store.begin_deployment(&a, "3", 4, at(2)).await.unwrap();
        assert_eq!(again, begun, "it is begun once");
        assert_eq!(
            store.begin_deployment(&a, "5", 0, at(3)).await.unwrap().version,
            5
        );
    }

    const INDEXED: &str = "SELECT count(*) FROM log_segment_grams";

    #[tokio::test]
    async fn texts_are_indexed() {
        let backend = sqlite();
        let options = SqliteConnectOptions::new().filename(&backend.path);
        crate::logs::texts_are_found_before_and_after_they_are_indexed(&backend, async || {
            let mut file = SqliteConnection::connect_with(&options).await.unwrap();
            let count = sqlx::query_scalar(INDEXED).fetch_one(&mut file).await.unwrap();
            file.close().await.unwrap();
            count
        })
        .await;
    }

    #[tokio::test]
    async fn texts_are_indexed_in_postgres() {
        let backend = crate::support::postgres();
        crate::logs::texts_are_found_before_and_after_they_are_indexed(&backend, async || {
            let mut database = sqlx::PgConnection::connect(&backend.url).await.unwrap();
            sqlx::query_scalar(INDEXED)
                .fetch_one(&mut database)
                .await
                .unwrap()
        })
        .await;
    }

    #[tokio::test]
    async fn what_retention_deletes_makes_every_table_and_the_file_smaller() {
        crate::retention::every_table_and_the_file_shrink(&sqlite()).await;
    }

    #[tokio::test]
    async fn what_retention_deletes_makes_every_table_of_postgres_smaller() {
        crate::retention::every_table_of_postgres_shrinks(&crate::support::postgres()).await;
    }

    #[tokio::test]
    async fn a_full_disk_stores_nothing_by_half() {
        let backend = sqlite();
        let store = backend.open().await;
        let mut feed = Feed::open(&store, &script("a"), "u", 1).await;
        feed.send(vec![]).await;
        // What a full disk does: the statement in the midst of the transaction fails.
        let mut file = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&backend.path))
            .await
            .unwrap();
        let fail = "CREATE TRIGGER fail BEFORE UPDATE ON streams BEGIN SELECT RAISE(FAIL, 'disk full'); END";
        sqlx::query(fail).execute(&mut file).await.unwrap();
        let append = feed.append(vec![Record::Line(line(0, 1, "x"))]);
        assert!(store.append(vec![append]).await.is_err());
        assert_eq!(store.figures(&script("a")).await.unwrap().total_logs, 0);
        sqlx::query("DROP TRIGGER fail").execute(&mut file).await.unwrap();
        file.close().await.unwrap();
        feed.send(vec![Record::Line(line(0, 1, "x"))]).await;
        assert_eq!(store.figures(&script("a")).await.unwrap().total_logs, 1);
    }

    #[tokio::test]
    async fn a_file_in_use_is_refused() {
        let backend = sqlite();
        let first = backend.open().await;
        let Err(StoreError::Unusable(text)) = backend.try_open().await else {
            panic!("opened twice");
        };
        assert!(text.contains("in use by another process"), "{text}");
        first.close().await;
        assert!(first.check().await.is_err());
        drop(first);
        backend.open().await.check().await.unwrap();
    }

    #[tokio::test]
    async fn a_url_that_can_not_be_opened_says_why() {
        for (url, why) in [
            ("postgres://user:secret@db:port/x", "URL is not understood"),
            ("mysql://user:secret@db/x", "\"mysql\" is not supported"),
            ("sqlite://relative.db", "absolute path"),
            ("nonsense", "expected sqlite:///path"),
            ("sqlite:///proc/nowhere/store.db", "/proc/nowhere can not be made"),
        ] {
            let Err(error) = store::open(url).await else {
                panic!("{url} was opened");
            };
            assert!(error.to_string().contains(why), "{url}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
