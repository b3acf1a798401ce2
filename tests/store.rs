//! The store on real databases. Every case runs on SQLite, as a test of its own, and on PostgreSQL,
//! all in one test that starts one server.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by failing there")]

use std::pin::Pin;

#[path = "store/accounts.rs"]
mod accounts;
#[path = "store/admin.rs"]
mod admin;
#[path = "store/aliases.rs"]
mod aliases;
#[path = "store/batches.rs"]
mod batches;
#[path = "store/database.rs"]
mod database;
#[path = "store/exchanges.rs"]
mod exchanges;
#[path = "store/keys.rs"]
mod keys;
#[path = "store/leases.rs"]
mod leases;
#[path = "store/pools.rs"]
mod pools;
#[allow(dead_code, reason = "the cluster's tests do more with a server")]
#[path = "support/postgres.rs"]
mod postgres;
#[path = "store/responses.rs"]
mod responses;
#[path = "store/schema.rs"]
mod schema;
#[path = "store/sealing.rs"]
mod sealing;
#[path = "store/slices.rs"]
mod slices;
#[path = "store/sqlite_files.rs"]
mod sqlite_files;
#[path = "store/tenants.rs"]
mod tenants;

/// A case in memory of its own: all of them in one function's are more than a thread's stack holds.
fn apart<F: Future<Output = ()> + 'static>(case: impl FnOnce() -> F) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(case())
}

macro_rules! on_both_databases {
    ($($room:ident::$case:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$room::$case(super::database::Database::sqlite()).await;
            })*
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn every_case_holds_on_postgres() {
            let Some(server) = postgres::Postgres::start() else { return };
            $(
                println!("{}", stringify!($case));
                let database = database::Database::postgres(&server).await;
                apart(|| $room::$case(database)).await;
            )*
        }
    };
}

on_both_databases![
    aliases::aliases_are_kept_and_changed_by_one_at_a_time,
    keys::a_hash_is_stored_once_and_found,
    accounts::an_account_comes_back_as_it_was_stored,
    accounts::the_same_user_in_the_same_workspace_is_the_same_account,
    accounts::a_login_replaces_credentials_and_clears_what_was_wrong,
    accounts::a_name_that_is_taken_gets_a_number,
    accounts::accounts_are_found_by_id_name_email_and_start_of_id,
    accounts::refreshed_credentials_are_stored_only_over_those_they_came_from,
    accounts::a_good_exchange_ends_needs_login_but_no_quarantine,
    accounts::of_many_refreshes_at_once_one_is_stored,
    accounts::what_was_learnt_about_old_credentials_does_not_touch_new_ones,
    accounts::pauses_and_limits_come_and_go,
    accounts::many_accounts_added_at_once_all_arrive_under_different_names,
    admin::every_change_by_people_is_noted_with_it_and_none_without,
    admin::a_request_that_comes_twice_changes_things_once,
    admin::slips_are_taken_once_and_end_by_themselves,
    admin::admin_keys_are_found_by_hash_and_end_with_their_team,
    admin::the_audit_log_is_not_rewritten,
    tenants::teams_and_users_are_kept_and_changed_by_one_at_a_time,
    tenants::a_key_belongs_to_its_user_and_by_them_to_a_team,
    tenants::the_books_hold_each_request_once_and_their_sums_agree,
    tenants::reports_say_the_same_however_they_are_put_together,
    tenants::requests_are_listed_by_their_arrival_page_by_page,
    pools::a_pool_holds_its_accounts_and_those_of_its_tags,
    pools::a_key_follows_its_pool_and_never_gains_accounts_by_its_end,
    pools::a_pool_that_a_key_needs_stays,
    pools::what_is_known_of_accounts_and_their_history_come_back_and_go_with_them,
    pools::homes_of_conversations_come_back_newest_first,
    pools::a_conversation_changes_its_home_by_a_move_alone_and_moves_can_be_asked_for,
    pools::decisions_are_found_by_request_and_key_and_forgotten,
    pools::webhooks_are_claimed_by_one_tried_again_and_forgotten_when_over,
    keys::a_key_comes_back_as_it_was_stored,
    keys::a_key_for_an_account_that_is_not_there_is_refused_whole,
    keys::a_key_never_gains_accounts_by_their_removal,
    keys::a_key_is_revoked_once,
    keys::a_rotated_key_ends_with_its_grace_and_not_later_than_it_would_have,
    keys::only_a_current_key_can_be_rotated,
    keys::the_key_in_use_has_the_name,
    keys::last_use_is_noted_without_a_change_of_revision,
    leases::one_of_many_takes_a_lease_and_the_others_see_who,
    leases::a_lease_ends_by_itself_by_release_and_by_nothing_else,
    leases::a_fencing_number_only_goes_up,
    exchanges::an_exchange_is_noted_by_the_holder_of_the_lease_alone,
    exchanges::a_note_outlives_its_lease_and_not_its_generation,
    exchanges::a_note_is_taken_back_or_given_up_with_the_lease,
    exchanges::a_removed_account_leaves_nothing_behind,
    slices::what_a_server_has_and_uses_is_seen_by_the_others_and_moves_to_the_ledger,
    slices::exchanges_about_one_holder_come_one_after_the_other,
    slices::a_silent_server_is_dead_when_its_connection_is_gone,
    slices::a_server_that_gave_an_exchange_up_is_alive,
    slices::a_spent_budget_is_told_by_one_server_and_again_in_its_next_period,
    responses::a_response_is_found_by_its_own_key_only,
    responses::a_response_of_the_same_id_replaces_the_other,
    responses::what_is_over_is_not_found_and_swept,
    responses::a_response_lives_as_long_as_the_latest_that_builds_on_it,
    responses::an_item_leads_to_the_response_that_has_it,
    responses::the_end_of_a_response_is_written_once,
    responses::leases_end_with_the_process_that_gave_them,
    responses::a_conversation_keeps_its_items_in_order,
    responses::a_deleted_conversation_takes_its_items_along,
    responses::what_is_kept_is_sealed_and_rotates_with_the_rest,
    batches::a_batch_is_found_by_its_own_key_only,
    batches::batches_are_listed_from_the_newest_in_pages,
    batches::a_request_is_worked_on_by_one_and_has_one_outcome,
    batches::a_cancelled_batch_ends_with_what_was_being_worked_on,
    batches::what_has_not_begun_in_time_expires_and_old_batches_go,
    batches::the_last_two_of_a_batch_may_end_at_once,
    batches::requests_and_results_are_sealed_and_rotate_with_the_rest,
    schema::every_change_and_nothing_else_moves_the_revision,
    schema::migrating_again_or_at_once_or_cut_short_does_no_harm,
    schema::a_schema_that_newer_programs_have_added_to_is_taken_and_one_that_needs_them_is_not,
    sealing::the_pepper_is_made_once_even_by_two_at_once,
    sealing::a_wrong_key_is_refused_by_its_id,
    sealing::an_envelope_in_another_row_or_column_is_refused_by_its_place,
    sealing::a_rotation_that_was_stopped_goes_on_where_it_was,
    sealing::a_rotation_beside_refreshes_loses_none_of_them,
];
