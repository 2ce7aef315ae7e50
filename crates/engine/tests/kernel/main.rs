//! The engine against the real kernel: containers from Debian's busybox, in a network and a mount namespace of their
//! own. Needs root; whatever is missing fails the tests.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod faults;
mod house;
mod life;
mod network;
mod restart;
mod storage;
mod streams;

fn main() -> std::process::ExitCode {
    skep_testkit::stage::main(skep_testkit::tests![
        life::a_container_runs_to_its_end,
        life::stop_asks_first_and_kills_then,
        life::kill_needs_a_running_container,
        life::a_container_starts_again,
        life::rm_makes_it_go_when_it_ends,
        life::removal_follows_docker_s_rules,
        life::fifty_start_at_the_same_time,
        streams::logs_are_replayed_and_followed,
        streams::input_reaches_the_container,
        streams::execs_tell_their_exit_codes,
        streams::clients_that_left_before_the_start_take_no_place,
        storage::volumes_receive_the_image_s_content,
        storage::anonymous_volumes_go_with_their_container,
        storage::binds_are_checked_and_made,
        storage::an_image_removed_amid_a_creation_leaves_no_container_without_one,
        network::a_published_port_answers,
        network::a_taken_port_leaves_nothing_behind,
        network::the_host_s_and_no_network,
        network::files_in_etc_are_docker_s,
        network::a_service_is_answered_by_its_backends,
        network::a_network_between_machines_outlives_the_daemon,
        restart::a_running_container_is_adopted,
        restart::an_end_meanwhile_is_told,
        restart::published_ports_answer_before_and_after,
        restart::damage_to_one_container_is_set_aside,
        restart::a_shim_that_cannot_be_asked_is_not_taken_for_dead,
        faults::programs_that_cannot_run,
        faults::a_full_start_is_undone,
        faults::a_full_disk_is_said_and_survived,
    ])
}
