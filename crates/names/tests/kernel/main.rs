//! The server of names against the real kernel, in namespaces of its own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod clients;
mod forwarding;
mod life;
mod resolver;
mod support;

fn main() -> std::process::ExitCode {
    skep_testkit::stage::main(skep_testkit::tests![
        answers::a_service_has_its_address_and_its_tasks_theirs,
        answers::addresses_are_shuffled,
        answers::networks_answer_in_the_sandboxs_order,
        answers::changes_are_answered_at_once,
        answers::a_long_answer_goes_on_by_tcp,
        answers::several_questions_on_one_connection,
        answers::noise_harms_nobody,
        answers::connections_are_limited,
        clients::the_c_library_and_busybox_find_names,
        clients::a_container_may_have_port_53,
        forwarding::answers_and_failures_are_passed_on,
        forwarding::the_next_resolver_answers_for_a_silent_one,
        forwarding::a_resolver_that_refuses_is_passed_over,
        forwarding::silence_is_a_failure_before_clients_give_up,
        forwarding::a_lost_question_is_asked_again,
        forwarding::forged_answers_do_not_count,
        forwarding::long_answers_come_by_tcp,
        forwarding::given_resolvers_are_asked_from_the_sandbox,
        forwarding::nothing_leaves_internal_networks,
        forwarding::the_hosts_resolvers_are_followed,
        forwarding::questions_that_wait_are_limited,
        life::there_is_no_server_without_a_sandbox,
        life::a_restarted_daemon_tells_all_anew_and_no_question_fails,
        life::what_a_restarted_daemon_does_not_tell_is_forgotten,
        life::a_killed_server_is_back_within_a_second,
        life::a_newer_program_takes_over_and_no_question_fails,
        life::a_daemon_that_ends_well_leaves_nothing,
        life::a_server_outlives_its_daemon_and_ends_with_the_last_sandbox,
        life::a_namespace_made_anew_is_served,
        life::nobody_else_reaches_the_servers_socket,
    ])
}
