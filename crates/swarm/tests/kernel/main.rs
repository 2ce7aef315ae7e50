//! A swarm of one against the real engine and the real kernel, in a network and a mount namespace of its own.
//! Needs root; whatever is missing fails the tests.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod house;
mod life;
mod many;
mod restart;

fn main() -> std::process::ExitCode {
    skep_testkit::stage::main(skep_testkit::tests![
        life::a_node_enters_and_leaves,
        life::a_service_answers_scales_and_heals,
        life::an_update_replaces_tasks,
        life::a_missing_image_is_told,
        life::leaving_takes_everything_along,
        restart::containers_outlive_the_daemon,
        restart::a_membership_survives_and_its_damage_is_told,
        many::nodes_join_change_roles_and_leave,
        many::nobody_is_let_in_who_does_not_belong,
        many::nodes_come_back_after_a_restart,
        many::a_removed_node_says_so,
        many::a_locked_manager_waits_for_its_key,
        many::one_manager_makes_a_cluster_anew,
    ])
}
