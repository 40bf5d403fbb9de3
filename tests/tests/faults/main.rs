//! Faults: what the toolkit promises when calls, connections, processes and the network fail, on the real server of each database.
//!
//! A file's name is the promise, its tests say it in sentences.

// A test that cannot go on says why and stops.
#![allow(clippy::expect_used)]

mod deliveries;
mod marks;
mod sessions;
#[allow(dead_code)] // The other suite uses the rest of it.
#[path = "../conformance/shop.rs"]
mod shop;

mod armed_points_leave_nothing_torn;
mod cancelled_calls_poison_nothing;
mod dead_processes_hold_no_key;
mod duplicates_leave_the_pool_to_others;
mod ended_sessions_store_nothing;
mod history;
mod interruptions_overwrite_nothing;
mod lost_answers_are_found_out;
mod many_processes_run_one_body;
mod mixed_work;
mod mixed_work_keeps_its_history;
mod moved_rows_are_in_one_table;
mod one_writer_serves_in_turn;
mod payments;
mod planted_bugs_are_found_out;
mod rolled_back_holders_let_others_in;
mod runtimes_may_end_first;
mod stale_leases_change_nothing;
mod standing_calls_hold_up_nobody_else;
mod wrong_clocks_change_nothing;
